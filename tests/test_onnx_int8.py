"""INT8 that keeps a floor: rounding, outlier channels, what is tried in which order, plans, floors out of reach."""

import json
from pathlib import Path

import numpy as np
import pytest
import tiny_bert
from conftest import Cli

from converters import items, onnx_prepare
from converters.checkpoint import Array, open_checkpoint
from converters.convert import Options, convert
from converters.job import BUILT_IN
from converters.onnx_graph import Graph
from converters.onnx_int8 import BLOCK8, FP32, OUTLIERS, Plan, outlier_channels, quantize
from converters.onnx_linear import find_linears, groups, observe, watched_model
from converters.onnx_parts import answers
from converters.onnx_search import Search, Trial, plan_json, read_plan
from converters.recipe import Floor
from converters.rounding import with_feedback
from converters.verify import label_likeness, similarity
from edgemm import package
from edgemm.backends.ort import OrtModel
from edgemm.errors import BadFile, BelowFloor, EdgemmError
from edgemm.package import Package
from edgemm.tokenizer import Tokenizer


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return tiny_bert.write(tmp_path / "tiny-bert")


def made(checkpoint: Path, **changes: object) -> Package:
    *_, found = convert(checkpoint, "onnx-int8", options=Options(oracle=False, **changes))  # type: ignore[arg-type]
    assert isinstance(found, Package)
    return found


class Bench:
    """A float graph on disk, its linear layers, what flows into them, and what it answers."""

    def __init__(self, checkpoint: Path, folder: Path) -> None:
        [self.part] = onnx_prepare.prepare(open_checkpoint(checkpoint)).parts
        self.path = folder / "exact.onnx"
        self.part.graph().save(self.path, external=True)
        self.graph = Graph.load(self.path)
        self.linears = find_linears(self.graph)
        self.feeds = self.part.feeds(items.calibration(self.part, Tokenizer(checkpoint / "tokenizer.json"), BUILT_IN))
        self.seen = observe(self.path, self.linears, self.feeds)
        self.expected = answers(OrtModel(self.path), self.feeds)

    def answers(self, plan: Plan) -> Array:
        path = self.path.with_name("int8.onnx")
        quantize(self.graph, plan, self.seen).save(path)
        return answers(OrtModel(path, int8=True), self.feeds)

    def loss(self, plan: Plan) -> float:
        return 1 - similarity(self.answers(plan), self.expected)["cosine_mean"]

    def search(self, floor: Floor, most: int = 0) -> Search:
        return Search(self.path, self.feeds, similarity, floor, most, self.seen)


@pytest.fixture
def bench(checkpoint: Path, tmp_path: Path) -> Bench:
    return Bench(checkpoint, tmp_path)


def test_error_feedback_loses_less_than_rounding() -> None:
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(4000, 8)) @ rng.normal(size=(8, 200)) + 0.1 * rng.normal(size=(4000, 200))).astype(np.float32)
    weight = rng.normal(size=(200, 40)).astype(np.float32)
    scale = np.abs(weight).max(axis=0) / 20  # coarse, so that rounding matters
    codes = with_feedback(weight, scale, x.T @ x)
    plain = np.rint(weight / scale)
    assert codes.dtype == np.int8
    assert np.linalg.norm(x @ (codes * scale - weight)) < 0.7 * np.linalg.norm(x @ (plain * scale - weight))


def test_inputs_that_never_vary_do_no_harm() -> None:
    weight = np.random.default_rng(0).normal(size=(64, 8)).astype(np.float32)
    codes = with_feedback(weight, np.abs(weight).max(axis=0) / 127, np.zeros((64, 64), np.float32))
    np.testing.assert_array_equal(codes, np.rint(weight / (np.abs(weight).max(axis=0) / 127)))


def test_outlier_channels_are_the_few_far_ones() -> None:
    maxima = np.ones(64, np.float32)
    assert outlier_channels(maxima).tolist() == []
    maxima[[40, 3]] = 9, 30
    assert outlier_channels(maxima).tolist() == [3, 40]
    assert len(outlier_channels(np.geomspace(1, 1e6, 64).astype(np.float32))) == 4


