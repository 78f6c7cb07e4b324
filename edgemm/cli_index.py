"""The commands about the user's documents: `index` and what belongs to it, and `search`. One command is one library
call. Nothing heavy is imported before a command runs.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from edgemm import terminal
from edgemm.cli_chat import Json
from edgemm.errors import BadFile, ResourceError, UsageError
from edgemm.events import Note

if TYPE_CHECKING:
    from edgemm.index import Root, RootStatus, Status
    from edgemm.library import Index

Folders = Annotated[list[Path] | None, typer.Argument(help="Folders of documents; none: those in the index.")]
Within = Annotated[list[Path] | None, typer.Option("--in", help="Only below this folder, or this file.")]
Types = Annotated[list[str] | None, typer.Option("--type", help="Only such documents: pdf, markdown, code, image, ...")]
Names = Annotated[list[str] | None, typer.Option("--name", help="Only files like this: '*.py', 'notes/*'.")]
Since = Annotated[str, typer.Option(help="Only what was written or taken since: 2024, 2024-05, 2024-05-31.")]
Until = Annotated[str, typer.Option(help="Only what was written or taken until, that day included.")]
Model = Annotated[str, typer.Option("--model", "-m", help="Embeds the texts; remembered by the index.")]
Limit = Annotated[int, typer.Option("--limit", "-n", min=1, max=1000, help="Passages at most.")]
Rerank = Annotated[str, typer.Option(help="A reranker, which puts the first 20 in order again.")]

_REASONS = 10  # for files that were not read, at most


class _Group(TyperGroup):
    """`index DIR` is short for `index add DIR`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or (args[0] not in self.commands and args[0] not in ("-h", "--help")):
            args = ["add", *args]
        return super().parse_args(ctx, args)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        super().format_options(ctx, formatter)
        records = (parameter.get_help_record(ctx) for parameter in self.commands["add"].params)
        with formatter.section("Options of `index DIR`"):
            formatter.write_dl([record for record in records if record and record[0].startswith("-")])


