"""EPUB books: their chapters in reading order, each as HTML (EPUB 3.3, the package document)."""

from posixpath import dirname, join, normpath
from urllib.parse import unquote

from edgemm.documents.parsers.archive import Archive
from edgemm.documents.parsers.html import read
from edgemm.documents.records import Document, Section, Unreadable

_CONTAINER = "META-INF/container.xml"
_OPF, _DC = "{http://www.idpf.org/2007/opf}", "{http://purl.org/dc/elements/1.1/}"


def epub(data: bytes, name: str) -> Document:
    archive = Archive(data)
    root = archive.xml(_CONTAINER).find(".//{*}rootfile")
    place = root.get("full-path", "") if root is not None else ""
    package = archive.xml(place)
    files = {item.get("id"): item.get("href", "") for item in package.iter(f"{_OPF}item")}
    chapters = [files[ref.get("idref")] for ref in package.iter(f"{_OPF}itemref") if ref.get("idref") in files]
    sections: list[Section] = []
    for chapter in chapters:
        path = normpath(join(dirname(place), unquote(chapter)))
        if path in archive.names:
            sections += read(archive.read(path).decode("utf-8", "replace")).sections
    if not sections:
        raise Unreadable("no text in it")
    title = package.find(f".//{_DC}title")
    return Document((title.text if title is not None else "") or name.rsplit("/", 1)[-1], tuple(sections))
