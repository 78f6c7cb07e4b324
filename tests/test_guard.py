"""The guard refuses every lie on one line that names the field, and lets good files through."""

import json
import random
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import tiny_gguf
from onnx import TensorProto, helper

from edgemm import guard
from edgemm.errors import BadFile, EdgemmError, Unsupported


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_gguf.write(tmp_path_factory.mktemp("gguf") / "tiny.gguf")


def test_a_good_file_is_described(tiny: Path) -> None:
    header = guard.check_gguf(tiny)
    assert (header.architecture, header.context_length, header.vocabulary) == ("llama", 256, 264)
    assert header.chat_template == tiny_gguf.TEMPLATE
    assert header.bits_per_weight == pytest.approx(32)
    assert guard.kv_cache_bytes(header, 100) == 2 * 2 * 2 * 100 * 2 * 16
    assert guard.memory_needed(header, 100) > header.file_bytes


def outcome(check: Callable[[Path], object], path: Path) -> str:
    """The message of an edgemm error, which is one line; "" when the file passed. Anything else is raised."""
    try:
        check(path)
    except EdgemmError as error:
        return str(error)
    return ""


LIES = {
    "block_count": [0, 3, 1000, 10**9],
    "context_length": [0, 1 << 31],
    "embedding_length": [0, 65, 1 << 20],
    "attention.head_count": [0, 3, 100_000],
    "attention.head_count_kv": [0, 3, 5],
    "attention.layer_norm_rms_epsilon": [-1.0, 2.0, float("nan")],
    "rope.freq_base": [0.0, float("inf"), -5.0],
    "rope.dimension_count": [1 << 20],
    "expert_count": [1, 8],
}


@pytest.mark.parametrize(("key", "value"), [(k, v) for k, values in LIES.items() for v in values])
def test_a_lie_is_refused(key: str, value: float, tmp_path: Path) -> None:
    path = tiny_gguf.write(tmp_path / "lie.gguf", {key: value})
    with pytest.raises((BadFile, Unsupported)) as caught:
        guard.check_gguf(path)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("key", ["block_count", "context_length", "embedding_length"])
def test_a_missing_number_is_named(key: str, tmp_path: Path) -> None:
    with pytest.raises(BadFile, match=key):
        guard.check_gguf(tiny_gguf.write(tmp_path / "x.gguf", {key: None}))


@pytest.mark.parametrize("length", [0, 3, 10, 23, 24, 100, 5000, 100_000])
def test_truncation_names_both_sizes(length: int, tiny: Path, tmp_path: Path) -> None:
    path = tmp_path / "short.gguf"
    path.write_bytes(tiny.read_bytes()[:length])
    with pytest.raises(BadFile, match=r"truncated: .*needs \d+ bytes, has \d+"):
        guard.check_gguf(path)


def test_a_doubled_token_is_refused(tiny: Path, tmp_path: Path) -> None:
    data, path = tiny.read_bytes(), tmp_path / "twice.gguf"
    changed = bytearray(data)
    letter = data.index(struct.pack("<Q", 1) + b"!" + struct.pack("<Q", 1))
    changed[letter + 8] = ord('"')
    path.write_bytes(bytes(changed))
    with pytest.raises(BadFile, match="holds a token twice"):
        guard.check_gguf(path)


@pytest.mark.parametrize("content", [b"", b"GGUF", b"not a model at all, but long enough to be read", b"\0" * 100])
def test_other_files_are_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(content)
    with pytest.raises(BadFile):
        guard.check_gguf(path)


def test_unknown_architecture_is_unsupported(tiny: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(tiny.read_bytes().replace(b"llama", b"mamba"))
    with pytest.raises(Unsupported, match="mamba"):
        guard.check_gguf(path)


def test_mutants_never_raise_anything_else(tiny: Path, tmp_path: Path) -> None:
    rng = random.Random(3)
    data, path = tiny.read_bytes(), tmp_path / "mutant.gguf"
    refused = 0
    for _ in range(400):
        path.write_bytes(rng.choice(tiny_gguf.MUTATIONS)(data, rng))
        refused += outcome(guard.check_gguf, path) != ""
    assert refused > 150


def small_onnx(nodes: list[onnx.NodeProto] | None = None) -> onnx.ModelProto:
    weight = onnx.numpy_helper.from_array(np.ones((4, 4), np.float32), "w")
    nodes = nodes or [helper.make_node("MatMul", ["x", "w"], ["y"])]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 4]) for n in "xy"]
    return helper.make_model(helper.make_graph(nodes, "g", [ends[0]], [ends[1]], [weight]))


