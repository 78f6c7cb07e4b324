"""Our files hold the bytes of llama.cpp's own quantizer: same types, same blocks, whatever the shape of the model."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import gguf
import llama_quantize
import numpy as np
import pytest
import tiny_gguf
import tiny_llama
from conftest import Cli

from converters import allocate, gguf_source, importance, quantize
from converters.convert import Options, convert, dry_run
from converters.gguf_file import setting
from converters.recipe import RECIPES, Recipe
from edgemm import guard
from edgemm.errors import BadFile
from edgemm.events import Progress
from edgemm.package import Package

GGUF = {target.removeprefix("gguf-"): recipe for target, recipe in RECIPES.items() if recipe.format == "gguf"}
RECIPES_TO_PLAN = ("gguf-f16", "gguf-q8_0", "gguf-q4_k_m", "gguf-iq4_nl", "gguf-q2_k")
ROWS = 2  # of each matrix: no rule looks at them


@dataclass(frozen=True)
class Shape:
    """A model as the quantizer sees it: names, widths and counts."""

    architecture: str = "llama"
    width: int = 256
    feed_forward: int = 512
    layers: int = 9
    heads: int = 8
    kv_heads: int = 8
    tied: bool = False
    fused: bool = False
    dtype: type = np.float32
    recipes: tuple[str, ...] = tuple(GGUF)

    def write(self, path: Path) -> Path:
        tokens, types, merges = tiny_gguf.vocabulary()
        writer = gguf.GGUFWriter(path, self.architecture)
        numbers = {
            "block_count": self.layers,
            "context_length": 64,
            "embedding_length": self.width,
            "feed_forward_length": self.feed_forward,
            "attention.head_count": self.heads,
            "attention.head_count_kv": self.kv_heads,
            "attention.relative_buckets_count": 32,
            "decoder_block_count": self.layers,
            "vocab_size": len(tokens),
        }
        for key, value in numbers.items():
            writer.add_uint32(f"{self.architecture}.{key}", value)
        for key in ("layer_norm_rms_epsilon", "layer_norm_epsilon"):
            writer.add_float32(f"{self.architecture}.attention.{key}", 1e-5)
        writer.add_tokenizer_model("gpt2")
        writer.add_token_list(tokens)
        writer.add_token_types(types)
        writer.add_token_merges(merges)
        writer.add_uint32("tokenizer.ggml.token_type_count", 2)
        rng = np.random.default_rng(7)
        for name, columns in self.matrices().items():
            rows = {"token_embd": len(tokens), "output": len(tokens), "cls.output": 1}.get(name, ROWS)
            array = rng.standard_t(4, (rows, columns)) * 0.05
            writer.add_tensor(f"{name}.weight", array.astype(self.dtype if rows > 1 else np.float32))
        writer.add_bool(f"{self.architecture}.use_parallel_residual", True)
        for name in ("output_norm", "enc.output_norm"):
            writer.add_tensor(f"{name}.weight", rng.normal(1, 0.1, self.width).astype(np.float32))
        for name in ("position_embd", "token_types"):
            writer.add_tensor(f"{name}.weight", rng.normal(0, 1, (4, self.width)).astype(np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path

    def matrices(self) -> dict[str, int]:
        """Columns by name."""
        found = {"token_embd": self.width, "cls.output": self.width} | ({} if self.tied else {"output": self.width})
        for side in ("dec.", "enc.") if self.architecture == "t5" else ("",):
            for i in range(self.layers):
                block, wide = f"{side}blk.{i}.", {"ffn_up": self.width, "ffn_down": self.feed_forward}
                parts = ("attn_qkv",) if self.fused else ("attn_q", "attn_k", "attn_v")
                names = dict.fromkeys((*parts, "attn_output", "ffn_gate"), self.width) | wide
                if side == "dec.":
                    names["cross_attn_v"] = self.width
                found |= {block + name: columns for name, columns in names.items()}
        return found


DEEP = ("q5_k_m", "q4_k_m", "iq4_xs", "q3_k_m", "q2_k")  # with a rule for values
SHAPES = {
    "llama": Shape(),
    "grouped heads, 16 layers": Shape(layers=16, kv_heads=2),
    "tied, narrow rows, f16": Shape(width=192, feed_forward=320, tied=True, dtype=np.float16),
    "rows of no block": Shape(width=48, feed_forward=256, heads=3, kv_heads=3, tied=True),
    "80 layers, shared keys": Shape(layers=80, kv_heads=4, recipes=DEEP),
    "80 layers, own keys": Shape(layers=80, recipes=DEEP),
    "qwen2": Shape("qwen2", layers=80, kv_heads=2, tied=True, recipes=DEEP),
    "gptneox, fused": Shape("gptneox", layers=20, fused=True),
    "gemma2, tied": Shape("gemma2", kv_heads=2, tied=True),
    "falcon": Shape("falcon", layers=33, kv_heads=1, fused=True),
    "bert": Shape("bert", width=384, feed_forward=1536, layers=6, heads=12, kv_heads=12, tied=True),
    "nomic-bert, fused": Shape("nomic-bert", width=768, layers=12, heads=12, kv_heads=12, tied=True, fused=True),
    "t5, tied in the checkpoint": Shape("t5", layers=8),
}


def importance_of(shape: Shape) -> dict[str, np.ndarray]:
    """Something for most matrices: nothing for the embeddings and for one that was never used."""
    rng = np.random.default_rng(3)
    left_out = ("token_embd", "output", "blk.1.ffn_up")
    return {
        f"{name}.weight": rng.gamma(0.5, 2, columns).astype(np.float32)
        for name, columns in shape.matrices().items()
        if name not in left_out
    }


def ours(source: Path, path: Path, recipe: Recipe, matrix: Mapping[str, np.ndarray], threads: int = 2) -> Path:
    blueprint = gguf_source.blueprint(source)
    types = allocate.by_recipe(recipe, blueprint, guided=bool(matrix))
    settings = blueprint.settings | {"general.file_type": setting(recipe.file_type)}
    draft = quantize.Draft(settings, blueprint.tensors, types)
    list(quantize.write(path, draft, matrix, blueprint.sizes, threads))
    assert path.stat().st_size == draft.bytes
    return path


@pytest.mark.parametrize("guided", [False, True], ids=["blind", "guided"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_every_recipe_gives_the_bytes_of_llama_cpp(shape: Shape, guided: bool, tmp_path: Path) -> None:
    source = shape.write(tmp_path / "source.gguf")
    matrix = importance_of(shape) if guided else {}
    file_types = {name: GGUF[name].file_type for name in shape.recipes}
    theirs = llama_quantize.quantize(source, tmp_path / "theirs", file_types, matrix)
    for name in shape.recipes:
        found = llama_quantize.contents(ours(source, tmp_path / f"{name}.gguf", GGUF[name], matrix))
        expected = llama_quantize.contents(theirs[name])
        assert {n: kind for n, (kind, _) in found.items()} == {n: kind for n, (kind, _) in expected.items()}, name
        assert found == expected, name


def test_the_command_gives_the_bytes_of_llama_cpp(tmp_path: Path, home: Path, cli: Cli) -> None:
    """From a checkpoint, with the importance matrix that it collected and saved: nothing is filled in behind it."""
    checkpoint = tiny_llama.write(tmp_path / "tiny", layers=9, feed_forward=256, kv_heads=1)
    saved = tmp_path / "importance.gguf"
    done = cli("convert", checkpoint, "--to", "gguf-q4_k_m", "--no-oracle", "--save-importance", saved)
    assert done.returncode == 0, done.stderr
    done = cli("convert", checkpoint, "--to", "gguf-f32", "--no-oracle", "--no-compare")
    assert done.returncode == 0, done.stderr
    matrix = importance.load(saved)
    full = home / "tiny-gguf-f32" / "model.gguf"
    theirs = llama_quantize.quantize(full, tmp_path / "theirs", {"q4_k_m": GGUF["q4_k_m"].file_type}, matrix)
    expected = llama_quantize.contents(theirs["q4_k_m"])
    assert llama_quantize.contents(home / "tiny-gguf-q4_k_m" / "model.gguf") == expected
    assert set(matrix) == {name for name, (kind, _) in expected.items() if kind != "F32"} - {"token_embd.weight"}


@pytest.mark.parametrize("target", RECIPES_TO_PLAN)
def test_a_dry_run_knows_the_exact_bytes(target: str, tmp_path: Path, home: Path) -> None:
    source = tiny_gguf.write(tmp_path / "tiny.gguf")
    options = Options(oracle=False, compare=False, calibrate="none", accept_below_floor=True)
    planned = dry_run(source, target, options, tmp_path)
    assert not home.exists()
    made = list(convert(source, target, options=options))[-1]
    assert isinstance(made, Package)
    size = (made.path / "model.gguf").stat().st_size
    assert planned["bytes"] == size
    assert planned["types"] == made.report()["types"]
    assert planned["bits"] == pytest.approx(made.manifest.quantization.bits_per_weight)


def test_a_dry_run_of_a_checkpoint_writes_nothing(tmp_path: Path, home: Path, cli: Cli) -> None:
    checkpoint = tiny_llama.write(tmp_path / "tiny")
    done = cli("convert", checkpoint, "--to", "gguf-q4_k_m", "--dry-run", "--json")
    assert done.returncode == 0, done.stderr
    planned = json.loads(done.stdout)["bytes"]
    assert not list(home.glob("*"))
    fast = ("--no-oracle", "--no-compare", "--calibrate", "none")
    assert cli("convert", checkpoint, "--to", "gguf-q4_k_m", *fast).returncode == 0
    assert (home / "tiny-gguf-q4_k_m" / "model.gguf").stat().st_size == planned
    done = cli("convert", checkpoint, "--to", "onnx-int8", "--dry-run")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)


@pytest.mark.parametrize("slab", [1, 5000, 1 << 22])
@pytest.mark.parametrize("threads", [1, 3])
def test_the_bytes_depend_on_no_slab_and_no_thread(
    slab: int, threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tiny_gguf.write(tmp_path / "tiny.gguf")
    plain = ours(source, tmp_path / "plain.gguf", GGUF["q4_k_m"], {}).read_bytes()
    monkeypatch.setattr(quantize, "SLAB", slab)
    assert ours(source, tmp_path / "other.gguf", GGUF["q4_k_m"], {}, threads).read_bytes() == plain


class Interrupted:
    """A conversion of a tiny model that is stopped after some steps; its journal is written at every step."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(quantize, "_JOURNAL_SECONDS", -1.0)
        monkeypatch.setattr(quantize, "SLAB", 2000)
        self.blueprint = gguf_source.blueprint(tiny_gguf.write(folder / "tiny.gguf"))
        types = allocate.by_recipe(GGUF["q8_0"], self.blueprint, guided=False)
        self.draft = quantize.Draft(self.blueprint.settings, self.blueprint.tensors, types)
        self.path, self.part = folder / "model.gguf", folder / "model.gguf.part"
        self.journal = folder / "model.gguf.part.journal"
        self.expected = self.finished()
        self.path.unlink()

    def write(self, matrix: Mapping[str, np.ndarray] | None = None) -> Iterator[Progress]:
        return quantize.write(self.path, self.draft, matrix or {}, self.blueprint.sizes, 2)

    def stop_after(self, steps: int) -> None:
        running = self.write()
        for _ in range(steps):
            next(running)
        running.close()  # type: ignore[attr-defined]
        assert not self.path.exists()

    def finished(self) -> bytes:
        self.steps = len(list(self.write()))
        assert not self.part.exists()
        assert not self.journal.exists()
        return self.path.read_bytes()


