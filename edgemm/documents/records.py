"""What a document is once it is read: sections of text, each with its place; frozen records, and how they travel."""

import re
from dataclasses import dataclass
from typing import Any

# Half of a UTF-16 pair has no UTF-8, and NUL ends a string of C: neither a database nor a tokenizer takes them.
_BROKEN = re.compile("[\0\ud800-\udfff]")


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
        """ "page 3", "lines 10-24", "slide 2", "sheet Costs, A1:D20", "cell 4"; "" for a file as a whole."""
        if self.page:
            return f"page {self.page}"
        if self.slide:
            return f"slide {self.slide}"
        if self.sheet:
            return f"sheet {self.sheet}, {self.cells}" if self.cells else f"sheet {self.sheet}"
        if self.line and self.end_line > self.line:
            return f"lines {self.line}-{self.end_line}"
        return f"line {self.line}" if self.line else self.cells


@dataclass(frozen=True, slots=True)
class Section:
    """A run of text below one heading. `place.line` is the line of its first character, where lines count.

    In a sheet each line is a row of `place.cells`. `heading`: the path of headings above it, the outermost first.
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


def pack(document: Document) -> tuple[dict[str, Any], bytes]:
    """As JSON and bytes: the texts of all sections, in UTF-8, one after the other. What has no UTF-8 becomes U+FFFD."""
    sections = [
        [len(section.text), _values(section.place), [clean(heading) for heading in section.heading]]
        for section in document.sections
    ]
    notes = [clean(note) for note in document.notes]
    header = {"title": clean(document.title), "notes": notes, "taken": document.taken, "sections": sections}
    return header, clean("".join(section.text for section in document.sections)).encode()


def unpack(header: dict[str, Any], raw: bytes) -> Document:
    """The reverse of `pack`."""
    text, sections, start = raw.decode(), [], 0
    for length, place, heading in header["sections"]:
        sections.append(Section(text[start : start + length], Place(*place), tuple(heading)))
        start += length
    return Document(header["title"], tuple(sections), tuple(header["notes"]), header["taken"])


def clean(text: str) -> str:
    """A text of the same length that every encoder takes."""
    return _BROKEN.sub("\ufffd", text)


def _values(place: Place) -> list[int | str]:
    return [place.page, place.line, place.end_line, place.slide, clean(place.sheet), clean(place.cells)]
