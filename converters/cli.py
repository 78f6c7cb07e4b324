"""`edgemm convert` and `edgemm compare`: the commands of this package, joined by the entry point `edgemm.commands`."""

import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgemm import terminal
from edgemm.errors import Cancelled, UsageError

if TYPE_CHECKING:
    from converters.convert import Events
    from converters.job import Budget
    from edgemm.package import Package

_DIGITS = 20  # of a number that somebody means
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "KI": 2**10, "MI": 2**20, "GI": 2**30}


def command(
    source: Annotated[
        str, typer.Argument(help="A checkpoint folder, a .gguf file, a catalog name, or a pulled owner/name.")
    ] = "",
    to: Annotated[str, typer.Option("--to", help="onnx-int8, gguf-q4_k_m, ...; gguf with a budget.")] = "",
    fit: Annotated[str, typer.Option("--fit", help="With --to gguf: the largest file, such as 900MB.")] = "",
    bpw: Annotated[float, typer.Option("--bpw", min=0, help="With --to gguf: bits per weight, such as 4.5.")] = 0.0,
    machine: Annotated[
        str, typer.Option("--device", help="With --to gguf: what must hold it, such as ram=4GB,ctx=8192.")
    ] = "",
    calibrate: Annotated[
        str,
        typer.Option("--calibrate", help="Texts, an importance matrix (GGUF), a folder of pictures; builtin or none."),
    ] = "builtin",
    save_importance: Annotated[
        Path | None, typer.Option("--save-importance", help="Write the importance matrix to this file, as GGUF.")
    ] = None,
    task: Annotated[
        str, typer.Option("--task", help="ONNX: embed, fill-mask, classify, ...; default: the checkpoint's own.")
    ] = "",
    min_quality: Annotated[
        float, typer.Option("--min-quality", min=0, max=1, help="onnx-int8: the least mean cosine, such as 0.9997.")
    ] = 0.0,
    max_size: Annotated[str, typer.Option("--max-size", help="onnx-int8: the largest model, such as 30MB.")] = "",
    plan: Annotated[
        Path | None, typer.Option("--plan", help="onnx-int8: build as this report.json says, without a search.")
    ] = None,
    out: Annotated[str, typer.Option("--out", help="Name of the package; default: <source>-<target>.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the exact size and write nothing (GGUF).")] = False,
    compare: Annotated[
        bool, typer.Option(help="Run the result beside a high-precision build (GGUF; tensors are always compared).")
    ] = True,
    oracle: Annotated[
        bool, typer.Option(help="Compare with transformers too, where the extra `export` is installed.")
    ] = True,
    accept_below_floor: Annotated[
        bool, typer.Option("--accept-below-floor", help="Keep the package even if it differs too much.")
    ] = False,
    threads: Annotated[int, typer.Option("--threads", min=0, help="0: one for each core.")] = 0,
    show: Annotated[bool, typer.Option("--list", help="Print which checkpoints can become what, and stop.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Convert a checkpoint, or a GGUF file, into a package, and prove that it behaves like the original."""
    if show:
        _print_overview()
        return
    if not source:
        raise UsageError("edgemm convert", "no checkpoint is named", "see `edgemm convert --help`")
    from converters import report
    from converters.convert import convert
    from converters.job import Options

    budget = _budget(fit, bpw, machine)
    most = _size("--max-size", max_size) if max_size else 0
    options = Options(
        accept_below_floor, oracle, calibrate, compare, budget, threads, save_importance, task, plan, min_quality, most
    )
    folder = _source(source)
    to = to or ("gguf" if budget else "onnx-int8")
    if dry_run:
        _print_plan(folder, to, options, as_json)
        return
    package = _finish(convert(folder, to, out, options), resumes=to.startswith("gguf"))
    content = package.report()
    if as_json:
        terminal.print_json(content)
        return
    typer.echo(terminal.safe(report.card(package.manifest, content)))
    terminal.note(f"{package.name}: {terminal.human_bytes(package.manifest.bytes)} in {package.path}")


def compare(
    a: Annotated[str, typer.Argument(help="The model to compare with: a package or a .gguf file.")],
    b: Annotated[str, typer.Argument(help="The model that is compared.")],
    text: Annotated[Path | None, typer.Option("--text", help="Held-out text to compare on; default: built in.")] = None,
    prompt: Annotated[str, typer.Option("--prompt", help="Where both continue, greedily.")] = "Once upon a time",
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Two GGUF models of the same vocabulary side by side: divergence, first different token, size, speed, memory."""
    from converters.side_by_side import side_by_side, table

    found: dict[str, Any] = terminal.finish(side_by_side(_gguf(a), _gguf(b), text, prompt))
    if as_json:
        terminal.print_json(found)
    else:
        terminal.console().print(table(found))


def _print_overview() -> None:
    from converters import overview

    typer.echo(f"{overview.architectures()}\n\n{overview.targets()}")


def _finish(events: "Events", *, resumes: bool) -> "Package":
    try:
        return terminal.finish(events)
    except KeyboardInterrupt:
        if not resumes:
            raise
    raise Cancelled("convert", "interrupted; what is done is kept", "run the same command again to go on")


def _print_plan(source: Path, target: str, options: Any, as_json: bool) -> None:
    from converters.convert import dry_run

    with tempfile.TemporaryDirectory() as folder:
        plan = dry_run(source, target, options, Path(folder))
    if as_json:
        terminal.print_json(plan)
        return
    for name, value in plan.items():
        shown = ", ".join(f"{k} x {v}" for k, v in value.items()) if isinstance(value, dict) else value
        typer.echo(f"{name:10} {shown:,}" if isinstance(shown, int) else f"{name:10} {shown}")


def _source(name: str) -> Path:
    """The checkpoint folder or the GGUF file that `name` means."""
    from edgemm import fetch, models, package

    path = Path(name)
    if models.is_gguf(path) or (path.is_dir() and not (path / package.MANIFEST).is_file()):
        return path
    try:
        return fetch.checkpoint(name)
    except UsageError as error:
        folder = models.locate(name)
        file = next(folder.glob("*.gguf"), None) if folder is not None else None
        if file is None:
            raise error from None
        return file


def _gguf(name: str) -> Path:
    from edgemm import models

    if models.is_gguf(name):
        return Path(name)
    found = models.find(name)
    file = found.file(".gguf")
    if file is None or found.manifest.task != "chat":
        raise UsageError(name, "is not a chat model in a GGUF file", "compare embedding models by their report cards")
    return file


def _budget(fit: str, bits: float, machine: str) -> "Budget | None":
    from converters.job import Budget

    if not (fit or bits or machine):
        return None
    ram, context = _machine(machine)
    return Budget(_size("--fit", fit) if fit else 0, bits, ram, context)


def _machine(text: str) -> tuple[int, int]:
    """(RAM in bytes, context in tokens) of "ram=4GB,ctx=8192"; both 0 for an empty text."""
    found: dict[str, int] = {}
    for part in filter(None, text.split(",")):
        key, _, value = part.partition("=")
        if key not in ("ram", "ctx"):
            raise UsageError("--device", f"{part[:40]!r} is not known", "write ram=4GB,ctx=8192")
        found[key] = _size("--device", value)
    if text and "ram" not in found:
        raise UsageError("--device", "does not say how much memory there is", "write ram=4GB,ctx=8192")
    return found.get("ram", 0), found.get("ctx", 0)


def _size(option: str, text: str) -> int:
    """900MB, 1.5G or 2GiB as a number."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([KMG]I?)?B?\s*", text.upper(), re.ASCII)
    size = int(float(match[1]) * _UNITS[match[2] or ""]) if match and len(match[1]) < _DIGITS else 0
    if size <= 0:
        raise UsageError(option, f"{text[:40]!r} is no size", "write it like 900MB or 1.5GB")
    return size
