"""The pipeline: read, build, verify, judge, write.

One page from a checkpoint folder, or a GGUF file, to a package in the store. Nothing of a package is visible before it
is complete and verified: everything happens in a staged folder that one rename puts in place. How a format is built
is the business of onnx_job.py, export_job.py and gguf_job.py.
"""

import hashlib
import time
from collections.abc import Iterator
from dataclasses import astuple, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from converters import export_job, gguf_job, onnx_job, report
from converters.architectures import has_graph
from converters.checkpoint import Checkpoint, open_checkpoint
from converters.cores import one_blas_thread
from converters.job import Options as Options
from converters.job import Outcome
from converters.recipe import BUDGET, RECIPES, Recipe
from edgemm import __version__, package, paths
from edgemm.errors import BelowFloor, UsageError
from edgemm.events import Note, Progress, Work
from edgemm.manifest import Manifest, ReportSummary
from edgemm.package import Package

Events = Iterator[Progress | Note | Package]


def convert(source: Path, target: str, name: str = "", options: Options | None = None) -> Events:
    """Convert the checkpoint in folder `source`, or the file `source`.gguf. The last event is the `Package`.

    Raises `UsageError` for an unknown target, `BadFile` and `Unsupported` for the checkpoint, `BelowFloor` when the
    result differs too much; then nothing is kept. A GGUF conversion that was interrupted goes on when it is repeated.
    """
    started, options = time.perf_counter(), options or Options()
    recipe = find_recipe(target, options)
    opened = _open(source, recipe)
    if isinstance(opened, Checkpoint):
        yield from map(Note, opened.notes)
    name = name or f"{_base_name(source)}-{recipe.target}"
    with package.staged(name, draft=_draft_key(source, recipe, options)) as folder:
        outcome = yield from _build(opened, recipe, name, folder, options)
        metrics = outcome.comparison.metrics | {"convert_seconds": round(time.perf_counter() - started, 2)}
        outcome = replace(outcome, comparison=replace(outcome.comparison, metrics=metrics))
        _judge(name, outcome, options)
        written = _write(folder, recipe, outcome)
    yield Progress("convert: done", 1, 1, "steps")
    yield Package(paths.store() / name, written)


def dry_run(source: Path, target: str, options: Options, folder: Path) -> dict[str, Any]:
    """What a GGUF conversion would write. `folder` is for trial files. Raises what `convert` raises for its source."""
    recipe = find_recipe(target, options)
    if recipe.format != "gguf":
        raise UsageError("--dry-run", f"is not known for {target}", "use it with a gguf target")
    return gguf_job.plan(gguf_job.prepare(_open(source, recipe), folder), recipe, options)


def find_recipe(target: str, options: Options) -> Recipe:
    """The recipe of `target`; "gguf" with a budget is a recipe of its own. Raises `UsageError`."""
    if target in ("gguf", BUDGET.target) and options.budget is not None:
        return BUDGET
    if target == "gguf":
        raise UsageError("--to gguf", "needs to know how large it may be", "add --fit, --bpw or --device")
    if target not in RECIPES:
        raise UsageError(f"--to {target[:40]}", "unknown target", f"known: gguf, {', '.join(RECIPES)}")
    if options.budget is not None:
        raise UsageError(f"--to {target}", "has a fixed size, a budget does not fit it", "use --to gguf")
    _check_options(RECIPES[target], options)
    return RECIPES[target]


def _check_options(recipe: Recipe, options: Options) -> None:
    """Options of one format, or of INT8 alone, are refused elsewhere: they would have no effect."""
    of_int8 = {"--plan": options.plan, "--min-quality": options.min_quality, "--max-size": options.max_size}
    wrong = [name for name, given in of_int8.items() if given and recipe.target != "onnx-int8"]
    if wrong:
        raise UsageError(wrong[0], f"is not known for {recipe.target}", "use it with --to onnx-int8")
    if options.task and recipe.format != "onnx":
        raise UsageError("--task", f"is not known for {recipe.target}", "use it with an onnx target")
    if options.save_importance is not None and recipe.format != "gguf":
        raise UsageError("--save-importance", f"is not known for {recipe.target}", "use it with a gguf target")


def _base_name(source: Path) -> str:
    """The name of the checkpoint, of the package that a GGUF file lies in, or of the file."""
    if source.is_dir():
        return source.resolve().name
    return source.parent.name if (source.parent / package.MANIFEST).is_file() else source.stem


def _open(source: Path, recipe: Recipe) -> Checkpoint | Path:
    if source.is_dir():
        return open_checkpoint(source)
    if recipe.format != "gguf":
        raise UsageError(source.name, f"a GGUF file cannot become {recipe.format}", "convert the original checkpoint")
    return source


def _build(opened: Checkpoint | Path, recipe: Recipe, name: str, folder: Path, options: Options) -> Work[Outcome]:
    if recipe.format == "gguf":
        return (yield from gguf_job.run(opened, recipe, name, folder, options))
    assert isinstance(opened, Checkpoint)
    run = onnx_job.run if has_graph(opened.model_type) else export_job.run
    with one_blas_thread():
        return (yield from run(opened, recipe, name, folder, options))


def _draft_key(source: Path, recipe: Recipe, options: Options) -> str:
    """Names an unfinished conversion, so that repeating it goes on with it; empty for formats that start anew."""
    if recipe.format != "gguf":
        return ""
    files = [source] if source.is_file() else sorted(p for p in source.rglob("*") if p.is_file())
    files += [path for path in (Path(options.calibrate),) if path.is_file()]
    facts = [(str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in files]
    versions = (__version__, version("llama-cpp-python"))
    text = repr((versions, str(source.resolve()), recipe.target, astuple(options), facts))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _write(folder: Path, recipe: Recipe, outcome: Outcome) -> Manifest:
    content = report.report(recipe, outcome.comparison, outcome.notes) | outcome.details
    summary = ReportSummary(outcome.comparison.passed, outcome.comparison.metrics)
    manifest = replace(outcome.manifest, report=summary)
    return package.write_manifest(folder, manifest, content, report.card(manifest, content))


def _judge(name: str, outcome: Outcome, options: Options) -> None:
    if outcome.comparison.failures and not options.accept_below_floor:
        fix = "choose a target with more bits, or keep it anyway with --accept-below-floor"
        raise BelowFloor(name, "; ".join(outcome.comparison.failures), fix)
