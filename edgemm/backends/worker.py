"""A GGUF model in a child process: the parent's end of the pipe.

Malformed models, bad grammars, asserts and a lack of memory end llama.cpp by abort() or exit(), which nothing in
Python can catch; here they end a child, and the parent says why. One child holds one model and serves one request
at a time. No native library is imported here. The child (child.py) is started with subprocess, so that a user's script
needs no `__main__` guard.
"""

import queue
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgemm import device, errors, guard
from edgemm.backends import ModelInfo, Prompt, Sampling
from edgemm.backends.frames import Frame
from edgemm.backends.process import STEP_SECONDS, ChildProcess
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
_DEATHS, _DEATHS_SECONDS = 2, 60.0


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """`context` 0: the trained length, at most 4,096. `threads` 0: one for each core. `gpu_layers` -1: all.

    `vocabulary_only`: tokenize, nothing else; the file needs no weights. `observe`: collect what `importance` gives.
    `exact`: keys and values in f32 and no fused attention, to compare with another engine. `tokenizer`: a
    tokenizer.json that splits text instead of llama.cpp. `fingerprint`: the sha256 of the file where it is known,
    to which a saved KV cache belongs.
    """

    context: int = 0
    threads: int = 0
    gpu_layers: int = -1
    embedding: bool = False
    vocabulary_only: bool = False
    observe: bool = False
    exact: bool = False
    tokenizer: Path | None = None
    fingerprint: str = ""


