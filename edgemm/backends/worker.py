"""A GGUF model in a child process: the parent's end of the pipe.

Malformed models, bad grammars, asserts and a lack of memory end llama.cpp by abort() or exit(), which nothing in
Python can catch; here they end a child, and the parent says why. One child holds one model and serves one request
at a time. No native library is imported here. The child (child.py) is started with subprocess, so that a user's script
needs no `__main__` guard.
"""

import contextlib
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgemm import device, errors, guard
from edgemm.backends import ModelInfo, Prompt, Sampling
from edgemm.backends.frames import Frame, read_frame, write_frame
from edgemm.errors import EdgemmError, ModelStopped, NotEnoughMemory, UsageError
from edgemm.events import Done, Progress, Token
from edgemm.prompt import Message

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_DEFAULT_CONTEXT = 4096
_ENCODER_CONTEXT = 2048
_CANCEL_SECONDS = 0.7  # then the child is killed, so that Ctrl-C always works within a second
_START_SECONDS = 300.0
_STEP_SECONDS = 0.1  # between two looks at whether the user wants to stop
_DEATHS, _DEATHS_SECONDS = 2, 60.0
_LOG_TAIL = 4096
# OpenMP threads spin at every barrier. With libgomp's default of 300,000 rounds, one other busy program on the machine
# makes a token take seconds; with 1,000 the speed on an idle machine is the same, and on a busy one it stays usable.
_SPIN = "1000"


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """`context` 0: the trained length, at most 4,096. `threads` 0: one for each core. `gpu_layers` -1: all."""

    context: int = 0
    threads: int = 0
    gpu_layers: int = -1
    embedding: bool = False


class Worker:
    """A GGUF model in a child process: a `Generator`, and with `embedding` an `Encoder`."""

    def __init__(self, path: Path, options: LoadOptions | None = None) -> None:
        self._path, self._options = path, options or LoadOptions()
        self._turn = threading.Lock()  # one request at a time
        self._deaths: list[float] = []
        self._request_id = 0
        self._closed = False
        self._child: _Child | None = _Child()  # it imports llama.cpp while the file is checked here
        try:
            self._load = _load_request(path, self._options)
            self.info = self._start(self._child)
        except BaseException:
            self.close()
            raise

    def tokenize(self, text: str, *, add_special: bool = False, parse_special: bool = False) -> list[int]:
        """Token ids; `add_special` adds what the model puts around a text (BOS, or CLS and SEP)."""
        reply, _ = self._ask("tokenize", text=text, add_special=add_special, parse_special=parse_special)
        return list(reply["tokens"])

    def prompt(self, messages: Sequence[Message]) -> Prompt:
        """See `Generator.prompt`."""
        reply, _ = self._ask("prompt", messages=list(messages))
        return Prompt(reply["tokens"], reply["note"])

    def generate(self, tokens: Sequence[int], sampling: Sampling) -> Iterator[Progress | Token | Done]:
        """See `Generator.generate`. Closing the iterator cancels; a child that does not obey is killed."""
        with self._turn:
            child = self._send("generate", {"tokens": list(tokens), "sampling": asdict(sampling)})
            try:
                yield from self._events(child, len(tokens))
            finally:
                self._settle(child)

    def logits(self) -> "NDArray[np.float32]":
        """Logits after the last token that was read: float32 (vocabulary,)."""
        import numpy as np

        return np.frombuffer(self._ask("logits")[1], np.float32)

    def encode(self, rows: Sequence[Sequence[int]]) -> "NDArray[np.float32]":
        """Pooled embeddings, not normalized: float32 (len(rows), dimensions)."""
        import numpy as np

        _, raw = self._ask("encode", rows=[list(row) for row in rows])
        return np.frombuffer(raw, np.float32).reshape(len(rows), -1).copy()

    def cancel(self) -> None:
        """End the running `generate`. Safe from a signal handler: it takes no lock that `generate` holds."""
        child = self._child
        if child is not None and child.running is not None and child.cancelled_at is None:
            child.cancelled_at = time.monotonic()
            child.write({"op": "cancel", "id": child.running})

    def close(self) -> None:
        self._closed = True
        child, self._child = self._child, None
        if child is not None:
            child.kill()

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, op: str, **fields: Any) -> Frame:
        """One request with one reply."""
        with self._turn:
            child = self._send(op, fields)
            try:
                return self._reply(child)
            finally:
                child.running = None
                if not child.finished:  # interrupted: its late reply must not answer the next request
                    self._bury(child)

    def _send(self, op: str, fields: dict[str, Any]) -> "_Child":
        if self._closed:
            raise UsageError(self._path.name, "the model is closed", "open it again")
        child = self._child
        if child is not None and child.dead:  # while nobody was asking
            self._died(child)
        if child is None or child.dead:
            child = self._restart()
        self._request_id += 1
        child.begin(self._request_id)
        child.write({"op": op, "id": self._request_id, **fields})
        return child

    def _start(self, child: "_Child") -> ModelInfo:
        child.write(self._load)
        child.begin(0)
        reply, _ = self._reply(child, _START_SECONDS)
        child.running = None
        return ModelInfo(**reply["info"])

    def _restart(self) -> "_Child":
        recent = [at for at in self._deaths if time.monotonic() - at < _DEATHS_SECONDS]
        if len(recent) >= _DEATHS:
            why = f"stopped {len(recent)} times within {_DEATHS_SECONDS:.0f} s"
            raise ModelStopped(self._path.name, why, "use another model, or wait a minute")
        child = self._child = _Child()
        try:
            self.info = self._start(child)
        except BaseException:  # a child without a model serves nobody
            self._bury(child)
            raise
        return child

    def _reply(self, child: "_Child", seconds: float | None = None) -> Frame:
        """The next frame of this request. Raises what the child reports, or why it died."""
        try:
            frame = child.read(seconds)
        except queue.Empty:
            self._bury(child)
            raise ModelStopped(self._path.name, "the model does not load", "try again, or a smaller model") from None
        if frame is None:
            raise self._died(child)
        if frame[0]["event"] == "error":
            raise _decoded_error(frame[0])
        return frame

    def _events(self, child: "_Child", prompt_tokens: int) -> Iterator[Progress | Token | Done]:
        generated = 0
        while True:
            try:
                frame, _ = self._reply_or_cancel(child)
            except queue.Empty:  # cancelled, and the child is deep in native code
                self._bury(child)
                yield Done("cancelled", prompt_tokens, 0, generated, 0.0, 0.0)
                return
            match frame.pop("event"):
                case "tokens":
                    generated += len(frame["items"])
                    for token, text in frame["items"]:
                        yield Token(token, text)
                case "progress":
                    yield Progress(**frame)
                case "done":
                    yield Done(**frame)
                    return

    def _reply_or_cancel(self, child: "_Child") -> Frame:
        while True:
            wait = None if child.cancelled_at is None else child.cancelled_at + _CANCEL_SECONDS - time.monotonic()
            try:
                frame = child.read(_STEP_SECONDS if wait is None else max(0.0, min(wait, _STEP_SECONDS)))
            except queue.Empty:
                if wait is not None and wait <= 0:
                    raise
                continue
            if frame is None:
                raise self._died(child)
            if frame[0]["event"] == "error":
                raise _decoded_error(frame[0])
            return frame

    def _settle(self, child: "_Child") -> None:
        """Leave no request behind: cancel one that the caller abandoned, and kill a child that does not obey."""
        if child.running is not None and not child.finished and not child.dead:
            self.cancel()
            try:
                while not child.finished:
                    if child.read(_CANCEL_SECONDS) is None:
                        break
            except queue.Empty:
                self._bury(child)
        child.running = None

    def _bury(self, child: "_Child") -> None:
        child.kill()
        if self._child is child:
            self._child = None

    def _died(self, child: "_Child") -> ModelStopped:
        if self._closed:  # by another thread, which has taken the log with it
            return ModelStopped(self._path.name, "was closed while it worked", "open it again")
        self._deaths.append(time.monotonic())
        why = child.last_words()
        self._bury(child)
        return ModelStopped(self._path.name, why, "ask again: the model is restarted once")


