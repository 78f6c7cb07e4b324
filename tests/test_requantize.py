"""A finished GGUF file to another type: everything but the weights is carried, and what is lost is said."""

import json
from pathlib import Path
from typing import Any

import gguf
import llama_quantize
import numpy as np
import pytest
import tiny_bert
import tiny_gguf
import tiny_llama
from conftest import Cli
from safetensors.numpy import load_file, save_file

from converters import allocate, ggml, gguf_source
from converters.convert import Options, convert
from converters.recipe import RECIPES
from converters.side_by_side import side_by_side
from edgemm import guard, open_model
from edgemm.errors import BadFile, Unsupported, UsageError
from edgemm.package import Package

FAST: dict[str, Any] = {"oracle": False, "compare": False, "calibrate": "none", "accept_below_floor": True}


def made(source: Path, target: str, name: str = "", **options: Any) -> Package:
    found = list(convert(source, target, name, Options(**FAST | options)))[-1]
    assert isinstance(found, Package)
    return found


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tiny_gguf.write(tmp_path / "tiny.gguf")


def settings(path: Path) -> dict[str, bytes]:
    """Each value as it stands in the file, its type included."""
    content, header = path.read_bytes(), guard.check_gguf(path)
    return {key: content[start:stop] for key, (start, stop) in header.spans.items()}


def test_settings_are_carried_byte_for_byte(source: Path) -> None:
    found = settings(made(source, "gguf-q4_0").path / "model.gguf")
    before = settings(source)
    written = {"general.file_type", "general.quantization_version"}
    assert {key: value for key, value in found.items() if key not in written} == before
    assert list(found)[: len(before)] == list(before)
    assert gguf.GGUFReader(made(source, "gguf-q4_0").path / "model.gguf").fields["general.file_type"].contents() == 2


def test_f16_to_f16_keeps_every_tensor(source: Path) -> None:
    first = made(source, "gguf-f16").path / "model.gguf"
    second = made(first, "gguf-f16", "again").path / "model.gguf"
    assert llama_quantize.contents(second) == llama_quantize.contents(first)
    assert second.read_bytes() == first.read_bytes()


@pytest.mark.parametrize("kind", ["q8_0", "q4_k_m", "q2_k"])
def test_a_tensor_that_keeps_its_type_is_copied(kind: str, tmp_path: Path) -> None:
    """Rounding twice would lose more. llama.cpp copies it, too."""
    first = made(tiny_llama.write(tmp_path / "tiny", layers=1), f"gguf-{kind}").path / "model.gguf"
    second = made(first, f"gguf-{kind}", "again").path / "model.gguf"
    assert llama_quantize.contents(second) == llama_quantize.contents(first)
    file_type = RECIPES[f"gguf-{kind}"].file_type
    theirs = llama_quantize.quantize(first, tmp_path / "theirs", {kind: file_type})[kind]
    assert llama_quantize.contents(theirs) == llama_quantize.contents(second)


def test_a_quantized_file_becomes_what_llama_cpp_makes_of_it(tmp_path: Path, source: Path) -> None:
    first = made(source, "gguf-q8_0").path / "model.gguf"
    second = made(first, "gguf-q4_0", "again").path / "model.gguf"
    theirs = llama_quantize.quantize(first, tmp_path / "theirs", {"q4_0": 2})["q4_0"]
    assert llama_quantize.contents(theirs) == llama_quantize.contents(second)


def test_a_budget_keeps_what_is_stored_well_already(source: Path) -> None:
    """The types that the file has cost no error: copying is better than rounding to as many bytes."""
    first = made(source, "gguf-q4_0").path / "model.gguf"
    blueprint = gguf_source.blueprint(first)
    running = allocate.measure(blueprint, {})
    try:
        while True:
            next(running)
    except StopIteration as end:
        choices = end.value
    first_type = {t.name: t.source.dtype for t in blueprint.tensors}
    assert set(choices) == {name for name, kind in first_type.items() if kind != "F32"}
    for name, options in choices.items():
        errors = {choice.type: choice.error for choice in options}
        assert errors[first_type[name]] == 0
        assert errors["IQ4_NL"] > 0


def test_a_quantized_source_is_warned_about(source: Path, cli: Cli) -> None:
    first = made(source, "gguf-q4_0").path / "model.gguf"
    done = cli("convert", first, "--to", "gguf-q8_0", "--out", "again", "--no-compare", "--json")
    assert done.returncode == 0, done.stderr
    assert "model.gguf is quantized already (100 % of its matrices, mostly Q4_0)" in done.stderr
    assert "what that lost stays lost" in done.stderr
    assert any("quantized already" in note for note in json.loads(done.stdout)["notes"])
    assert not made(source, "gguf-q8_0").report()["notes"][0].startswith("model.gguf is quantized")