class Worker:
    """A GGUF model in a child process: a `Generator`, and with `embedding` an `Encoder`."""

    def __init__(self, path: Path, options: LoadOptions | None = None) -> None:
        self._path, self._options = path, options or LoadOptions()
        self._turn = threading.Lock()  # one request at a time
        self._deaths: list[float] = []
        self._request_id = 0
        self._closed = False
        self._child: ChildProcess | None = ChildProcess()  # it imports llama.cpp while the file is checked here
        try:
            self._load = _load_request(path, self._options)
            self.info = self._start(self._child)
        except BaseException:
            self.close()
            raise

    def tokenize(self, text: str, *, add_special: bool = False, parse_special: bool = False) -> list[int]:
        """Token ids; `add_special` adds what the model puts around a text (BOS, or CLS and SEP)."""
        reply, _ = self._ask("tokenize", text=text, add_special=add_special, parse_special=parse_special)
        return list(reply["value"])

    def prompt(self, messages: Sequence[Message]) -> Prompt:
        """See `Generator.prompt`."""
        reply, _ = self._ask("prompt", messages=list(messages))
        return Prompt(reply["tokens"], reply["note"])

    def continuation(self, messages: Sequence[Message]) -> Prompt:
        """See `Generator.continuation`."""
        reply, _ = self._ask("continuation", messages=list(messages))
        return Prompt(reply["tokens"], reply["note"])

    def generate(self, tokens: Sequence[int], sampling: Sampling) -> Iterator[Progress | Token | Done]:
        """See `Generator.generate`. Closing the iterator cancels; a child that does not obey is killed."""
        with self._turn:
            child = self._send("generate", {"tokens": list(tokens), "sampling": asdict(sampling)})
            try:
                yield from self._events(child, len(tokens))
            finally:
                self._settle(child)

    def save_state(self, path: Path) -> int:
        """See `Generator.save_state`."""
        return int(self._ask("save_state", path=str(path.absolute()))[0]["value"])

    def restore_state(self, path: Path) -> int:
        """See `Generator.restore_state`. A file that ends the child is deleted as well."""
        if not path.is_file():
            return 0
        try:
            return int(self._ask("restore_state", path=str(path.absolute()))[0]["value"])
        except ModelStopped:
            path.unlink(missing_ok=True)
            raise

    def logits(self) -> "NDArray[np.float32]":
        """Logits after the last token that was read: float32 (vocabulary,)."""
        import numpy as np

        return np.frombuffer(self._ask("logits")[1], np.float32)

    def score(self, tokens: Sequence[int], answer: Sequence[int] = ()) -> Iterator["NDArray[np.float32]"]:
        """Logits after each token, float32 (n, vocabulary), a few positions at a time, so that memory stays small.

        With an encoder beside the decoder, `tokens` go into the encoder and the logits belong to `answer`.
        """
        import numpy as np

        with self._turn:
            child = self._send("score", {"tokens": list(tokens), "answer": list(answer)})
            try:
                while (frame := self._reply(child))[0]["event"] == "logits":
                    yield np.frombuffer(frame[1], np.float32).reshape(-1, self.info.vocabulary)
            finally:
                child.running = None
                if not child.finished:
                    self._bury(child)

    def importance(self) -> "dict[str, tuple[NDArray[np.float64], int]]":
        """With `observe`: for each matrix the sums of its squared inputs by column, and of how many rows."""
        import numpy as np

        reply, raw = self._ask("importance")
        found, at = {}, 0
        for name, columns, count in reply["rows"]:
            found[name] = (np.frombuffer(raw, np.float64, columns, at), count)
            at += 8 * columns
        return found

    def encode(self, rows: Sequence[Sequence[int]]) -> "NDArray[np.float32]":
        """Pooled embeddings, not normalized: float32 (len(rows), dimensions)."""
        import numpy as np

        _, raw = self._ask("encode", rows=[list(row) for row in rows])
        return np.frombuffer(raw, np.float32).reshape(len(rows), -1).copy()

    def memory(self) -> int:
        """The most bytes of RAM that the child has held, mapped weights included."""
        return device.peak_memory(self._child.pid) if self._child else 0

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

    def _send(self, op: str, fields: dict[str, Any]) -> ChildProcess:
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

    def _start(self, child: ChildProcess) -> ModelInfo:
        child.write(self._load)
        child.begin(0)
        reply, _ = self._reply(child, _START_SECONDS)
        child.running = None
        return ModelInfo(**reply["info"])

    def _restart(self) -> ChildProcess:
        recent = [at for at in self._deaths if time.monotonic() - at < _DEATHS_SECONDS]
        if len(recent) >= _DEATHS:
            why = f"stopped {len(recent)} times within {_DEATHS_SECONDS:.0f} s"
            raise ModelStopped(self._path.name, why, "use another model, or wait a minute")
        child = self._child = ChildProcess()
        try:
            self.info = self._start(child)
        except BaseException:  # a child without a model serves nobody
            self._bury(child)
            raise
        return child

    def _reply(self, child: ChildProcess, seconds: float | None = None) -> Frame:
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

    def _events(self, child: ChildProcess, prompt_tokens: int) -> Iterator[Progress | Token | Done]:
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
                    yield from map(_token, frame["items"])
                case "progress":
                    yield Progress(**frame)
                case "done":
                    yield Done(**frame)
                    return

    def _reply_or_cancel(self, child: ChildProcess) -> Frame:
        while True:
            wait = None if child.cancelled_at is None else child.cancelled_at + _CANCEL_SECONDS - time.monotonic()
            try:
                frame = child.read(STEP_SECONDS if wait is None else max(0.0, min(wait, STEP_SECONDS)))
            except queue.Empty:
                if wait is not None and wait <= 0:
                    raise
                continue
            if frame is None:
                raise self._died(child)
            if frame[0]["event"] == "error":
                raise _decoded_error(frame[0])
            return frame

    def _settle(self, child: ChildProcess) -> None:
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

    def _bury(self, child: ChildProcess) -> None:
        child.kill()
        if self._child is child:
            self._child = None

    def _died(self, child: ChildProcess) -> ModelStopped:
        if self._closed:  # by another thread, which has taken the log with it
            return ModelStopped(self._path.name, "was closed while it worked", "open it again")
        self._deaths.append(time.monotonic())
        why = child.last_words()
        self._bury(child)
        return ModelStopped(self._path.name, why, "ask again: the model is restarted once")


def _load_request(path: Path, options: LoadOptions) -> dict[str, Any]:
    """Check the file and the memory before any native code runs."""
    header = guard.check_gguf(path, vocabulary_only=options.vocabulary_only)
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
        "vocabulary_only": options.vocabulary_only,
        "observe": options.observe,
        "exact": options.exact,
        "tokenizer": str(options.tokenizer.resolve()) if options.tokenizer else "",
        "fingerprint": options.fingerprint or _file_facts(path),
    }


def _file_facts(path: Path) -> str:
    """What stands for the hash of a file that is not known."""
    found = path.stat()
    return f"{path.resolve()} {found.st_size} {found.st_mtime_ns}"


def _token(item: list[Any]) -> Token:
    number, text, *facts = item
    return Token(number, text, facts[0], tuple(map(tuple, facts[1]))) if facts else Token(number, text)


def _decoded_error(frame: dict[str, Any]) -> EdgemmError:
    kind = getattr(errors, str(frame["kind"]), EdgemmError)
    return kind(frame["what"], frame["why"], frame["fix"])
