"""What stands on a terminal after the chat screen was drawn on it, and whether anything else was written to it.

It obeys the few sequences that the screen itself writes. At any other one, and at a character that a terminal could
obey, hide or use to reorder a line, it raises `Foreign`.
"""

import codecs
import re

from rich.cells import cell_len

_MODES = "7|25|1000|1003|1004|1006|1015|1049|2004|2026"
_PARTS = (
    r"(?P<text>[^\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\U000e0000-\U000e007f]+)",
    r"\x1b\[(?P<row>\d+);(?P<column>\d+)H",
    r"(?P<end>[\r\n])",
    r"\x1b\[[\d;]*m",
    rf"\x1b\[\?(?:{_MODES})[hl]",
    r"\x1b\[\?(?:2026|2048)\$p",  # what can this terminal do?
    r"\x1b\[(?:>25|<)u",  # its keyboard says more, and no more
    r"\x1b\]22;(?:default|pointer|text)\x07",  # the shape of its pointer
)
_PART = re.compile("|".join(_PARTS))
_BEGUN = re.compile(r"\x1b(?:[\[\]][?<>\d;$a-z]{0,20})?")


class Foreign(AssertionError):
    """Something was written that is none of the screen's own."""


class Screen:
    """Characters in cells. What is drawn beyond the edge is lost, as on a terminal that does not wrap."""

    def __init__(self, columns: int, rows: int) -> None:
        self._decode = codecs.getincrementaldecoder("utf-8")().decode
        self._left = ""  # the beginning of a sequence
        self.resize(columns, rows)

    def resize(self, columns: int, rows: int) -> None:
        """An empty terminal of that size: whoever draws on it does so anew."""
        self._columns, self._row, self._column = columns, 0, 0
        self._cells = [[" "] * columns for _ in range(rows)]

    def write(self, raw: bytes) -> None:
        """Raises `Foreign`."""
        self._left, at = self._left + self._decode(raw), 0
        while part := _PART.match(self._left, at):
            at = part.end()
            self._obey(part)
        self._left = self._left[at:]
        if self._left and not _BEGUN.fullmatch(self._left):
            raise Foreign(ascii(self._left[:80]))

    def lines(self) -> list[str]:
        return ["".join(row).rstrip() for row in self._cells]

    def _obey(self, part: re.Match[str]) -> None:
        if part["text"]:
            self._put(part["text"])
        elif part["row"]:
            self._row, self._column = int(part["row"]) - 1, int(part["column"]) - 1
        elif part["end"] == "\r":
            self._column = 0
        elif part["end"]:
            self._row += 1

    def _put(self, text: str) -> None:
        row = self._cells[self._row] if self._row < len(self._cells) else []
        for character in text:
            width = cell_len(character)
            if width and self._column + width <= len(row):
                row[self._column : self._column + width] = [character, *[""] * (width - 1)]
            self._column += width
