"""The command line: one command is one library call; data goes to stdout, everything else to stderr.

Commands of other packages (`convert`) join through the entry-point group `edgemm.commands`. Nothing heavy is
imported before the command that needs it runs, so that `edgemm --help` stays instant.
"""

import io
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgemm import __version__, terminal
from edgemm.catalog import EMBED_MODEL
from edgemm.cli_ask import ask
from edgemm.cli_chat import Json, TaskModel, Threads, chat, prepare, run
from edgemm.cli_eval import app as evaluation
from edgemm.cli_index import index, search
from edgemm.errors import Cancelled, EdgemmError
from edgemm.events import Progress

if TYPE_CHECKING:
    from edgemm.package import Package

_INTERRUPTED = Cancelled("edgemm", "interrupted", "run the command again to go on")

app = typer.Typer(
    name="edgemm",
    help="Convert, verify and run small language and embedding models, offline.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


app.command()(run)
app.command()(chat)
app.add_typer(index, name="index")
app.add_typer(evaluation)
app.command()(search)
app.command()(ask)


@app.callback()
def _global(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show a traceback with an error.")] = False,
) -> None:
    if debug:
        os.environ["EDGEMM_DEBUG"] = "1"


@app.command()
def embed(
    files: Annotated[
        list[Path] | None, typer.Argument(help="Texts and pictures, one vector each; none: stdin lines.")
    ] = None,
    model: Annotated[str, typer.Option("--model", "-m", help="An embedding package or catalog name.")] = EMBED_MODEL,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="x.npy or x.jsonl; without it: JSONL on stdout.")
    ] = None,
    query: Annotated[bool, typer.Option("--query", help="Use the model's prefix for queries.")] = False,
    cut: Annotated[bool, typer.Option("--cut", help="Cut texts that are too long for the model.")] = False,
    dimensions: Annotated[int, typer.Option(min=0, help="Keep only the first N values; 0: all.")] = 0,
    threads: Threads = 0,
) -> None:
    """Embed text or picture files (by their suffix), or each line of stdin, as float32 vectors."""
    from edgemm import vectors
    from edgemm.batches import BatchOptions
    from edgemm.embed import Kind
    from edgemm.tokenizer import Overflow

    sink = vectors.open_sink(out)
    source = vectors.Files(files) if files else vectors.Lines(sys.stdin)
    prepare(model)
    options = BatchOptions(threads=threads, overflow=Overflow.CUT if cut else Overflow.SPLIT)
    with vectors.open_engine(model, options, dimensions) as engine, sink, terminal.ProgressBar() as bar:
        for batch in vectors.embed_all(engine, source, Kind.QUERY if query else Kind.DOCUMENT):
            sink.write(batch)
            bar.show(Progress("embed", sink.count, source.total, source.unit))
    plural = "" if sink.count == 1 else "s"
    terminal.note(f"{sink.count} vector{plural} of {engine.dimensions} dimensions" + (f" in {out}" if out else ""))


@app.command()
def predict(
    model: TaskModel,
    inputs: Annotated[list[str] | None, typer.Argument(help="Texts, @files or pictures; none: stdin lines.")] = None,
    labels: Annotated[str, typer.Option(help="a,b,c, or a file with a label on each line.")] = "",
    question: Annotated[str, typer.Option(help="What the text is asked.")] = "",
    top_k: Annotated[int | None, typer.Option(min=0, help="Only the K best; 0: all.")] = None,
    threads: Threads = 0,
    as_json: Json = False,
) -> None:
    """Do what the model is for: fill masks, label texts, words or pictures, answer from a text."""
    from edgemm import predict as door

    prepare(model)
    request = door.Request(tuple(inputs or ()), labels, question, top_k, threads)
    door.show(door.predictions(model, request), as_json=as_json)


@app.command()
def rerank(
    query: Annotated[str, typer.Argument(help="What is looked for.")],
    model: TaskModel,
    file: Annotated[Path | None, typer.Argument(help="One text a line; none: stdin.")] = None,
    top_k: Annotated[int, typer.Option(min=0, help="Only the K best; 0: all.")] = 0,
    threads: Threads = 0,
    as_json: Json = False,
) -> None:
    """Put lines in the order of their worth for a query."""
    from edgemm import predict as door

    prepare(model)
    door.show([door.rerank(model, query, file, top_k, threads)], as_json=as_json, with_source=False)


@app.command()
def pull(
    name: Annotated[str, typer.Argument(help="Catalog name, `starter`, owner/name on the hub, a folder or a file.")],
) -> None:
    """Download a model (the only command that uses the network), or copy a local one into the store."""
    from edgemm import fetch

    arrived: Iterator[Package | Path] = terminal.results(fetch.pull(name))
    for result in arrived:
        if isinstance(result, Path):
            print(terminal.safe(f"{result.name}: checkpoint in {result}, ready for `edgemm convert {result.name}`"))
        else:
            size = terminal.human_bytes(result.manifest.bytes)
            print(terminal.safe(f"{result.name}: {result.manifest.task} model, {size}, ready"))