def with_an_outlier(checkpoint: Path) -> Path:
    """One channel of every norm far larger than the others, as trained encoders have."""
    from safetensors.numpy import load_file, save_file

    arrays = load_file(checkpoint / "model.safetensors")
    for name, array in arrays.items():
        if "LayerNorm.weight" in name:
            array[7] *= 40
    save_file(arrays, checkpoint / "model.safetensors")
    return checkpoint


def test_keeping_outlier_channels_loses_much_less(checkpoint: Path, tmp_path: Path) -> None:
    bench = Bench(with_an_outlier(checkpoint), tmp_path)
    kept = Plan(exceptions={linear.name: OUTLIERS for linear in bench.linears})
    assert bench.loss(kept) < 0.5 * bench.loss(Plan())


def test_layers_in_float32_lose_nothing_and_blocks_little(bench: Bench) -> None:
    everywhere = {kind: {linear.name: kind for linear in bench.linears} for kind in (BLOCK8, FP32)}
    int8, block8, fp32 = (bench.loss(Plan(exceptions=e)) for e in ({}, everywhere[BLOCK8], everywhere[FP32]))
    assert abs(fp32) < 1e-6
    assert 1e-6 < int8 < 1e-3
    assert 1e-6 < block8 < 1e-3


def test_layers_that_share_an_input_or_a_weight_are_smoothed_together(bench: Bench) -> None:
    assert [len(group) for group in groups(bench.linears)] == [1] * len(bench.linears)
    first, second, *rest = bench.linears
    joined = [first, second.__class__(**{f: getattr(second, f) for f in second.__slots__} | {"x": first.x}), *rest]
    assert sorted(len(group) for group in groups(joined)) == [*[1] * len(rest), 2]


def test_rows_of_padding_are_not_observed(bench: Bench) -> None:
    short = [feed for feed in bench.feeds if feed["input_ids"].shape[1] < 90]
    assert any(feed["attention_mask"].min() == 0 for feed in short)
    wider = [{name: np.pad(v, ((0, 0), (0, 5))) if v.ndim == 2 else v for name, v in feed.items()} for feed in short]
    x = bench.linears[0].x
    one, two = (observe(bench.path, bench.linears, feeds)[x] for feeds in (short, wider))
    np.testing.assert_allclose(two.maxima, one.maxima, rtol=1e-5)
    # The files of the first are written again by the second, so that what counts is compared by its trace.
    assert np.trace(two.gram()) == pytest.approx(sum_of_squares(bench, x, short), rel=1e-3)


def sum_of_squares(bench: Bench, x: str, feeds: list[dict[str, Array]]) -> float:
    total = 0.0
    with watched_model(bench.path, [x]) as model:
        for feed in feeds:
            rows = model.run_all(feed, [x])[0]
            total += float((rows[feed["attention_mask"].astype(bool).ravel()] ** 2).sum())
    return total


def test_the_search_stops_at_the_first_build_that_holds(bench: Bench) -> None:
    search = bench.search(Floor(0.5, 0.5))
    found = next(event for event in search.run() if isinstance(event, Trial))
    assert found is search.trials[0]
    assert not found.plan.exceptions
    assert found.speed > 0
    assert found.metrics["cosine_mean"] > 0.99


def test_where_int8_is_not_enough_single_layers_get_more_bits(bench: Bench) -> None:
    """Found by halving: of the builds with fewer exceptions of that kind, none holds."""
    cheap = bench.search(Floor(1.1, 0.5))
    best = max(cheap._measured("", plan).metrics["cosine_mean"] for _, plan in cheap._cheap_plans())
    search = bench.search(Floor(1 - (1 - best) / 3, 0.5))
    found = next(event for event in search.run() if isinstance(event, Trial))
    kinds = list(found.plan.exceptions.values())
    more = kinds.count(BLOCK8) + kinds.count(FP32)
    assert 0 < more <= len(bench.linears)
    assert not found.missed
    same = [t for t in search.trials if set(t.plan.exceptions.values()) == set(kinds)]
    fewer = [t for t in same if 0 < len(t.plan.exceptions) < more]
    assert all(trial.missed for trial in fewer)


