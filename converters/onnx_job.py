"""An encoder checkpoint to ONNX: graphs, calibration, the search for the fastest INT8, comparison, package.

What an answer should be comes from a numpy forward pass that shares no code with the graph (reference.py).
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from converters import items, oracle
from converters.checkpoint import Array, Checkpoint
from converters.job import CHECK_TEXT, CHECK_VALUES, NONE, Options, Outcome, made_by, source_of
from converters.onnx_parts import Item, Part, Text, answers
from converters.onnx_prepare import Prepared, prepare
from converters.recipe import Floor, Recipe
from converters.verify import Comparison, compare, failures, label_likeness, least_cosine, similarity
from edgemm import package
from edgemm.backends.ort import OrtModel
from edgemm.drafts import WORK
from edgemm.errors import BadFile, BelowFloor, MissingExtra
from edgemm.events import Progress, Work
from edgemm.manifest import Check, Manifest, Quantization
from edgemm.package import Package
from edgemm.tokenizer import Tokenizer

if TYPE_CHECKING:
    from converters.onnx_int8 import Plan
    from converters.onnx_search import Search

_STEPS = ("read", "build", "reference", "calibrate", "verify")
_LEAST_TRUST = 0.9999  # likeness of our reference to transformers
_FURTHER = 2.5  # how much further than the mean the least cosine may fall, under --min-quality
_BUILDS = 3  # that hold on calibration inputs, and are verified on others until one holds there


def run(checkpoint: Checkpoint, recipe: Recipe, name: str, folder: Path, options: Options) -> Work[Outcome]:
    """Build and compare in the staged `folder`."""
    yield step("read")
    job = Job(prepare(checkpoint, options.task), recipe, options, folder)
    try:
        parts = []
        for part in job.prepared.parts:
            parts.append((yield from job.convert(part)))
    except ImportError as error:
        raise MissingExtra("convert", f"{error.name} is not installed", "pip install 'edgemm[convert]'") from error
    yield step("verify")
    return job.outcome(name, parts)


def step(stage: str, file: str = "") -> Progress:
    return Progress(f"convert: {stage} {file}".rstrip(), _STEPS.index(stage), len(_STEPS), "steps")


@dataclass(frozen=True)
class Built:
    """A finished file: figures of its comparison, what lies below the floor, and the search that led to it."""

    part: Part
    metrics: dict[str, float]
    missed: list[str]
    proof: "Proof"
    plan: dict[str, Any] = field(default_factory=dict)
    trials: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Job:
    """One checkpoint on its way to one target, in the staged `folder`."""

    prepared: Prepared
    recipe: Recipe
    options: Options
    folder: Path

    @cached_property
    def tokenizer(self) -> Tokenizer | None:
        texts = any(part.image is None for part in self.prepared.parts)
        return Tokenizer(self.prepared.checkpoint.tokenizer) if texts else None

    @cached_property
    def floor(self) -> Floor:
        """The recipe's, or what the user asked for."""
        mean = self.options.min_quality
        if not mean or self.recipe.weights != "int8":
            return self.recipe.floor
        return replace(self.recipe.floor, cosine_mean=mean, cosine_min=1 - _FURTHER * (1 - mean))

    # From graph to file

    def convert(self, part: Part) -> Work[Built]:
        """The file of `part`, compared with the checkpoint."""
        yield step("build", part.file)
        work = self.folder / WORK
        work.mkdir(exist_ok=True)
        exact = work / part.file
        part.graph().save(exact, external=True)
        yield step("reference", part.file)
        held_out = items.held_out(part, self.tokenizer, self.options.calibrate, self._prefix)
        proof = Proof(part, held_out, part.expected(held_out))
        if self.recipe.weights == "int8":
            return (yield from self._int8(part, exact, proof))
        self._store(exact, part)
        metrics = proof.compare(self.folder / part.file, int8=False)
        return Built(part, metrics, failures(metrics, self.floor), proof)

    def _store(self, exact: Path, part: Part) -> None:
        from converters.onnx_graph import Graph
        from converters.onnx_half import to_half

        graph = Graph.load(exact)
        (to_half(graph) if self.recipe.weights == "fp16" else graph).save(self.folder / part.file)

    def _int8(self, part: Part, exact: Path, proof: "Proof") -> Work[Built]:
        """The fastest build that holds on calibration inputs and on those held out; else the best there is."""
        from converters.onnx_search import Search, Trial, plan_json

        yield step("calibrate", part.file)
        feeds = part.feeds(items.calibration(part, self.tokenizer, self.options.calibrate, self._prefix))
        search = Search(exact, feeds, likeness(part), self.floor, self._most(part))
        if self.options.calibrate != NONE:
            search.observe()
        plans = self._given_plan(part) or search.run()
        results: list[tuple[Built, Plan]] = []
        for plan in plans:
            if isinstance(plan, Progress):
                yield plan
                continue
            plan = plan.plan if isinstance(plan, Trial) else plan
            built = self._verified(part, search, plan, proof)
            results.append((built, plan))
            if not built.missed or len(results) == _BUILDS:
                break
        built, plan = min(results, key=lambda result: len(result[0].missed))
        if plan is not results[-1][1]:
            built = self._verified(part, search, plan, proof)
        return replace(built, plan=plan_json(plan), trials=[trial.row() for trial in search.trials])

    def _verified(self, part: Part, search: "Search", plan: "Plan", proof: "Proof") -> Built:
        from converters.onnx_int8 import quantize

        quantize(search.graph, plan, search.seen).save(self.folder / part.file)
        metrics = proof.compare(self.folder / part.file, int8=True)
        return Built(part, metrics, failures(metrics, self.floor) + self.too_large(part), proof)

    def _most(self, part: Part) -> int:
        """Bytes that --max-size leaves for `part`, behind the files that are written already; 0: any number."""
        others = (self.folder / other.file for other in self.prepared.parts if other is not part)
        written = sum(path.stat().st_size for path in others if path.is_file())
        return max(1, self.options.max_size - written) if self.options.max_size else 0

    def too_large(self, part: Part) -> list[str]:
        size, most = (self.folder / part.file).stat().st_size, self._most(part)
        return [f"{part.file} has {size} bytes, the most is {most}"] if most and size > most else []

    def _given_plan(self, part: Part) -> list[Any]:
        """The plan of --plan FILE for `part`: a report.json, or what it holds under "plan"."""
        from converters.onnx_search import read_plan

        path = self.options.plan
        if path is None:
            return []
        try:
            content = json.loads(path.read_bytes())
            return [read_plan((content.get("plan") or content)[part.file])]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            why = f"it holds no plan for {part.file} ({error})"
            raise BadFile(path, why, "give the report.json of an onnx-int8 package") from error

    @property
    def _prefix(self) -> str:
        return self.prepared.inputs.document_prefix

    # The package

    def outcome(self, name: str, parts: Sequence[Built]) -> Outcome:
        """The manifest, and the worst figures of all parts."""
        checkpoint = self.prepared.checkpoint
        if self.tokenizer is not None:
            package.write_file(self.folder / "tokenizer.json", checkpoint.tokenizer.read_text("utf-8"))
        notes = [*checkpoint.notes, *self.prepared.notes]
        metrics = _worst([part.metrics for part in parts]) | self._sizes()
        missed = [f"{part.part.file}: {each}" if len(parts) > 1 else each for part in parts for each in part.missed]
        manifest = package.write_manifest(self.folder, self._manifest(name, metrics))
        if self.prepared.task == "embed":
            comparison = self._through_the_engine(manifest, parts[0])
            metrics, missed = metrics | comparison.metrics, sorted({*missed, *comparison.failures})
        if self.options.oracle and oracle.available():
            kind = "cosine" if all(part.part.head is None for part in parts) else "correlation"
            metrics[f"transformers_{kind}_min"] = self._trust(parts)
        else:
            notes.append("not compared with transformers: it is not installed, or was not asked for")
        details = {
            "plan": {part.part.file: part.plan for part in parts if part.plan},
            "trials": {part.part.file: part.trials for part in parts if part.trials},
            "floor": asdict(self.floor),
            "compared": " and ".join(_counted(part.proof.chosen) for part in parts),
        }
        return Outcome(manifest, Comparison(metrics, tuple(missed)), notes, details)

    def _through_the_engine(self, manifest: Manifest, built: Built) -> Comparison:
        """Embeddings are measured once more as users get them."""
        texts = [item.text for item in built.proof.chosen if isinstance(item, Text)]
        return compare(Package(self.folder, manifest), texts, built.proof.expected, self.floor)

    def _manifest(self, name: str, metrics: dict[str, float]) -> Manifest:
        prepared = self.prepared
        return Manifest(
            name=name,
            task=prepared.task,
            architecture=prepared.checkpoint.model_type,
            source=source_of(prepared.checkpoint),
            quantization=Quantization(
                self.recipe.target, metrics["bits_per_weight"], self.recipe.scheme, self.recipe.kept
            ),
            made_by=made_by(self.recipe, self.options),
            inputs=prepared.inputs,
            labels=prepared.labels,
            scores=prepared.scores,
            zero_shot=prepared.zero_shot,
            check=self._check(),
        )

    def _check(self) -> Check:
        """The answer of the finished model to a fixed input."""
        part = self.prepared.parts[0]
        chosen = items.check(part, self.tokenizer, CHECK_TEXT)
        model = OrtModel(self.folder / part.file, int8=self.recipe.weights == "int8")
        values = answers(model, part.feeds(chosen))[0][:CHECK_VALUES]
        if self.tokenizer is None:
            return Check("", (), tuple(float(v) for v in values))
        tokens = self.tokenizer.ids([CHECK_TEXT])[0]
        return Check(CHECK_TEXT, tuple(tokens), tuple(float(v) for v in values))

    def _sizes(self) -> dict[str, float]:
        size = sum(path.stat().st_size for path in self.folder.glob("*.onnx*"))
        weights = self.prepared.checkpoint.weights
        return {"bits_per_weight": 8 * size / weights, "size_ratio": size / (4 * weights)}

    def _trust(self, parts: Sequence[Built]) -> float:
        """The least likeness of our references to transformers. Raises `BelowFloor` when ours are wrong."""
        least = min(_likeness_to_transformers(built) for built in parts)
        if least < _LEAST_TRUST:
            why = f"transformers gives other answers (likeness {least:.5f})"
            raise BelowFloor(self.prepared.checkpoint.folder, why, "report this checkpoint: edgemm reads it wrongly")
        return least


