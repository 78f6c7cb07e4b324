"""A type for each tensor under a byte budget: never above it, near the best, and clear where it cannot be met."""

import itertools
import json
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import llama_quantize
import numpy as np
import pytest
import tiny_gguf
from conftest import Cli
from hypothesis import given, settings
from hypothesis import strategies as st

from converters import allocate, cli, ggml, gguf_source, sensitivity
from converters.allocate import CANDIDATES, Choice
from converters.convert import Options, convert
from converters.gguf_model import Source, Tensor
from converters.job import Budget
from converters.quantize import Draft, write
from edgemm import guard
from edgemm.errors import UsageError
from edgemm.events import Progress, Work, value_of
from edgemm.package import Package

Choices = dict[str, list[Choice]]
FAST = ("--no-oracle", "--no-compare", "--calibrate", "none", "--accept-below-floor")


def cost(choices: Mapping[str, Sequence[Choice]], types: Mapping[str, str]) -> tuple[int, float]:
    """(bytes, error) of an allocation."""
    chosen = [next(c for c in options if c.type == types[name]) for name, options in choices.items()]
    return sum(c.bytes for c in chosen), sum(c.error for c in chosen)


@st.composite
def instances(draw: st.DrawFn, tensors: int = 5, options: int = 4) -> Choices:
    """Tensors of different sizes; fewer bytes mostly, but not always, mean more error."""
    found: Choices = {}
    for i in range(draw(st.integers(1, tensors))):
        size, weight = draw(st.integers(1, 300)), draw(st.floats(1e-6, 1e3))
        bits = draw(st.lists(st.integers(2, 16), min_size=1, max_size=options, unique=True))
        found[f"t{i}"] = [
            Choice(f"b{b}", size * b, weight * 4.0**-b * draw(st.floats(0.5, 2.0))) for b in sorted(bits, reverse=True)
        ]
    return found


@settings(max_examples=300, deadline=None)
@given(instances(), st.floats(0, 1))
def test_within_the_budget_and_within_the_hulls_gap_of_brute_force(choices: Choices, share: float) -> None:
    least = sum(min(c.bytes for c in options) for options in choices.values())
    most = sum(max(c.bytes for c in options) for options in choices.values())
    budget = int(least + share * (most - least))
    size, error = cost(choices, allocate.fit(choices, budget, "x"))
    assert size <= budget
    best = min(
        sum(c.error for c in combination)
        for combination in itertools.product(*choices.values())
        if sum(c.bytes for c in combination) <= budget
    )
    # Between two points of the convex hull lies at most one exchange of one tensor.
    gap = max(max(c.error for c in options) - min(c.error for c in options) for options in choices.values())
    assert best * (1 - 1e-9) <= error <= best + gap * (1 + 1e-9)


@settings(max_examples=100, deadline=None)
@given(instances())
def test_all_bytes_give_the_least_error_and_the_least_bytes_fit(choices: Choices) -> None:
    least = sum(min(c.bytes for c in options) for options in choices.values())
    _, error = cost(choices, allocate.fit(choices, 10**9, "x"))
    assert error == pytest.approx(sum(min(c.error for c in options) for options in choices.values()), rel=1e-9, abs=0)
    assert cost(choices, allocate.fit(choices, least, "x"))[0] == least
    with pytest.raises(UsageError, match=f"the smallest possible file has {least + 7:,} bytes"):
        allocate.fit(choices, least - 1, "x", fixed=7)


def measured(path: Path) -> Choices:
    blueprint = gguf_source.blueprint(tiny_gguf.write(path))
    running = allocate.measure(blueprint, {})
    while True:
        try:
            next(running)
        except StopIteration as end:
            found: Choices = end.value
            return found


def test_more_bytes_never_mean_more_error(tmp_path: Path) -> None:
    choices = measured(tmp_path / "tiny.gguf")
    least = sum(min(c.bytes for c in options) for options in choices.values())
    errors = [cost(choices, allocate.fit(choices, int(least * grown), "x"))[1] for grown in np.linspace(1, 4, 60)]
    for before, after in itertools.pairwise(errors):
        assert after <= before * 1.02 + 1e-12  # one exchange of one tensor, as above
    assert errors[-1] < errors[0] / 1000


def test_blocks_of_256_are_not_tried_on_rows_of_64(tmp_path: Path) -> None:
    choices = measured(tmp_path / "tiny.gguf")
    for options in choices.values():
        assert {c.type for c in options} == {"F16", "Q8_0", "Q5_1", "Q5_0", "Q4_1", "IQ4_NL", "Q4_0"} | {
            c.type for c in options if ggml.fits(c.type, 64)
        }
        assert "Q4_K" not in {c.type for c in options}
        errors = {c.type: c.error for c in options}
        assert errors["F16"] < errors["Q8_0"] < errors["Q5_0"] < errors["Q4_0"]


