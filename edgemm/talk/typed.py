"""What is typed: messages of one line or several, and answers to short questions.

It asks and reads; what a message means is for others to say.
"""

import io
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress

from edgemm import terminal

FENCE = '"""'  # on a line of its own, it begins and ends a message of several lines
_MORE = "... "


def is_prompted() -> bool:
    """Whether someone sees a prompt: what is typed and what is answered share one terminal."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def prepare(earlier: Sequence[str]) -> None:
    """No byte that is typed or answered ends the chat; at a prompt the keys edit the line and find `earlier` ones."""
    if isinstance(sys.stdin, io.TextIOWrapper):
        if sys.stdin.isatty():
            sys.stdin.reconfigure(errors="replace")
        else:
            sys.stdin.reconfigure(encoding="utf-8", errors="replace")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    if is_prompted() and os.environ.get("TERM") != "dumb":
        with suppress(ImportError):  # not on Windows, whose console edits lines itself
            import readline

            for text in earlier:
                if "\n" not in text:
                    readline.add_history(terminal.safe(text))


def messages() -> Iterator[str]:
    """What is typed until Ctrl-D: a line, lines that end in a backslash, or lines between two fences.

    Ctrl-C forgets a message that is not finished. One that is cut off by the end of a file is sent as it is.
    """
    while True:
        try:
            text = _message()
        except KeyboardInterrupt:
            if not sys.stdin.isatty():
                raise
            sys.stderr.write("\n")
            continue
        except EOFError:
            return
        if text.strip():
            yield text


def asked(question: str) -> str:
    """The answer to a question on stderr; "" for Ctrl-C and Ctrl-D."""
    sys.stderr.write(terminal.safe(question))
    sys.stderr.flush()
    try:
        return input().strip().lower()
    except (KeyboardInterrupt, EOFError):
        sys.stderr.write("\n")
        return ""


def _message() -> str:
    line = _line("You: ")
    if line.strip() != FENCE:
        return _continued(line)
    text = _fenced()
    return f"/{text}" if text.startswith("/") else text  # what is quoted is never a command


def _continued(line: str) -> str:
    lines = [line]
    with suppress(EOFError):
        while lines[-1].endswith("\\"):
            lines[-1] = lines[-1][:-1]
            lines.append(_line(_MORE))
    return "\n".join(lines)


def _fenced() -> str:
    lines: list[str] = []
    with suppress(EOFError):
        while (line := _line(_MORE)).strip() != FENCE:
            lines.append(line)
    return "\n".join(lines)


def _line(prompt: str) -> str:
    return input(prompt if is_prompted() else "")
