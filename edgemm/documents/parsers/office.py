"""Word and PowerPoint files (Office Open XML, ECMA-376): headings, paragraphs, tables, notes; slides in their order."""

import re
from collections.abc import Iterator
from posixpath import basename, dirname, join, normpath
from typing import NamedTuple
from xml.etree.ElementTree import Element

from edgemm.documents.kinds import is_encrypted_office, is_old_office
from edgemm.documents.parsers.archive import Archive, local
from edgemm.documents.records import Document, Place, Section, Unreadable

_HEADING = re.compile(r"heading ?(\d)$")  # the name of a style; it is English in every language of Word
_SLIDE = re.compile(r"ppt/slides/slide(\d+)\.xml$")
# What is no text of the page: properties, what was deleted or moved away, and a second rendering of the same text.
_UNSEEN = {"pPr", "rPr", "tcPr", "tblPr", "sectPr", "sdtPr", "del", "moveFrom", "instrText", "Fallback"}
_SIGNS = {"tab": "\t", "br": "\n", "cr": "\n", "noBreakHyphen": "-"}
_NOTES = {"footnotes": "Footnotes", "endnotes": "Endnotes", "comments": "Comments"}
_Path = list[tuple[int, str]]


def docx(data: bytes, name: str) -> Document:
    archive = _open(data)
    body = next((each for each in archive.xml("word/document.xml") if local(each) == "body"), None)
    if body is None:
        raise Unreadable("damaged: it has no body")
    sections = [*_sections(body, _levels(archive)), *_noted(archive)]
    first = next((section.heading[0] for section in sections if section.heading), "")
    return Document(first or _core_title(archive) or basename(name), tuple(sections))


def pptx(data: bytes, name: str) -> Document:
    archive = _open(data)
    parts = _slides(archive)
    if not parts:
        raise Unreadable("damaged: it has no slides")
    sections = []
    for number, part in enumerate(parts, 1):
        lines = _paragraphs(archive.xml(part))
        for note in (link.part for link in _links(archive, part).values() if link.kind == "notesSlide"):
            lines += [line for line in _paragraphs(archive.xml(note)) if not line.isdecimal()]
        if lines:
            sections.append(Section("\n".join(lines), Place(slide=number), (lines[0][:120],)))
    return Document(basename(name), tuple(sections))


def _open(data: bytes) -> Archive:
    if is_encrypted_office(data):
        raise Unreadable("encrypted: it asks for a password")
    if is_old_office(data):
        raise Unreadable("a file of Office before 2007: save it as .docx or .pptx")
    return Archive(data)


def _sections(body: Element, levels: dict[str, int]) -> Iterator[Section]:
    """From heading to heading, the heading itself included."""
    path: _Path = []
    held: list[str] = []
    for block in _blocks(body):
        text = _table(block) if local(block) == "tbl" else _text(block).strip("\n")
        level = _level(block, levels)
        if level and text.strip():
            yield from _section(held, path)
            held.clear()
            path = [(above, title) for above, title in path if above < level]
            path.append((level, " ".join(text.split())[:200]))
        held.append(text)
    yield from _section(held, path)


def _section(held: list[str], path: _Path) -> Iterator[Section]:
    if text := "\n".join(held).strip():
        yield Section(text, Place(), tuple(title for _, title in path))


def _blocks(body: Element) -> Iterator[Element]:
    """Paragraphs and tables, those of content controls and of what was inserted too."""
    for block in body:
        if local(block) in ("p", "tbl"):
            yield block
        elif local(block) not in _UNSEEN:
            yield from _blocks(block)


def _noted(archive: Archive) -> Iterator[Section]:
    for part, title in _NOTES.items():
        if f"word/{part}.xml" in archive.names:
            text = "\n".join(filter(None, (_text(note).strip() for note in archive.xml(f"word/{part}.xml"))))
            if text:
                yield Section(text, Place(), (title,))


