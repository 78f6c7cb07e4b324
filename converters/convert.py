"""The pipeline: read, build, calibrate, quantize, verify, write.

One page from a checkpoint folder to a package in the store. Nothing of a package is visible before it is complete and
verified: everything happens in a staged folder that one rename puts in place.
"""

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from converters import oracle, report
from converters.architectures import Encoder, EncoderConfig, Weights, architecture, read_config
from converters.calibrate import CALIBRATION, HELD_OUT
from converters.checkpoint import Array, Checkpoint, open_checkpoint
from converters.recipe import RECIPES, Recipe
from converters.reference import Reference, channel_maxima
from converters.verify import Comparison, compare, similarity
from edgemm import __version__, models, package, paths
from edgemm.errors import BelowFloor, MissingExtra, UsageError
from edgemm.events import Note, Progress
from edgemm.package import Check, Inputs, MadeBy, Manifest, Package, Quantization, ReportSummary, Source
from edgemm.tokenizer import Overflow, Tokenizer

CHECK_TEXT = "edgemm checks that nothing was swapped: 1, 2, 3."
_CHECK_VALUES = 8
_STEPS = ("read", "calibrate", "build", "verify", "write")
_LEAST_TRUST = 0.9999  # cosine of our reference to transformers
Events = Iterator[Progress | Note | Package]


@dataclass(frozen=True, slots=True)
class Options:
    """`accept_below_floor`: keep a bad package. `oracle`: compare with transformers too, where it is installed."""

    accept_below_floor: bool = False
    oracle: bool = True


def convert(source: Path, target: str, name: str = "", options: Options | None = None) -> Events:
    """Convert the checkpoint in folder `source`. The last event is the `Package`.

    Raises `UsageError` for an unknown target, `BadFile` and `Unsupported` for the checkpoint, `BelowFloor` when the
    result differs too much; then nothing is kept.
    """
    started, options = time.perf_counter(), options or Options()
    recipe = _recipe(target)
    yield _step("read")
    job = Job.read(source, recipe)
    yield from map(Note, job.checkpoint.notes)
    name = name or f"{source.resolve().name}-{target}"
    with package.staged(name) as folder:
        yield _step("calibrate")
        reference = job.reference_vectors()
        if recipe.weights == "int8":
            _ = job.maxima
        yield _step("build")
        job.write_model(folder)
        draft = package.write_manifest(folder, job.manifest(name))
        yield _step("verify")
        comparison = compare(Package(folder, draft), job.held_out, reference, recipe.floor)
        metrics = comparison.metrics | job.size_metrics(folder)
        notes = list(job.checkpoint.notes)
        if options.oracle and oracle.available():
            metrics["transformers_cosine_min"] = job.trust(reference)
        else:
            notes.append("not compared with transformers: it is not installed, or was not asked for")
        metrics["convert_seconds"] = round(time.perf_counter() - started, 2)
        _judge(name, comparison, options)
        yield _step("write")
        content = report.report(recipe, comparison, metrics, notes)
        finished = job.finish(draft, folder, comparison, metrics)
        written = package.write_manifest(folder, finished, content, report.card(finished, content))
    yield _step("done")
    yield Package(paths.store() / name, written)