@pytest.fixture
def interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Interrupted:
    return Interrupted(tmp_path, monkeypatch)


def test_a_file_is_gone_on_with_from_any_step(interrupted: Interrupted) -> None:
    whole = interrupted.steps
    for stop in range(1, whole, 3):
        interrupted.stop_after(stop)
        assert interrupted.finished() == interrupted.expected
        assert interrupted.steps <= whole
        interrupted.path.unlink()
    assert interrupted.steps < whole / 4, "the last run began at the beginning"


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"null", b"[]", b"\x00" * 64, b'{"complete": 3}', b"9" * 5000, b'{"complete": 1e999, "key": ""}', None],
)
def test_a_damaged_journal_starts_anew(content: bytes | None, interrupted: Interrupted) -> None:
    interrupted.stop_after(30)
    if content is None:
        interrupted.journal.unlink()
    else:
        interrupted.journal.write_bytes(content)
    assert interrupted.finished() == interrupted.expected


@pytest.mark.parametrize("complete", [-1, 0, 10_000, 2**70, "7", None, [1]])
def test_a_journal_that_lies_starts_anew(complete: object, interrupted: Interrupted) -> None:
    interrupted.stop_after(30)
    saved = json.loads(interrupted.journal.read_text())
    interrupted.journal.write_text(json.dumps(saved | {"complete": complete}))
    assert interrupted.finished() == interrupted.expected