index = typer.Typer(
    cls=_Group,
    help="Index folders of documents: edgemm index DIR. Without DIR: bring every folder up to date.",
    rich_markup_mode=None,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@index.command()
def add(
    folders: Folders = None,
    model: Model = "",
    pictures: Annotated[str, typer.Option(help="Embeds the pictures; remembered by the index.")] = "",
    watch: Annotated[bool, typer.Option("--watch", help="Go on, and index what changes, until Ctrl-C.")] = False,
    polite: Annotated[
        bool | None, typer.Option("--polite/--no-polite", help="Lower priority, and wait on battery; with --watch.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Read what is new or has changed below folders, and embed it. What is there is found while this goes on."""
    from edgemm import models
    from edgemm.polite import politely
    from edgemm.watch import changes

    for name in filter(None, (model, pictures)):
        models.locate(name)  # a wrong name is told before the index knows the folder
    is_polite = watch if polite is None else polite
    with opened(model, pictures) as library:
        roots = [library.root(folder) for folder in folders or ()] or library.store.roots()
        if not roots:
            raise UsageError("index", "there is no folder in the index yet", "give one: edgemm index ~/Documents")
        news = changes([root.path for root in roots]) if watch else None  # from before the first scan on

        def update(some: "list[Root]") -> None:
            events = library.update(some)
            _show_report(terminal.finish(politely(events) if is_polite else events), as_json)

        update(roots)
        if news:
            _follow(news, roots, update)


def _follow(
    news: Iterator[Note | frozenset[Path]], roots: "list[Root]", update: "Callable[[list[Root]], None]"
) -> None:
    """Index what changes, until Ctrl-C. What stands in the way once may not the next time."""
    terminal.note("watching; Ctrl-C ends it")
    try:
        for event in news:
            if isinstance(event, Note):
                terminal.note(event.text)
                continue
            try:
                update([root for root in roots if root.path in event])
            except ResourceError as error:
                terminal.note(str(error))
    except KeyboardInterrupt:
        terminal.note("no longer watching; what was done is kept")


@index.command()
def status(as_json: Json = False) -> None:
    """What is in the index, and what could not be read."""
    with opened() as library:
        found = library.status()
    if as_json:
        terminal.print_json(asdict(found))
        return
    rows = [_row(root) for root in found.roots]
    terminal.print_table(("FOLDER", "FILES", "CHUNKS", "PENDING", "REFUSED", "SIZE"), rows, fold=["FOLDER"])
    for line in _remarks(found):
        terminal.note(line)


@index.command()
def remove(
    folders: Annotated[list[Path], typer.Argument(help="Folders that are forgotten; no file is touched.")],
) -> None:
    """Forget folders."""
    from edgemm.hits import in_line

    with opened() as library:
        for folder in folders:
            library.remove(folder)
            print(in_line(f"{folder}: forgotten"))


@index.command()
def verify(
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Set a damaged index aside and make it again.")] = False,
) -> None:
    """Read the whole index and say whether it is intact."""
    from edgemm.index import default_path
    from edgemm.index import rebuild as renew
    from edgemm.library import Index

    path = default_path()
    if not (problems := _problems()):
        print("the index is intact")
        return
    if not rebuild:
        raise BadFile(path, "; ".join(problems[:3]), "run `edgemm index verify --rebuild`")
    with Index(renew(path)) as library:
        terminal.note(f"the damaged index is kept as {path.name}.damaged; its folders are read again")
        _show_report(terminal.finish(library.update()), as_json=False)


@index.command()
def export(
    parquet: Annotated[Path, typer.Option("--parquet", help="A folder for the Parquet files.")],
    vectors: Annotated[str, typer.Option(help="float32, or int8 with a scale for each.")] = "float32",
) -> None:
    """Write every passage with its vector as Parquet, for other search engines."""
    from edgemm import parquet as door

    if vectors not in tuple(door.Numbers):
        raise UsageError(vectors, "is no kind of vector", f"choose {' or '.join(door.Numbers)}")
    with opened() as library:
        require_folders(library, "export")
        done: Any = terminal.finish(door.export(library.store, parquet, door.Numbers(vectors)))
    print(terminal.safe(f"{done.chunks:,} passages, {done.vectors:,} vectors, in {parquet}"))


def search(
    query: Annotated[list[str] | None, typer.Argument(help="What is looked for, in your own words.")] = None,
    folders: Within = None,
    types: Types = None,
    names: Names = None,
    since: Since = "",
    until: Until = "",
    picture: Annotated[Path | None, typer.Option(help="Pictures like this one, and like the query.")] = None,
    limit: Limit = 10,
    rerank: Rerank = "",
    explain: Annotated[bool, typer.Option("--explain", help="Show which ranking put each passage where.")] = False,
    as_json: Json = False,
) -> None:
    """Find passages of the indexed folders by their words and by their meaning."""
    from edgemm import hits

    text = " ".join(query or ())
    if not text.strip() and picture is None:
        raise UsageError("search", "there is no query", 'give one: edgemm search "how to cancel the contract"')
    with opened() as library:
        require_folders(library, "search")
        filters = narrowed(folders, types, names, since, until)
        found = library.search(text, picture=picture, limit=limit, rerank=rerank, **filters)
        for note in library.notes:
            terminal.note(note)
    hits.show(found, as_json=as_json, explain=explain)


def require_folders(library: "Index", what: str) -> None:
    if not library.store.roots():
        raise UsageError(what, "nothing is indexed yet", "run `edgemm index DIR` first")


def narrowed(
    folders: list[Path] | None, types: list[str] | None, names: list[str] | None, since: str, until: str
) -> dict[str, Any]:
    """What was typed to narrow a search, as `Index.search` takes it."""
    times = {"since": period(since)[0]} if since else {}
    times |= {"until": period(until)[1]} if until else {}
    return {"folders": folders or (), "names": names or (), "kinds": types or (), **times}


def period(text: str) -> tuple[float, float]:
    """The begin and the end, in seconds since 1970, of a year, a month or a day of the local calendar."""
    numbers = text.split("-")
    try:
        year, month, day = (int(number) for number in [*numbers, "1", "1"][:3])
        begin = datetime(year, month, day)
        following = (datetime(year + 1, 1, 1), datetime(year + month // 12, month % 12 + 1, 1), begin + timedelta(1))
        return begin.timestamp(), following[len(numbers) - 1].timestamp()
    except (ValueError, OverflowError, IndexError, OSError) as error:
        raise UsageError(text, "is no date", "write it like 2024, 2024-05 or 2024-05-31") from error


@contextmanager
def opened(model: str = "", pictures: str = "") -> "Iterator[Index]":
    from edgemm.library import Index

    with Index.open(model=model, pictures=pictures) as library:
        yield library


def _problems() -> list[str]:
    """What is wrong with the index. Raises what a new one would not mend."""
    from edgemm.index import REPAIR, Store

    try:
        with Store() as store:
            return store.verify()
    except BadFile as error:
        if error.fix != REPAIR:
            raise
        return [error.why]


def _show_report(report: Any, as_json: bool) -> None:
    if as_json:
        terminal.print_json(vars(report))  # `asdict` would count the pairs of a Counter
        return
    reasons = report.refused + report.skipped
    for why, count in reasons.most_common(_REASONS):
        terminal.note(f"{count:,} not read: {why}")
    if len(reasons) > _REASONS:
        terminal.note(f"and {len(reasons) - _REASONS:,} other reasons: see `edgemm index status`")
    new = report.changes()
    print(f"{_files(report.files)} in the index" + (f": {', '.join(new)}" if new else ", nothing has changed"))
    if report.embedded:
        speed = f"{report.tokens:,} tokens, " if report.tokens else ""
        print(f"{report.embedded:,} passages embedded ({speed}{report.seconds:.1f} s)")


def _files(count: int) -> str:
    return f"{count:,} file" + ("" if count == 1 else "s")


def _row(root: "RootStatus") -> tuple[str, ...]:
    from edgemm.hits import in_line

    counts = (root.files, root.chunks, root.pending, len(root.refused))
    return (in_line(str(root.root.path)), *(f"{count:,}" for count in counts), terminal.human_bytes(root.size))


def _remarks(found: "Status") -> Iterator[str]:
    from edgemm.ingest import is_folder

    for root in found.roots:
        if not is_folder(root.root.path):
            yield f"{root.root.path}: is not there now"
        for name, why in root.refused:
            yield f"{root.root.path / name}: {why}"
    for model in found.models:
        state = "" if model.model.state == "ready" else ", being built"
        yield f"{model.model.name} ({model.model.medium}): {model.vectors:,} vectors, {model.pending:,} pending{state}"
    yield f"the index has {terminal.human_bytes(found.size)}"
