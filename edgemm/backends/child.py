"""The child process that holds a GGUF model: reads requests from stdin, answers on stdout, dies with its parent.

`python -m edgemm.backends.child` is started by worker.py. Whatever native code prints goes to stderr, which the
parent keeps as the last words of a child that died.
"""

import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from edgemm.backends import Sampling
from edgemm.backends.frames import read_frame, write_frame
from edgemm.errors import BadFile, EdgemmError
from edgemm.events import Done, Progress, Token

_TOGETHER_SECONDS = 0.03  # not visible in a stream of text


class Server:
    """Serves one model. Requests come in on a thread, so that a cancel is seen while the model works."""

    def __init__(self, inbox: IO[bytes], outbox: IO[bytes]) -> None:
        self._inbox, self._outbox = inbox, outbox
        self._requests: queue.Queue[dict[str, Any]] = queue.Queue()
        self._cancelled = -1
        self._model: Any = None

    def run(self) -> None:
        threading.Thread(target=self._listen, daemon=True).start()
        import edgemm.backends.llamacpp  # noqa: F401 - while the parent still checks the file

        while True:
            request = self._requests.get()
            try:
                self._serve(request)
            except EdgemmError as error:
                self._send("error", kind=type(error).__name__, what=error.what, why=error.why, fix=error.fix)
            except Exception as error:
                why = f"{type(error).__name__}: {error}"
                self._send("error", kind=BadFile.__name__, what="model", why=why, fix="try another model")

    def _listen(self) -> None:
        while (frame := read_frame(self._inbox)) is not None:
            if frame[0]["op"] == "cancel":
                self._cancelled = frame[0]["id"]
            else:
                self._requests.put(frame[0])
        os._exit(0)  # the parent is gone

    def _serve(self, request: dict[str, Any]) -> None:
        op, number = request.pop("op"), request.pop("id")
        match op:
            case "load":
                self._load(request)
            case "generate":
                sampling = Sampling(**request["sampling"] | {"stop": tuple(request["sampling"]["stop"])})
                self._stream(self._model.generate(request["tokens"], sampling, lambda: self._cancelled == number))
            case "score":
                for logits in self._model.score(request["tokens"], request["answer"]):
                    self._send("logits", logits.tobytes())
                self._send("reply")
            case "importance":
                self._importance()
            case "logits" | "encode":
                self._send("reply", getattr(self._model, op)(**request).tobytes())
            case "prompt" | "continuation":
                self._send("reply", **asdict(getattr(self._model, op)(**request)))
            case "tokenize":
                self._send("reply", value=self._model.tokenize(request.pop("text"), **request))
            case "save_state" | "restore_state":
                self._send("reply", value=getattr(self._model, op)(Path(request["path"])))

    def _load(self, request: dict[str, Any]) -> None:
        from edgemm.backends.llamacpp import LlamaCpp

        path = Path(request.pop("path"))
        self._model = LlamaCpp(path, **request)
        self._send("reply", info=asdict(self._model.info))

    def _importance(self) -> None:
        found = self._model.importance()
        rows = [(name, len(sums), count) for name, (sums, count) in found.items()]
        self._send("reply", b"".join(sums.tobytes() for sums, _ in found.values()), rows=rows)

    def _send(self, event: str, raw: bytes = b"", **fields: Any) -> None:
        write_frame(self._outbox, {"event": event, **fields}, raw)

    def _stream(self, events: Iterable[Progress | Token | Done]) -> None:
        """Send `events`; tokens that follow each other fast go in one frame.

        Every frame costs this process time between two tokens, and wakes the parent, which takes a core from the model.
        """
        held: list[tuple[Any, ...]] = []
        sent_at = 0.0
        for event in events:
            if isinstance(event, Token):
                held.append(_fields(event))
                if time.monotonic() - sent_at < _TOGETHER_SECONDS:
                    continue
            if held:
                self._send("tokens", items=held)
                held, sent_at = [], time.monotonic()
            if not isinstance(event, Token):
                self._send(type(event).__name__.lower(), **asdict(event))


def _fields(token: Token) -> tuple[Any, ...]:
    if token.logprob is None:
        return token.id, token.text
    return token.id, token.text, token.logprob, token.top


def main() -> None:
    """The child process: keep the pipe for frames alone, whatever native code prints."""
    if sys.platform != "win32":
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    outbox = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    Server(sys.stdin.buffer, outbox).run()


if __name__ == "__main__":
    main()
