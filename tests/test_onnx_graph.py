"""Our ONNX graphs compute what the numpy forward pass computes, which is held to transformers in its own test."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import tiny_bert

from converters import items, onnx_int8, onnx_prepare, oracle, overview
from converters.architectures import supported
from converters.checkpoint import open_checkpoint
from converters.job import BUILT_IN
from converters.onnx_graph import Graph
from converters.onnx_half import to_half
from converters.onnx_parts import Part, answers
from converters.positions import resized_positions
from edgemm import guard
from edgemm.backends.ort import OrtModel
from edgemm.errors import BadFile, Unsupported
from edgemm.tokenizer import Tokenizer

if oracle.available():
    import tiny_encoders
    import transformers

    transformers.logging.set_verbosity_error()
    FAMILIES = tiny_encoders.FAMILIES
else:
    FAMILIES = {}

DIFFERENCE = 5e-5  # with the reference's own distance from transformers, less than 1e-4
with_transformers = [
    pytest.mark.oracle,
    pytest.mark.skipif(not oracle.available(), reason="transformers and torch are not installed (extra `export`)"),
]


def parts(folder: Path, task: str = "") -> list[tuple[Part, list[items.Item]]]:
    """The parts of the checkpoint, and some inputs that they were not made for."""
    prepared = onnx_prepare.prepare(open_checkpoint(folder), task)
    path = folder / "tokenizer.json"
    tokenizer = Tokenizer(path) if path.is_file() else None
    return [(part, items.held_out(part, tokenizer, BUILT_IN)[::4]) for part in prepared.parts]


def run(part: Part, chosen: list[items.Item], path: Path) -> "np.typing.NDArray[np.float32]":
    part.graph().save(path)
    return answers(OrtModel(path), part.feeds(chosen))


class TestFamilies:
    pytestmark = with_transformers

    @pytest.mark.parametrize("name", FAMILIES)
    def test_the_graph_computes_what_the_checkpoint_computes(self, name: str, tmp_path: Path) -> None:
        for part, chosen in parts(tiny_encoders.write(tmp_path / name, name)):
            ours, theirs = run(part, chosen, tmp_path / "x.onnx"), part.expected(chosen)
            assert ours.shape == theirs.shape
            assert np.abs(ours - theirs).max() < DIFFERENCE

    @pytest.mark.parametrize("model_type", supported("onnx"))
    def test_every_task_of_the_readmes_table_is_among_them(self, model_type: str) -> None:
        """A reranker is a classifier with one label."""
        if model_type == "nomic_bert":  # transformers does not have it: see test_reference_encoder.py
            assert overview.onnx_tasks(model_type) == ["embed"]
            return
        families = [f for n, f in FAMILIES.items() if n.split("-")[0] == model_type.split("_")[0]]
        assert set(overview.onnx_tasks(model_type)) - {"rerank"} <= {family.task for family in families}

    @pytest.mark.parametrize("name", ["mpnet-embed", "modernbert-classify", "clip", "siglip2", "bert-rerank"])
    def test_batch_mates_and_padding_change_nothing(self, name: str, tmp_path: Path) -> None:
        for part, chosen in parts(tiny_encoders.write(tmp_path / name, name)):
            together = run(part, chosen, tmp_path / "x.onnx")
            model = OrtModel(tmp_path / "x.onnx")
            alone = np.concatenate([answers(model, part.feeds([item])) for item in chosen])
            np.testing.assert_allclose(together, alone, atol=2e-5)

    @pytest.mark.parametrize("name", ["modernbert-embed", "bert-fill-mask", "vit-classify", "siglip2"])
    def test_half_precision_stays_close(self, name: str, tmp_path: Path) -> None:
        for part, chosen in parts(tiny_encoders.write(tmp_path / name, name)):
            part.graph().save(tmp_path / "x.onnx", external=True)
            to_half(Graph.load(tmp_path / "x.onnx")).save(tmp_path / "half.onnx")
            ours, theirs = answers(OrtModel(tmp_path / "half.onnx"), part.feeds(chosen)), part.expected(chosen)
            assert 0 < np.abs(ours - theirs).max() < 0.05
            sizes = [(tmp_path / f).stat().st_size for f in ("half.onnx", "x.onnx.data")]
            assert sizes[0] < 0.75 * sizes[1]

    def test_a_table_that_is_an_output_matrix_too_is_stored_once(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(onnx_int8, "_TABLE_ROWS", 100)
        [(part, chosen)] = parts(tiny_encoders.write(tmp_path / "bert", "bert-fill-mask"))
        graph = part.graph()
        built = onnx_int8.quantize(graph, onnx_int8.Plan(), {})
        shape = graph.constants["words"].shape
        assert [name for name, value in built.constants.items() if value.shape == shape] == ["words int8"]
        built.save(tmp_path / "int8.onnx")
        ours = answers(OrtModel(tmp_path / "int8.onnx", int8=True), part.feeds(chosen))
        assert np.corrcoef(ours.ravel(), part.expected(chosen).ravel())[0, 1] > 0.999

    def test_a_task_without_a_head_names_those_that_there_are(self, tmp_path: Path) -> None:
        folder = tiny_encoders.write(tmp_path / "mpnet", "mpnet-embed")
        with pytest.raises(Unsupported, match=r"no head for next-sentence; it knows embed,.*fill-mask"):
            parts(folder, "next-sentence")

    def test_the_wrong_number_of_colours_is_refused(self, tmp_path: Path) -> None:
        folder = tiny_encoders.write(tmp_path / "vit", "vit-embed")
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"num_channels": 1}))
        with pytest.raises(BadFile, match="pictures have 3 channels, the model takes 1"):
            parts(folder)

    def test_positions_are_stretched_as_torch_does(self) -> None:
        import torch

        table = np.random.default_rng(0).normal(size=(1 + 49, 5)).astype(np.float32)
        square = torch.tensor(table[1:]).reshape(1, 7, 7, 5).permute(0, 3, 1, 2)
        theirs = torch.nn.functional.interpolate(square, size=(4, 10), mode="bicubic", align_corners=False)
        ours = resized_positions(table, 1, (4, 10))
        np.testing.assert_array_equal(ours[0], table[0])
        np.testing.assert_allclose(ours[1:], theirs[0].permute(1, 2, 0).reshape(40, 5).numpy(), atol=1e-5)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny_bert.write(tmp_path / "bert")


def test_weights_beside_the_graph_give_the_same_answers(folder: Path, tmp_path: Path) -> None:
    [(part, chosen)] = parts(folder)
    part.graph().save(tmp_path / "one.onnx", external=False)
    part.graph().save(tmp_path / "two.onnx", external=True)
    one, two = (answers(OrtModel(tmp_path / f"{name}.onnx"), part.feeds(chosen)) for name in ("one", "two"))
    np.testing.assert_array_equal(one, two)
    assert (tmp_path / "two.onnx").stat().st_size < 0.3 * (tmp_path / "one.onnx").stat().st_size
    again = Graph.load(tmp_path / "two.onnx")
    again.save(tmp_path / "three.onnx", external=False)
    assert onnx.load(tmp_path / "three.onnx").graph.initializer == onnx.load(tmp_path / "one.onnx").graph.initializer


def outside(path: Path, **facts: str) -> None:
    """Change where the first weight outside of `path` says that it lies."""
    model = onnx.load(path, load_external_data=False)
    tensor = next(t for t in model.graph.initializer if t.external_data)
    for entry in tensor.external_data:
        entry.value = facts.get(entry.key, entry.value)
    path.write_bytes(model.SerializeToString())


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"location": "../x.onnx.data"}, "outside of its folder"),
        ({"location": "/etc/passwd"}, "outside of its folder"),
        ({"location": ""}, "outside of its folder"),
        ({"location": "other.data"}, "missing, or a link"),
        ({"offset": str(1 << 40)}, "which has"),
        ({"length": "-5"}, "is no place in a file"),
        ({"offset": "9" * 300}, "is no place in a file"),
    ],
)
def test_weights_that_lie_elsewhere_are_refused(facts: dict[str, str], message: str, folder: Path) -> None:
    [(part, _)] = parts(folder)
    path = folder / "x.onnx"
    part.graph().save(path, external=True)
    guard.check_onnx(path)
    outside(path, **facts)
    with pytest.raises(BadFile, match=message) as caught:
        OrtModel(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["hard link", "symbolic link"])
def test_weights_behind_a_link_are_refused(kind: str, folder: Path) -> None:
    [(part, _)] = parts(folder)
    path, data = folder / "x.onnx", folder / "x.onnx.data"
    part.graph().save(path, external=True)
    data.rename(folder / "secret")
    if kind == "hard link":
        data.hardlink_to(folder / "secret")
    else:
        data.symlink_to(folder / "secret")
    with pytest.raises(BadFile, match="missing, or a link"):
        OrtModel(path)


def test_positions_that_are_never_used_are_left_out(folder: Path) -> None:
    [(part, _)] = parts(folder)
    assert part.max_tokens == 100 < tiny_bert.POSITIONS
    assert any(value.shape == (100, tiny_bert.HIDDEN) for value in part.graph().constants.values())


def test_a_texts_window_is_kept_to_the_table(folder: Path) -> None:
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 9999}))
    [(part, _)] = parts(folder)
    assert part.max_tokens == tiny_bert.POSITIONS