def test_choices_count_the_padding_behind_a_tensor() -> None:
    tensor = Tensor("x.weight", (1, 32), Source(lambda a, b: np.ones((1, 32), np.float32), 1, "F32"))
    assert allocate.smallest(tensor) == 32  # 18 bytes of IQ4_NL
    assert [ggml.row_bytes(kind, 256) for kind in CANDIDATES] == sorted(
        (ggml.row_bytes(kind, 256) for kind in CANDIDATES), reverse=True
    )


def test_an_error_that_weighs_more_gets_more_bytes() -> None:
    options = [Choice("F16", 160, 0.0), Choice("Q8_0", 85, 0.001), Choice("Q4_0", 45, 0.1)]
    choices = {"a": options, "b": options}
    budget = 85 + 45
    for heavy, light in (("a", "b"), ("b", "a")):
        types = allocate.fit(allocate.weighted(choices, {heavy: 50.0, light: 1.0}), budget, "x")
        assert types == {heavy: "Q8_0", light: "Q4_0"}


def made(source: Path, budget: Budget) -> Package:
    options = Options(oracle=False, compare=False, calibrate="none", budget=budget, accept_below_floor=True)
    found = list(convert(source, "gguf", options=options))[-1]
    assert isinstance(found, Package)
    return found


@pytest.mark.parametrize("share", [0.0, 0.07, 0.31, 0.9])
def test_the_file_is_never_above_the_budget(share: float, tmp_path: Path, cli: Cli) -> None:
    source = tiny_gguf.write(tmp_path / "tiny.gguf")
    done = cli("convert", source, "--fit", "1MB", "--dry-run", "--json")
    least = json.loads(done.stdout)["smallest"]
    budget = int(least + share * 400_000)
    size = made(source, Budget(bytes=budget)).path.joinpath("model.gguf").stat().st_size
    assert size <= budget
    assert size > budget - 40_000 or share == 0.9
    if share == 0:
        assert size == least


def test_a_budget_below_the_smallest_file_names_it(tmp_path: Path, cli: Cli, home: Path) -> None:
    source = tiny_gguf.write(tmp_path / "tiny.gguf")
    least = json.loads(cli("convert", source, "--fit", "1MB", "--dry-run", "--json").stdout)["smallest"]
    done = cli("convert", source, "--to", "gguf", "--fit", "20KB", *FAST)
    assert done.returncode == 2
    assert f"the smallest possible file has {least:,} bytes, the budget is 20,000" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not list((home / ".partial").iterdir())
    assert cli("convert", source, "--fit", f"{least - 1}B", *FAST).returncode == 2
    assert cli("convert", source, "--fit", f"{least}B", *FAST).returncode == 0


def test_a_budget_that_is_too_small_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    source = tiny_gguf.write(tmp_path / "tiny.gguf")
    running = convert(source, "gguf", options=Options(oracle=False, budget=Budget(bytes=20_000)))
    assert [event.stage for event in islice(running, 1) if isinstance(event, Progress)] == ["convert: read"]
    with pytest.raises(UsageError, match="the smallest possible file has"):
        next(running)


def test_bits_per_weight_are_those_of_the_whole_file(tmp_path: Path) -> None:
    source = tiny_gguf.write(tmp_path / "tiny.gguf")
    for bits in (7.0, 10.0):
        found = made(source, Budget(bits=bits))
        reached = found.manifest.quantization.bits_per_weight
        assert bits - 0.25 < reached <= bits
        assert found.manifest.quantization.recipe == "gguf-fit"
        assert sum(found.report()["types"].values()) == len(found.report()["tensors"])


def test_a_longer_context_leaves_less_for_the_weights(tmp_path: Path, cli: Cli, home: Path) -> None:
    source = tiny_gguf.write(tmp_path / "tiny.gguf", {"context_length": 8192})
    header = guard.check_gguf(source)
    ram = guard.memory_needed(header, 512) - header.file_bytes + 210_000
    sizes = {}
    for context in (512, 1024):
        name = f"c{context}"
        done = cli("convert", source, "--device", f"ram={ram},ctx={context}", "--out", name, *FAST)
        assert done.returncode == 0, done.stderr
        path = home / name / "model.gguf"
        sizes[context] = path.stat().st_size
        assert guard.memory_needed(guard.check_gguf(path), context) <= ram
    cache = guard.kv_cache_bytes(header, 1024) - guard.kv_cache_bytes(header, 512)
    assert cache == 512 * 2 * 2 * 32 * 2  # tokens, keys and values, layers, width of 2 heads, bytes of f16
    assert sizes[512] - sizes[1024] > cache - 8_000
    done = cli("convert", source, "--device", f"ram={ram},ctx=8192", *FAST)
    assert done.returncode == 2
    assert "the smallest possible file has" in done.stderr


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("900MB", 900_000_000), ("900mb", 900_000_000), ("1.5GiB", 1_610_612_736), ("1.5G", 1_500_000_000),
        ("2Ki", 2048), (" 12 kB ", 12_000), ("7", 7), (".5k", 500), ("3.k", 3000),
    ],
)  # fmt: skip
def test_sizes_are_read_as_people_write_them(text: str, expected: int) -> None:
    assert cli._size("--fit", text) == expected


