"""Text, source code, Markdown and reStructuredText: headings found, lines counted."""

import re
from collections.abc import Iterator

from edgemm.documents.decode import text_of
from edgemm.documents.records import Document, Place, Section

_HEADING = re.compile(r"(#{1,6})[ \t]+(.*?)[ \t#]*$")
_FENCE = re.compile(r"[ \t]{0,3}(```|~~~)")
_RULED = re.compile(r"([=\-~^\"'`#*+.:_])\1{2,}[ \t]*$")  # the line below (and above) a heading in reStructuredText
Headed = tuple[int, str, int]  # level, title, index of the line where its section begins


def text(data: bytes, name: str) -> Document:
    whole = text_of(data)
    return Document(_title(name), (Section(whole, Place(line=1)),) if whole.strip() else ())


def markdown(data: bytes, name: str) -> Document:
    lines = text_of(data).split("\n")
    return _sectioned(lines, _markdown_headings(lines), name)


def rst(data: bytes, name: str) -> Document:
    lines = text_of(data).split("\n")
    return _sectioned(lines, _rst_headings(lines), name)


def _markdown_headings(lines: list[str]) -> Iterator[Headed]:
    fence = ""
    for index, line in enumerate(lines):
        if found := _FENCE.match(line):
            fence = "" if fence == found[1] else fence or found[1]
        elif not fence and (heading := _HEADING.match(line)):
            yield len(heading[1]), heading[2], index


def _rst_headings(lines: list[str]) -> Iterator[Headed]:
    """The level of an underline is the order in which its sign was first used."""
    signs: list[str] = []
    for index in range(len(lines) - 1):
        title, below = lines[index].strip(), lines[index + 1]
        if title and not _RULED.match(title) and _RULED.match(below) and len(below.rstrip()) >= len(title):
            if below[0] not in signs:
                signs.append(below[0])
            yield signs.index(below[0]) + 1, title, index


def _sectioned(lines: list[str], headings: Iterator[Headed], name: str) -> Document:
    """Sections from heading to heading, the heading's own line included."""
    path: list[tuple[int, str]] = []
    sections: list[Section] = []
    start = 0
    for level, title, index in headings:
        _add(sections, lines, start, index, path)
        path = [(above, text) for above, text in path if above < level] + [(level, title)]
        start = index
    _add(sections, lines, start, len(lines), path)
    return Document(sections[0].heading[0] if sections and sections[0].heading else _title(name), tuple(sections))


def _add(sections: list[Section], lines: list[str], start: int, end: int, path: list[tuple[int, str]]) -> None:
    body = "\n".join(lines[start:end])
    if body.strip():
        sections.append(Section(body, Place(line=start + 1), tuple(title for _, title in path)))


def _title(name: str) -> str:
    return name.rsplit("/", 1)[-1]
