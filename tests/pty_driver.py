"""A program on a terminal of its own: keys in, bytes out, another size, an end by force. Only where there are such."""

import contextlib
import fcntl
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

SECONDS = 20.0
# What a terminal obeys. Bytes outside of these are text.
SEQUENCE = re.compile(
    rb"\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?"  # OSC
    rb"|\x1b[PX^_][^\x1b]*(?:\x1b\\)?"  # DCS, SOS, PM, APC
    rb"|\x1b\[[0-?]*[ -/]*[@-~]"  # CSI
    rb"|\x1b[ -/]*[0-~]"  # others
)


class Program:
    """`command` on a terminal of `size` (columns, rows). `seen` is every byte that it wrote."""

    def __init__(self, command: Sequence[str], size: tuple[int, int] = (80, 24), **environment: str) -> None:
        self.seen = b""
        self.code: int | None = None
        self.pid, self._terminal = pty.fork()
        if not self.pid:
            os.execve(command[0], list(command), os.environ | {"TERM": "xterm-256color"} | environment)
        self.resize(*size)

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGWINCH)

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

    def read(self, seconds: float = 0.05) -> bool:
        """Take what has been written; False: the program has ended."""
        if not select.select([self._terminal], [], [], seconds)[0]:
            return True
        try:
            self.seen += os.read(self._terminal, 1 << 16)
        except OSError:
            return False
        return True

    def pause(self, seconds: float) -> None:
        """Read on for so long: a lone Escape and the key after it must not arrive together."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.read(left)

    def until(self, condition: "str | Callable[[], object]", seconds: float = SECONDS) -> None:
        """Wait for a text on the terminal since the last wait, or for a condition."""
        start = len(self.seen)
        wanted = (
            (lambda: condition in text(self.seen[max(0, start - 4000) :])) if isinstance(condition, str) else condition
        )
        end = time.monotonic() + seconds
        while not wanted():
            assert self.read(), f"it ended; its last words:\n{text(self.seen)[-2000:]}"
            assert time.monotonic() < end, f"not so after {seconds} s:\n{text(self.seen)[-2000:]}"

    def wait(self, seconds: float = SECONDS) -> int:
        """Its exit code, negative for a signal."""
        end = time.monotonic() + seconds
        while self.read():
            assert time.monotonic() < end, f"it runs on:\n{text(self.seen)[-2000:]}"
        self.code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.code

    def kill(self) -> None:
        if self.code is None:
            os.kill(self.pid, signal.SIGKILL)
            self.code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def close(self) -> None:
        self.kill()
        os.close(self._terminal)


@contextlib.contextmanager
def program(command: Sequence[str], size: tuple[int, int] = (80, 24), **environment: str) -> Iterator[Program]:
    found = Program(command, size, **environment)
    try:
        yield found
    finally:
        found.close()


def scripted(*arguments: str) -> list[str]:
    """The chat screen on a scripted model; see chat_program.py."""
    return [sys.executable, str(Path(__file__).with_name("chat_program.py")), *arguments]


def text(raw: bytes) -> str:
    """What was written, without what a terminal obeys."""
    return SEQUENCE.sub(b" ", raw).decode("utf-8", "replace")


def sequences(raw: bytes) -> list[bytes]:
    return SEQUENCE.findall(raw)
