"""The commands that let a model write: `run`, `chat`, and their options. One command is one library call.

Nothing heavy is imported before a command runs.
"""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgemm import plain, terminal
from edgemm.backends import Sampling
from edgemm.catalog import CHAT_MODEL
from edgemm.errors import Cancelled, UsageError

if TYPE_CHECKING:
    from edgemm.chat import Chat

DEFAULT = Sampling()

ChatModel = Annotated[str, typer.Option("--model", "-m", help="A chat package, catalog name or .gguf file.")]
TaskModel = Annotated[str, typer.Option("--model", "-m", help="A package.")]
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
Schema = Annotated[Path | None, typer.Option(help="A file with a JSON schema that the answer must follow.")]


def schema_text(path: Path | None) -> str:
    """The text of --schema; "" for none. Raises `UsageError`."""
    if path is None:
        return ""
    from edgemm import commands
    from edgemm.chat_settings import ChatSettings

    return commands.with_schema(ChatSettings(), str(path)).schema


Json = Annotated[bool, typer.Option("--json", help="Machine-readable output on stdout.")]


def run(
    prompt: Annotated[list[str] | None, typer.Argument(help="The question. Piped text is put below it.")] = None,
    model: ChatModel = CHAT_MODEL,
    system: System = "",
    max_tokens: MaxTokens = DEFAULT.max_tokens,
    temperature: Temperature = DEFAULT.temperature,
    top_k: TopK = DEFAULT.top_k,
    top_p: TopP = DEFAULT.top_p,
    min_p: MinP = DEFAULT.min_p,
    repetition_penalty: Penalty = DEFAULT.repetition_penalty,
    seed: Seed = None,
    schema: Schema = None,
    ctx: Context = 0,
    threads: Threads = 0,
    as_json: Json = False,
) -> None:
    """Answer one prompt: edgemm run "Why is the sky blue?", or: cat notes.txt | edgemm run "Summarise"."""
    text = "\n\n".join(part for part in (" ".join(prompt or ()), _piped()) if part)
    if not text.strip():
        raise UsageError("run", "there is no prompt", 'give one: edgemm run "your question"')
    sampling = Sampling(
        max_tokens, temperature, top_k, top_p, min_p, repetition_penalty, seed, schema=schema_text(schema)
    )
    with _open_chat(model, system, sampling, ctx, threads) as chat:
        done = plain.answer(chat, text, as_json=as_json)
    if done is not None and done.reason == "cancelled":
        raise Cancelled("run", "stopped", "what was answered so far is above")


def chat(
    model: ChatModel = CHAT_MODEL,
    last: Annotated[bool, typer.Option("--last", help="Go on with the chat that was used last.")] = False,
    number: Annotated[int, typer.Option("--open", min=0, help="Go on with this chat; /chats lists them.")] = 0,
    line_mode: Annotated[bool, typer.Option("--plain", help="Line by line, for screen readers and pipes.")] = False,
    inline: Annotated[bool, typer.Option("--inline", help="Below what stands on the terminal.")] = False,
    web: Annotated[bool, typer.Option("--web", help="In a browser of this machine.")] = False,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Of --web.")] = 8023,
    system: System = "",
    max_tokens: MaxTokens = DEFAULT.max_tokens,
    temperature: Temperature = DEFAULT.temperature,
    top_k: TopK = DEFAULT.top_k,
    top_p: TopP = DEFAULT.top_p,
    min_p: MinP = DEFAULT.min_p,
    repetition_penalty: Penalty = DEFAULT.repetition_penalty,
    seed: Seed = None,
    schema: Schema = None,
    ctx: Context = 0,
    threads: Threads = 0,
) -> None:
    """Chat in this terminal. F1 shows the keys; every message is saved. The options are those of a new chat."""
    if web:
        from edgemm.tui.web import serve

        serve([each for each in sys.argv[1:] if each != "--web"], port)
        return
    from edgemm.chat_settings import ChatSettings
    from edgemm.desk import Desk
    from edgemm.models import ChatOptions

    text = schema_text(schema)
    settings = ChatSettings(system, max_tokens, temperature, top_k, top_p, min_p, repetition_penalty, seed, schema=text)
    desk = Desk(ChatOptions(ctx, threads), settings)
    try:
        chosen = desk.last_chat() if last else desk.sessions.chat(number).id if number else None
        if line_mode or not _can_draw():
            prepare(model)
            from edgemm.talk import converse

            converse(desk, model, chosen)
        else:
            from edgemm.tui.launch import run

            run(desk, model, chosen, inline=inline)
    finally:
        desk.close()


def _can_draw() -> bool:
    """Whether a screen can stand here: on a terminal that can move its cursor, or in a browser."""
    if os.environ.get("TEXTUAL_DRIVER"):
        return True
    return sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def _piped() -> str:
    """What was piped in; undecodable bytes are replaced."""
    if sys.stdin is None or sys.stdin.isatty():
        return ""
    return sys.stdin.buffer.read().decode("utf-8", "replace").strip()


def prepare(model: str) -> None:
    """Convert a waiting checkpoint, with its progress on stderr."""
    from edgemm import models

    if not model.endswith(".gguf"):
        terminal.finish(models.prepare(model))


def _open_chat(model: str, system: str, sampling: Sampling, ctx: int, threads: int) -> "Chat":
    from edgemm.models import ChatOptions, open_chat

    prepare(model)
    return open_chat(model, ChatOptions(ctx, threads, system, sampling))
