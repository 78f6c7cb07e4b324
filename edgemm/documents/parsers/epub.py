"""EPUB books: their chapters in reading order, each as HTML (EPUB 3.3, the package document)."""

from collections.abc import Iterator
from posixpath import basename, dirname, join, normpath
from urllib.parse import unquote
from xml.etree.ElementTree import Element

from edgemm.documents.decode import declared_text_of
from edgemm.documents.parsers.archive import Archive, local
from edgemm.documents.parsers.html import read
from edgemm.documents.records import Document, Section, Unreadable

_CONTAINER, _ENCRYPTION = "META-INF/container.xml", "META-INF/encryption.xml"


def epub(data: bytes, name: str) -> Document:
    archive = Archive(data)
    roots = (each for each in archive.xml(_CONTAINER).iter() if local(each) == "rootfile")
    place = next((root.get("full-path", "") for root in roots), "")
    package = archive.xml(place)
    parts = list(dict.fromkeys(_chapters(package, dirname(place))))
    locked = _encrypted(archive)
    readable = [part for part in parts if part in archive.names and part not in locked]
    if not readable and locked.intersection(parts):
        raise Unreadable("encrypted: its chapters are locked (DRM)")
    sections: list[Section] = []
    for part in readable:
        sections += read(declared_text_of(archive.read(part))).sections
    if not sections:
        raise Unreadable("no text in it")
    left_out = len(parts) - len(readable)
    notes = (f"{left_out:,} of {len(parts):,} chapters are missing or encrypted",) if left_out else ()
    title = next((each.text for each in package.iter() if local(each) == "title"), "")
    return Document(" ".join((title or "").split()) or basename(name), tuple(sections), notes)


def _chapters(package: Element, folder: str) -> Iterator[str]:
    """Members of the archive, in reading order."""
    items = {each.get("id"): each.get("href", "") for each in package.iter() if local(each) == "item"}
    for each in package.iter():
        if local(each) == "itemref" and each.get("idref") in items:
            yield normpath(join(folder, unquote(items[each.get("idref")])))


def _encrypted(archive: Archive) -> set[str]:
    """Members that are encrypted; among them may be fonts alone, which says nothing of the text."""
    if _ENCRYPTION not in archive.names:
        return set()
    found = archive.xml(_ENCRYPTION).iter()
    return {normpath(unquote(each.get("URI", ""))) for each in found if local(each) == "CipherReference"}
