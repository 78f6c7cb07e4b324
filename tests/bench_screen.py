"""The chat screen as a whole on a terminal of its own: when it is ready, and what it costs the model.

Part of `make bench`, where there are pseudo-terminals. The screen and `edgemm run` answer the same prompt with the same
model, with the same seed and in turns.
"""

import contextlib
import json
import os
import select
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
from bench import CHAT, Result

from edgemm import paths
from edgemm.sessions import Sessions

READY, SHARE = 1.2, 0.95  # seconds of CPU; of the tokens a second of `edgemm run`
PROMPT = "Tell me a long story about a dragon."
TOKENS, PAIRS = 256, 5
SAME = ("--seed", "7", "--max-tokens", str(TOKENS))
SECONDS = 60.0


@contextlib.contextmanager
def screen(home: Path) -> Iterator[tuple[int, int]]:
    """A running `edgemm chat`: its process id and its terminal."""
    import fcntl
    import pty
    import struct
    import termios

    pid, terminal = pty.fork()
    if not pid:
        command = [sys.executable, "-m", "edgemm", "chat", "-m", CHAT, *SAME]
        os.execve(sys.executable, command, os.environ | {"EDGEMM_HOME": str(home), "TERM": "xterm-256color"})
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
    try:
        yield pid, terminal
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(terminal)


def read_until(terminal: int, is_there: Callable[[bytes], bool]) -> None:
    seen, end = b"", time.monotonic() + SECONDS
    while not is_there(seen):
        if time.monotonic() > end:
            raise TimeoutError(seen[-500:])
        if select.select([terminal], [], [], 0.05)[0]:
            seen += os.read(terminal, 1 << 16)


def ready(home: Path) -> tuple[float, float]:
    """Wall and CPU seconds until a message can be typed, the child that loads the model included."""
    started = time.perf_counter()
    with screen(home) as (pid, terminal):
        read_until(terminal, lambda seen: b"attaches a file" in seen)
        wall = time.perf_counter() - started
        process = psutil.Process(pid)
        times = [each.cpu_times() for each in (process, *process.children())]
    return wall, sum(each.user + each.system for each in times)


def on_screen(home: Path) -> float:
    """Tokens a second of an answer that is drawn while it comes."""
    with screen(home) as (_, terminal):
        read_until(terminal, lambda seen: b"/4,096 tokens" in seen)
        os.write(terminal, PROMPT.encode() + b"\r")
        read_until(terminal, lambda seen: b"first token" in seen)
        with Sessions(home / ".data" / "chats.sqlite") as sessions:
            done = sessions.turns(sessions.chats()[0].id)[-1].details["figures"]
    return float(done["generated_tokens"] / done["decode_seconds"])


def alone(home: Path) -> float:
    command = [sys.executable, "-m", "edgemm", "run", PROMPT, "-m", CHAT, *SAME, "--json"]
    done = subprocess.run(command, env=os.environ | {"EDGEMM_HOME": str(home)}, capture_output=True, check=True)
    events = [json.loads(line) for line in done.stdout.splitlines()]
    end = next(event for event in events if event["event"] == "done")
    return float(end["generated_tokens"] / end["decode_seconds"])


def results() -> list[Result]:
    if sys.platform == "win32":
        print("the chat screen is not measured: there are no pseudo-terminals here")
        return []
    model = paths.store() / CHAT
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        (home / CHAT).symlink_to(model.resolve())
        starts = [ready(home) for _ in range(5)]
        pairs = [(on_screen(home), alone(home)) for _ in range(PAIRS)]
    wall, cpu = (statistics.median(column) for column in zip(*starts, strict=True))
    share = statistics.median(drawn / bare for drawn, bare in pairs)
    drawn, bare = (statistics.median(column) for column in zip(*pairs, strict=True))
    what = f"{drawn:.1f} against {bare:.1f} tokens/s, {PAIRS} pairs of {TOKENS} tokens"
    return [
        Result("chat screen: ready to type, CPU", cpu, READY, "s", False, f"{wall:.2f} s on the clock, median of 5"),
        Result("chat screen: generation / edgemm run", share, SHARE, "x", True, what),
    ]


if __name__ == "__main__":
    for result in results():
        print(result)
