"""One parser a kind of file: bytes in, a `Document` out. They run in a child process with limits, and open nothing."""

from collections.abc import Callable
from importlib import import_module

from edgemm.documents.kinds import Kind
from edgemm.documents.records import Document

Parse = Callable[[bytes, str], Document]

_TABLE = {
    Kind.TEXT: ("plain", "text"),
    Kind.CODE: ("plain", "text"),
    Kind.MARKDOWN: ("plain", "markdown"),
    Kind.RST: ("plain", "rst"),
    Kind.HTML: ("html", "html"),
    Kind.PDF: ("pdf", "pdf"),
    Kind.DOCX: ("office", "docx"),
    Kind.PPTX: ("office", "pptx"),
    Kind.EPUB: ("epub", "epub"),
    Kind.SHEET: ("sheet", "sheet"),
    Kind.TABLE: ("tables", "table"),
    Kind.JSON: ("tables", "json_lines"),
    Kind.NOTEBOOK: ("tables", "notebook"),
    Kind.MAIL: ("mail", "mail"),
    Kind.IMAGE: ("picture", "picture"),
}


def parser(kind: Kind) -> Parse:
    """The function that reads files of `kind`; its module is imported now. It raises `Unreadable`."""
    module, name = _TABLE[kind]
    found: Parse = getattr(import_module(f"edgemm.documents.parsers.{module}"), name)
    return found
