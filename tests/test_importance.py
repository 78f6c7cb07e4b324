"""The importance matrix: what the runtime collects is E[x^2] of each input, and files of llama.cpp's tool are read."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import tiny_bert
import tiny_gguf
from conftest import Cli

from converters import gguf_source, importance
from converters.convert import Options, convert
from converters.gguf_file import Entry, header, setting
from converters.importance import load, save
from converters.quantize import transformed
from edgemm import guard
from edgemm.errors import BadFile, EdgemmError, UsageError
from edgemm.events import Progress
from edgemm.package import Package

ROWS = [[1, 5, 9, 200, 13, 44], [1, 7, 7, 8], [1, 250, 90, 31, 3]]


def collected(path: Path, rows: list[list[int]], *, embedding: bool) -> dict[str, np.ndarray]:
    running = importance.collect(path, [(row, ()) for row in rows], embedding=embedding, threads=1)
    while True:
        try:
            next(running)
        except StopIteration as end:
            found: dict[str, np.ndarray] = end.value
            return found


def weights(path: Path) -> dict[str, np.ndarray]:
    blueprint = gguf_source.blueprint(path)
    return {tensor.name: transformed(tensor, blueprint.sizes) for tensor in blueprint.tensors}


def mean_square(x: np.ndarray) -> np.ndarray:
    return np.asarray((x.astype(np.float64) ** 2).mean(axis=0))


def rms_norm(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return np.asarray(x / np.sqrt((x**2).mean(axis=1, keepdims=True) + 1e-5) * weight)


def layer_norm(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    centred = x - x.mean(axis=1, keepdims=True)
    return np.asarray(centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-12) * weight + bias)


def test_a_llamas_first_inputs_are_those_of_numpy(tmp_path: Path) -> None:
    path = tiny_gguf.write(tmp_path / "tiny.gguf")
    found, w = collected(path, ROWS, embedding=False), weights(path)
    x = w["token_embd.weight"][[token for row in ROWS for token in row]]
    expected = mean_square(rms_norm(x, w["blk.0.attn_norm.weight"]))
    for name in ("attn_q", "attn_k", "attn_v"):
        np.testing.assert_allclose(found[f"blk.0.{name}.weight"], expected, rtol=2e-4)
    matrices = {t.name for t in gguf_source.blueprint(path).tensors if t.is_matrix}
    assert set(found) == matrices - {"token_embd.weight"}  # a look-up is no product
    for name in ("attn_q", "attn_k", "attn_v"):
        np.testing.assert_array_equal(found[f"blk.1.{name}.weight"], found["blk.1.attn_q.weight"])
    np.testing.assert_array_equal(found["blk.1.ffn_up.weight"], found["blk.1.ffn_gate.weight"])


def test_a_whole_llama_of_one_token_is_that_of_numpy(tmp_path: Path) -> None:
    """Attention to a single token gives its value, so that every input of both layers can be computed by hand."""
    path = tiny_gguf.write(tmp_path / "tiny.gguf")
    found, w = collected(path, [[9]], embedding=False), weights(path)
    x = w["token_embd.weight"][[9]].astype(np.float64)
    for i in range(tiny_gguf.LAYERS):
        block = f"blk.{i}."
        seen = {"attn_q": rms_norm(x, w[f"{block}attn_norm.weight"])}
        value = (seen["attn_q"] @ w[f"{block}attn_v.weight"].T).reshape(2, 16)
        seen["attn_output"] = np.repeat(value, 2, axis=0).reshape(1, 64)  # two query heads share a value
        x = x + seen["attn_output"] @ w[f"{block}attn_output.weight"].T
        seen["ffn_up"] = rms_norm(x, w[f"{block}ffn_norm.weight"])
        gate = seen["ffn_up"] @ w[f"{block}ffn_gate.weight"].T
        seen["ffn_down"] = gate / (1 + np.exp(-gate)) * (seen["ffn_up"] @ w[f"{block}ffn_up.weight"].T)
        x = x + seen["ffn_down"] @ w[f"{block}ffn_down.weight"].T
        for name, inputs in seen.items():
            np.testing.assert_allclose(found[f"{block}{name}.weight"], mean_square(inputs), rtol=2e-3, atol=1e-7)
    final = mean_square(rms_norm(x, w["output_norm.weight"]))
    np.testing.assert_allclose(found["output.weight"], final, rtol=2e-3, atol=1e-6)


def test_an_encoders_first_inputs_are_those_of_numpy(tmp_path: Path) -> None:
    package = made(tiny_bert.write(tmp_path / "tiny-bert"), "gguf-f32")
    path = package.path / "model.gguf"
    rows = [[2, 7, 9, 11, 3], [2, 30, 3], [2, 8, 8, 8, 8, 8, 3]]
    found, w = collected(path, rows, embedding=True), weights(path)
    ids = [token for row in rows for token in row]
    places = [position for row in rows for position in range(len(row))]
    x = w["token_embd.weight"][ids] + w["position_embd.weight"][places] + w["token_types.weight"][0]
    x = layer_norm(x, w["token_embd_norm.weight"], w["token_embd_norm.bias"])
    for name in ("attn_q", "attn_k", "attn_v"):
        np.testing.assert_allclose(found[f"blk.0.{name}.weight"], mean_square(x), rtol=2e-4)
    assert set(found) == {f"blk.{i}.{n}.weight" for i in range(2) for n in ENCODER_MATRICES}


ENCODER_MATRICES = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_up", "ffn_down")


def test_saved_and_loaded_it_is_the_same(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    matrix = {f"blk.{i}.x.weight": rng.gamma(0.3, 9, 5 + i).astype(np.float32) for i in range(4)}
    save(tmp_path / "x.gguf", matrix, "texts.txt", 12_345)
    found = load(tmp_path / "x.gguf")
    assert list(found) == list(matrix)
    for name, mean in matrix.items():
        np.testing.assert_allclose(found[name], mean, rtol=3e-7)
    fields = gguf.GGUFReader(tmp_path / "x.gguf").fields
    assert fields["general.type"].contents() == "imatrix"
    assert fields["imatrix.datasets"].contents() == ["texts.txt"]
    assert fields["imatrix.chunk_size"].contents() * fields["imatrix.chunk_count"].contents() <= 12_345
    assert not list(tmp_path.glob("*.tmp"))


def test_an_interrupted_save_leaves_the_old_matrix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.gguf"
    save(path, {"a.weight": np.ones(4, np.float32)}, "a", 1)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", stop)
    with pytest.raises(KeyboardInterrupt):
        save(path, {"b.weight": np.ones(4, np.float32)}, "b", 1)
    assert list(load(path)) == ["a.weight"]
    assert not list(tmp_path.glob("*.tmp"))


def foreign(path: Path, change: Callable[[dict[str, Any]], object] = lambda _: None) -> Path:
    """A matrix as llama.cpp's imatrix tool writes it, by the package `gguf`."""
    arrays: dict[str, Any] = {}
    blueprint = gguf_source.blueprint(tiny_gguf.write(path.with_name("tiny.gguf")))
    for i, tensor in enumerate(t for t in blueprint.tensors if t.is_matrix and t.name.startswith("blk.")):
        arrays[f"{tensor.name}.in_sum2"] = np.full((1, tensor.shape[1]), 3.0 * (i + 1), np.float32)
        arrays[f"{tensor.name}.counts"] = np.full((1, 1), 1024, np.float32)
    change(arrays)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_string("general.type", "imatrix")
    writer.add_array("imatrix.datasets", ["wiki.train.raw"])
    writer.add_uint32("imatrix.chunk_count", 2)
    writer.add_uint32("imatrix.chunk_size", 512)
    for name, array in arrays.items():
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_matrix_of_llama_cpp_is_read(tmp_path: Path) -> None:
    found = load(foreign(tmp_path / "imatrix.gguf"))
    assert len(found) == 14
    assert found["blk.0.attn_q.weight"].shape == (64,)
    assert {float(array[0]) for array in found.values()} == {np.float32(3 * (i + 1) / 1024) for i in range(14)}
    assert all((array == array[0]).all() for array in found.values())