def test_a_plan_builds_the_same_bytes(checkpoint: Path) -> None:
    first = made(checkpoint, min_quality=0.99999)
    digest = package.sha256(first.path / "model.onnx")
    report = first.path.parent / "kept.json"
    report.write_bytes((first.path / "report.json").read_bytes())
    assert json.loads(report.read_bytes())["plan"]["model.onnx"]["exceptions"]
    again = made(checkpoint, plan=report)
    assert package.sha256(again.path / "model.onnx") == digest
    assert "trials" not in again.report() or not again.report()["trials"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"plan": {"model.onnx": {"alpha": "x"}}}', '{"model.onnx": 3}'])
def test_a_damaged_plan_is_refused(text: str, checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text(text)
    with pytest.raises(BadFile, match="holds no plan"):
        made(checkpoint, plan=path)


def test_a_plan_survives_its_json() -> None:
    plan = Plan(0.4, False, {"a": OUTLIERS, "b": FP32})
    assert read_plan(json.loads(json.dumps(plan_json(plan)))) == plan
    with pytest.raises(ValueError, match="unknown storage"):
        read_plan({"alpha": 0.5, "feedback": True, "exceptions": {"a": "int3"}})


def test_a_higher_quality_is_searched_for(checkpoint: Path) -> None:
    found = made(checkpoint, min_quality=0.99999)
    report = found.report()
    assert "| build | times float32 |" in (found.path / "README.md").read_text()
    assert report["metrics"]["cosine_mean"] >= 0.99999
    assert report["floor"]["cosine_mean"] == 0.99999
    assert len(report["trials"]["model.onnx"]) > 1
    assert (
        "| build | times float32 |"
        in (package.open_package(Path(report_folder(checkpoint))).path / "README.md").read_text()
    )


def report_folder(checkpoint: Path) -> Path:
    from edgemm import paths

    return paths.store() / f"{checkpoint.name}-onnx-int8"


@pytest.mark.parametrize(
    ("options", "why"), [({"min_quality": 1.0}, "cosine_m.. is"), ({"max_size": 1000}, "the most is 1000")]
)
def test_what_cannot_be_reached_ends_with_the_best_and_its_figures(
    options: dict[str, object], why: str, checkpoint: Path
) -> None:
    with pytest.raises(BelowFloor, match="is") as caught:
        made(checkpoint, **options)
    assert caught.value.exit_code == 3
    assert any(char.isdigit() for char in str(caught.value))
    assert not list(package.installed())


def test_an_empty_calibration_file_is_refused(checkpoint: Path, tmp_path: Path, cli: Cli) -> None:
    empty, missing, folder = tmp_path / "empty.txt", tmp_path / "no.txt", tmp_path / "pictures"
    empty.write_text("\n  \n")
    folder.mkdir()
    done = cli("convert", checkpoint, "--calibrate", empty, "--no-oracle")
    assert done.returncode == 3
    assert "the calibration file is empty" in done.stderr
    with pytest.raises(EdgemmError, match="no such file or folder"):
        made(checkpoint, calibrate=str(missing))


def test_own_texts_are_calibrated_on(checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "texts.txt"
    path.write_text("the cat sat on a mat\nthe dog ran\n" * 20)
    assert "--calibrate texts.txt" in made(checkpoint, calibrate=str(path)).manifest.made_by.command
    assert made(checkpoint, calibrate="none").manifest.report is not None


def test_scores_are_compared_by_their_differences() -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(50, 3)).astype(np.float32)
    shifted = scores + rng.normal(size=(50, 1)).astype(np.float32)
    assert label_likeness(shifted, scores)["label_correlation"] == pytest.approx(1, abs=1e-5)
    assert label_likeness(shifted, scores)["same_label"] == 1
    noisy = label_likeness(scores + rng.normal(size=scores.shape).astype(np.float32), scores)
    assert noisy["label_correlation"] < 0.9
    assert noisy["same_label"] < 0.9
    assert label_likeness(scores[:, :1], scores[:, :1]) == pytest.approx({"label_correlation": 1})
