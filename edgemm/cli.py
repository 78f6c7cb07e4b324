"""The command line: one command is one library call; data goes to stdout, everything else to stderr.

Commands of other packages (`convert`) join through the entry-point group `edgemm.commands`. Nothing heavy is
imported before the command that needs it runs, so that `edgemm --help` stays instant.
"""

import contextlib
import json
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from importlib.metadata import entry_points
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgemm import __version__, terminal
from edgemm.backends import Sampling
from edgemm.errors import Cancelled, EdgemmError, UsageError
from edgemm.events import Done, Progress, Token

if TYPE_CHECKING:
    from edgemm.chat import Chat
    from edgemm.package import Package

CHAT_MODEL, EMBED_MODEL = "smollm2-135m-instruct", "all-minilm-l6-v2"
_DEFAULT = Sampling()

app = typer.Typer(
    name="edgemm",
    help="Convert, verify and run small language and embedding models, offline.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

ChatModel = Annotated[str, typer.Option("--model", "-m", help="A chat package, catalog name or .gguf file.")]
System = Annotated[str, typer.Option(help="System prompt.")]
MaxTokens = Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")]
Temperature = Annotated[float, typer.Option(min=0, max=5, help="0 always takes the likeliest token.")]
TopK = Annotated[int, typer.Option(min=0, help="Sample from the K likeliest tokens; 0: all.")]
TopP = Annotated[float, typer.Option(min=0, max=1, help="Sample from the likeliest tokens that sum up to P.")]
MinP = Annotated[float, typer.Option(min=0, max=1, help="Drop tokens below P times the likeliest one.")]
Penalty = Annotated[float, typer.Option("--repetition-penalty", min=0.1, max=5, help="Above 1: repeat less.")]
Seed = Annotated[int | None, typer.Option(help="Same seed, same answer.")]
Context = Annotated[int, typer.Option("--ctx", min=0, help="Context in tokens; 0: the model's own, at most 4096.")]
Threads = Annotated[int, typer.Option(min=0, max=1024, help="0: one for each core.")]
Json = Annotated[bool, typer.Option("--json", help="Machine-readable output on stdout.")]


@app.callback()
def _global(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show a traceback with an error.")] = False,
) -> None:
    if debug:
        os.environ["EDGEMM_DEBUG"] = "1"


@app.command()
def run(
    prompt: Annotated[list[str] | None, typer.Argument(help="The question. Piped text is put below it.")] = None,
    model: ChatModel = CHAT_MODEL,
    system: System = "",
    max_tokens: MaxTokens = _DEFAULT.max_tokens,
    temperature: Temperature = _DEFAULT.temperature,
    top_k: TopK = _DEFAULT.top_k,
    top_p: TopP = _DEFAULT.top_p,
    min_p: MinP = _DEFAULT.min_p,
    repetition_penalty: Penalty = _DEFAULT.repetition_penalty,
    seed: Seed = None,
    ctx: Context = 0,
    threads: Threads = 0,
    as_json: Json = False,
) -> None:
    """Answer one prompt: edgemm run "Why is the sky blue?", or: cat notes.txt | edgemm run "Summarise"."""
    text = "\n\n".join(part for part in (" ".join(prompt or ()), _piped()) if part)
    if not text.strip():
        raise UsageError("run", "there is no prompt", 'give one: edgemm run "your question"')
    sampling = Sampling(max_tokens, temperature, top_k, top_p, min_p, repetition_penalty, seed)
    with _open_chat(model, system, sampling, ctx, threads) as chat:
        done = _answer(chat, text, as_json)
    if done is not None and done.reason == "cancelled":
        raise Cancelled("run", "stopped", "what was answered so far is above")


@app.command()
def chat(
    model: ChatModel = CHAT_MODEL,
    system: System = "",
    plain: Annotated[bool, typer.Option("--plain", help="Line mode: no boxes, no redraw; for any terminal.")] = True,
    max_tokens: MaxTokens = _DEFAULT.max_tokens,
    temperature: Temperature = _DEFAULT.temperature,
    top_k: TopK = _DEFAULT.top_k,
    top_p: TopP = _DEFAULT.top_p,
    min_p: MinP = _DEFAULT.min_p,
    repetition_penalty: Penalty = _DEFAULT.repetition_penalty,
    seed: Seed = None,
    ctx: Context = 0,
    threads: Threads = 0,
) -> None:
    """Chat line by line. /help lists the commands; Ctrl-C stops an answer, Ctrl-D leaves."""
    sampling = Sampling(max_tokens, temperature, top_k, top_p, min_p, repetition_penalty, seed)
    with _open_chat(model, system, sampling, ctx, threads) as conversation:
        terminal.note(f"{model}: type a message, /help for commands, Ctrl-D to leave")
        for line in _lines():
            if line.startswith("/"):
                if not _command(conversation, line):
                    return
            elif line.strip():
                _turn(conversation, line)


@app.command()
def embed(
    files: Annotated[list[Path] | None, typer.Argument(help="Text files, one vector each; none: stdin lines.")] = None,
    model: Annotated[str, typer.Option("--model", "-m", help="An embedding package or catalog name.")] = EMBED_MODEL,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="x.npy or x.jsonl; without it: JSONL on stdout.")
    ] = None,
    query: Annotated[bool, typer.Option("--query", help="Use the model's prefix for queries.")] = False,
    threads: Threads = 0,
) -> None:
    """Embed text files, or each line of stdin, as float32 vectors."""
    from edgemm import vectors
    from edgemm.embed import EmbedOptions, Kind
    from edgemm.models import open_embedder

    sink = vectors.open_sink(out)
    source = vectors.Files(files) if files else vectors.Lines(sys.stdin)
    _prepare(model)
    with open_embedder(model, EmbedOptions(threads=threads)) as embedder, sink, terminal.progress() as bar:
        for batch in vectors.embed_all(embedder, source, Kind.QUERY if query else Kind.DOCUMENT):
            sink.write(batch)
            bar.show(Progress("embed", sink.count, source.total, source.unit))
    terminal.note(f"{sink.count} vectors of {embedder.dimensions} dimensions" + (f" in {out}" if out else ""))


