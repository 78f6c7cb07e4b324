"""Which parser a file needs: by its suffix, and by its first bytes where they say otherwise. It reads no file."""

from enum import StrEnum


class Kind(StrEnum):
    """The name of a parser; a picture's reads its date alone, for it is embedded and not read."""

    TEXT = "text"
    MARKDOWN = "markdown"
    RST = "rst"
    HTML = "html"
    PDF = "pdf"
    DOCX = "docx"
    PPTX = "pptx"
    SHEET = "sheet"
    EPUB = "epub"
    MAIL = "mail"
    NOTEBOOK = "notebook"
    TABLE = "table"
    JSON = "json"
    CODE = "code"
    IMAGE = "image"


_SUFFIXES = {
    Kind.TEXT: "txt text log org tex bib adoc asciidoc srt vtt",
    Kind.MARKDOWN: "md markdown mdx",
    Kind.RST: "rst",
    Kind.HTML: "html htm xhtml",
    Kind.PDF: "pdf",
    Kind.DOCX: "docx docm",
    Kind.PPTX: "pptx pptm ppsx",
    Kind.SHEET: "xlsx xlsm xls xlsb ods",
    Kind.EPUB: "epub",
    Kind.MAIL: "eml mbox",
    Kind.NOTEBOOK: "ipynb",
    Kind.TABLE: "csv tsv",
    Kind.JSON: "json jsonl ndjson",
    Kind.CODE: (
        "py pyi js jsx ts tsx mjs c h cc cpp cxx hpp hh cs java kt kts go rs rb php swift scala sh bash zsh fish ps1"
        " pl pm r jl lua sql m mm dart ex exs erl hs clj elm vue svelte css scss less toml yaml yml ini cfg cmake"
        " gradle tf proto graphql make mk dockerfile nix zig asm s f90 tcss jinja xml"
    ),
    Kind.IMAGE: "png jpg jpeg jfif gif bmp webp tif tiff",
}
_BY_SUFFIX = {suffix: kind for kind, suffixes in _SUFFIXES.items() for suffix in suffixes.split()}
_NAMES = {
    "makefile": Kind.CODE,
    "dockerfile": Kind.CODE,
    "readme": Kind.TEXT,
    "license": Kind.TEXT,
    "changelog": Kind.TEXT,
}
_MAGIC = (
    (b"%PDF-", Kind.PDF),
    (b"\x89PNG\r\n\x1a\n", Kind.IMAGE),
    (b"\xff\xd8\xff", Kind.IMAGE),
    (b"GIF8", Kind.IMAGE),
)
_HEAD = 1024  # bytes; the mark of a PDF file may stand anywhere in them (Adobe's implementation note 13)
_ZIP, _OLE = b"PK\x03\x04", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
# The member without which a ZIP archive is no such file; its name stands in the archive as it is.
_MEMBERS = {
    Kind.DOCX: (b"word/document.xml",),
    Kind.PPTX: (b"ppt/slides/", b"ppt/presentation.xml"),
    Kind.SHEET: (b"xl/workbook", b"content.xml"),
    Kind.EPUB: (b"META-INF/container.xml",),
}


def of_name(name: str) -> Kind | None:
    """By the name alone; None: not a kind that is read."""
    last = name.rsplit("/", 1)[-1].lower()
    stem, dot, suffix = last.rpartition(".")
    return _BY_SUFFIX.get(suffix) if dot and stem else _NAMES.get(last)


def of_bytes(data: bytes, named: Kind) -> Kind:
    """What the bytes say; a file of the wrong suffix is read as what it is."""
    head = data[:_HEAD]
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return kind
    if head.startswith(_ZIP):
        return _of_members(data, named)
    if head.startswith(_OLE) or named not in {Kind.PDF, *_MEMBERS}:
        return named
    return named if named is Kind.PDF and b"%PDF-" in head else _of_text(head, named)


def is_old_office(data: bytes) -> bool:
    """Whether it is of the form of Office before 2007, in which later encrypted files are wrapped too (MS-CFB)."""
    return data.startswith(_OLE)


def is_encrypted_office(data: bytes) -> bool:
    """Whether such a file wraps an encrypted one (MS-OFFCRYPTO 2.3.4)."""
    return is_old_office(data) and "EncryptedPackage".encode("utf-16-le") in data


def _of_members(data: bytes, named: Kind) -> Kind:
    holds = [kind for kind, names in _MEMBERS.items() if any(name in data for name in names)]
    return named if named in holds or not holds else holds[0]


def _of_text(head: bytes, named: Kind) -> Kind:
    """Programs give pages and tables the suffix of an office program that opens them."""
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return Kind.HTML
    if b"\0" in head or start.startswith((b"<?xml", b"{\\rtf")):
        return named
    return {Kind.SHEET: Kind.TABLE, Kind.PDF: Kind.TEXT}.get(named, named)
