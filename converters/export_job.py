"""A checkpoint without a graph of ours to ONNX: export, INT8, comparison, package.

Encoders go the way of our own graphs; what they should answer is what the exported graph answers. Convolutional
networks get static INT8, with the ranges of their activations. Chat models are export_chat.py's business.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from converters import export_chat, export_optimum, items, onnx_static
from converters.checkpoint import Checkpoint
from converters.export_prepare import IMAGES, prepared, task_of
from converters.job import Options, Outcome
from converters.onnx_graph import Graph
from converters.onnx_job import Built, Job, Proof, likeness
from converters.onnx_linear import find_linears
from converters.onnx_parts import Part, answers
from converters.onnx_search import speed
from converters.onnx_static import MINMAX, StaticPlan
from converters.recipe import Recipe
from converters.verify import failures
from edgemm.backends.ort import OrtModel
from edgemm.drafts import WORK
from edgemm.errors import BadFile, Unsupported
from edgemm.events import Note, Progress, Work
from edgemm.manifest import ImageInputs

_STATIC = "weights int8 per output channel, activations uint8 with ranges from calibration pictures"
_UNCHECKED = "the vectors of pictures are those of the exported graph; they were not compared with transformers"


def run(checkpoint: Checkpoint, recipe: Recipe, name: str, folder: Path, options: Options) -> Work[Outcome]:
    """Build and compare in the staged `folder`. Raises what `export_optimum.export` raises, and `BelowFloor`."""
    task = task_of(checkpoint, options.task)
    yield Note(f"{checkpoint.model_type} has no graph of ours: optimum exports it, which takes a minute or more")
    yield Progress("convert: export", 0, 0, "steps")
    exported = export_optimum.export(checkpoint.folder, task, folder / WORK / "export")
    if task == "chat":
        return (yield from export_chat.run(checkpoint, exported, recipe, name, folder, options))
    if task == "image-embed":
        options = replace(options, oracle=False)
    job = Job(prepared(checkpoint, task, exported), recipe, options, folder)
    [part] = job.prepared.parts
    if recipe.weights == "int8" and task in IMAGES and onnx_static.is_convolutional(Graph.load(exported.path)):
        job = replace(job, recipe=replace(recipe, scheme=_STATIC, kept=("biases (int32)",)))
        built = yield from _Static(job, part).run()
    elif recipe.weights == "int8" and not find_linears(part.graph()):
        raise Unsupported(checkpoint.folder, "its graph has no layer that INT8 could store", "use --to onnx-fp32")
    else:
        built = yield from job.convert(part)
    yield Progress("convert: verify", 0, 0, "steps")
    outcome = job.outcome(name, [built])
    return replace(outcome, notes=[*outcome.notes, _UNCHECKED]) if task == "image-embed" else outcome


@dataclass
class _Static:
    """The fastest static INT8 of `part` that holds on calibration pictures and on those held out; else the best."""

    job: Job
    part: Part
    trials: list[dict[str, object]] = field(default_factory=list)

    def run(self) -> Work[Built]:
        job, part = self.job, self.part
        yield Progress(f"convert: calibrate {part.file}", 0, 0, "steps")
        exact = job.folder / WORK / part.file
        part.graph().save(exact, external=True)
        held_out = items.held_out(part, job.tokenizer, job.options.calibrate)
        proof = Proof(part, held_out, part.expected(held_out))
        feeds = part.feeds(items.calibration(part, job.tokenizer, job.options.calibrate))
        graph = Graph.load(exact)
        seen = onnx_static.observe(exact, graph, feeds, _pixel_limits(part.image))
        float32 = OrtModel(exact)
        expected = answers(float32, feeds)
        results: list[tuple[int, int, StaticPlan, dict[str, float], list[str]]] = []
        for plan in self._plans(graph):
            yield Progress(f"convert: INT8, {_what(plan)}", len(self.trials), 0, "builds")
            quantized = onnx_static.quantize(graph, plan, seen)
            quantized.save(job.folder / part.file)
            model = OrtModel(job.folder / part.file, int8=True)
            metrics = likeness(part)(answers(model, feeds), expected)
            facts = {"speed": round(speed(float32, model, feeds[:1]), 3), "bytes": quantized.bytes()}
            self.trials.append({"what": _what(plan), **facts, **metrics})
            held = proof.compare(job.folder / part.file, int8=True)
            missed = failures(held, job.floor) + job.too_large(part)
            results.append((len(missed) + len(failures(metrics, job.floor)), len(results), plan, held, missed))
            if not results[-1][0]:
                break
        _, place, plan, held, missed = min(results, key=lambda result: result[:2])
        if place != len(results) - 1:
            onnx_static.quantize(graph, plan, seen).save(job.folder / part.file)
        return Built(part, held, missed, proof, asdict(plan), self.trials)

    def _plans(self, graph: Graph) -> Iterator[StaticPlan]:
        """From the fastest to the slowest: the first layer has the largest pictures, the last one few products."""
        if self.job.options.plan is not None:
            yield _read_plan(self.job.options.plan, self.part.file)
            return
        names = onnx_static.layers(graph)
        yield from (StaticPlan(), StaticPlan(MINMAX), StaticPlan(exceptions=(names[-1],)))
        yield from (StaticPlan(exceptions=(names[0],)), StaticPlan(exceptions=(names[0], names[-1])))


def _pixel_limits(image: ImageInputs | None) -> tuple[float, float]:
    """What black and white become, in any colour."""
    assert image is not None, "only pictures have convolutions in two directions"
    colours = list(zip(image.mean or (0.0,), image.std or (1.0,), strict=True))
    lows, highs = ([(level * image.rescale - mean) / std for mean, std in colours] for level in (0, 255))
    return min(0.0, *lows), max(0.0, *highs)


def _what(plan: StaticPlan) -> str:
    kept = f", {len(plan.exceptions)} layers in float32" if plan.exceptions else ""
    return f"ranges by {plan.ranges}{kept}"


def _read_plan(path: Path, file: str) -> StaticPlan:
    try:
        content = json.loads(path.read_bytes())
        plan = (content.get("plan") or content)[file]
        return StaticPlan(str(plan["ranges"]), tuple(map(str, plan["exceptions"])))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        why = f"it holds no plan for {file} ({error})"
        raise BadFile(path, why, "give the report.json of an onnx-int8 package") from error