def test_a_package_can_be_named_instead_of_its_file(source: Path, cli: Cli, home: Path) -> None:
    made(source, "gguf-f16", "full")
    done = cli("convert", "full", "--to", "gguf-q8_0", "--no-compare", "--json")
    assert done.returncode == 0, done.stderr
    assert (home / "full-gguf-q8_0" / "model.gguf").is_file()
    manifest = json.loads((home / "full-gguf-q8_0" / "manifest.json").read_text())
    assert manifest["source"]["id"] == "tiny"
    assert set(manifest["source"]["sha256"]) == {"model.gguf"}


def test_an_embedding_package_is_requantized_with_its_tokenizer(tmp_path: Path) -> None:
    first = made(tiny_bert.write(tmp_path / "tiny-bert"), "gguf-f16")
    second = made(first.path / "model.gguf", "gguf-q8_0", "again", compare=True)
    assert second.manifest.inputs == first.manifest.inputs
    assert second.manifest.report is not None
    assert second.manifest.report.metrics["cosine_min"] > 0.99
    with open_model(second.path) as model:
        assert model.embed(["a dog"]).shape == (1, tiny_bert.HIDDEN)  # type: ignore[union-attr]


def test_an_encoder_file_alone_is_refused(tmp_path: Path, cli: Cli) -> None:
    first = made(tiny_bert.write(tmp_path / "tiny-bert"), "gguf-f16")
    alone = tmp_path / "alone.gguf"
    alone.write_bytes((first.path / "model.gguf").read_bytes())
    with pytest.raises(Unsupported, match=r"alone\.gguf: an embedding model needs its tokenizer\.json and manifest"):
        made(alone, "gguf-q8_0")
    done = cli("compare", alone, alone)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "alone.gguf: is no chat model (bert)" in done.stderr


def test_a_gguf_file_cannot_become_onnx(source: Path, cli: Cli) -> None:
    done = cli("convert", source, "--to", "onnx-int8")
    assert done.returncode == 2
    assert "tiny.gguf: a GGUF file cannot become onnx" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_truncated_file_is_refused(source: Path, home: Path) -> None:
    source.write_bytes(source.read_bytes()[:-1000])
    with pytest.raises(BadFile, match="truncated"):
        made(source, "gguf-q8_0")
    assert not list((home / ".partial").iterdir())


def test_a_type_that_is_not_read_back_is_refused(tmp_path: Path) -> None:
    source = tiny_gguf.write(tmp_path / "tiny.gguf")
    header, content = guard.check_gguf(source), bytearray(source.read_bytes())
    name = b"blk.0.attn_q.weight"
    at = content.index(name) + len(name) + 4 + 2 * 8
    assert content[at] == 0
    content[at] = 26  # i32: as wide as f32
    source.write_bytes(content)
    assert header.tensors
    with pytest.raises(Unsupported, match=r"blk\.0\.attn_q\.weight has the type 26"):
        made(source, "gguf-q8_0")


def on_a_grid(array: np.ndarray, kind: str) -> np.ndarray:
    rows = np.ascontiguousarray(array, np.float32)
    return ggml.dequantize(ggml.quantize(rows, kind), kind, rows.shape[1])


@pytest.mark.parametrize("kind", ["Q4_0", "Q8_0"])
def test_weights_on_a_grid_are_recognized_and_kept(kind: str, tmp_path: Path, cli: Cli) -> None:
    """Quantization-aware training: 9 query heads, whose rows no sample of 256 holds whole."""
    folder = tiny_llama.write(tmp_path / "tiny", width=288, heads=9, kv_heads=3, layers=2, dtype=np.float32)
    arrays = load_file(folder / "model.safetensors")
    trained = {n: on_a_grid(a, kind) if ".layers." in n and a.ndim == 2 else a for n, a in arrays.items()}
    save_file(trained, folder / "model.safetensors")
    target = f"gguf-{kind.lower()}"
    done = cli("convert", folder, "--to", target, "--no-oracle", "--no-compare", "--calibrate", "none", "--json")
    assert done.returncode == 0, done.stderr
    assert f"the weights lie on a {kind} grid (quantization-aware training), which --to {target} keeps" in done.stderr
    save_file(arrays, folder / "model.safetensors")
    done = cli("convert", folder, "--to", target, "--dry-run")
    assert done.returncode == 0
    assert "grid" not in done.stderr