Q = "blk.0.attn_q.weight"
DAMAGED: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "not finite": (lambda a: a[f"{Q}.in_sum2"].__setitem__((0, 3), np.nan), "is not a sum of squares"),
    "negative": (lambda a: a[f"{Q}.in_sum2"].__setitem__((0, 3), -1), "is not a sum of squares"),
    "no counts": (lambda a: a.pop(f"{Q}.counts"), "has no single count"),
    "no count": (lambda a: a.update({f"{Q}.counts": np.zeros((1, 1), np.float32)}), "has no single count"),
    "a count that is none": (lambda a: a.update({f"{Q}.counts": np.full((1, 1), np.nan, np.float32)}), "no single"),
    "counts of experts": (lambda a: a.update({f"{Q}.counts": np.ones((4, 1), np.float32)}), "has no single count"),
    "no sums": (lambda a: [a.pop(name) for name in list(a) if name.endswith("sum2")], "holds no importance matrix"),
    "another type": (lambda a: a.update({f"{Q}.in_sum2": np.ones((1, 64), np.float16)}), "is not float32"),
}


@pytest.mark.parametrize(("change", "said"), DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_matrix_is_refused(change: Callable[[dict[str, Any]], object], said: str, tmp_path: Path) -> None:
    path = foreign(tmp_path / "imatrix.gguf", change)
    with pytest.raises(BadFile, match=said) as caught:
        load(path)
    assert len(str(caught.value).splitlines()) == 1


def test_a_truncated_matrix_is_refused(tmp_path: Path) -> None:
    path = foreign(tmp_path / "imatrix.gguf")
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(BadFile, match="truncated"):
        load(path)


def made(source: Path, target: str, **options: Any) -> Package:
    found = list(convert(source, target, options=Options(oracle=False, accept_below_floor=True, **options)))[-1]
    assert isinstance(found, Package)
    return found


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tiny_gguf.write(tmp_path / "tiny.gguf")


def blocks(package: Package) -> bytes:
    path = package.path / "model.gguf"
    return path.read_bytes()[guard.check_gguf(path).data_start :]


def test_what_is_calibrated_on_changes_the_file(source: Path, tmp_path: Path) -> None:
    text, saved, copied = tmp_path / "own.txt", tmp_path / "saved.gguf", tmp_path / "copy.gguf"
    text.write_text("the hen in the den\n\nand then the other\n\n" * 30)
    tries: dict[str, dict[str, Any]] = {
        "builtin": {},
        str(text): {"save_importance": saved},
        str(saved): {"save_importance": copied},
        "none": {},
    }
    found = []
    for calibrate, more in tries.items():
        package = made(source, "gguf-q4_0", calibrate=calibrate, compare=False, **more)
        assert package.report()["calibrated"] == calibrate
        found.append(blocks(package))
    assert found[1] == found[2]
    assert len(set(found)) == 3
    assert copied.read_bytes() == saved.read_bytes()


def test_a_changed_text_is_collected_again(source: Path, tmp_path: Path) -> None:
    text = tmp_path / "own.txt"
    found = []
    for word in ("the ", "zoo "):
        text.write_text(word * 500)
        running = convert(source, "gguf-q4_0", options=Options(oracle=False, calibrate=str(text)))
        for event in running:
            if getattr(event, "stage", "") == "quantize":
                break
        running.close()  # type: ignore[attr-defined]
        found.append(next((tmp_path / "store" / ".partial").glob("*/.work/importance.gguf")).read_bytes())
    assert found[0] != found[1]


def test_an_encoder_is_calibrated_too(tmp_path: Path) -> None:
    checkpoint = tiny_bert.write(tmp_path / "tiny-bert")
    guided = made(checkpoint, "gguf-q4_0", save_importance=tmp_path / "x.gguf")
    matrix = load(tmp_path / "x.gguf")
    assert set(matrix) == {f"blk.{i}.{n}.weight" for i in range(2) for n in ENCODER_MATRICES}
    assert blocks(guided) != blocks(made(checkpoint, "gguf-q4_0", calibrate="none"))


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "an empty text": (lambda p: p.write_bytes(b""), "holds no text"),
    "a text of blanks": (lambda p: p.write_text(" \n\n \t\n\n"), "holds no text"),
    "no file": (lambda p: None, "No such file"),
    "a folder": (lambda p: p.mkdir(), "Is a directory"),
    "rubbish": (lambda p: p.write_bytes(b"GGUF" + bytes(60)), "GGUF version"),
    "a model": (lambda p: tiny_gguf.write(p), "is not float32|holds no importance matrix"),
    "another model's": (
        lambda p: save(p, {"blk.0.attn_q.weight": np.ones(63, np.float32)}, "x", 9),
        r"another model's \(blk\.0\.attn_q\.weight",
    ),
    "another family's": (lambda p: save(p, {"other.weight": np.ones(64, np.float32)}, "x", 9), "another model's"),
    "a name that llama.cpp rejects": (
        lambda p: p.write_bytes(header({"a": setting(1)}, [Entry("x" * 70, (1,), "F32")]) + bytes(32)),
        "a tensor name of 70 characters",
    ),
}


