"""What a document is once it is read: sections of text, each with its place; plain frozen records and their JSON."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Place:
    """Where a text stands in its file. `line` and `end_line` count from 1; what does not apply is 0 or ""."""

    page: int = 0
    line: int = 0
    end_line: int = 0
    slide: int = 0
    sheet: str = ""
    cells: str = ""

    def shown(self) -> str:
        """ "page 3", "lines 10-24", "slide 2", "sheet Costs, A1:D20"; "" for a file as a whole."""
        if self.page:
            return f"page {self.page}"
        if self.slide:
            return f"slide {self.slide}"
        if self.sheet:
            return f"sheet {self.sheet}, {self.cells}" if self.cells else f"sheet {self.sheet}"
        if self.line and self.end_line > self.line:
            return f"lines {self.line}-{self.end_line}"
        return f"line {self.line}" if self.line else ""


@dataclass(frozen=True, slots=True)
class Section:
    """A run of text below one heading. `place.line` is the line of its first character, where lines count.

    `heading`: the path of headings above it, the outermost first.
    """

    text: str
    place: Place = Place()
    heading: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Document:
    """`notes`: what was left out. `taken`: when a picture was taken, ISO 8601, or ""."""

    title: str
    sections: tuple[Section, ...]
    notes: tuple[str, ...] = ()
    taken: str = ""


@dataclass(frozen=True, slots=True)
class Refused:
    """A file that was not read, and why, in a few words."""

    why: str


class Unreadable(Exception):
    """A parser's own word for a file that it cannot read; the text says why."""


def to_json(document: Document) -> dict[str, Any]:
    return asdict(document)


def from_json(value: dict[str, Any]) -> Document:
    """The reverse of `to_json`."""
    sections = tuple(Section(s["text"], Place(**s["place"]), tuple(s["heading"])) for s in value["sections"])
    return Document(value["title"], sections, tuple(value["notes"]), value["taken"])
