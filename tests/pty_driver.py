"""A program on a terminal of its own: keys in, bytes out, another size, an end by force. Only where there are such."""

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pty_screen import Screen

SECONDS = 30.0
READY = "/1,048,576 tokens"  # the meter of the scripted model: it is loaded
F1, F2, F4, F5, F7 = "\x1bOP", "\x1bOQ", "\x1bOS", "\x1b[15~", "\x1b[18~"
UP, DOWN, PAGE_UP, PAGE_DOWN, ALT_UP = "\x1b[A", "\x1b[B", "\x1b[5~", "\x1b[6~", "\x1b[1;3A"
QUIT = "\x11"
ESCAPE = "\x1b[27u"  # as the screen asks a terminal to say it; a lone ESC waits for what comes after it
# What a terminal obeys. Bytes outside of these are text.
_SEQUENCE = re.compile(
    rb"\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?"  # OSC
    rb"|\x1b[PX^_][^\x1b]*(?:\x1b\\)?"  # DCS, SOS, PM, APC
    rb"|\x1b\[[0-?]*[ -/]*[@-~]"  # CSI
    rb"|\x1b[ -/]*[0-~]"  # others
)
_ASKS, _SAYS = b"\x1b[?2026$p", b"\x1b[?2026;2$y"  # can it draw a frame at once? It can
Condition = str | Callable[[], object]


class Program:
    """`command` on a terminal of `size` (columns, rows). `seen` is every byte that it wrote."""

    def __init__(self, command: Sequence[str], size: tuple[int, int] = (80, 24), **environment: str) -> None:
        self.seen = b""
        self.code: int | None = None
        self._screen, self._drawn = Screen(*size), 0
        self._has_asked = False
        # COLUMNS and LINES, which pytest-xdist sets, would stand for the size of the terminal.
        full = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "", "LINES": "", **environment}
        full = {name: value for name, value in full.items() if value}
        self.pid, self._terminal = pty.fork()
        if not self.pid:
            os.execve(command[0], list(command), full)
        self.resize(*size)

    def resize(self, columns: int, rows: int) -> None:
        self.lines()
        self._screen.resize(columns, rows)
        fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def send(self, keys: str | bytes) -> None:
        """Type; what it writes meanwhile is read, so that neither waits for the other."""
        left = keys.encode() if isinstance(keys, str) else keys
        end = time.monotonic() + SECONDS
        while left:
            assert time.monotonic() < end, "it does not read what is typed"
            readable, writable, _ = select.select([self._terminal], [self._terminal], [], 0.1)
            if readable:
                self.read(0)
            if writable:
                left = left[os.write(self._terminal, left[:512]) :]

    def ask(self, text: str, key: str = "\r") -> None:
        """Paste `text` into the editor, and send it."""
        self.send(b"\x1b[200~" + text.encode("utf-8", "replace") + b"\x1b[201~")
        self.send(key)

    def press(self, *keys: str) -> None:
        """One key after the other, with time to draw what each one does."""
        for key in keys:
            self.send(key)
            self.pause(0.03)

    def click(self, column: int, row: int) -> None:
        """The left button, at a cell counted from 0."""
        self.send(f"\x1b[<0;{column + 1};{row + 1}M\x1b[<0;{column + 1};{row + 1}m")

    def read(self, seconds: float = 0.05) -> bool:
        """Take what has been written; False: the program has ended."""
        if not select.select([self._terminal], [], [], seconds)[0]:
            return True
        try:
            new = os.read(self._terminal, 1 << 16)
        except OSError:  # Linux
            return False
        self.seen += new
        if not self._has_asked and _ASKS in self.seen:
            self._has_asked = True
            self.send(_SAYS)
        return bool(new)  # nothing: macOS

    def pause(self, seconds: float) -> None:
        """Read on for so long."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and self.read(left):
            pass

    def lines(self) -> list[str]:
        """What stands on a screen that was drawn. Raises `Foreign` if anything else was written."""
        new, self._drawn = self.seen[self._drawn :], len(self.seen)
        self._screen.write(new)
        return self._screen.lines()

    def shows(self, text: str) -> bool:
        return any(text in line for line in self.lines())

    def wrote(self, text: str) -> bool:
        """For a program that draws no screen."""
        return text in plain(self.seen)

    def steps(self, condition: Condition, seconds: float = SECONDS) -> Iterator[None]:
        """Read until a text is on the screen, or a condition holds; in steps, so that several programs can be read."""
        is_so = (lambda: self.shows(condition)) if isinstance(condition, str) else condition
        end = time.monotonic() + seconds
        while not is_so():
            assert self.read(0.02) or is_so(), f"it ended before {condition}:\n{self._last()}"
            assert time.monotonic() < end, f"not {condition} after {seconds} s:\n{self._last()}"
            yield

    def until(self, condition: Condition, seconds: float = SECONDS) -> None:
        for _ in self.steps(condition, seconds):
            pass

    def wait(self, seconds: float = SECONDS) -> int:
        """Its exit code, negative for a signal."""
        end = time.monotonic() + seconds
        while self.read():
            assert time.monotonic() < end, f"it runs on:\n{self._last()}"
        return self._reap()

    def leave(self) -> None:
        self.send(QUIT)
        assert self.wait() == 0

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        if self.code is None:
            self.signal(signal.SIGKILL)
            self._reap()

    def hang_up(self) -> None:
        """The terminal goes away."""
        os.close(self._terminal)
        self._terminal = -1

    def close(self) -> None:
        self.kill()
        if self._terminal >= 0:
            self.hang_up()

    def _last(self) -> str:
        return "\n".join(self.lines()) if b"\x1b[?1049h" in self.seen else plain(self.seen)[-2000:]

    def _reap(self) -> int:
        self.code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.code


@contextlib.contextmanager
def program(command: Sequence[str], size: tuple[int, int] = (80, 24), **environment: str) -> Iterator[Program]:
    """`environment`: an empty value takes a variable away."""
    found = Program(command, size, **environment)
    try:
        yield found
    finally:
        found.close()


def edgemm(*arguments: object) -> list[str]:
    """The real program."""
    return [sys.executable, "-m", "edgemm", *map(str, arguments)]


def scripted(path: Path, **script: Any) -> list[str]:
    """The chat screen on a scripted model. `script` is written to `path`; see chat_program.py."""
    path.write_text(json.dumps({"answers": [["one ", "two"]], **script}), "utf-8")
    return [sys.executable, str(Path(__file__).with_name("chat_program.py")), str(path)]


def plain(raw: bytes) -> str:
    """What was written, without what a terminal obeys."""
    return _SEQUENCE.sub(b" ", raw).decode("utf-8", "replace")


def sequences(raw: bytes) -> list[bytes]:
    return _SEQUENCE.findall(raw)
