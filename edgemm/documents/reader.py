"""Reads files in a few child processes, each file with limits of time and memory; a child that fails is replaced."""

import queue
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from types import TracebackType

from edgemm.backends.process import ChildProcess
from edgemm.documents.kinds import Kind
from edgemm.documents.records import Document, Refused, unpack
from edgemm.documents.walk import Found

_CHILD = "edgemm.documents.child"
_AHEAD = 16 << 20  # bytes of files that are read before they are asked for; a larger one comes alone


@dataclass(frozen=True, slots=True)
class Limits:
    """For one file: `seconds` on the clock, bytes of `memory` of the child, bytes of the `file`."""

    seconds: float = 20.0
    memory: int = 1 << 29
    file: int = 64 << 20


@dataclass(frozen=True, slots=True)
class Result:
    """`hash` is the sha256 of the bytes that were read; "" for a refused file.

    The kind in `found` is that of the bytes, where they say something else than the name.
    """

    found: Found
    document: Document | Refused
    hash: str = ""


class Reader:
    """Two files at most are under way for each child, and large ones alone: memory does not grow with the input."""

    def __init__(self, workers: int = 2, limits: Limits | None = None) -> None:
        self._workers, self._limits = max(1, workers), limits or Limits()
        self._idle: queue.SimpleQueue[ChildProcess | None] = queue.SimpleQueue()
        for _ in range(self._workers):
            self._idle.put(None)
        self._starting = threading.Lock()
        self._children: set[ChildProcess] = set()
        self._pool = ThreadPoolExecutor(self._workers, thread_name_prefix="edgemm-read")
        self._closed = False

    def read(self, files: Iterable[Found]) -> Iterator[Result]:
        """In the order of `files`."""
        waiting: deque[tuple[Future[Result], int]] = deque()
        ahead = 0
        try:
            for found in files:
                while waiting and (len(waiting) >= 2 * self._workers or ahead + found.size > _AHEAD):
                    ahead -= waiting[0][1]
                    yield waiting.popleft()[0].result()
                waiting.append((self._pool.submit(self._one, found), found.size))
                ahead += found.size
            while waiting:
                yield waiting.popleft()[0].result()
        finally:  # Ctrl-C, and callers that stop: what has not begun never will
            for future, _ in waiting:
                future.cancel()

    def close(self) -> None:
        """End the children at once, those too that are at work."""
        with self._starting:
            self._closed = True
        for child in list(self._children):
            child.kill()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    def _one(self, found: Found) -> Result:
        child = self._idle.get()
        try:
            child = child if child and not child.dead else self._start(child)
            return self._ask(child, found)
        except queue.Empty:
            return Result(found, Refused(f"takes longer than {self._limits.seconds:g} s"))
        except _Gone as error:
            return Result(found, Refused(str(error)))
        finally:
            if child is not None and not child.finished:
                self._end(child)
                child = None
            self._idle.put(child)

    def _start(self, dead: ChildProcess | None) -> ChildProcess:
        if dead is not None:
            self._end(dead)
        with self._starting:
            if self._closed:
                raise _Gone("the reader was closed")
            child = ChildProcess(_CHILD)
            self._children.add(child)
        child.write({"op": "limit", "memory": self._limits.memory})
        return child

    def _end(self, child: ChildProcess) -> None:
        self._children.discard(child)
        child.kill()

    def _ask(self, child: ChildProcess, found: Found) -> Result:
        child.begin(0)
        request = {"path": str(found.path), "name": found.name, "kind": found.kind, "most": self._limits.file}
        child.write({"op": "read", **request})
        frame = child.read(self._limits.seconds)
        if frame is None:
            child.finished = False
            raise _Gone("the reader was closed" if self._closed else _last_words(child))
        header, raw = frame
        if "refused" in header:
            return Result(found, Refused(header["refused"]))
        return Result(replace(found, kind=Kind(header["kind"])), unpack(header, raw), header["hash"])


class _Gone(Exception):
    """The child has ended; the text says why."""


def _last_words(child: ChildProcess) -> str:
    words = child.last_words().removeprefix("model stopped: ")
    is_memory = "memory allocation of" in words or "bad_alloc" in words
    return "needs more memory than a document may take" if is_memory else f"its reader ended ({words})"
