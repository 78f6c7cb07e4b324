"""Which messages of a chat are on the page: a run of neighbours that grows at either end and is cut at the other.

It knows how long the messages are, in characters, and nothing else of them, of widgets or of rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass

OPENED, CHUNK, MOST = 30, 20, 80  # messages when a chat is opened, added at an end, and kept
HEAVY = 96 << 10  # characters that one step adds at most, the first message aside


@dataclass(frozen=True, slots=True)
class Window:
    """The messages from `first` up to, and without, `last`."""

    first: int = 0
    last: int = 0

    def __len__(self) -> int:
        return self.last - self.first

    def __contains__(self, index: int) -> bool:
        return self.first <= index < self.last


def ending(sizes: Sequence[int], last: int, most: int = OPENED) -> Window:
    """The window of at most `most` messages that ends before `last`."""
    return Window(last - _run(sizes[max(0, last - most) : last][::-1]), last)


def beginning(sizes: Sequence[int], first: int, most: int = OPENED) -> Window:
    """The window of at most `most` messages that begins with `first`."""
    return Window(first, first + _run(sizes[first : first + most]))


def older(window: Window, sizes: Sequence[int], most: int = MOST) -> Window:
    """A chunk more at the beginning; cut at the end where there are more than `most`."""
    first = ending(sizes, window.first, CHUNK).first
    return Window(first, min(window.last, first + most))


def newer(window: Window, sizes: Sequence[int], most: int = MOST) -> Window:
    """A chunk more at the end; cut at the beginning where there are more than `most`."""
    last = beginning(sizes, window.last, CHUNK).last
    return Window(max(window.first, last - most), last)


def _run(sizes: Sequence[int]) -> int:
    """How many of `sizes`, taken in order, make one step."""
    total = 0
    for count, size in enumerate(sizes):
        total += size
        if count and total > HEAVY:
            return count
    return len(sizes)
