"""Bytes of a text file to text with "\\n" line ends: UTF-8, a byte order mark, else Windows-1252 or Latin-1."""

from pathlib import Path

from edgemm.attachments import decoded
from edgemm.documents.records import Unreadable
from edgemm.errors import UsageError


def text_of(data: bytes) -> str:
    """Raises `Unreadable` for what is no text."""
    try:
        return decoded(data, Path("file"))
    except UsageError as error:
        raise Unreadable(error.why) from error
