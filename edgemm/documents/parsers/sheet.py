"""Spreadsheets (.xlsx, .xls, .ods and others) through calamine: rows as lines, a block of rows a section."""

import io
import zipfile

from edgemm.documents.kinds import is_encrypted_office
from edgemm.documents.parsers.archive import Archive
from edgemm.documents.records import Document, Place, Section, Unreadable

_BLOCK = 40  # rows of one section
_CELLS = 2_000_000


def sheet(data: bytes, name: str) -> Document:
    import python_calamine

    if is_encrypted_office(data):
        raise Unreadable("encrypted: it asks for a password")
    if zipfile.is_zipfile(io.BytesIO(data)):
        Archive(data).check()  # bounded before anything is unpacked
    try:
        book = python_calamine.CalamineWorkbook.from_filelike(io.BytesIO(data))
        sections, cells = [], 0
        for title in book.sheet_names:
            page = book.get_sheet_by_name(title)
            cells += page.width * page.height
            if cells > _CELLS:
                raise Unreadable(f"has {cells:,} cells or more, at most {_CELLS:,} are read")
            sections += _sections(title, page.to_python(), page.start or (0, 0))
    except python_calamine.PasswordError as error:
        raise Unreadable("encrypted: it asks for a password") from error
    except (python_calamine.CalamineError, OSError, ValueError) as error:
        raise Unreadable(f"damaged or encrypted: {str(error)[:100]}") from error
    return Document(name.rsplit("/", 1)[-1], tuple(sections))


def _sections(title: str, rows: list[list[object]], start: tuple[int, int]) -> list[Section]:
    """`start`: row and column of the first cell, counted from 0. An empty row is an empty line."""
    found = []
    top, left = start[0] + 1, column(start[1] + 1)
    right = column(start[1] + max(map(len, rows), default=1))
    for first in range(0, len(rows), _BLOCK):
        block = rows[first : first + _BLOCK]
        text = "\n".join("\t".join(map(_cell, row)).strip() for row in block)
        if text.strip():
            cells = f"{left}{top + first}:{right}{top + first + len(block) - 1}"
            found.append(Section(text, Place(sheet=title, cells=cells), (title,)))
    return found


def _cell(value: object) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else " ".join(str(value).split())


def column(number: int) -> str:
    """1 -> "A", 27 -> "AA"."""
    letters = ""
    while number > 0:
        number, rest = divmod(number - 1, 26)
        letters = chr(65 + rest) + letters
    return letters or "A"
