"""To GGUF: importance, types, writing, verification.

A high-precision build of the same model lies beside the result for as long as it takes to collect the importance
matrix and to compare; nothing is quantized from it. Without it (`--no-compare --calibrate none`) the weights go
straight from the checkpoint to their final type. Each step leaves a file that an interrupted run finds again.
"""

import json
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from converters import allocate, gguf_prepare, importance, judge, proof, sensitivity, tensors, trial
from converters.architectures import gguf_row
from converters.calibrate import CALIBRATION, HELD_OUT
from converters.checkpoint import Array, Checkpoint
from converters.gguf_file import Entry, Settings, setting, stored_bytes
from converters.gguf_model import Tensor
from converters.gguf_prepare import Job
from converters.job import BUILT_IN, CHECK_TEXT, CHECK_VALUES, NONE, Budget, Options, Outcome, made_by
from converters.judge import Metrics
from converters.labels import labels, scores, text_task
from converters.quantize import Draft, Importance, write
from converters.recipe import BUDGET, RECIPES, Recipe
from converters.reference import Embedder, numpy_reference
from converters.verify import Comparison, compare, failures
from edgemm import device, models, package
from edgemm.errors import BadFile, Unsupported, UsageError, disk_errors
from edgemm.events import Note, Progress, Work
from edgemm.manifest import ChatFormat, Check, Manifest, Quantization
from edgemm.package import Package
from edgemm.tokenizer import FILE, Tokenizer

MODEL = "model.gguf"
_IMPORTANCE, _TYPES = "importance.gguf", "types.json"
_SPARE_MEMORY = 512 << 20
_CALIBRATION_TOKENS = 1 << 17  # of a user's file; more brings nothing


def run(opened: Checkpoint | Path, recipe: Recipe, name: str, folder: Path, options: Options) -> Work[Outcome]:
    """Build and compare in the staged `folder`."""
    yield Progress("convert: read", 0, 1, "steps")
    job = prepare(opened, folder)
    yield from map(Note, job.notes)
    return (yield from _Run(job, recipe, name, folder, options).run())


def prepare(opened: Checkpoint | Path, folder: Path) -> Job:
    if isinstance(opened, Checkpoint):
        return gguf_prepare.from_checkpoint(opened, folder)
    return gguf_prepare.from_file(opened)


def plan(job: Job, recipe: Recipe, options: Options) -> dict[str, Any]:
    """What a conversion would write, without writing it: exact bytes and the number of tensors of each type."""
    if options.budget is not None:
        smallest = fixed_bytes(job) + sum(map(allocate.smallest, _matrices(job)))
        sizes = {"smallest": smallest, "budget": budget_bytes(job, options.budget)}
        return {"target": recipe.target, "weights": job.blueprint.weights, **sizes}
    types = allocate.by_recipe(recipe, job.blueprint, guided=_is_guided(recipe, options))
    size = _draft(job, recipe, types).bytes
    counts = gguf_prepare.summary(job.blueprint.tensors, types)
    bits = 8 * size / job.blueprint.weights
    return {"target": recipe.target, "bytes": size, "weights": job.blueprint.weights, "bits": bits, "types": counts}


def budget_bytes(job: Job, budget: Budget) -> int:
    """The most bytes that the file may have. With `ram`, what KV cache and buffers need is taken off."""
    limits = [budget.bytes] if budget.bytes else []
    if budget.bits:
        limits.append(int(budget.bits * job.blueprint.weights / 8))
    if budget.ram:
        context = min(budget.context or job.context, job.context)
        limits.append(budget.ram - proof.memory_beside_weights(job, context))
    return min(limits)


def fixed_bytes(job: Job) -> int:
    """Bytes of the file beside its matrices, with padding: no budget changes them."""
    types = _unbudgeted(job)
    matrices = sum(stored_bytes(Entry(t.name, t.shape, types[t.name])) for t in _matrices(job))
    return _draft(job, BUDGET, types).bytes - matrices


def _matrices(job: Job) -> list[Tensor]:
    """Those whose type a budget decides."""
    return [tensor for tensor in job.blueprint.tensors if tensor.is_matrix]


def _unbudgeted(job: Job) -> dict[str, str]:
    """The types of a file before a budget decides those of its matrices."""
    return {t.name: "F16" if t.is_position else "F32" for t in job.blueprint.tensors}


def _draft(job: Job, recipe: Recipe, types: dict[str, str]) -> Draft:
    written: Settings = {"general.quantization_version": setting(2)}
    if recipe.file_type >= 0:
        written["general.file_type"] = setting(recipe.file_type)
    return Draft(job.settings | written, job.blueprint.tensors, types)


