"""Reads files in a few child processes, each file with limits of time and memory; a child that fails is replaced."""

import queue
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType

from edgemm.backends.process import ChildProcess
from edgemm.documents.records import Document, Refused, from_json
from edgemm.documents.walk import Found

_CHILD = "edgemm.documents.child"


@dataclass(frozen=True, slots=True)
class Limits:
    """For one file: `seconds` on the clock, bytes of `memory` of the child, bytes of the `file`."""

    seconds: float = 20.0
    memory: int = 1 << 29
    file: int = 64 << 20


@dataclass(frozen=True, slots=True)
class Result:
    """`hash` is the sha256 of the bytes that were read; "" for a refused file."""

    found: Found
    document: Document | Refused
    hash: str = ""


class Reader:
    """Two files at most are under way for each child, so that memory does not grow with the input."""

    def __init__(self, workers: int = 2, limits: Limits | None = None) -> None:
        self._workers, self._limits = max(1, workers), limits or Limits()
        self._idle: queue.SimpleQueue[ChildProcess | None] = queue.SimpleQueue()
        for _ in range(self._workers):
            self._idle.put(None)
        self._pool = ThreadPoolExecutor(self._workers, thread_name_prefix="edgemm-read")
        self._closed = False

    def read(self, files: Iterable[Found]) -> Iterator[Result]:
        """In the order of `files`."""
        waiting: deque[Future[Result]] = deque()
        for found in files:
            waiting.append(self._pool.submit(self._one, found))
            if len(waiting) >= 2 * self._workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    def close(self) -> None:
        self._closed = True
        self._pool.shutdown(wait=True, cancel_futures=True)
        while not self._idle.empty():
            child = self._idle.get()
            if child is not None:
                child.kill()

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    def _one(self, found: Found) -> Result:
        child = self._idle.get()
        try:
            child = child or self._start()
            result = self._ask(child, found)
        except queue.Empty:
            result = Result(found, Refused(f"takes longer than {self._limits.seconds:g} s"))
        except _Gone as error:
            result = Result(found, Refused(f"its reader ended ({error})"))
        if isinstance(result.document, Refused) and child is not None and (child.dead or not child.finished):
            child.kill()
            child = None
        self._idle.put(child)
        return result

    def _start(self) -> ChildProcess:
        child = ChildProcess(_CHILD)
        child.write({"op": "limit", "memory": self._limits.memory})
        return child

    def _ask(self, child: ChildProcess, found: Found) -> Result:
        child.begin(0)
        request = {"path": str(found.path), "name": found.name, "kind": found.kind, "most": self._limits.file}
        child.write({"op": "read", **request})
        frame = child.read(self._limits.seconds)
        if frame is None:
            raise _Gone(child.last_words().removeprefix("model stopped: "))
        reply = frame[0]
        if "refused" in reply:
            return Result(found, Refused(reply["refused"]))
        return Result(found, from_json(reply["document"]), reply["hash"])


class _Gone(Exception):
    """The child has ended."""
