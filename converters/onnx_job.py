"""An encoder checkpoint to ONNX: reference, calibration, graph, comparison."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from converters import oracle
from converters.architectures import Encoder, EncoderConfig, Weights, architecture, read_config
from converters.calibrate import CALIBRATION, HELD_OUT
from converters.checkpoint import Array, Checkpoint
from converters.job import CHECK_TEXT, CHECK_VALUES, Options, Outcome, made_by, source_of
from converters.recipe import Recipe
from converters.reference import Reference, channel_maxima
from converters.verify import compare, similarity
from edgemm import models, package
from edgemm.errors import BelowFloor, MissingExtra, Unsupported
from edgemm.events import Progress, Work
from edgemm.manifest import Check, Inputs, Manifest, Quantization
from edgemm.package import Package
from edgemm.tokenizer import Overflow, Tokenizer

_STEPS = ("read", "calibrate", "build", "verify", "write")
_LEAST_TRUST = 0.9999  # cosine of our reference to transformers


def run(checkpoint: Checkpoint, recipe: Recipe, name: str, folder: Path, options: Options) -> Work[Outcome]:
    """Build and compare in the staged `folder`."""
    yield _step("read")
    job = Job.read(checkpoint, recipe)
    yield _step("calibrate")
    reference = job.reference_vectors()
    if recipe.weights == "int8":
        _ = job.maxima
    yield _step("build")
    job.write_model(folder)
    draft = package.write_manifest(folder, job.manifest(name))
    yield _step("verify")
    comparison = compare(Package(folder, draft), job.held_out, reference, recipe.floor)
    metrics, notes = comparison.metrics | job.size_metrics(folder), list(checkpoint.notes)
    if not checkpoint.modules:
        notes.append("no modules.json: mean pooling and normalized vectors are assumed")
    if options.oracle and oracle.available():
        metrics["transformers_cosine_min"] = job.trust(reference)
    else:
        notes.append("not compared with transformers: it is not installed, or was not asked for")
    yield _step("write")
    comparison = replace(comparison, metrics=metrics)
    return Outcome(job.finish(draft, folder, metrics), comparison, notes)


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
    def read(cls, checkpoint: Checkpoint, recipe: Recipe) -> "Job":
        source = checkpoint.folder
        row = architecture(checkpoint.model_type, source)
        if checkpoint.pooling == "last" or "Dense" in checkpoint.modules:
            raise Unsupported(
                source, "last-token pooling and projections have no ONNX builder yet", "use --to gguf-f16"
            )
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
        package.write_file(folder / "tokenizer.json", self.checkpoint.tokenizer.read_text("utf-8"))
        try:
            self._write_onnx(folder / "model.onnx")
        except ImportError as error:
            raise MissingExtra("convert", f"{error.name} is not installed", "pip install 'edgemm[convert]'") from error

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
            source=source_of(self.checkpoint),
            quantization=Quantization(self.recipe.target, scheme=self.recipe.scheme, kept=self.recipe.kept),
            made_by=made_by(self.recipe, Options()),
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

    def finish(self, draft: Manifest, folder: Path, metrics: dict[str, float]) -> Manifest:
        """The draft with the check values of the finished model."""
        with models.open_embedder(folder) as embedder:
            values = embedder.embed([CHECK_TEXT])[0][:CHECK_VALUES]
        tokens = self.tokenizer.ids([CHECK_TEXT])[0]
        return replace(
            draft,
            quantization=replace(draft.quantization, bits_per_weight=metrics["bits_per_weight"]),
            check=Check(CHECK_TEXT, tuple(tokens), tuple(float(v) for v in values)),
        )


def _step(stage: str) -> Progress:
    return Progress(f"convert: {stage}", _STEPS.index(stage), len(_STEPS), "steps")