def _levels(archive: Archive) -> dict[str, int]:
    """The level of each style of headings, by its id; a style has that of the one which it is based on."""
    if "word/styles.xml" not in archive.names:
        return {}
    own: dict[str, int] = {}
    base: dict[str, str] = {}
    for style in archive.xml("word/styles.xml"):
        key = _value(style, "styleId")
        own[key] = _own_level(style)
        base[key] = _value(_child(style, "basedOn"), "val")
    for key in own:
        above, steps = key, 0
        while not own[key] and (above := base.get(above, "")) and steps < 20:
            own[key] = own.get(above, 0)
            steps += 1
    return own


def _own_level(style: Element) -> int:
    name = _value(_child(style, "name"), "val").lower()
    if name == "title":
        return 1
    found = _HEADING.match(name)
    return int(found[1]) if found else _outline(style)


def _outline(element: Element) -> int:
    """1 to 9, or 0 for text."""
    value = _value(_child(_child(element, "pPr"), "outlineLvl"), "val")
    return int(value) + 1 if value.isdecimal() and int(value) < 9 else 0


def _level(block: Element, levels: dict[str, int]) -> int:
    if local(block) != "p":
        return 0
    style = _value(_child(_child(block, "pPr"), "pStyle"), "val")
    found = _HEADING.match(style.lower())
    return levels.get(style, int(found[1]) if found else int(style.lower() == "title")) or _outline(block)


def _text(element: Element) -> str:
    """Each paragraph ends a line."""
    parts: list[str] = []

    def visit(node: Element) -> None:
        name = local(node)
        if name in _UNSEEN:
            return
        if name == "t":
            parts.append(node.text or "")
        parts.append(_SIGNS.get(name, ""))
        for child in node:
            visit(child)
        if name == "p":
            parts.append("\n")

    visit(element)
    return "".join(parts)


def _table(table: Element) -> str:
    """A row a line, a tab between cells."""
    rows = (list(_within(row, "tc")) for row in _within(table, "tr"))
    return "\n".join("\t".join(" ".join(_text(cell).split()) for cell in row) for row in rows)


def _within(element: Element, name: str) -> Iterator[Element]:
    """The nearest ones below; those of a table in a cell are that cell's text."""
    for child in element:
        if local(child) == name:
            yield child
        elif local(child) not in _UNSEEN and local(child) not in ("tc", "p"):
            yield from _within(child, name)


class _Link(NamedTuple):
    """To another part of the file, and what that is for this one: the last word of the type's address."""

    kind: str
    part: str


def _links(archive: Archive, part: str) -> dict[str, _Link]:
    """By id (ECMA-376 part 2, relationships)."""
    place = join(dirname(part), "_rels", basename(part) + ".rels")
    if place not in archive.names:
        return {}
    found = {}
    for each in archive.xml(place):
        target = normpath(join("/" + dirname(part), each.get("Target", "")))[1:]
        if target in archive.names:
            found[each.get("Id", "")] = _Link(basename(each.get("Type", "")), target)
    return found


def _slides(archive: Archive) -> list[str]:
    """The parts in the order in which they are shown; their numbers tell in which order they were made."""
    shown = "ppt/presentation.xml"
    if shown in archive.names:
        links = _links(archive, shown)
        slides = (each for each in archive.xml(shown).iter() if local(each) == "sldId")
        ids = [value for slide in slides for key, value in slide.items() if key.endswith("}id")]
        if parts := list(dict.fromkeys(links[each].part for each in ids if each in links)):
            return parts
    numbers = sorted((int(found[1]), part) for part in archive.names if (found := _SLIDE.match(part)))
    return [part for _, part in numbers]


def _paragraphs(slide: Element) -> list[str]:
    """The lines of a slide, without blank ones."""
    return [line for line in (" ".join(line.split()) for line in _text(slide).split("\n")) if line]


def _core_title(archive: Archive) -> str:
    if "docProps/core.xml" not in archive.names:
        return ""
    title = next((each.text for each in archive.xml("docProps/core.xml") if local(each) == "title"), "")
    return " ".join((title or "").split())[:200]


def _child(element: Element | None, name: str) -> Element | None:
    return next((each for each in element if local(each) == name), None) if element is not None else None


def _value(element: Element | None, name: str) -> str:
    """An attribute by its local name."""
    items = element.items() if element is not None else ()
    return next((value for key, value in items if key.rpartition("}")[2] == name), "")