def figures(a: Path, b: Path, text: Path | None) -> dict[str, Any]:
    found = list(side_by_side(a, b, text, "the"))[-1]
    assert isinstance(found, dict)
    return found


def test_a_file_compared_with_itself_does_not_differ(source: Path, cli: Cli) -> None:
    done = cli("compare", source, source, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["distance"]["divergence_mean"] == found["distance"]["divergence_999"] == 0
    assert found["distance"]["same_top_token"] == found["distance"]["perplexity_ratio"] == 1
    assert found["first_different_token"] is None
    assert found["continued_tokens"] == 64
    assert found["a"]["bytes"] == found["b"]["bytes"] == source.stat().st_size
    assert found["a"]["bits_per_weight"] == 32


def test_two_builds_are_compared_in_a_table(source: Path, tmp_path: Path, cli: Cli) -> None:
    other = made(source, "gguf-q4_0", "small").path / "model.gguf"
    text = tmp_path / "text.txt"
    text.write_text("the cat sat on the mat, and then another\n" * 20)
    done = cli("compare", source, "small", "--text", text, COLUMNS="100")
    assert done.returncode == 0, done.stderr
    rows = [line.split("│") for line in done.stdout.splitlines() if "│" in line]
    table = {cells[1].strip(): [cell.strip() for cell in cells[2:4]] for cells in rows}
    assert table["model"] == ["tiny.gguf", "small"]
    assert table["size"][0] == f"{source.stat().st_size / 1000:.1f} KB"
    assert table["size"][1] == f"{other.stat().st_size / 1000:.1f} KB"
    assert float(table["divergence, mean (nats)"][1]) > 0.001
    assert int(table["first different token"][1]) < 64
    assert float(table["bits per weight"][1]) < 6


def test_the_divergence_is_that_of_the_logits(source: Path, tmp_path: Path) -> None:
    from edgemm.backends.worker import LoadOptions, Worker

    other = tiny_gguf.write(tmp_path / "other.gguf", seed=5)
    text = tmp_path / "text.txt"
    text.write_text("an inner thing")
    found = figures(source, other, text)
    logits = []
    for path in (source, other):
        with Worker(path, LoadOptions()) as worker:
            ids = worker.tokenize("an inner thing", add_special=True)
            logits.append(np.concatenate([x.astype(np.float64) for x in worker.score(ids)]))
    p, q = (x - np.log(np.exp(x).sum(axis=1, keepdims=True)) for x in logits)
    divergence = (np.exp(p) * (p - q)).sum(axis=1)
    assert found["distance"]["divergence_mean"] == pytest.approx(divergence.mean(), rel=1e-4)
    perplexities = [np.exp(-np.mean([x[i, ids[i + 1]] for i in range(len(ids) - 1)])) for x in (p, q)]
    assert found["distance"]["perplexity"] == pytest.approx(perplexities[1], rel=1e-4)
    assert found["distance"]["perplexity_ratio"] == pytest.approx(perplexities[1] / perplexities[0], rel=1e-4)
    assert found["distance"]["same_top_token"] == np.mean(p.argmax(axis=1) == q.argmax(axis=1))


def test_models_of_another_vocabulary_are_not_compared(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens, types, merges = tiny_gguf.vocabulary()
    monkeypatch.setattr(tiny_gguf, "vocabulary", lambda: ([*tokens[:-1], "zz"], types, merges))
    other = tiny_gguf.write(tmp_path / "other.gguf")
    with pytest.raises(UsageError, match=r"other\.gguf: has another vocabulary than tiny\.gguf"):
        figures(source, other, None)


@pytest.mark.parametrize(("content", "said"), [(b"", "there is no text in it"), (None, "No such file")])
def test_a_text_that_is_none_is_refused(
    content: bytes | None, said: str, source: Path, tmp_path: Path, cli: Cli
) -> None:
    text = tmp_path / "text.txt"
    if content is not None:
        text.write_bytes(content)
    done = cli("compare", source, source, "--text", text)
    assert done.returncode in (2, 3)
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.starter
def test_the_starter_model_is_requantized(smollm2: Path, tmp_path: Path, cli: Cli) -> None:
    """Q4_1 with rows of 576: two thirds of its matrices cannot be K-quants."""
    done = cli("convert", smollm2, "--to", "gguf-q4_0", "--no-compare", "--calibrate", "none", "--json", "--out", "s")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert "is quantized already" in done.stderr
    assert "mostly Q4_1" in done.stderr
    assert report["types"]["Q4_0"] > 200
    assert report["metrics"]["tensor_error_max"] < 0.12
