"""Reading checkpoints: exact arrays, and one clear line for every damaged or hostile folder."""

import json
import random
import struct
from pathlib import Path

import numpy as np
import pytest
import tiny_bert
from safetensors.numpy import load_file, save_file

from converters.architectures import onnx_row
from converters.checkpoint import open_checkpoint
from converters.encoder import Weights, read_sizes
from edgemm.errors import BadFile, EdgemmError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny_bert.write(tmp_path / "tiny")


def test_every_array_is_the_library_s(folder: Path) -> None:
    checkpoint = open_checkpoint(folder)
    expected = load_file(folder / "model.safetensors")
    assert set(checkpoint.tensors) == set(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(checkpoint.read(name), array)


def test_settings_are_found(folder: Path) -> None:
    checkpoint = open_checkpoint(folder)
    assert (checkpoint.model_type, checkpoint.pooling, checkpoint.normalize) == ("bert", "mean", True)
    assert checkpoint.max_tokens == 100
    assert set(checkpoint.hashes()) >= {"config.json", "model.safetensors", "tokenizer.json", "1_Pooling/config.json"}


def test_half_precision_is_exact(folder: Path) -> None:
    values = np.array([1.5, -2.25, 3e-5, 65504], np.float32)
    bf16 = (values.view(np.uint32) >> 16).astype(np.uint16)
    header = {
        "f16": {"dtype": "F16", "shape": [4], "data_offsets": [0, 8]},
        "bf16": {"dtype": "BF16", "shape": [4], "data_offsets": [8, 16]},
    }
    raw = json.dumps(header).encode()
    data = struct.pack("<Q", len(raw)) + raw + values.astype(np.float16).tobytes() + bf16.tobytes()
    (folder / "model.safetensors").write_bytes(data)
    checkpoint = open_checkpoint(folder)
    np.testing.assert_array_equal(checkpoint.read("f16"), values.astype(np.float16).astype(np.float32))
    np.testing.assert_array_equal(checkpoint.read("bf16"), (bf16.astype(np.uint32) << 16).view(np.float32))


def test_shards_are_one_checkpoint(folder: Path) -> None:
    arrays = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(arrays)
    parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, members in parts.items():
        save_file({n: arrays[n] for n in members}, folder / file)
    index = {"weight_map": {n: file for file, members in parts.items() for n in members}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert set(open_checkpoint(folder).tensors) == set(arrays)
    (folder / "b.safetensors").unlink()
    with pytest.raises(BadFile, match=r"b\.safetensors: the file is missing"):
        open_checkpoint(folder)


@pytest.mark.parametrize("prefix", ["", "bert."])
@pytest.mark.parametrize("old", [False, True])
def test_names_of_older_checkpoints(prefix: str, old: bool, tmp_path: Path) -> None:
    folder = tiny_bert.write(tmp_path / "x", prefix=prefix)
    if old:
        arrays = load_file(folder / "model.safetensors")
        renamed = {
            n.replace("Norm.weight", "Norm.gamma").replace("Norm.bias", "Norm.beta"): a for n, a in arrays.items()
        }
        save_file(renamed, folder / "model.safetensors")
    checkpoint = open_checkpoint(folder)
    row = onnx_row(checkpoint.model_type, folder)
    sizes, config = read_sizes(row, checkpoint.config, folder)
    weights = Weights(row, checkpoint, config)
    weights.check(sizes)
    assert weights.array("embedding_norm", 0, "bias").shape == (tiny_bert.HIDDEN,)


def read_all(folder: Path) -> None:
    checkpoint = open_checkpoint(folder)
    row = onnx_row(checkpoint.model_type, folder)
    sizes, config = read_sizes(row, checkpoint.config, folder)
    Weights(row, checkpoint, config).check(sizes)
    for name in checkpoint.tensors:
        checkpoint.read(name)


def broken(folder: Path) -> str:
    """The message for this folder when it is opened and everything in it is read."""
    with pytest.raises(EdgemmError) as caught:
        read_all(folder)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 3
    return str(caught.value)


def test_missing_and_empty_folders(tmp_path: Path) -> None:
    assert "there is no such folder" in broken(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    assert "the folder is empty" in broken(tmp_path / "empty")


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors", "1_Pooling/config.json"])
def test_a_missing_file_is_named(name: str, folder: Path) -> None:
    (folder / name).unlink()
    assert name.removeprefix("model") in broken(folder)


def test_pickle_is_refused_and_not_opened(folder: Path, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"cposix\nsystem\n(S'touch " + str(canary).encode() + b"'\ntR.")
    assert "pickle checkpoints are not read" in broken(folder)
    assert not canary.exists()


def test_remote_code_is_ignored_and_said(folder: Path, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    (folder / "modeling.py").write_text(f"open({str(canary)!r}, 'w')")
    config = tiny_bert.config(auto_map={"AutoModel": "modeling.Model"})
    (folder / "config.json").write_text(json.dumps(config))
    assert any("auto_map" in note and "ignored" in note for note in open_checkpoint(folder).notes)
    assert not canary.exists()


def test_an_unknown_architecture_names_what_is_there(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps(tiny_bert.config(model_type="mamba")))
    message = broken(folder)
    assert "mamba" in message
    assert "bert" in message
    assert "another target" in message


@pytest.mark.parametrize(
    "change",
    [
        {"hidden_size": "64"},
        {"num_hidden_layers": 0},
        {"num_hidden_layers": 3},
        {"num_attention_heads": 5},
        {"vocab_size": 10**9},
        {"hidden_act": "swish"},
        {"position_embedding_type": "relative_key"},
        {"max_position_embeddings": 64},
        {"model_type": "../../x"},
        {"model_type": None},
        {"layer_norm_eps": "small"},
    ],
    ids=str,
)
def test_a_config_that_does_not_fit(change: dict[str, object], folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps(tiny_bert.config(**change)))
    broken(folder)


@pytest.mark.parametrize("content", ["", "{", "[3]", "null", "[" * 100_000], ids=lambda c: c[:4])
@pytest.mark.parametrize("name", ["config.json", "modules.json", "1_Pooling/config.json"])
def test_damaged_json(name: str, content: str, folder: Path) -> None:
    (folder / name).write_text(content)
    broken(folder)


def test_modules_cannot_leave_the_folder(folder: Path) -> None:
    (folder / "modules.json").write_text('[{"type": "x.Pooling", "path": "../../etc"}]')
    assert "leaves the folder" in broken(folder)


def test_unsupported_modules_are_named(folder: Path) -> None:
    (folder / "modules.json").write_text('[{"type": "x.Dense", "path": "2_Dense"}]')
    assert "Dense" in broken(folder)


def test_not_finite_weights_are_refused(folder: Path) -> None:
    arrays = load_file(folder / "model.safetensors")
    arrays["embeddings.LayerNorm.bias"] = np.full(tiny_bert.HIDDEN, np.nan, np.float32)
    save_file(arrays, folder / "model.safetensors")
    assert "not finite" in broken(folder)


def header_of(data: bytes) -> tuple[dict[str, dict[str, object]], bytes]:
    length = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def packed(header: object, data: bytes) -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + data


@pytest.mark.parametrize(
    "change",
    [
        {"dtype": "F99"},
        {"shape": [-1]},
        {"shape": ["a"]},
        {"shape": [2**62, 2**62]},
        {"data_offsets": [0, 2**62]},
        {"data_offsets": [-8, 0]},
        {"data_offsets": [0]},
        {"data_offsets": "ab"},
        {"shape": None},
    ],
    ids=str,
)
def test_a_lying_safetensors_header(change: dict[str, object], folder: Path) -> None:
    path = folder / "model.safetensors"
    header, data = header_of(path.read_bytes())
    header["embeddings.LayerNorm.bias"] |= change
    path.write_bytes(packed(header, data))
    broken(folder)


def test_a_doubled_key_is_refused(folder: Path) -> None:
    row = b'{"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}'
    (folder / "model.safetensors").write_bytes(packed(b'{"a": ' + row + b', "a": ' + row + b"}", b"\0" * 4))
    assert "twice" in broken(folder)


@pytest.mark.parametrize("share", [0, 0.001, 0.3, 0.999])
def test_truncated_safetensors(share: float, folder: Path) -> None:
    path = folder / "model.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    assert "truncated" in broken(folder)


def test_flipped_bits_in_the_header_never_raise_anything_else(folder: Path) -> None:
    path = folder / "model.safetensors"
    data, rng = path.read_bytes(), random.Random(1)
    length = struct.unpack("<Q", data[:8])[0]
    for _ in range(300):
        changed = bytearray(data)
        changed[rng.randrange(8 + length)] ^= 1 << rng.randrange(8)
        path.write_bytes(bytes(changed))
        try:
            checkpoint = open_checkpoint(folder)
            for name in checkpoint.tensors:
                checkpoint.read(name)
        except EdgemmError:
            continue


def test_a_missing_tensor_is_named(folder: Path) -> None:
    arrays = load_file(folder / "model.safetensors")
    del arrays["encoder.layer.1.output.dense.weight"]
    save_file(arrays, folder / "model.safetensors")
    checkpoint = open_checkpoint(folder)
    row = onnx_row("bert", folder)
    weights = Weights(row, checkpoint, read_sizes(row, checkpoint.config, folder)[1])
    with pytest.raises(BadFile, match=r"encoder\.layer\.1\.output\.dense"):
        weights.matrix("down", 1)
