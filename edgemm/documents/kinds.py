"""Which parser a file needs: by its suffix, and by its first bytes where they say otherwise. It reads no file."""

from enum import StrEnum


class Kind(StrEnum):
    """The name of a parser; `IMAGE` has none, for a picture is embedded and not read."""

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
    Kind.TEXT: "txt text log org tex",
    Kind.MARKDOWN: "md markdown mdx",
    Kind.RST: "rst",
    Kind.HTML: "html htm xhtml",
    Kind.PDF: "pdf",
    Kind.DOCX: "docx",
    Kind.PPTX: "pptx",
    Kind.SHEET: "xlsx xlsm xls xlsb ods",
    Kind.EPUB: "epub",
    Kind.MAIL: "eml mbox",
    Kind.NOTEBOOK: "ipynb",
    Kind.TABLE: "csv tsv",
    Kind.JSON: "json jsonl ndjson",
    Kind.CODE: (
        "py pyi js jsx ts tsx mjs c h cc cpp cxx hpp hh cs java kt kts go rs rb php swift scala sh bash zsh fish ps1"
        " pl pm r jl lua sql m mm dart ex exs erl hs clj elm vue svelte css scss less toml yaml yml ini cfg cmake"
        " gradle tf proto graphql make mk dockerfile nix zig asm s f90 tcss jinja"
    ),
    Kind.IMAGE: "png jpg jpeg gif bmp webp tif tiff",
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
_ZIPPED = {Kind.DOCX, Kind.PPTX, Kind.SHEET, Kind.EPUB}


def of_name(name: str) -> Kind | None:
    """By the name alone; None: not a kind that is read."""
    last = name.rsplit("/", 1)[-1].lower()
    stem, dot, suffix = last.rpartition(".")
    return _BY_SUFFIX.get(suffix) if dot and stem else _NAMES.get(last)


def of_bytes(head: bytes, named: Kind) -> Kind:
    """What the first bytes say; a file of the wrong suffix is read as what it is."""
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return kind
    return Kind.TEXT if named is Kind.PDF and not head.startswith(b"PK") else named


def is_zipped(kind: Kind) -> bool:
    return kind in _ZIPPED
