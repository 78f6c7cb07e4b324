"""Checkpoint to package, through the whole pipeline: four targets, one reference, floors, and nothing half-written."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tiny_bert
from conftest import Cli

from converters.calibrate import CALIBRATION, HELD_OUT
from converters.checkpoint import Array, open_checkpoint
from converters.convert import Options, convert
from converters.recipe import RECIPES, Floor
from converters.reference import numpy_reference
from converters.verify import similarity
from edgemm import open_model, package
from edgemm.backends.ort import OrtEncoder
from edgemm.embed import Embedder
from edgemm.errors import BelowFloor, EdgemmError, MissingExtra, UsageError
from edgemm.package import Package
from edgemm.tokenizer import Overflow, Tokenizer

# The least cosine that each target reaches on the tiny model; its rows of 64 let larger blocks fall back to 32.
LEAST = {"onnx-fp32": 0.999999, "onnx-int8": 0.99, "gguf-f16": 0.9999, "gguf-q8_0": 0.99, "gguf-q4_k_m": 0.98}
targets = pytest.mark.parametrize("target", LEAST)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return tiny_bert.write(tmp_path / "tiny-bert")


def made(checkpoint: Path, target: str, **changes: object) -> Package:
    events = list(convert(checkpoint, target, options=Options(oracle=False, **changes)))  # type: ignore[arg-type]
    assert isinstance(events[-1], Package)
    return events[-1]


def expected(checkpoint: Path, texts: list[str]) -> Array:
    """What the checkpoint answers, cut to its window of 100 tokens, from the numpy forward pass."""
    encoded = Tokenizer(checkpoint / "tokenizer.json").encode(texts, 100, Overflow.CUT)
    return numpy_reference(open_checkpoint(checkpoint)).embed([each.rows[0] for each in encoded])


@targets
@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_the_package_behaves_like_the_checkpoint(target: str, pooling: str, tmp_path: Path) -> None:
    checkpoint = tiny_bert.write(tmp_path / "tiny-bert", pooling=pooling)
    found = made(checkpoint, target)
    texts = ["The cat sat on the mat.", "a dog", "ran!", "the " * 60]
    with open_model(found.path) as model:
        assert isinstance(model, Embedder)
        vectors = model.embed(texts)
    assert vectors.shape == (4, tiny_bert.HIDDEN)
    assert similarity(vectors, expected(checkpoint, texts))["cosine_min"] > LEAST[target]


@targets
def test_manifest_report_and_card_are_complete(target: str, checkpoint: Path) -> None:
    found = package.open_package(made(checkpoint, target).path)
    manifest, report = found.manifest, found.report()
    assert (manifest.name, manifest.task, manifest.architecture) == (f"tiny-bert-{target}", "embed", "bert")
    assert manifest.inputs is not None
    assert (manifest.inputs.max_tokens, manifest.inputs.pooling, manifest.inputs.dimensions) == (100, "mean", 64)
    assert manifest.source.sha256["model.safetensors"] == package.sha256(checkpoint / "model.safetensors")
    assert manifest.report is not None
    assert manifest.report.passed
    assert manifest.check is not None
    assert len(manifest.check.output) == 8
    assert report["metrics"]["cosine_mean"] >= report["floor"]["cosine_mean"]
    assert report["compared"] == f"{len(HELD_OUT)} texts"
    assert ("tokenizer_agreement" in report["metrics"]) == target.startswith("gguf")
    assert f"# {manifest.name}" in (found.path / "README.md").read_text()
    assert 1 < manifest.quantization.bits_per_weight < 40


@targets
def test_the_same_checkpoint_gives_the_same_bytes(target: str, checkpoint: Path) -> None:
    model = "model.gguf" if target.startswith("gguf") else "model.onnx"
    first = package.sha256(made(checkpoint, target).path / model)
    assert package.sha256(made(checkpoint, target).path / model) == first


def test_a_window_that_is_no_round_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiny_bert, "POSITIONS", 125)
    checkpoint = tiny_bert.write(tmp_path / "tiny-bert", max_position_embeddings=125)
    (checkpoint / "sentence_bert_config.json").unlink()
    found = made(checkpoint, "gguf-f16")
    assert found.manifest.inputs is not None
    assert found.manifest.inputs.max_tokens == 125


def test_int8_does_not_depend_on_batch_mates(checkpoint: Path) -> None:
    report = made(checkpoint, "onnx-int8").report()
    assert report["metrics"]["batch_invariance"] > 0.99999


def test_prefixes_of_the_checkpoint_are_carried(checkpoint: Path) -> None:
    prompts = {"prompts": {"query": "query: ", "passage": "passage: "}}
    (checkpoint / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    inputs = made(checkpoint, "onnx-fp32").manifest.inputs
    assert inputs is not None
    assert (inputs.query_prefix, inputs.document_prefix) == ("query: ", "passage: ")


def test_a_swapped_tokenizer_is_noticed(checkpoint: Path) -> None:
    found = made(checkpoint, "onnx-fp32")
    path = found.path / "tokenizer.json"
    path.write_text(path.read_text().replace('"lowercase": true', '"lowercase": false'))
    with pytest.raises(EdgemmError, match=r"tokenizer\.json: (needs|checksum)"):
        open_model(found.path)


def test_below_the_floor_nothing_is_kept(checkpoint: Path, monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    strict = Floor(cosine_mean=1.1, cosine_min=0.5)
    recipe = RECIPES["onnx-int8"]
    monkeypatch.setitem(
        RECIPES, "onnx-int8", type(recipe)(**{f: getattr(recipe, f) for f in recipe.__slots__} | {"floor": strict})
    )
    with pytest.raises(BelowFloor, match=r"cosine_mean is [\d.]+, the floor is 1.1 .* --accept-below-floor"):
        made(checkpoint, "onnx-int8")
    assert not list(package.installed())
    assert not list((home / ".partial").iterdir())
    kept = made(checkpoint, "onnx-int8", accept_below_floor=True)
    assert kept.manifest.report is not None
    assert not kept.manifest.report.passed
    assert "below the floor" in (kept.path / "README.md").read_text()


def test_a_wrong_quantization_would_be_noticed() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(30, 16)).astype(np.float32)
    noisy = vectors + rng.normal(size=vectors.shape).astype(np.float32)
    assert similarity(vectors, vectors) == pytest.approx({"cosine_mean": 1, "cosine_min": 1, "top10_overlap": 1})
    figures = similarity(noisy, vectors)
    assert figures["cosine_mean"] < 0.9
    assert figures["top10_overlap"] < 0.9


@pytest.mark.parametrize(
    ("target", "option", "fix"),
    [
        ("onnx-int8", {"save_importance": Path("x")}, "a gguf target"),
        ("gguf-q8_0", {"task": "embed"}, "an onnx target"),
        ("gguf-q8_0", {"min_quality": 0.9}, "--to onnx-int8"),
        ("onnx-fp32", {"max_size": 10}, "--to onnx-int8"),
        ("onnx-fp16", {"plan": Path("x")}, "--to onnx-int8"),
    ],
)
def test_options_without_effect_are_refused(target: str, option: dict[str, object], fix: str, checkpoint: Path) -> None:
    with pytest.raises(UsageError, match=f"use it with {fix}"):
        made(checkpoint, target, **option)


def test_an_unknown_target_names_the_known_ones(checkpoint: Path) -> None:
    with pytest.raises(UsageError, match="onnx-int8"):
        list(convert(checkpoint, "tflite"))


def test_a_missing_library_names_the_extra(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in sys.modules if n.split(".")[0] == "onnx" or n.startswith("converters.onnx")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingExtra, match=r"pip install 'edgemm\[convert\]'"):
        made(checkpoint, "onnx-int8")
    assert not list(package.installed())


def test_the_text_sets_are_disjoint() -> None:
    assert not set(CALIBRATION) & set(HELD_OUT)
    assert min(len(CALIBRATION), len(HELD_OUT)) >= 50


def test_a_conversion_replaces_the_package_of_that_name(checkpoint: Path) -> None:
    first = made(checkpoint, "onnx-fp32")
    before = (first.path / "manifest.json").stat().st_ino
    assert (made(checkpoint, "onnx-fp32").path / "manifest.json").stat().st_ino != before
    assert [p.name for p in package.installed()] == ["tiny-bert-onnx-fp32"]


def test_the_command_prints_the_card_and_a_note(checkpoint: Path, cli: Cli) -> None:
    config = tiny_bert.config(auto_map={"AutoModel": "x.Y"})
    (checkpoint / "config.json").write_text(json.dumps(config))
    done = cli("convert", checkpoint, "--to", "onnx-int8", "--no-oracle")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("# tiny-bert-onnx-int8\n")
    assert "auto_map" in done.stderr
    done = cli("convert", checkpoint, "--to", "gguf-f16", "--no-oracle", "--json", "--out", "other")
    assert json.loads(done.stdout)["passed"] is True


def test_torch_and_transformers_are_never_imported(checkpoint: Path) -> None:
    code = (
        "import sys; sys.argv[0] = 'edgemm'\n"
        "from edgemm.cli import main\n"
        "try: main()\n"
        "finally: print(*{m.split('.')[0] for m in sys.modules}, file=sys.stderr)"
    )
    command = [sys.executable, "-c", code, "convert", str(checkpoint), "--no-oracle"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert not {"torch", "transformers", "optimum", "pickle5"} & set(done.stderr.split())


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no RLIMIT_FSIZE")
@targets
def test_a_full_disk_leaves_nothing(target: str, checkpoint: Path, home: Path) -> None:
    code = (
        "import resource, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))\n"
        "from edgemm.cli import main; main()"
    )
    command = [sys.executable, "-c", code, "convert", str(checkpoint), "--to", target, "--no-oracle"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 4, done.stderr
    assert "the disk is full" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not list(package.installed())
    assert not list((home / ".partial").iterdir())


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("delay", [0.2, 0.5, 0.7, 0.9, 1.1, 1.4])
def test_an_interrupted_conversion_leaves_nothing(delay: float, checkpoint: Path, home: Path) -> None:
    command = [sys.executable, "-m", "edgemm", "convert", str(checkpoint), "--no-oracle"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    time.sleep(delay)
    os.kill(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode in (130, 0, -signal.SIGINT), stderr  # -SIGINT: Python was still starting, or ending
    for each in package.installed():  # it may have been finished before the signal
        package.verify(each)
    assert not list((home / ".partial").glob("*"))


def test_onnx_pads_without_effect(checkpoint: Path) -> None:
    found = made(checkpoint, "onnx-fp32")
    rows = Tokenizer(checkpoint / "tokenizer.json").ids(["the cat", "the cat sat on the mat and ran"])
    encoder = OrtEncoder(found.path / "model.onnx")
    together, alone = encoder.encode(rows), encoder.encode(rows[:1])
    np.testing.assert_allclose(together[0], alone[0], atol=1e-6)
