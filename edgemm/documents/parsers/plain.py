"""Text, source code, Markdown and reStructuredText: headings found, lines counted."""

import re
from collections.abc import Iterator

from edgemm.documents.decode import text_of
from edgemm.documents.records import Document, Place, Section

_HEADING = re.compile(r" {0,3}(#{1,6})[ \t]+(.*)$")
_FENCE = re.compile(r" {0,3}(?:(`{3,})[^`]*|(~{3,}).*)$")  # CommonMark 0.31, section 4.5
_SETEXT = re.compile(r" {0,3}(=+|-+)[ \t]*$")  # section 4.3
_NO_TITLE = re.compile(r"\s*$|\s*([-*+>|#]|\d+[.)])|.*\|")  # a line above "---" that is no heading: a list, a table
_RULED = re.compile(r"([=\-~^\"'`#*+.:_])\1{2,}[ \t]*$")  # the line below (and above) a heading in reStructuredText
_LONGEST = 200  # characters of a heading
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
    start = _front_matter(lines)
    for index, line in enumerate(lines[start:], start):
        if found := _FENCE.match(line):
            marks = found[1] or found[2]
            is_end = marks.startswith(fence) and not line.strip().strip(marks[0])
            fence = marks if not fence else "" if is_end else fence
        elif fence:
            continue
        elif heading := _HEADING.match(line):
            yield len(heading[1]), _unclosed(heading[2].rstrip()), index
        elif index > start and (under := _SETEXT.match(line)) and not _NO_TITLE.match(lines[index - 1]):
            yield (1 if under[1][0] == "=" else 2), lines[index - 1].strip(), index - 1


def _unclosed(title: str) -> str:
    """Without the signs that may close a heading, before which there is a blank: "C#" ends with none."""
    bare = title.rstrip("#")
    return bare.rstrip() if not bare or bare[-1] in " \t" else title


def _front_matter(lines: list[str]) -> int:
    """The index of the first line behind a block of YAML at the beginning."""
    if lines[0].rstrip() != "---":
        return 0
    return next((index + 1 for index, line in enumerate(lines[1:200], 1) if line.rstrip() in ("---", "...")), 0)


def _rst_headings(lines: list[str]) -> Iterator[Headed]:
    """The level of an underline is the order in which its sign was first used."""
    signs: list[str] = []
    for index in range(len(lines) - 1):
        title, below = lines[index].strip(), lines[index + 1].rstrip()
        if title and not _RULED.match(title) and _RULED.match(below) and len(below) >= len(title):
            above = lines[index - 1].rstrip() if index else ""
            is_over = above == below  # a sign above and below is another level than the same one below alone
            sign = below[0] * (2 if is_over else 1)
            if sign not in signs:
                signs.append(sign)
            yield signs.index(sign) + 1, title, index - is_over


def _sectioned(lines: list[str], headings: Iterator[Headed], name: str) -> Document:
    """Sections from heading to heading, the heading's own line included."""
    path: list[tuple[int, str]] = []
    sections: list[Section] = []
    start = 0
    for level, title, index in headings:
        _add(sections, lines, start, index, path)
        path = [(above, text) for above, text in path if above < level] + [(level, title[:_LONGEST])]
        start = index
    _add(sections, lines, start, len(lines), path)
    return Document(sections[0].heading[0] if sections and sections[0].heading else _title(name), tuple(sections))


def _add(sections: list[Section], lines: list[str], start: int, end: int, path: list[tuple[int, str]]) -> None:
    body = "\n".join(lines[start:end])
    if body.strip():
        sections.append(Section(body, Place(line=start + 1), tuple(title for _, title in path)))


def _title(name: str) -> str:
    return name.rsplit("/", 1)[-1]