@app.command()
def pull(
    name: Annotated[str, typer.Argument(help="Catalog name, `starter`, owner/name on the hub, a folder or a file.")],
) -> None:
    """Download a model (the only command that uses the network), or copy a local one into the store."""
    from edgemm import fetch

    result = terminal.finish(fetch.pull(name))
    print(terminal.safe(str(result)))


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
        _print_json({"packages": models, "checkpoints": waiting, "catalog": [asdict(row) for row in rows]})
        return
    if not here and not waiting and not rows:
        terminal.note("the store is empty — run `edgemm pull starter`, or see `edgemm list --all`")
        return
    table = [(p.name, p.manifest.task, terminal.human_bytes(p.manifest.bytes), "ready") for p in here]
    table += [(name, "", "", "checkpoint, not converted") for name in waiting]
    names = {row[0] for row in table}
    for row in rows:
        if row.name not in names:
            table.append((row.name, row.task, terminal.human_bytes(row.download_bytes), row.about))
    _print_table(("NAME", "TASK", "SIZE", "STATE"), table)


@app.command()
def show(name: Annotated[str, typer.Argument(help="A package.")], as_json: Json = False) -> None:
    """What a package is, where it came from and how it compares with its checkpoint."""
    found = _located(name)
    if as_json:
        _print_json({"manifest": asdict(found.manifest), "report": found.report()})
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
        _print_json(asdict(found))
    else:
        _print_table(("WHAT", "FOUND", "REMARK"), rows(found))


def main() -> None:
    """The command `edgemm`: runs it and exits with 0, 2 (usage), 3 (bad file), 4 (resource) or 130 (Ctrl-C)."""
    sys.exit(_main(sys.argv[1:]))