@pytest.mark.parametrize(
    "text", ["", "MB", "-5MB", "1.2.3GB", "1e9", "ten", "0", "0.0GB", "5TB", "٣MB", "9" * 400, "."]
)
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is no size"):
        cli._size("--fit", text)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--fit", "lots"], "is no size"), (["--device", "ctx=4096"], "how much memory"),
        (["--device", "ram"], "is no size"), (["--device", "vram=4GB"], "is not known"),
        (["--fit", "0"], "is no size"), (["--bpw", "-1"], "--bpw"),
        (["--fit", "1GB", "--to", "gguf-q8_0"], "fixed size"), (["--to", "gguf"], "add --fit"),
    ],
)  # fmt: skip
def test_a_budget_that_is_none_is_refused_in_one_line(
    arguments: list[Any], said: str, tmp_path: Path, cli: Cli
) -> None:
    source = tiny_gguf.write(tmp_path / "tiny.gguf")
    done = cli("convert", source, *arguments)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_the_smallest_of_several_budgets_counts(tmp_path: Path) -> None:
    source = tiny_gguf.write(tmp_path / "tiny.gguf")
    assert made(source, Budget(bytes=80_000, bits=16.0)).path.joinpath("model.gguf").stat().st_size <= 80_000


def test_a_budget_beats_the_recipe_of_its_size(tmp_path: Path) -> None:
    """With what each kind of matrix costs measured on the model itself; the trial file is gone afterwards."""
    source = tiny_gguf.write(tmp_path / "tiny.gguf")
    plain = list(convert(source, "gguf-q4_0", options=Options(oracle=False, accept_below_floor=True)))[-1]
    assert isinstance(plain, Package)
    budget = Budget(bytes=(plain.path / "model.gguf").stat().st_size)
    events = list(convert(source, "gguf", options=Options(oracle=False, budget=budget, accept_below_floor=True)))
    fitted = events[-1]
    assert isinstance(fitted, Package)
    assert "measure: sensitivity" in {event.stage for event in events if isinstance(event, Progress)}
    assert plain.manifest.report is not None
    assert fitted.manifest.report is not None
    ours, theirs = (p.manifest.report.metrics for p in (fitted, plain))  # type: ignore[union-attr]
    assert ours["bytes"] <= theirs["bytes"]
    assert ours["divergence_mean"] < 0.9 * theirs["divergence_mean"]


def test_an_interrupted_measurement_leaves_no_trial_file_and_is_repeated(tmp_path: Path, home: Path) -> None:
    source = tiny_gguf.write(tmp_path / "tiny.gguf")
    options = Options(oracle=False, compare=False, budget=Budget(bytes=110_000), accept_below_floor=True)
    found = []
    for stop in (True, False):
        running = convert(source, "gguf", options=options)
        for event in running:
            if isinstance(event, Progress) and event.stage == "measure: sensitivity" and event.done == 4 and stop:
                running.close()  # type: ignore[attr-defined]
                assert not list(home.glob(".partial/*/.work/probe.gguf"))
                assert list(home.glob(".partial/*/.work/reference-f16.gguf"))
                break
            if isinstance(event, Package):
                found.append((event.path / "model.gguf").read_bytes())
    whole = list(convert(source, "gguf", options=options))[-1]
    assert isinstance(whole, Package)
    assert found == [(whole.path / "model.gguf").read_bytes()]


def test_what_was_measured_is_put_back(tmp_path: Path) -> None:
    """Every matrix of so small a model is judged alone: at each trial nothing else differs from the reference."""
    blueprint = gguf_source.blueprint(tiny_gguf.write(tmp_path / "tiny.gguf"))
    types = {t.name: "F16" if t.is_matrix else "F32" for t in blueprint.tensors}
    draft = Draft(blueprint.settings, blueprint.tensors, types)
    reference = tmp_path / "reference.gguf"
    list(write(reference, draft, {}, blueprint.sizes, 2))
    before = llama_quantize.contents(reference)
    seen = []

    class Differences:
        """Loss: how many tensors differ."""

        def run(self, model: Path, stage: str, threads: int = 0) -> Work[dict[str, float]]:
            yield Progress(stage, 0, 1)
            found = llama_quantize.contents(model)
            seen.append({name for name in before if found[name] != before[name]})
            return {"loss": float(len(seen[-1]))}

    choices = {t.name: [Choice("F16", 2, 0.0), Choice("Q4_0", 1, 0.5)] for t in blueprint.tensors if t.is_matrix}
    weights = value_of(sensitivity.measure(reference, draft, choices, {}, blueprint.sizes, Differences()))
    assert set(weights) == set(choices)
    assert set(weights.values()) == {2.0}
    assert sorted(min(names) for names in seen) == sorted(choices)
    assert all(len(names) == 1 for names in seen)
    assert llama_quantize.contents(reference) == before
    assert not (tmp_path / "probe.gguf").exists()
