"""`make bench-quant`: our GGUF files against llama.cpp's own quantizer, at equal bytes and with the same imatrix.

Three models: MiniLM (loss: 1 - cosine of the embeddings), the SmolLM2 starter (loss: Kullback-Leibler divergence of the
next token), and the same SmolLM2 off its grid. The starter was published in Q4_1, so its weights lie on that grid, and
whoever picks Q4_1 keeps them for nothing; the third model has noise of half a step on every weight, which takes that
gift away. For each recipe: llama.cpp's file, ours by the same recipe, and ours by `--fit` in no more bytes.
Then a checkpoint of a billion weights: memory, disk and time (bench_large.py). A missed target is shown as missed and
makes the exit code 1. `--text FILE`: judge on a text of your own.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import bench
import bench_large
import llama_quantize
import numpy as np
from rich.console import Console
from rich.table import Table

from converters import gguf_source, importance, judge, quantize
from converters.calibrate import HELD_OUT
from converters.checkpoint import Array, open_checkpoint
from converters.convert import convert
from converters.gguf_file import setting
from converters.gguf_model import Source, Tensor
from converters.job import Budget, Options
from converters.judge import ChatJudge, EmbedJudge, Judge
from converters.recipe import RECIPES
from converters.reference import numpy_reference
from edgemm import models, paths
from edgemm.backends.worker import LoadOptions, Worker
from edgemm.device import Device
from edgemm.events import value_of
from edgemm.package import Package
from edgemm.tokenizer import Overflow, Tokenizer

CHAT, CHECKPOINT = "smollm2-135m-instruct", "all-minilm-l6-v2"
PLAIN = ("gguf-q8_0", "gguf-q6_k", "gguf-q5_k_m", "gguf-q4_k_m", "gguf-iq4_xs", "gguf-q4_0", "gguf-q3_k_m")
FITTED = ("gguf-q5_k_m", "gguf-q4_k_m", "gguf-iq4_xs", "gguf-q4_0", "gguf-q3_k_m")
FIT_TARGET = 0.75  # of llama.cpp's loss at the same bytes
EQUAL = 1.0 + 1e-6
SEED = 11
TEXT = 40_000  # characters of a user's text


@dataclass(frozen=True)
class Model:
    """What is compared: `source` is converted, `reference` (f16 or f32) is what llama.cpp quantizes."""

    name: str
    source: Path
    reference: Path
    imatrix: Path
    judge: Judge


@dataclass(frozen=True)
class Row:
    model: str
    recipe: str
    theirs: int
    their_loss: float
    ours: int
    our_loss: float
    fitted: int
    fitted_loss: float

    @property
    def plain_met(self) -> bool:
        return self.ours <= self.theirs and self.our_loss <= self.their_loss * EQUAL

    @property
    def fit_met(self) -> bool:
        return not self.fitted or (self.fitted <= self.theirs and self.fitted_loss <= FIT_TARGET * self.their_loss)


def last(events: Iterator[Any]) -> Any:
    for event in events:
        result = event
    return result


def converted(source: Path, target: str, name: str, **options: Any) -> Path:
    package: Package = last(convert(source, target, name, Options(oracle=False, accept_below_floor=True, **options)))
    model = package.file(".gguf")
    assert model is not None
    return model


def chat_model(name: str, reference: Path, texts: Sequence[str]) -> Model:
    """A chat model whose source is its own f16 file."""
    imatrix = reference.with_suffix(".imatrix")
    converted(reference, "gguf-q4_k_m", f"{name}-imatrix", compare=False, save_importance=imatrix)
    with Worker(reference, LoadOptions(vocabulary_only=True)) as worker:
        rows = [worker.tokenize(text, add_special=True) for text in texts]
    return Model(name, reference, reference, imatrix, ChatJudge(reference, judge.windows(rows, [])))


def off_the_grid(path: Path, out: Path) -> Path:
    """The Q4_1 model with noise of half a step on every weight, as f16."""
    blueprint = gguf_source.blueprint(path)

    def moved(tensor: Tensor, number: int) -> Tensor:
        if not tensor.is_matrix:
            return tensor

        def read(start: int, stop: int) -> Array:
            rows = tensor.source.read(start, stop)
            blocks = rows.reshape(-1, 32)
            step = (blocks.max(axis=1) - blocks.min(axis=1)) / 15
            noise = [np.random.default_rng((SEED, number, row)).random(rows.shape[1]) for row in range(start, stop)]
            shift = (np.concatenate(noise).reshape(-1, 32) - 0.5) * step[:, None]
            return (rows + shift.reshape(rows.shape)).astype(np.float32)

        return replace(tensor, source=Source(read, tensor.source.rows, "F32"))

    tensors = [moved(tensor, number) for number, tensor in enumerate(blueprint.tensors)]
    types = {t.name: "F16" if t.is_matrix else "F32" for t in tensors}
    settings = blueprint.settings | {"general.file_type": setting(1), "general.quantization_version": setting(2)}
    last(quantize.write(out, quantize.Draft(settings, tensors, types), {}, blueprint.sizes))
    return out


def embed_model(source: Path, folder: Path, texts: Sequence[str]) -> Model:
    """MiniLM: its checkpoint for us, our f32 file for llama.cpp, our numpy forward pass as the judge's reference."""
    checkpoint = open_checkpoint(source)
    imatrix = folder / "minilm.imatrix"
    reference = converted(checkpoint.folder, "gguf-f32", "minilm-f32", compare=False)
    converted(checkpoint.folder, "gguf-q4_k_m", "minilm-imatrix", compare=False, save_importance=imatrix)
    encoded = Tokenizer(checkpoint.tokenizer).encode(list(texts), checkpoint.max_tokens, Overflow.CUT)
    rows = [each.rows[0] for each in encoded]
    vectors = numpy_reference(checkpoint).embed(rows)
    return Model("MiniLM", checkpoint.folder, reference, imatrix, EmbedJudge(vectors, rows))