def _likeness_to_transformers(built: Built) -> float:
    found = likeness(built.part)(built.proof.expected, oracle.answers(built.part, built.proof.chosen))
    return float(found.get("cosine_min", found.get("label_correlation", 0.0)))


@dataclass(frozen=True)
class Proof:
    """What a part should answer to items that it was not calibrated on."""

    part: Part
    chosen: Sequence[Item]
    expected: Array

    def compare(self, path: Path, *, int8: bool) -> dict[str, float]:
        """Likeness to the checkpoint, independence of batch mates, and speed."""
        started = time.perf_counter()
        model = OrtModel(path, int8=int8)
        loaded = time.perf_counter() - started
        feeds = self.part.feeds(self.chosen)
        found = answers(model, feeds)
        alone = np.concatenate([answers(model, self.part.feeds([item])) for item in self.chosen])
        metrics = likeness(self.part)(found, self.expected)
        metrics["batch_invariance"] = least_cosine(found, alone)
        started = time.perf_counter()
        answers(model, feeds)
        seconds = time.perf_counter() - started
        count, unit = _amount(self.chosen)
        return metrics | {"load_seconds": round(loaded, 3), f"{unit}_per_second": round(count / seconds, 1)}


def _counted(chosen: Sequence[Item]) -> str:
    return f"{len(chosen)} {'texts' if isinstance(chosen[0], Text) else 'pictures'}"


def _amount(chosen: Sequence[Item]) -> tuple[int, str]:
    texts = [item for item in chosen if isinstance(item, Text)]
    return (sum(len(text.ids) for text in texts), "tokens") if texts else (len(chosen), "images")


def likeness(part: Part) -> Callable[[Array, Array], dict[str, float]]:
    """How answers of `part` are compared."""
    return similarity if part.head is None else label_likeness


def _worst(metrics: Sequence[dict[str, float]]) -> dict[str, float]:
    found = dict(metrics[0])
    for other in metrics[1:]:
        for name, value in other.items():
            found[name] = min(found.get(name, value), value)
    return found