def _main(arguments: list[str]) -> int:
    os.environ.pop("EDGEMM_DEBUG", None)
    try:
        if arguments == ["--version"]:
            print(f"edgemm {__version__}")
            return 0
        _join_commands()
        code = app(arguments, prog_name="edgemm", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except BrokenPipeError:  # `edgemm run ... | head -1`: the reader has all that it wanted
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return _report(Cancelled("edgemm", "interrupted", "run the command again to go on"))
    except MemoryError:
        return _report(EdgemmError("edgemm", "out of memory", "close other programs or choose a smaller model"), 4)
    except Exception as error:
        return _report(error)


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


def _piped() -> str:
    """What was piped in; undecodable bytes are replaced."""
    if sys.stdin is None or sys.stdin.isatty():
        return ""
    return sys.stdin.buffer.read().decode("utf-8", "replace").strip()


def _prepare(model: str) -> None:
    """Convert a waiting checkpoint, with its progress on stderr."""
    from edgemm import models

    if not model.endswith(".gguf"):
        terminal.finish(models.prepare(model))


def _open_chat(model: str, system: str, sampling: Sampling, ctx: int, threads: int) -> "Chat":
    from edgemm.models import ChatOptions, open_chat

    _prepare(model)
    return open_chat(model, ChatOptions(ctx, threads, system, sampling))


def _answer(chat: "Chat", text: str, as_json: bool = False) -> Done | None:
    """Stream one answer to stdout; Ctrl-C ends it and keeps what was said."""
    done = None
    with _ctrl_c(chat), terminal.progress() as bar:
        for event in chat.send(text):
            if as_json:
                _print_json({"event": type(event).__name__.lower()} | asdict(event), indent=None)
            elif isinstance(event, Progress):
                bar.show(event)
            elif isinstance(event, Token):
                bar.close()
                sys.stdout.write(terminal.safe(event.text))
                sys.stdout.flush()
            if isinstance(event, Done):
                done = event
    if not as_json:
        print(flush=True)
    return done


@contextlib.contextmanager
def _ctrl_c(chat: "Chat") -> Iterator[None]:
    """The first Ctrl-C asks the model to stop, the second one leaves at once."""

    def stop(_signal: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        chat.stop()

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _lines() -> Iterator[str]:
    """Lines typed at the prompt until Ctrl-D; Ctrl-C clears the line."""
    prompt = "> " if sys.stdin.isatty() else ""
    while True:
        try:
            yield input(prompt)
        except KeyboardInterrupt:
            print(file=sys.stderr)
        except EOFError:
            return


def _turn(chat: "Chat", line: str) -> None:
    """One question and its answer; an error is shown and the chat goes on."""
    try:
        done = _answer(chat, line)
    except EdgemmError as error:
        terminal.note(f"edgemm: {error}")
        return
    if done is not None:
        terminal.note(
            f"[{done.generated_tokens} tokens, {done.tokens_per_second:.1f}/s, prompt {done.prompt_tokens}"
            f" ({done.reused_tokens} reused), {done.reason}]"
        )


def _command(chat: "Chat", line: str) -> bool:
    """Obey a slash command; False: leave."""
    match line.split():
        case ["/exit" | "/quit"]:
            return False
        case ["/clear"]:
            chat.restart([m for m in chat.messages if m["role"] == "system"])
            terminal.note("a new conversation")
        case ["/history"]:
            for message in chat.messages:
                print(f"{message['role']}: {terminal.safe(message['content'])}")
        case ["/help"]:
            terminal.note("/clear: start again   /history: what was said   /exit: leave   Ctrl-C: stop an answer")
        case _:
            terminal.note(f"unknown command {line.split()[0]} — see /help")
    return True


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


def _print_json(value: Any, indent: int | None = 1) -> None:
    print(json.dumps(value, indent=indent, ensure_ascii=False, default=str), flush=True)


def _print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns on a terminal; tab-separated values for a pipe, so that `cut` and `awk` can read them."""
    if not sys.stdout.isatty():
        for row in rows:
            print(terminal.safe("\t".join(row)))
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in head:
        table.add_column(title, overflow="fold")
    for row in rows:
        table.add_row(*map(terminal.safe, row))
    terminal.console().print(table)