def measure(model: Model, target: str, folder: Path) -> Row:
    recipe = RECIPES[target]
    seen = importance.load(model.imatrix)
    theirs = llama_quantize.quantize(model.reference, folder, {"theirs": recipe.file_type}, seen)["theirs"]
    ours = converted(model.source, target, "ours", compare=False, calibrate=str(model.imatrix))
    losses = [value_of(model.judge.run(path, "judge"))["loss"] for path in (theirs, ours)]
    size = theirs.stat().st_size
    fitted, fitted_loss = 0, 0.0
    if target in FITTED:
        budget = Budget(bytes=size)
        path = converted(model.source, "gguf", "fitted", budget=budget, calibrate=str(model.imatrix))
        fitted, fitted_loss = path.stat().st_size, value_of(model.judge.run(path, "judge"))["loss"]
    return Row(model.name, target, size, losses[0], ours.stat().st_size, losses[1], fitted, fitted_loss)


def table(rows: Sequence[Row]) -> Table:
    shown = Table(
        "model", "recipe", "llama.cpp: bytes", "loss", "ours: bytes", "loss, share", "at most 1", title="GGUF"
    )
    for column in ("--fit: bytes", "loss, share", f"at most {FIT_TARGET}"):
        shown.add_column(column)
    for row in rows:
        cells = [row.model, row.recipe, f"{row.theirs:,}", f"{row.their_loss:.6f}", f"{row.ours:,}"]
        cells += [f"{row.our_loss / row.their_loss:.3f}", "yes" if row.plain_met else "NO"]
        if row.fitted:
            share = row.fitted_loss / row.their_loss
            cells += [f"{row.fitted:,}", f"{share:.3f}", "yes" if row.fit_met else "NO"]
        shown.add_row(*cells)
    return shown


def build(name: str, starter: Path, checkpoint: Path, folder: Path, texts: Sequence[str]) -> Model:
    if name == "MiniLM":
        return embed_model(checkpoint, folder, texts)
    if name == "SmolLM2":
        return chat_model(name, converted(starter, "gguf-f16", "smollm2-f16", compare=False), texts)
    return chat_model(name, off_the_grid(starter, folder / "moved.gguf"), texts)


def quality(names: Sequence[str], recipes: Sequence[str], texts: Sequence[str]) -> list[Row]:
    starter, checkpoint = models.find(CHAT).file(".gguf"), paths.checkpoints() / CHECKPOINT
    assert starter is not None
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["EDGEMM_HOME"] = str(folder / "store")
        for chosen in names:
            model = build(chosen, starter, checkpoint, folder, texts)
            for target in recipes:
                started = time.perf_counter()
                rows.append(measure(model, target, folder))
                print(f"{chosen}, {target}: {time.perf_counter() - started:.0f} s", file=sys.stderr)
        del os.environ["EDGEMM_HOME"]
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description="GGUF files against llama.cpp's own quantizer")
    parser.add_argument("--text", type=Path, help="judge on this text instead of the built-in one")
    parser.add_argument("--models", default="MiniLM,SmolLM2,off-grid")
    parser.add_argument("--recipes", default=",".join(PLAIN))
    parser.add_argument("--large", default=True, action=argparse.BooleanOptionalAction, help="the billion weights")
    arguments = parser.parse_args()
    bench.prepare()
    texts = list(HELD_OUT)
    if arguments.text:
        texts = [line for line in arguments.text.read_text("utf-8")[:TEXT].splitlines() if len(line) > 80]
    rows = quality([m for m in arguments.models.split(",") if m], arguments.recipes.split(","), texts)
    results = bench_large.measure() if arguments.large else []
    console = Console(width=max(Console().width, 150))
    if rows:
        console.print(table(rows))
    if results:
        console.print(bench.table(results, "a large checkpoint"))
    print(Device.detect().summary())
    sys.exit(not all([*(row.plain_met and row.fit_met for row in rows), *(result.met for result in results)]))


if __name__ == "__main__":
    main()
