"""The index of the user's documents as a window works on it: opened when it is first needed, searched by one thread at
a time, and brought up to date by a run in a thread of its own.

The thread is a daemon: what it has stored survives the end of the program, and the next run goes on from there. It
knows no widget; whoever shows a run looks at it now and then.
"""

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgemm.errors import EdgemmError, UsageError
from edgemm.events import Note, Progress
from edgemm.terminal import human_bytes
from edgemm.tui.download import Failed, Rate, Stopped, duration

if TYPE_CHECKING:  # they load numpy, which a chat without documents does not need
    from edgemm.index import Chunk
    from edgemm.ingest import Events, Report
    from edgemm.library import Index
    from edgemm.search import Hit
    from edgemm.tui.finding import Stock

LIMIT = 30  # passages that a search gives
_NOTES = 20  # of a run are kept until they are shown


@dataclass(frozen=True, slots=True)
class Finished:
    report: "Report"


class Run:
    """Follows `events` to their end. `progress` is the last one, `end` is None until it has ended."""

    def __init__(self, events: "Callable[[], Events]") -> None:
        self._events = events
        self._stop = threading.Event()
        self._notes: deque[str] = deque(maxlen=_NOTES)
        self.progress: Progress | None = None
        self.end: Finished | Stopped | Failed | None = None
        self._thread = threading.Thread(target=self._run, name="index", daemon=True)

    @property
    def stopping(self) -> bool:
        return self._stop.is_set()

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ask it to end: it does so after the file that is read, or the passages that are embedded together."""
        self._stop.set()

    def wait(self, seconds: float) -> bool:
        """Whether it has ended within `seconds`."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def notes(self) -> Iterator[str]:
        """Those that were not taken yet."""
        while self._notes:
            yield self._notes.popleft()

    def _run(self) -> None:
        try:
            self.end = self._follow()
        except EdgemmError as error:
            self.end = Stopped() if self.stopping else Failed(str(error))
        except OSError as error:
            self.end = Failed(f"index: {error.strerror or error} — check the disk, then bring it up to date again")
        except Exception as error:  # the thread has no caller that could show it
            self.end = Failed(f"index: {type(error).__name__}: {error} — this is a bug")

    def _follow(self) -> Finished | Stopped:
        events = self._events()
        for event in events:
            if isinstance(event, Progress):
                self.progress = event
            elif isinstance(event, Note):
                self._notes.append(event.text)
            else:
                return Finished(event)
            if self.stopping:
                break
        if isinstance(events, Generator):
            events.close()
        return Stopped()


class IndexDesk:
    """`opener` gives the index, whose end is the caller's affair. Every method may be called from any thread."""

    def __init__(self, opener: "Callable[[], Index]") -> None:
        self._opener = opener
        self._opening, self._searching = threading.Lock(), threading.Lock()
        self._index: Index | None = None
        self._is_warm = False  # the models of a search are in memory
        self._told: set[str] = set()
        self.run: Run | None = None  # until what it ended with was shown

    def index(self) -> "Index":
        """Raises what stands in the way of opening it, and tries again the next time."""
        with self._opening:
            if self._index is None:
                self._index = self._opener()
            return self._index

    def stock(self) -> "Stock":
        from edgemm.tui.finding import Stock

        status = self.index().status()
        return Stock(status, frozenset(each.root.id for each in status.roots if not _is_there(each.root.path)))

    def by_words(self, query: str) -> "tuple[list[Hit], str]":
        """What words alone find, at once, and the name of the model that `search` must load first; "" for none."""
        from edgemm import search

        store = self.index().store
        model = None if self._is_warm else store.ready()
        return search.search(store, query, limit=LIMIT), model.name if model else ""

    @property
    def is_warm(self) -> bool:
        """Whether a search takes no longer than one by words."""
        return self._is_warm

    def search(self, query: str, is_wanted: Callable[[], bool]) -> "list[Hit]":
        """Nothing for a query that is not wanted any more when its turn comes: searches do not pile up."""
        index = self.index()
        with self._searching:
            if not is_wanted():
                return []
            found = index.search(query, limit=LIMIT)
            self._is_warm = True
            return found

    def around(self, chunk: "Chunk", count: int) -> "list[Chunk]":
        """The passages with the `count` ids before and behind that of `chunk`, which may belong to other files."""
        return self.index().store.chunks(range(chunk.id - count, chunk.id + count + 1))

    def news(self) -> list[str]:
        """Notes of the index that were not told yet."""
        notes = [note for note in (self._index.notes if self._index else []) if note not in self._told]
        self._told.update(notes)
        return notes

    def forget(self, folder: Path) -> None:
        """Take a folder out of the index. Raises `UsageError` while a run is under way."""
        self._check_idle()
        self.index().remove(folder)

    def begin(self, folder: Path | None = None) -> None:
        """Bring every folder up to date, or add `folder`, in a thread. Raises `UsageError` while another one runs."""
        self._check_idle()

        def events() -> "Events":
            index = self.index()
            return index.update(None if folder is None else [index.root(folder)])

        self.run = Run(events)
        self.run.start()

    def stop(self, seconds: float) -> None:
        """End the run, if it does so within `seconds`."""
        if self.run is not None:
            self.run.stop()
            self.run.wait(seconds)

    def _check_idle(self) -> None:
        if self.run is not None and self.run.end is None:
            raise UsageError("index", "is being brought up to date", "wait, or stop it with Esc")


def describe(progress: Progress, rate: Rate) -> str:
    """One line such as "embed with mini: 1,200 of 9,600 tokens · 800 tokens/s · 11 s left"."""
    amount = human_bytes(progress.done) if progress.unit == "B" else f"{progress.done:,}"
    total = human_bytes(progress.total) if progress.unit == "B" else f"{progress.total:,}"
    unit = "" if progress.unit == "B" else f" {progress.unit}"
    parts = [f"{progress.stage}: {amount}{f' of {total}' if progress.total else ''}{unit}"]
    speed = rate.per_second
    if speed and progress.unit != "files":
        parts.append(f"{human_bytes(speed)}/s" if progress.unit == "B" else f"{speed:,.0f}{unit}/s")
    if speed and progress.done < progress.total:
        parts.append(f"{duration((progress.total - progress.done) / speed)} left")
    if progress.stage == "read" and progress.done >= progress.total:  # the first vectors take a while
        parts.append("vectors follow")
    return " · ".join(parts)


def _is_there(folder: Path) -> bool:
    with suppress(OSError, ValueError):
        return folder.is_dir()
    return False
