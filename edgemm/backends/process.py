"""The child process of a worker: started, spoken to by frames, killed, and asked for its last words.

It knows no model and no request but which one is running. The child's own end is child.py.
"""

import contextlib
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from edgemm.backends.frames import Frame, read_frame, write_frame

STEP_SECONDS = 0.1  # between two looks at whether the user wants to stop
_LOG_TAIL = 4096
# OpenMP threads spin at every barrier. With libgomp's default of 300,000 rounds, one other busy program on the machine
# makes a token take seconds; with 1,000 the speed on an idle machine is the same, and on a busy one it stays usable.
_SPIN = "1000"


class ChildProcess:
    """The process, its pipe and the thread that reads it."""

    def __init__(self, module: str = "edgemm.backends.child") -> None:
        """`module` is what the child runs: frames come in on its stdin, and go out on its stdout."""
        self.running: int | None = None
        self.cancelled_at: float | None = None
        self.finished = True
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the child
        environment = {"GOMP_SPINCOUNT": _SPIN} | os.environ | {"GGML_NO_BACKTRACE": "1", "PYTHONPATH": _python_path()}
        flags = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)  # Windows: Ctrl-C is the parent's to handle
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=environment,
            creationflags=flags,
        )
        self._frames: queue.Queue[Frame | None] = queue.Queue()
        threading.Thread(target=self._pump, name="edgemm-worker", daemon=True).start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def dead(self) -> bool:
        return self._process.poll() is not None

    def begin(self, request: int) -> None:
        self.running, self.cancelled_at, self.finished = request, None, False

    def write(self, message: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            write_frame(self._process.stdin, message)
        except (OSError, ValueError):
            self._frames.put(None)  # the pipe is closed: the reader of the frames says why

    def read(self, seconds: float | None = None) -> Frame | None:
        """The next frame; None: the child is gone. Raises `queue.Empty` after `seconds`."""
        frame = self._wait() if seconds is None else self._frames.get(timeout=seconds)
        self.finished = frame is None or frame[0]["event"] in ("done", "reply", "error")
        return frame

    def _wait(self) -> Frame | None:
        """Wait without an end, but in steps: on Windows nothing interrupts a single long wait."""
        while True:
            with contextlib.suppress(queue.Empty):
                return self._frames.get(timeout=STEP_SECONDS)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._log):
            if stream is not None:
                with contextlib.suppress(OSError):  # bytes that a dead child never read
                    stream.close()

    def last_words(self) -> str:
        """Why the process ended, in a few words: an assert, a signal or the end of its log."""
        code = self._process.wait()
        self._log.seek(max(0, self._log.seek(0, 2) - _LOG_TAIL))
        lines = [line.strip() for line in self._log.read().decode("utf-8", "replace").splitlines() if line.strip()]
        cause = next((line for line in lines if "ASSERT" in line or "failed" in line), lines[-1] if lines else "")
        return explain_exit(code, cause)

    def _pump(self) -> None:
        assert self._process.stdout is not None
        try:
            while (frame := read_frame(self._process.stdout)) is not None:
                self._frames.put(frame)
        except (OSError, ValueError):
            pass
        self._frames.put(None)


def explain_exit(code: int, cause: str) -> str:
    """ "model stopped: ..." for the exit code of a child (negative: a signal) and the end of its log."""
    if -code == getattr(signal, "SIGILL", 4) or code == 0xC000001D:
        return "model stopped: this CPU lacks an instruction that the installed llama.cpp build uses; reinstall it here"
    if not cause and code < 0:
        cause = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    return f"model stopped: {cause or f'exit code {code}'}"


def _python_path() -> str:
    """The child finds edgemm where the parent found it, installed or not."""
    here = str(Path(__file__).resolve().parents[2])
    return os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])])
