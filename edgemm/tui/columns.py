"""The models screen's table as text: which columns fit a width, and one line for each row.

It counts cells, not characters, and cuts names in the middle, because their ends tell them apart.
"""

from collections.abc import Callable
from dataclasses import dataclass

from rich.cells import cell_len, set_cell_size

from edgemm.terminal import human_bytes, safe
from edgemm.tui import shelf
from edgemm.tui.shelf import Row, State

_LEAST_NAME, _MOST_NAME = 18, 48
_GAP = 2


@dataclass(frozen=True, slots=True)
class Column:
    """`width` in cells; `rank`: the highest go first where there is no room; `right`: numbers end at one place."""

    title: str
    width: int
    rank: int
    text: Callable[[Row], str]
    right: bool = False


def _bytes(count: int) -> str:
    """In six cells: "98 MB", "1.2 GB"; empty for 0, which is not known."""
    if not count:
        return ""
    return f"{count / 1e6:.0f} MB" if count < 999_500_000 else human_bytes(count)


def _speed(row: Row) -> str:
    return f"{row.speed:.0f}" if row.speed and row.speed >= 10 else f"{row.speed:.1f}" if row.speed else ""


def _report(row: Row) -> str:
    if row.state is not State.READY:
        return ""
    return "none" if row.passed is None else "passed" if row.passed else "failed"


COLUMNS = (
    Column("SIZE", 6, 1, lambda row: _bytes(row.bytes), right=True),
    Column("WEIGHTS", 7, 2, lambda row: row.weights),
    Column("CTX", 4, 5, lambda row: shelf.thousands(row.context), right=True),
    Column("MEMORY", 6, 6, lambda row: _bytes(row.fit.bytes) if row.fit else "", right=True),
    Column("FIT", 8, 0, shelf.verdict),
    Column("TOK/S", 5, 3, _speed, right=True),
    Column("REPORT", 6, 4, _report),
)


def fitting(width: int) -> tuple[Column, ...]:
    """The columns that leave the name its least room in a line of `width` cells."""
    chosen: set[str] = set()
    room = width - _LEAST_NAME
    for column in sorted(COLUMNS, key=lambda column: column.rank):
        room -= column.width + _GAP
        if room < 0:
            break
        chosen.add(column.title)
    return tuple(column for column in COLUMNS if column.title in chosen)


def head(width: int) -> str:
    """The titles over the lines."""
    return _line("MODEL", [column.title for column in fitting(width)], width)


def line(row: Row, width: int) -> str:
    """`row` in `width` cells, safe for a terminal."""
    return _line(safe(row.name), [safe(column.text(row)) for column in fitting(width)], width)


def middle(text: str, width: int) -> str:
    """`text` in exactly `width` cells, with … in the middle where it is too long."""
    if cell_len(text) <= width:
        return set_cell_size(text, width)
    ahead = (width - 1) // 2
    behind = width - 1 - ahead
    end = text
    while cell_len(end) > behind:
        end = end[1:]
    return set_cell_size(set_cell_size(text, ahead) + "…" + end, width)


def _line(name: str, cells: list[str], width: int) -> str:
    columns = fitting(width)
    taken = sum(column.width + _GAP for column in columns)
    parts = [middle(name.replace("\n", " "), max(1, min(_MOST_NAME, width - taken)))]
    for column, text in zip(columns, cells, strict=True):
        text = text.replace("\n", " ")
        pad = " " * max(0, column.width - cell_len(text)) if column.right else ""
        parts.append(set_cell_size(pad + text, column.width))
    return set_cell_size((" " * _GAP).join(parts), width)