@pytest.mark.parametrize("left", [0, 100, 60_000])
def test_a_part_that_the_disk_lost_is_written_again(left: int, interrupted: Interrupted) -> None:
    interrupted.stop_after(60)
    assert interrupted.part.stat().st_size > left
    with open(interrupted.part, "r+b") as file:
        file.truncate(left)
    assert interrupted.finished() == interrupted.expected


def test_a_part_that_is_gone_is_written_again(interrupted: Interrupted) -> None:
    interrupted.stop_after(30)
    interrupted.part.unlink()
    assert interrupted.finished() == interrupted.expected


def test_another_importance_matrix_starts_anew(interrupted: Interrupted) -> None:
    interrupted.stop_after(interrupted.steps - 1)
    steps = len(list(interrupted.write({"blk.0.attn_q.weight": np.ones(64, np.float32)})))
    assert steps == interrupted.steps


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    path = tiny_gguf.write(tmp_path / "tiny.gguf")
    at = guard.check_gguf(path)
    tensor = next(t for t in at.tensors if t.name == "blk.1.ffn_up.weight")
    with open(path, "r+b") as file:
        file.seek(at.data_start + tensor.offset + 400)
        file.write(np.array([np.nan], np.float32).tobytes())
    with pytest.raises(BadFile, match=r"blk\.1\.ffn_up\.weight holds values that are not finite"):
        ours(path, tmp_path / "model.gguf", GGUF["q4_k_m"], {})
    assert not (tmp_path / "model.gguf").exists()