class _Child:
    """The process, its pipe and the thread that reads it."""

    def __init__(self) -> None:
        self.running: int | None = None
        self.cancelled_at: float | None = None
        self.finished = True
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the child
        environment = {"GOMP_SPINCOUNT": _SPIN} | os.environ | {"GGML_NO_BACKTRACE": "1", "PYTHONPATH": _python_path()}
        flags = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)  # Windows: Ctrl-C is the parent's to handle
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "edgemm.backends.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=environment,
            creationflags=flags,
        )
        self._frames: queue.Queue[Frame | None] = queue.Queue()
        threading.Thread(target=self._pump, name="edgemm-worker", daemon=True).start()

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
                return self._frames.get(timeout=_STEP_SECONDS)

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


def _load_request(path: Path, options: LoadOptions) -> dict[str, Any]:
    """Check the file and the memory before any native code runs."""
    header = guard.check_gguf(path)
    trained = header.context_length
    if options.context > trained:
        raise UsageError(
            path.name, f"was trained for {trained} tokens, --ctx asks for {options.context}", "lower --ctx"
        )
    context = options.context or min(trained, _ENCODER_CONTEXT if options.embedding else _DEFAULT_CONTEXT)
    need, free = guard.memory_needed(header, context), device.free_memory()
    if need > free:
        why = f"needs about {need / 1e9:.1f} GB, {free / 1e9:.1f} GB are free"
        raise NotEnoughMemory(path.name, why, f"close programs, try --ctx {max(256, context // 4)} or a smaller model")
    return {
        "op": "load",
        "id": 0,
        "path": str(path.resolve()),
        "context": context,
        "threads": options.threads or device.cores(),
        "gpu_layers": options.gpu_layers if options.gpu_layers >= 0 else 999,
        "embedding": options.embedding,
    }


def _decoded_error(frame: dict[str, Any]) -> EdgemmError:
    kind = getattr(errors, str(frame["kind"]), EdgemmError)
    return kind(frame["what"], frame["why"], frame["fix"])


def _python_path() -> str:
    """The child finds edgemm where the parent found it, installed or not."""
    here = str(Path(__file__).resolve().parents[2])
    return os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])])