@app.command("list")
def list_(
    everything: Annotated[bool, typer.Option("--all", help="Also the catalog's models that are not here.")] = False,
    as_json: Json = False,
) -> None:
    """The models in the store, and with --all those that can be pulled."""
    from edgemm import catalog, package, paths

    here = list(package.installed())
    waiting = sorted(p.name for p in paths.checkpoints().glob("*") if p.is_dir())
    rows = list(catalog.ROWS.values()) if everything else []
    if as_json:
        models = [
            {"name": p.name, "task": p.manifest.task, "bytes": p.manifest.bytes, "path": str(p.path)} for p in here
        ]
        terminal.print_json({"packages": models, "checkpoints": waiting, "catalog": [asdict(row) for row in rows]})
        return
    if not here and not waiting and not rows:
        terminal.note("the store is empty — run `edgemm pull starter`, or see `edgemm list --all`")
        return

    def size(count: int) -> str:
        return f"{count / 1e6:,.0f} MB"

    table = [(p.name, p.manifest.task, size(p.manifest.bytes), "", p.manifest.source.licence, "ready") for p in here]
    table += [(name, "", "", "", "", "checkpoint, see `edgemm convert`") for name in waiting]
    names = {row[0] for row in table}
    table += [
        (row.name, row.task, size(row.download_bytes), size(row.ram), row.licence, row.about)
        for row in rows
        if row.name not in names
    ]
    terminal.print_table(("NAME", "TASK", "SIZE", "RAM", "LICENCE", "STATE"), table, fold=["STATE"])


@app.command()
def show(name: Annotated[str, typer.Argument(help="A package.")], as_json: Json = False) -> None:
    """What a package is, where it came from and how it compares with its checkpoint."""
    found = _located(name)
    if as_json:
        terminal.print_json({"manifest": asdict(found.manifest), "report": found.report()})
        return
    card = found.path / "README.md"
    print(terminal.safe(card.read_text("utf-8")) if card.is_file() else _summary(found))


@app.command()
def verify(name: Annotated[str, typer.Argument(help="A package; nothing: every one.")] = "") -> None:
    """Read every byte of the packages again and compare it with the manifest."""
    from edgemm import package

    found = [_located(name)] if name else list(package.installed())
    for each in found:
        package.verify(each)
        print(f"{each.name}: {len(each.manifest.files)} files, {terminal.human_bytes(each.manifest.bytes)}, intact")


@app.command()
def rm(names: Annotated[list[str], typer.Argument(help="Packages or downloaded checkpoints to delete.")]) -> None:
    """Delete models from the store."""
    from edgemm import package

    for name in names:
        print(f"{name}: {terminal.human_bytes(package.remove(name))} freed")


@app.command()
def doctor(as_json: Json = False) -> None:
    """What this machine can do, and whether the installed libraries use it."""
    from edgemm.doctor import examine, rows

    found = examine()
    if as_json:
        terminal.print_json(asdict(found))
    else:
        terminal.print_table(("WHAT", "FOUND", "REMARK"), rows(found), fold=["FOUND", "REMARK"])


def main() -> None:
    """The command `edgemm`: runs it and exits with 0, 2 (usage), 3 (bad file), 4 (resource) or 130 (Ctrl-C)."""
    sys.exit(_main(sys.argv[1:]))


def _main(arguments: list[str]) -> int:
    os.environ.pop("EDGEMM_DEBUG", None)
    for stream in (sys.stdout, sys.stderr):  # a console that cannot show a letter shows another one
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        if arguments == ["--version"]:
            print(f"edgemm {__version__}")
            return 0
        _join_commands()
        code = app(arguments, prog_name="edgemm", standalone_mode=False)
        sys.stdout.flush()
        return _report(_INTERRUPTED) if code == _INTERRUPTED.exit_code else int(code or 0)
    except BrokenPipeError:  # `edgemm run ... | head -1`: the reader has all that it wanted
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return _report(_INTERRUPTED)
    except MemoryError:
        return _report(EdgemmError("edgemm", "out of memory", "close other programs or choose a smaller model"), 4)
    except Exception as error:
        return _report(_INTERRUPTED if _was_interrupted(error) else error)


def _was_interrupted(error: BaseException | None) -> bool:
    """Whether Ctrl-C is behind `error`: in the middle of a native import it arrives as an ImportError."""
    return error is not None and (isinstance(error, KeyboardInterrupt) or _was_interrupted(error.__context__))


def _report(error: Exception, code: int | None = None) -> int:
    """One line on stderr, and the exit code."""
    if os.environ.get("EDGEMM_DEBUG"):
        import traceback

        traceback.print_exception(error)
    if isinstance(error, EdgemmError):
        terminal.note(f"edgemm: {error}")
        return code or error.exit_code
    if hasattr(error, "format_message"):  # a usage error of the command-line library
        terminal.note(f"edgemm: {' '.join(error.format_message().split())} — see `edgemm --help`")
        return 2
    terminal.note(f"edgemm: {type(error).__name__}: {error} — this is a bug: run again with `edgemm --debug ...`")
    return 1


def _join_commands() -> None:
    known = {command.name for command in app.registered_commands}
    for entry in entry_points(group="edgemm.commands"):
        if entry.name not in known:
            app.command(entry.name)(entry.load())


def _located(name: str) -> "Package":
    from edgemm import models, package
    from edgemm.errors import UnknownModel

    folder = models.locate(name)
    if folder is None:
        raise UnknownModel(name, "is not in the store", f"run `edgemm pull {name}`")
    return package.read_package(folder)


def _summary(found: "Package") -> str:
    m = found.manifest
    facts = {
        "task": m.task,
        "architecture": m.architecture,
        "size": terminal.human_bytes(m.bytes),
        "quantization": f"{m.quantization.recipe} ({m.quantization.bits_per_weight:.2f} bits per weight)",
        "source": f"{m.source.id} {m.source.revision}".strip(),
        "licence": m.source.licence,
        "folder": str(found.path),
    }
    return terminal.safe("\n".join([m.name, *(f"  {key:<13} {value}" for key, value in facts.items())]))
