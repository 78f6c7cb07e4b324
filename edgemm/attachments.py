"""A file that the user hands to a chat: read with bounds, decoded, and quoted so that it cannot pose as the user.

Text is read as UTF-8, as UTF-16 or UTF-32 with a byte order mark, else as Windows-1252 or Latin-1. What is neither
text nor a picture is refused, never guessed at. It knows no model and no chat; it does not look into pictures.
"""

import codecs
import hashlib
import os
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from edgemm.errors import UsageError

LIMIT = 256 << 10
PICTURE_LIMIT = 32 << 20
_MAX_NAME = 120
_CONTROL_SHARE = 0.02  # of the characters; a terminal log has fewer, a binary file more
_CONTROL = re.compile(r"[\x01-\x08\x0e-\x1f\x7f-\x9f]")
_BACKTICKS = re.compile(r"`+")
# Longest first: the mark of UTF-32-LE begins with that of UTF-16-LE.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_PICTURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a", b"BM")
_KNOWN = (
    (b"%PDF-", "a PDF file"),
    (b"PK\x03\x04", "a ZIP archive (.docx, .xlsx, .pptx and .odt are such archives)"),
    (b"GGUF", "a GGUF model"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\x7fELF", "a program"),
    (b"SQLite format 3\0", "an SQLite database"),
)


class Kind(StrEnum):
    TEXT = "text"
    IMAGE = "image"
    QUOTE = "quote"  # a passage that a search of the user's documents has found


@dataclass(frozen=True, slots=True)
class Attachment:
    """`text` has "\\n" line ends and is empty for a picture; `bytes` and `sha256` are those of the file as it lies.

    A quote has a `number`, by which an answer cites it, and stands at `place` ("page 3") of the file at `path`, which
    was written at `mtime_ns`, since 1970.
    """

    name: str
    kind: Kind
    text: str
    bytes: int
    sha256: str
    number: int = 0
    path: str = ""
    place: str = ""
    mtime_ns: int = 0


def read(path: Path, limit: int = LIMIT) -> Attachment:
    """The file at `path`, of at most `limit` bytes (a picture: 32 MiB).

    Raises `UsageError` for what is missing, unreadable, no regular file, too large, or neither text nor a picture.
    """
    data = _bytes(path, limit)
    digest = hashlib.sha256(data).hexdigest()
    if _is_picture(data):
        return Attachment(path.name, Kind.IMAGE, "", len(data), digest)
    return Attachment(path.name, Kind.TEXT, decoded(data, path), len(data), digest)


def refuse_pictures(attached: Iterable[Attachment], model: str) -> None:
    """Raises `UsageError` for what a chat model cannot read."""
    for each in attached:
        if each.kind is Kind.IMAGE:
            why = f"is a picture, and {model} reads text alone"
            raise UsageError(plain_name(each.name), why, "ask `edgemm predict` about pictures")


def quoted(attachment: Attachment) -> str:
    """The attachment as it stands in a prompt: its name, then its text in a fence that the text cannot close."""
    name = plain_name(attachment.name)
    if attachment.kind is Kind.IMAGE:
        return f"Picture {name}"
    if attachment.kind is Kind.QUOTE:
        where = f", {plain_name(attachment.place)}" if attachment.place else ""
        return f"Passage [{attachment.number}] from {name}{where}:\n{fenced(attachment.text)}"
    return f"File {name}:\n{fenced(attachment.text)}"


def fenced(text: str) -> str:
    """`text` in a fence that is longer than every run of backticks in it (CommonMark 0.31, section 4.5)."""
    longest = max((len(run) for run in _BACKTICKS.findall(text)), default=0)
    fence = "`" * max(3, longest + 1)
    body = text if text.endswith("\n") else text + "\n"
    return f"{fence}\n{body}{fence}"


def plain_name(name: str) -> str:
    """A file name as one printable word or phrase of at most 120 characters, without backticks and line breaks."""
    shown = "".join(c if c.isprintable() and c != "`" else "�" for c in name)
    return shown if len(shown) <= _MAX_NAME else shown[: _MAX_NAME // 2] + "…" + shown[1 - _MAX_NAME // 2 :]


def _bytes(path: Path, limit: int) -> bytes:
    try:
        _refuse_irregular(path, path.stat().st_mode)  # before opening: to open a FIFO waits, to open a device acts
        with open(os.open(path, _flags()), "rb") as file:
            _refuse_irregular(path, os.fstat(file.fileno()).st_mode)
            head = file.read(16)
            most = max(limit, PICTURE_LIMIT) if _is_picture(head) else limit
            data = head + file.read(max(0, most + 1 - len(head)))
            stated = os.fstat(file.fileno()).st_size  # files of /proc say 0
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise _refused(path, why[:1].lower() + why[1:], "check the path and its permissions") from error
    if len(data) > most or stated > most:
        size = f"{stated:,} bytes" if stated > most else "no stated size and does not end"
        why = f"has {size}, at most {most:,} bytes can be attached"
        raise _refused(path, why, "attach a part of it, or make it smaller")
    return data


def _flags() -> int:
    """Never wait for a FIFO that took the file's place, never become its terminal, never translate line ends."""
    return os.O_RDONLY | sum(getattr(os, name, 0) for name in ("O_NONBLOCK", "O_NOCTTY", "O_BINARY", "O_CLOEXEC"))


def _refuse_irregular(path: Path, mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise _refused(path, "is a folder", "attach its files one by one")
    if not stat.S_ISREG(mode):
        raise _refused(path, "is a device, a pipe or a socket", "attach a regular file")


def _is_picture(data: bytes) -> bool:
    return data.startswith(_PICTURES) or (data[:4] == b"RIFF" and data[8:12] == b"WEBP")


def decoded(data: bytes, path: Path) -> str:
    """Text with "\n" line ends from the bytes of a file. Raises `UsageError` for what is no text."""
    for magic, kind in _KNOWN:
        if data.startswith(magic):
            raise _refused(path, f"is {kind}, not text", "save it as plain text first")
    encoding = next((encoding for mark, encoding in _MARKS if data.startswith(mark)), "")
    try:
        text = data.decode(encoding) if encoding else _unmarked(data)
    except UnicodeDecodeError as error:
        raise _refused(
            path, f"has the mark of {encoding}, but byte {error.start:,} is wrong", "save it again"
        ) from error
    if "\0" in text or len(_CONTROL.findall(text)) > _CONTROL_SHARE * len(text):
        raise _refused(path, "is a binary file", "attach text or a picture")
    return _lines(text)


def _unmarked(data: bytes) -> str:
    for encoding in ("utf-8", "cp1252"):
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    return data.decode("latin-1")


def _lines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _refused(path: Path, why: str, fix: str) -> UsageError:
    return UsageError(plain_name(path.name or str(path)), why, fix)
