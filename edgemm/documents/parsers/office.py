"""Word and PowerPoint files (Office Open XML, ECMA-376): headings, paragraphs, tables; slides with their notes."""

import re
from collections.abc import Iterator
from xml.etree.ElementTree import Element

from edgemm.documents.parsers.archive import Archive
from edgemm.documents.records import Document, Place, Section, Unreadable

_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_A = "{http://schemas.openxmlformats.org/drawingml/2006/main}"
_HEADING = re.compile(r"(?:heading|überschrift|titre|título)?\s*(\d)$", re.IGNORECASE)
_SLIDE = re.compile(r"ppt/slides/slide(\d+)\.xml$")


def docx(data: bytes, name: str) -> Document:
    archive = Archive(data)
    body = archive.xml("word/document.xml").find(f"{_W}body")
    if body is None:
        raise Unreadable("damaged: it has no body")
    sections: list[Section] = []
    path: list[tuple[int, str]] = []
    held: list[str] = []

    def close() -> None:
        if text := "\n".join(held).strip():
            sections.append(Section(text, Place(), tuple(title for _, title in path)))
        held.clear()

    for block in body:
        text = _table(block) if block.tag == f"{_W}tbl" else _runs(block)
        level = _level(block)
        if level and text.strip():
            close()
            path = [(above, title) for above, title in path if above < level] + [(level, text.strip())]
        held.append(text)
    close()
    return Document(path[0][1] if path else name.rsplit("/", 1)[-1], tuple(sections))


def pptx(data: bytes, name: str) -> Document:
    archive = Archive(data)
    numbers = sorted(int(found[1]) for each in archive.names if (found := _SLIDE.match(each)))
    if not numbers:
        raise Unreadable("damaged: it has no slides")
    sections = []
    for number in numbers:
        lines = _paragraphs(archive.xml(f"ppt/slides/slide{number}.xml"))
        notes = f"ppt/notesSlides/notesSlide{number}.xml"
        if notes in archive.names:
            lines += [line for line in _paragraphs(archive.xml(notes)) if not line.isdecimal()]
        if lines:
            sections.append(Section("\n".join(lines), Place(slide=number), (lines[0][:120],)))
    return Document(name.rsplit("/", 1)[-1], tuple(sections))


def _level(block: Element) -> int:
    style = block.find(f"{_W}pPr/{_W}pStyle")
    value = style.get(f"{_W}val", "") if style is not None else ""
    if value.lower() == "title":
        return 1
    found = _HEADING.search(value) if value.lower().startswith(("heading", "berschrift", "titre", "ttulo")) else None
    return int(found[1]) if found else 0


def _runs(block: Element) -> str:
    parts = []
    for node in block.iter():
        if node.tag == f"{_W}t":
            parts.append(node.text or "")
        elif node.tag == f"{_W}tab":
            parts.append("\t")
        elif node.tag in (f"{_W}br", f"{_W}cr"):
            parts.append("\n")
    return "".join(parts)


def _table(block: Element) -> str:
    rows = ("\t".join(_runs(cell) for cell in row.iter(f"{_W}tc")) for row in block.iter(f"{_W}tr"))
    return "\n".join(rows)


def _paragraphs(slide: Element) -> list[str]:
    def lines() -> Iterator[str]:
        for paragraph in slide.iter(f"{_A}p"):
            yield "".join(node.text or "" for node in paragraph.iter(f"{_A}t")).strip()

    return [line for line in lines() if line]
