"""A download in a thread of its own, how fast it is and how long it will take.

The thread is a daemon: a network that has stalled must not hold up the end of the program, and what has arrived is
resumed the next time. It knows no widget; whoever starts it is told by plain values, in the download's thread.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

from edgemm.errors import EdgemmError
from edgemm.events import Note, Progress
from edgemm.package import Package
from edgemm.terminal import human_bytes

_TELL_SECONDS = 0.1  # between two reports of progress
_WINDOW_SECONDS = 8.0  # over which the speed is taken
_LEAST_SECONDS = 0.5

Pull = Callable[[str], Iterator[Progress | Note | Package | Path]]


@dataclass(frozen=True, slots=True)
class Arrived:
    """The model is in the store."""


@dataclass(frozen=True, slots=True)
class Stopped:
    """It was asked to stop. What has arrived is kept where the source can resume."""


@dataclass(frozen=True, slots=True)
class Failed:
    why: str


News = Progress | Note | Arrived | Stopped | Failed


class Download:
    """Runs `pull(name)`; `tell` gets its progress and notes, and at last one of `Arrived`, `Stopped` and `Failed`."""

    def __init__(self, name: str, pull: Pull, tell: Callable[[News], None]) -> None:
        self.name = name
        self._pull, self._tell = pull, tell
        self._stop = threading.Event()
        self._told = -_TELL_SECONDS
        self._thread = threading.Thread(target=self._run, name=f"download {name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ask it to end. It does so with the next block that arrives, or when the network gives up."""
        self._stop.set()

    def wait(self, seconds: float) -> bool:
        """Whether it has ended within `seconds`."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            end: News = self._receive()
        except EdgemmError as error:
            end = Stopped() if self._stop.is_set() else Failed(str(error))
        except Exception as error:  # the thread has no caller that could show it
            end = Failed(f"{self.name}: {type(error).__name__}: {error} — this is a bug")
        self._tell(end)

    def _receive(self) -> News:
        events = self._pull(self.name)
        for event in events:
            if isinstance(event, (Package, Path)):
                return Arrived()
            if self._stop.is_set():
                _close(events)
                return Stopped()
            if isinstance(event, Note) or self._is_due(event):
                self._tell(event)
        return Arrived()

    def _is_due(self, event: Progress) -> bool:
        now = time.monotonic()
        if event.done < event.total and now - self._told < _TELL_SECONDS:
            return False
        self._told = now
        return True


class Rate:
    """Bytes a second over the last seconds; `clock` gives seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: deque[tuple[float, int]] = deque()
        self._stage = ""

    def add(self, event: Progress) -> None:
        """Another file, and one that has shrunk, begins anew."""
        now = self._clock()
        if event.stage != self._stage or (self._seen and event.done < self._seen[-1][1]):
            self._seen.clear()
        self._stage = event.stage
        self._seen.append((now, event.done))
        while now - self._seen[0][0] > _WINDOW_SECONDS and len(self._seen) > 2:
            self._seen.popleft()

    @property
    def per_second(self) -> float:
        """0: not known yet."""
        if len(self._seen) < 2:
            return 0.0
        (first, had), (last, has) = self._seen[0], self._seen[-1]
        return (has - had) / (last - first) if last - first >= _LEAST_SECONDS else 0.0

    def describe(self, event: Progress) -> str:
        """One line such as "12.0 MB of 98.4 MB · 8.1 MB/s · 11 s left"."""
        total = f" of {human_bytes(event.total)}" if event.total else ""
        parts = [human_bytes(event.done) + total]
        if event.total and event.done >= event.total:
            return f"{parts[0]} · checking and storing"
        if rate := self.per_second:
            parts.append(f"{human_bytes(rate)}/s")
            if event.total:
                parts.append(f"{duration((event.total - event.done) / rate)} left")
        return " · ".join(parts)


def duration(seconds: float) -> str:
    """75 -> "1 min 15 s"."""
    whole = max(1, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _close(events: Iterator[object]) -> None:
    if isinstance(events, Generator):
        events.close()