def _is_guided(recipe: Recipe, options: Options) -> bool:
    """Whether an importance matrix changes anything, and is wanted."""
    return options.calibrate != NONE and not recipe.lossless and recipe.weights != "Q8_0"


@dataclass
class _Run:
    """One conversion on its way; what several steps need is kept here."""

    job: Job
    recipe: Recipe
    name: str
    folder: Path
    options: Options
    notes: list[str] = field(default_factory=list)
    reference_kind: str = ""  # the type of the matrices of the high-precision build

    def run(self) -> Work[Outcome]:
        self._check_options()
        if self.job.tokenizer is not None:
            package.write_file(self.folder / FILE, self.job.tokenizer.read_text("utf-8"))
        if self.job.template:
            package.write_file(self.folder / package.TEMPLATE, self.job.template)
        reference = yield from self._reference()
        importance_matrix = yield from self._importance(reference)
        if self.options.budget is not None:
            importance_matrix = self._evened(importance_matrix)
        types = yield from self._types(reference, importance_matrix)
        draft = _draft(self.job, self.recipe, types)
        model = yield from self._model(draft, importance_matrix)
        errors = yield from tensors.check(model, draft, self.job.blueprint.sizes, self.options.threads)
        metrics = yield from self._compare(model, reference)
        metrics |= _sizes(model, self.job) | _tensor_metrics(errors) | self._agreement()
        metrics |= yield from self._trust(model if self.recipe.lossless else reference)
        found = failures(metrics, self.recipe.floor, self.job.blueprint.weights)
        comparison = Comparison(metrics, tuple(found))
        counts = gguf_prepare.summary(self.job.blueprint.tensors, draft.types)
        details = {"types": counts, "calibrated": self._calibrated(), "tensors": dict(draft.types)}
        notes = [*self.job.notes, *self.notes]
        return Outcome(self._checked_manifest(metrics, counts), comparison, notes, details)

    def _check_options(self) -> None:
        """What a user may have got wrong, before minutes are spent. Raises `UsageError` or `BadFile`."""
        if self.options.budget is not None:
            fixed, smallest = fixed_bytes(self.job), sum(map(allocate.smallest, _matrices(self.job)))
            allocate.check_room(smallest, budget_bytes(self.job, self.options.budget) - fixed, self.name, fixed)
        if not _is_guided(self.recipe, self.options):
            if self.options.save_importance is not None:
                why = f"{self.recipe.target} with --calibrate {self.options.calibrate} needs no importance matrix"
                raise UsageError("--save-importance", why, "leave it out, or choose a target with fewer bits")
        elif self._collects:
            self._calibration_texts()
        else:
            self._checked(importance.load(Path(self.options.calibrate)))

    def _model(self, draft: Draft, matrix: Importance) -> Work[Path]:
        """Write the file. Unfinished, it lies where no package takes it for a part of its own."""
        path, unfinished = self.folder / MODEL, self._work / MODEL
        if not path.is_file():
            if not unfinished.is_file():
                yield from write(unfinished, draft, matrix, self.job.blueprint.sizes, self.options.threads)
            with disk_errors(path):
                unfinished.replace(path)
        return path

    def _reference(self) -> Work[Path | None]:
        """The path of the high-precision build; None where it is not needed or not possible."""
        chat = self.job.task == "chat"
        guided, budget = _is_guided(self.recipe, self.options), self.options.budget is not None
        wanted = self.options.compare or (guided and (budget or self._collects))  # what is measured is measured on it
        if not wanted or self.recipe.weights == "F32" or (chat and self.recipe.lossless):
            return None
        for kind in ("F16", "Q8_0") if chat else ("F32", "F16"):
            draft = self._reference_draft(kind)
            path = self._work / f"reference-{kind.lower()}.gguf"
            if path.is_file() or self._fits(draft.bytes):
                if not path.is_file():
                    yield from write(path, draft, {}, self.job.blueprint.sizes, self.options.threads, "reference")
                self.reference_kind = kind
                return path
        self.notes.append("not run beside a high-precision build: neither memory nor disk have room for one")
        return None

    def _reference_draft(self, kind: str) -> Draft:
        recipe = RECIPES[f"gguf-{kind.lower()}"]
        return _draft(self.job, recipe, allocate.by_recipe(recipe, self.job.blueprint, guided=False))

    def _fits(self, size: int) -> bool:
        """Whether a file of `size` bytes, and the result beside it, have room on disk and in memory."""
        disk = shutil.disk_usage(self.folder).free
        return 2 * size < disk and 2 * size + _SPARE_MEMORY < device.free_memory()

    @property
    def _work(self) -> Path:
        """Where files lie that are no part of the package."""
        path = self.folder / package.WORK
        with disk_errors(path):
            path.mkdir(exist_ok=True)
        return path

    @property
    def _collects(self) -> bool:
        return self.options.calibrate == BUILT_IN or not importance.is_importance(Path(self.options.calibrate))

    def _importance(self, reference: Path | None) -> Work[dict[str, Array]]:
        """float32 (columns,) by tensor; empty without calibration."""
        if not _is_guided(self.recipe, self.options):
            return {}
        if self._collects and reference is None:
            self.notes.append("not calibrated: that needs a high-precision build")
            return {}
        path = self._work / _IMPORTANCE if self._collects else Path(self.options.calibrate)
        if reference is not None and self._collects and not path.is_file():
            pairs = trial.pairs(self.job, self._calibration_texts(), reference)
            embedding = self.job.task != "chat"
            found = yield from importance.collect(reference, pairs, embedding=embedding, threads=self.options.threads)
            tokens = sum(len(answer or text) for text, answer in pairs)
            importance.save(path, found, self.options.calibrate, tokens)
        if self.options.save_importance is not None:
            importance.copy(path, self.options.save_importance)
        return self._checked(importance.load(path))

    def _evened(self, found: dict[str, Array]) -> dict[str, Array]:
        """With all inputs alike where nothing was seen: ggml rounds more carefully with weights than without."""
        return {t.name: np.ones(t.shape[-1], np.float32) for t in _matrices(self.job)} | found

    def _checked(self, found: dict[str, Array]) -> dict[str, Array]:
        """Raises `BadFile` when the matrix belongs to another model."""
        columns = {t.name: t.shape[-1] for t in self.job.blueprint.tensors}
        wrong = next((n for n, a in found.items() if n in columns and len(a) != columns[n]), None)
        if wrong is not None or not set(found) & set(columns):
            why = f"{wrong or 'no tensor'} fits this model"
            raise BadFile(
                self.options.calibrate, f"the importance matrix is another model's ({why})", "collect it again"
            )
        return found

    def _calibration_texts(self) -> list[str]:
        if self.options.calibrate == BUILT_IN:
            return list(CALIBRATION)
        path = Path(self.options.calibrate)
        with disk_errors(path), open(path, encoding="utf-8", errors="replace") as file:
            text = file.read(4 * _CALIBRATION_TOKENS)
        texts = [part for part in text.split("\n\n") if part.strip()]
        if not texts:
            raise UsageError("--calibrate", f"{path.name} holds no text", "give a text file, or leave it out")
        return texts

    def _types(self, reference: Path | None, matrix: Importance) -> Work[dict[str, str]]:
        """The type of each tensor, by the recipe or by the budget."""
        if self.options.budget is None:
            return allocate.by_recipe(self.recipe, self.job.blueprint, guided=bool(matrix))
        saved = self._work / _TYPES
        if not saved.is_file():
            types = yield from self._fit(reference, matrix)
            package.write_file(saved, json.dumps(types))
        saved_types: dict[str, str] = json.loads(saved.read_bytes())
        return saved_types

    def _fit(self, reference: Path | None, matrix: Importance) -> Work[dict[str, str]]:
        assert self.options.budget is not None
        blueprint, fixed = self.job.blueprint, fixed_bytes(self.job)
        choices = yield from allocate.measure(blueprint, matrix, self.options.threads)
        if reference is not None:
            loss = yield from trial.probe_judge(self.job, reference, CALIBRATION)
            draft = self._reference_draft(self.reference_kind)
            weights = yield from sensitivity.measure(reference, draft, choices, matrix, blueprint.sizes, loss)
            choices = allocate.weighted(choices, weights)
        room = budget_bytes(self.job, self.options.budget) - fixed
        return _unbudgeted(self.job) | allocate.fit(choices, room, self.name, fixed)

    def _compare(self, model: Path, reference: Path | None) -> Work[Metrics]:
        """Figures of the finished file, run as users run it."""
        yield Progress("compare: speed", 0, 1, "steps")
        metrics = proof.speed(model, self.job, self.options.threads)
        if not self.options.compare:
            self.notes.append("not run beside a high-precision build: --no-compare")
        elif self.job.task == "embed":
            metrics |= yield from self._compare_embeddings(reference)
        elif reference is not None:
            judged = yield from trial.full_judge(self.job, reference, HELD_OUT)
            metrics |= yield from judged.run(model, "compare", self.options.threads)
            metrics.pop("loss")
        return metrics

    def _compare_embeddings(self, reference: Path | None) -> Work[Metrics]:
        """Through the engine that users run. A second implementation is the reference where there is one."""
        yield Progress("compare", 0, 1, "steps")
        rows = self.job.rows(HELD_OUT, self.folder / MODEL)
        if (ours := self._numpy) is not None:
            vectors = ours.embed(rows)
        elif reference is not None:
            vectors = judge.embed(reference, rows, exact=True)
        else:
            return {}
        draft = package.write_manifest(self.folder, self._manifest({"bits_per_weight": 0.0}, {}))
        return compare(Package(self.folder, draft), list(HELD_OUT), vectors, self.recipe.floor).metrics

    @property
    def _numpy(self) -> Embedder | None:
        """The forward pass in numpy, for the families that have one."""
        checkpoint = self.job.checkpoint
        if checkpoint is None or self.job.task != "embed":
            return None
        try:
            return numpy_reference(checkpoint)
        except Unsupported:
            return None

    def _trust(self, model: Path | None) -> Work[Metrics]:
        """Is the high-precision build what transformers computes? Empty where transformers is not there."""
        yield Progress("compare: transformers", 0, 1, "steps")
        if not self.options.oracle or self.job.checkpoint is None:
            self.notes.append("not compared with transformers: it was not asked for, or there is no checkpoint")
            return {}
        if model is None:
            self.notes.append("not compared with transformers: that needs a high-precision build")
            return {}
        metrics, note = proof.transformers(model, self.job, trial.pairs(self.job, list(HELD_OUT), model))
        self.notes += [note] if note else []
        return metrics

    def _agreement(self) -> Metrics:
        found = self.job.agreement
        return {"tokenizer_agreement": found.share, "tokenizer_probes": float(found.probes)} if found else {}

    def _calibrated(self) -> str:
        return self.options.calibrate if _is_guided(self.recipe, self.options) else NONE

    def _manifest(self, metrics: Metrics, counts: dict[str, int]) -> Manifest:
        job = self.job
        scheme = self.recipe.scheme + " (" + ", ".join(f"{kind} x {count}" for kind, count in counts.items()) + ")"
        tokenizer = FILE if job.feeds_ids else "gguf"
        tokens = Tokenizer(self.folder / FILE).ids([CHECK_TEXT])[0] if job.tokenizer else []
        task, names, makes_shares = job.task, tuple[str, ...](), ""
        if job.checkpoint is not None and job.checkpoint.task == "classify":
            task, names = text_task(job.checkpoint), labels(job.checkpoint)
            is_done = gguf_row(job.checkpoint.model_type, job.checkpoint.folder).shares  # by llama.cpp's graph
            makes_shares = "" if is_done else scores(job.checkpoint)
        return Manifest(
            name=self.name,
            task=task,
            architecture=job.architecture,
            source=job.source,
            quantization=Quantization(self.recipe.target, metrics["bits_per_weight"], scheme, self.recipe.kept),
            made_by=made_by(self.recipe, self.options),
            inputs=job.inputs,
            chat=ChatFormat(job.context, tokenizer=tokenizer) if job.task == "chat" else None,
            labels=names,
            scores=makes_shares,
            check=Check(CHECK_TEXT, tuple(tokens)) if job.tokenizer else None,
        )

    def _checked_manifest(self, metrics: Metrics, counts: dict[str, int]) -> Manifest:
        """The manifest with what the finished model makes of a fixed text."""
        manifest = self._manifest(metrics, counts)
        if self.job.task != "embed":
            return manifest
        package.write_manifest(self.folder, manifest)
        with models.open_embedder(self.folder) as embedder:
            values = embedder.embed([CHECK_TEXT])[0][:CHECK_VALUES]
        assert manifest.check is not None
        return replace(manifest, check=replace(manifest.check, output=tuple(float(v) for v in values)))


def _sizes(model: Path, job: Job) -> Metrics:
    size, weights = model.stat().st_size, job.blueprint.weights
    return {"bits_per_weight": 8 * size / weights, "size_ratio": size / (4 * weights), "bytes": float(size)}


def _tensor_metrics(errors: dict[str, tensors.Error]) -> Metrics:
    exact = sum(error.exact for error in errors.values())
    return {"tensors_exact": exact / len(errors), "tensor_error_max": max(e.relative for e in errors.values())}
