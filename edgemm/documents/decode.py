"""Bytes of a text file to text with "\\n" line ends: UTF-8, a byte order mark, what it declares, else Windows-1252."""

import codecs
import re
from pathlib import Path

from edgemm.attachments import decoded
from edgemm.documents.records import Unreadable
from edgemm.errors import UsageError

# In the first bytes of HTML, by which programs before UTF-8 said what they wrote.
_DECLARED = re.compile(rb"""(?:charset|encoding)\s*=\s*["']?\s*([\w.:-]{2,40})""", re.IGNORECASE)
_HEAD = 1024


def text_of(data: bytes) -> str:
    """Raises `Unreadable` for what is no text."""
    try:
        return decoded(data, Path("file"))
    except UsageError as error:
        raise Unreadable(error.why) from error


def declared_text_of(data: bytes) -> str:
    """Of a page that may name its encoding, which holds where the bytes are no UTF-8. Raises `Unreadable`."""
    found = _DECLARED.search(data[:_HEAD])
    if found is None or _is_utf8(data):
        return text_of(data)
    try:
        name = codecs.lookup(found[1].decode()).name
        return text_of(data.decode(name, "replace").encode("utf-8", "replace"))
    except (LookupError, ValueError, TypeError):  # unknown, or no encoding of text
        return text_of(data)


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
