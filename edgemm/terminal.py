"""The last metre before the user's terminal: nothing from a model, a document or a file name gets there raw.

Text is stripped of control sequences, progress and notes go to stderr, data to stdout. It knows how to draw
events, and nothing about what produces them.
"""

import json
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from edgemm.events import Note, Progress

if TYPE_CHECKING:
    from rich.console import Console

_T = TypeVar("_T")
_BIDI = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"  # they reorder the rest of the line
_TAGS = range(0xE0000, 0xE0080)  # invisible letters
_ALLOWED = "\n\t"
_UNSAFE = {
    **{c: 0x2400 + c for c in range(0x20) if chr(c) not in _ALLOWED},  # shown as their Unicode control pictures
    0x7F: 0x2421,
    **dict.fromkeys([*range(0x80, 0xA0), *map(ord, _BIDI), *_TAGS], 0xFFFD),
}
_BYTE_UNITS = ("B", "KB", "MB", "GB", "TB")


def safe(text: str) -> str:
    """`text` without any character that a terminal would obey: ESC becomes ␛, C1, bidi and tag characters �."""
    return text.translate(_UNSAFE)


def note(text: str) -> None:
    """One line on stderr."""
    sys.stderr.write(safe(text).replace("\n", " ") + "\n")
    sys.stderr.flush()


def human_bytes(count: float) -> str:
    """1,500,000 -> "1.5 MB" (decimal units, as file managers and download pages show them)."""
    for unit in _BYTE_UNITS:
        if count < 1000 or unit == _BYTE_UNITS[-1]:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError("unreachable")


def print_json(value: Any, indent: int | None = 1) -> None:
    """`value` as ASCII JSON on stdout: no control character survives, C1 included."""
    sys.stdout.write(json.dumps(value, indent=indent, default=str) + "\n")
    sys.stdout.flush()


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]], fold: Collection[str]) -> None:
    """Columns on a terminal, of which those in `fold` may break; tab-separated values for a pipe."""
    if not sys.stdout.isatty():
        for row in rows:
            sys.stdout.write(safe("\t".join(row)) + "\n")
        sys.stdout.flush()
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in head:
        table.add_column(title, overflow="fold", no_wrap=title not in fold)
    for row in rows:
        table.add_row(*map(safe, row))
    console().print(table)


def console(stderr: bool = False) -> "Console":
    """A rich console that interprets no markup, so that a model's "[/b]" stays text."""
    from rich.console import Console

    return Console(stderr=stderr, markup=False, highlight=False, emoji=False, soft_wrap=False)


class ProgressBar:
    """Draws `Progress` events on stderr: a bar with ETA on a terminal, a line every few seconds elsewhere."""

    _QUIET_SECONDS = 5.0

    def __init__(self) -> None:
        self._bar: Any = None
        self._task: Any = None
        self._stage = ""
        self._last = time.monotonic()

    def __enter__(self) -> "ProgressBar":
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    def show(self, event: Progress) -> None:
        if sys.stderr.isatty():
            self._draw(event)
        elif time.monotonic() - self._last > self._QUIET_SECONDS:
            self._last = time.monotonic()
            note(describe(event))

    def close(self) -> None:
        """Remove the bar. It comes back with the next event."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _draw(self, event: Progress) -> None:
        if self._bar is None:
            self._bar, self._stage = _rich_bar(), ""
            self._bar.start()
        if event.stage != self._stage:
            for task in self._bar.task_ids:
                self._bar.remove_task(task)
            self._stage = event.stage
            self._task = self._bar.add_task(safe(event.stage), total=event.total or None, amount="")
        self._bar.update(self._task, completed=event.done, total=event.total or None, amount=_amount(event))


def describe(event: Progress) -> str:
    """One line such as "download: 41 % (32.0 MB / 78.1 MB)"."""
    share = f"{100 * event.done // event.total} % " if event.total else ""
    return f"{event.stage}: {share}({_amount(event)})"


def results(events: Iterator[Progress | Note | _T]) -> Iterator[_T]:
    """Show progress and notes of `events` on stderr, and pass on what is neither."""
    with ProgressBar() as bar:
        for event in events:
            if isinstance(event, Progress):
                bar.show(event)
                continue
            bar.close()
            if isinstance(event, Note):
                note(event.text)
            else:
                yield event


def finish(events: Iterator[Progress | Note | _T]) -> _T:
    """The last of `results`: what a piece of work ends with."""
    return list(results(events))[-1]


def _amount(event: Progress) -> str:
    if event.unit == "B":
        done, total = human_bytes(event.done), human_bytes(event.total)
    else:
        done, total = f"{event.done:,}", f"{event.total:,}"
    unit = "" if event.unit == "B" else f" {event.unit}"
    return f"{done} / {total}{unit}" if event.total else f"{done}{unit}"


def _rich_bar() -> Any:
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[amount]}", markup=False),
        TimeRemainingColumn(compact=True, elapsed_when_finished=True),
    )
    return Progress(*columns, console=console(stderr=True), transient=True)