def test_a_good_onnx_passes(tmp_path: Path) -> None:
    path = tmp_path / "good.onnx"
    path.write_bytes(small_onnx().SerializeToString())
    guard.check_onnx(path)


def test_onnx_with_outside_weights_is_refused(tmp_path: Path) -> None:
    model = small_onnx()
    tensor = model.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../secret"
    path = tmp_path / "outside.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(BadFile, match="outside of its folder"):
        guard.check_onnx(path)


def test_onnx_with_a_loop_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "loop.onnx"
    path.write_bytes(small_onnx([helper.make_node("Loop", ["x"], ["y"])]).SerializeToString())
    with pytest.raises(BadFile, match="may never end"):
        guard.check_onnx(path)


def test_onnx_mutants_never_raise_anything_else(tmp_path: Path) -> None:
    rng, data, path = random.Random(5), small_onnx().SerializeToString(), tmp_path / "mutant.onnx"
    for _ in range(500):
        path.write_bytes(rng.choice(tiny_gguf.MUTATIONS[:2])(data, rng))
        assert "\n" not in outcome(guard.check_onnx, path)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"model": 3}',
        b'{"model": {"type": "Magic"}}',
        b"[" * 100_000,
        b'{"model": {"vocab": {}}}',
    ],
    ids=lambda raw: ascii(raw[:12]),
)
def test_bad_tokenizer_json(raw: bytes, tmp_path: Path) -> None:
    with pytest.raises(BadFile):
        guard.check_tokenizer_json(raw, tmp_path / "tokenizer.json")


def test_padding_and_truncation_are_dropped(tmp_path: Path) -> None:
    content = {"model": {"type": "BPE"}, "padding": {"strategy": {"Fixed": 10**10}}, "truncation": {"max_length": 3}}
    cleaned = guard.check_tokenizer_json(json.dumps(content).encode(), tmp_path / "tokenizer.json")
    assert cleaned["padding"] is None
    assert cleaned["truncation"] is None


def test_onnx_with_outside_weights_in_a_constant_is_refused(tmp_path: Path) -> None:
    tensor = onnx.numpy_helper.from_array(np.ones(4, np.float32), "k")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../secret"
    nodes = [helper.make_node("Constant", [], ["k"], value=tensor), helper.make_node("MatMul", ["x", "w"], ["y"])]
    path = tmp_path / "x.onnx"
    path.write_bytes(small_onnx(nodes).SerializeToString())
    with pytest.raises(BadFile, match="outside of its folder"):
        guard.check_onnx(path)


def test_onnx_with_a_loop_inside_a_branch_is_refused(tmp_path: Path) -> None:
    inner = helper.make_graph(
        [helper.make_node("Loop", ["x"], ["z"])],
        "inner",
        [],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, [1])],
    )
    node = helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=inner)
    path = tmp_path / "x.onnx"
    path.write_bytes(small_onnx([node]).SerializeToString())
    with pytest.raises(BadFile, match="may never end"):
        guard.check_onnx(path)


def test_onnx_that_says_its_weights_are_inside_passes(tmp_path: Path) -> None:
    model = small_onnx()
    model.graph.initializer[0].data_location = TensorProto.DEFAULT
    path = tmp_path / "x.onnx"
    path.write_bytes(model.SerializeToString())
    guard.check_onnx(path)


def test_onnx_of_endless_tiny_fields_is_refused_soon(tmp_path: Path) -> None:
    path = tmp_path / "x.onnx"
    path.write_bytes(b"\x08\x00" * 2_000_000)
    with pytest.raises(BadFile, match="fields"):
        guard.check_onnx(path)


@pytest.mark.parametrize("key", ["block_count", "context_length", "embedding_length", "expert_count"])
def test_a_list_instead_of_a_number_is_refused(key: str, tmp_path: Path) -> None:
    path = tiny_gguf.write(tmp_path / "x.gguf", {key: [64, 64]})
    with pytest.raises(BadFile):
        guard.check_gguf(path)
