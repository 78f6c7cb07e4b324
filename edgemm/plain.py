"""Answers and chats line by line: for pipes, screen readers and any terminal. No boxes, no redraw.

The answer goes to stdout, everything else to stderr. Ctrl-C stops an answer and keeps what was said.
"""

import contextlib
import signal
import sys
from collections.abc import Iterator
from dataclasses import asdict
from types import FrameType
from typing import TYPE_CHECKING

from edgemm import terminal
from edgemm.errors import EdgemmError
from edgemm.events import Done, Note, Progress, Token

if TYPE_CHECKING:
    from edgemm.chat import Chat

_HELP = "/clear: start again   /history: what was said   /exit: leave   Ctrl-C: stop an answer"


def converse(chat: "Chat", name: str) -> None:
    """Read messages and slash commands from stdin until Ctrl-D or /exit."""
    terminal.note(f"{name}: type a message, /help for commands, Ctrl-D to leave")
    for line in _lines():
        if line.startswith("/"):
            if not _command(chat, line):
                return
        elif line.strip():
            _turn(chat, line)


def answer(chat: "Chat", text: str, *, as_json: bool = False) -> Done | None:
    """Stream one answer to stdout; Ctrl-C ends it and keeps what was said."""
    done = None
    with _ctrl_c(chat), terminal.ProgressBar() as bar:
        for event in chat.send(text):
            if as_json:
                terminal.print_json({"event": type(event).__name__.lower()} | asdict(event), indent=None)
            elif isinstance(event, Progress):
                bar.show(event)
            elif isinstance(event, Note):
                bar.close()
                terminal.note(event.text)
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
        done = answer(chat, line)
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
            terminal.note(_HELP)
        case _:
            terminal.note(f"unknown command {line.split()[0]} — see /help")
    return True