@dataclass(frozen=True)
class Job:
    """One checkpoint on its way to one target; what several steps need is computed once."""

    checkpoint: Checkpoint
    recipe: Recipe
    row: Encoder
    sizes: EncoderConfig
    weights: Weights
    tokenizer: Tokenizer

    @classmethod
    def read(cls, source: Path, recipe: Recipe) -> "Job":
        checkpoint = open_checkpoint(source)
        row = architecture(checkpoint.model_type, source)
        sizes = read_config(row, checkpoint.config, source / "config.json")
        weights = Weights(row, checkpoint)
        weights.check(sizes)
        return cls(checkpoint, recipe, row, sizes, weights, Tokenizer(checkpoint.tokenizer))

    @property
    def max_tokens(self) -> int:
        return min(self.checkpoint.max_tokens or self.sizes.positions, self.sizes.positions)

    @property
    def held_out(self) -> list[str]:
        return list(HELD_OUT)

    @cached_property
    def reference(self) -> Reference:
        return Reference(self.weights, self.sizes, self.checkpoint.pooling, self.checkpoint.normalize)

    @cached_property
    def maxima(self) -> dict[tuple[str, int], Array]:
        return channel_maxima(self.reference, self.rows(CALIBRATION))

    @property
    def document_prefix(self) -> str:
        return self.checkpoint.prompts.get("document", self.checkpoint.prompts.get("passage", ""))

    def rows(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of `texts` as documents, cut to the model's window."""
        prefixed = [self.document_prefix + text for text in texts]
        return [t.rows[0] for t in self.tokenizer.encode(prefixed, self.max_tokens, Overflow.CUT)]

    def reference_vectors(self) -> Array:
        return self.reference.embed(self.rows(self.held_out))

    def trust(self, reference: Array) -> float:
        """The least cosine of our reference to transformers. Raises `BelowFloor` when ours is wrong."""
        least = similarity(reference, oracle.vectors(self.checkpoint, self.rows(self.held_out)))["cosine_min"]
        if least < _LEAST_TRUST:
            why = f"transformers gives other vectors (cosine {least:.5f})"
            raise BelowFloor(self.checkpoint.folder, why, "report this checkpoint: edgemm reads it wrongly")
        return least

    def write_model(self, folder: Path) -> None:
        """The model file and the tokenizer."""
        package.write_text(folder / "tokenizer.json", self.checkpoint.tokenizer.read_text("utf-8"))
        try:
            if self.recipe.format == "gguf":
                self._write_gguf(folder / "model.gguf")
            else:
                self._write_onnx(folder / "model.onnx")
        except ImportError as error:
            raise MissingExtra("convert", f"{error.name} is not installed", "pip install 'edgemm[convert]'") from error

    def _write_gguf(self, path: Path) -> None:
        from converters.gguf_model import write_encoder

        write_encoder(path, self.checkpoint, self.row, self.sizes, self.weights, self.recipe.weights)

    def _write_onnx(self, path: Path) -> None:
        from converters.onnx_graph import EncoderGraph, save
        from converters.onnx_int8 import FLOORS, Int8Linear, int8_table

        graph = EncoderGraph(self.weights, self.sizes, self.checkpoint.pooling, self.checkpoint.normalize)
        if self.recipe.weights == "int8":
            graph = replace(graph, linear=Int8Linear(self.maxima, FLOORS[self.sizes.activation]), table=int8_table)
        save(graph.model(), path)

    def manifest(self, name: str) -> Manifest:
        """The manifest as far as it is known before the comparison."""
        return Manifest(
            name=name,
            task="embed",
            architecture=self.checkpoint.model_type,
            source=_source(self.checkpoint),
            quantization=Quantization(self.recipe.target, scheme=self.recipe.scheme, kept=self.recipe.kept),
            made_by=MadeBy(__version__, f"edgemm convert --to {self.recipe.target}"),
            inputs=Inputs(
                max_tokens=self.max_tokens,
                pooling=self.checkpoint.pooling,
                normalize=self.checkpoint.normalize,
                dimensions=self.sizes.hidden,
                query_prefix=self.checkpoint.prompts.get("query", ""),
                document_prefix=self.document_prefix,
            ),
        )

    def size_metrics(self, folder: Path) -> dict[str, float]:
        size = sum(path.stat().st_size for path in folder.glob("model.*"))
        return {
            "bits_per_weight": 8 * size / self.checkpoint.weights,
            "size_ratio": size / (4 * self.checkpoint.weights),
        }

    def finish(self, draft: Manifest, folder: Path, comparison: Comparison, metrics: dict[str, float]) -> Manifest:
        """The draft with the verdict and the check values of the finished model."""
        with models.open_embedder(folder) as embedder:
            values = embedder.embed([CHECK_TEXT])[0][:_CHECK_VALUES]
        tokens = self.tokenizer.ids([CHECK_TEXT])[0]
        return replace(
            draft,
            quantization=replace(draft.quantization, bits_per_weight=metrics["bits_per_weight"]),
            check=Check(CHECK_TEXT, tuple(tokens), tuple(float(v) for v in values)),
            report=ReportSummary(comparison.passed, metrics),
        )


def _recipe(target: str) -> Recipe:
    if target not in RECIPES:
        raise UsageError(f"--to {target[:40]}", "unknown target", f"known: {', '.join(RECIPES)}")
    return RECIPES[target]


def _step(stage: str) -> Progress:
    done = _STEPS.index(stage) if stage in _STEPS else len(_STEPS)
    return Progress(f"convert: {stage}", done, len(_STEPS), "steps")


def _judge(name: str, comparison: Comparison, options: Options) -> None:
    if comparison.failures and not options.accept_below_floor:
        fix = "choose a target with more bits, or keep it anyway with --accept-below-floor"
        raise BelowFloor(name, "; ".join(comparison.failures), fix)


def _source(checkpoint: Checkpoint) -> Source:
    """Where the checkpoint came from, as `pull` noted it beside the files; else the folder's name."""
    path = checkpoint.folder / "source.json"
    noted: dict[str, str] = {}
    if path.is_file():
        try:
            noted = {k: str(v) for k, v in json.loads(path.read_bytes()).items() if k in ("id", "revision", "licence")}
        except (ValueError, AttributeError):
            noted = {}
    return Source(**{"id": checkpoint.folder.resolve().name} | noted, sha256=checkpoint.hashes())