@pytest.mark.parametrize(("write", "said"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_calibrated_on_is_refused_first(
    write: Callable[[Path], object], said: str, source: Path, tmp_path: Path, home: Path
) -> None:
    path = tmp_path / "calibration"
    write(path)
    running = convert(source, "gguf-q4_0", options=Options(oracle=False, calibrate=str(path)))
    first = next(running)
    with pytest.raises(EdgemmError, match=said) as caught:
        next(running)  # before minutes are spent
    assert first == Progress("convert: read", 0, 1, "steps")
    assert len(str(caught.value).splitlines()) == 1
    assert not list((home / ".partial").iterdir())


@pytest.mark.parametrize("options", [{"calibrate": "none"}, {"target": "gguf-q8_0"}, {"target": "gguf-f16"}])
def test_a_matrix_that_nobody_collects_cannot_be_saved(options: dict[str, str], source: Path, tmp_path: Path) -> None:
    target = options.pop("target", "gguf-q4_0")
    with pytest.raises(UsageError, match="--save-importance"):
        made(source, target, save_importance=tmp_path / "x.gguf", **options)


def test_a_matrix_is_saved_whole_or_not_at_all(source: Path, tmp_path: Path) -> None:
    with pytest.raises(BadFile, match="No such file"):
        made(source, "gguf-q4_0", save_importance=tmp_path / "missing" / "x.gguf")


def test_the_command_takes_a_file_and_says_what_is_wrong_with_it(source: Path, tmp_path: Path, cli: Cli) -> None:
    matrix = foreign(tmp_path / "imatrix.gguf")
    done = cli("convert", source, "--to", "gguf-q4_0", "--calibrate", matrix, "--no-compare", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["calibrated"] == str(matrix)
    assert json.loads(done.stdout)["tensors"]["blk.0.ffn_down.weight"] == "Q4_0"
    done = cli("convert", source, "--to", "gguf-q4_0", "--calibrate", tmp_path / "missing.txt")
    assert (done.returncode, len(done.stderr.splitlines())) == (3, 1)
