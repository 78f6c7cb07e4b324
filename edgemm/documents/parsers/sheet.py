"""Spreadsheets (.xlsx, .xls, .ods and others) through calamine: rows as lines, a block of rows a section."""

import io
import zipfile

from edgemm.documents.parsers.archive import Archive
from edgemm.documents.records import Document, Place, Section, Unreadable

_BLOCK = 40  # rows of one section
_CELLS = 2_000_000


def sheet(data: bytes, name: str) -> Document:
    import python_calamine

    if zipfile.is_zipfile(io.BytesIO(data)):
        Archive(data)  # bounded before anything is unpacked
    try:
        book = python_calamine.CalamineWorkbook.from_filelike(io.BytesIO(data))
        sections, cells = [], 0
        for title in book.sheet_names:
            rows = book.get_sheet_by_name(title).to_python()
            cells += sum(map(len, rows))
            if cells > _CELLS:
                raise Unreadable(f"has more than {_CELLS:,} cells")
            sections += _sections(title, rows)
    except (python_calamine.CalamineError, OSError, ValueError) as error:
        raise Unreadable(f"damaged or encrypted: {str(error)[:100]}") from error
    return Document(name.rsplit("/", 1)[-1], tuple(sections))


def _sections(title: str, rows: list[list[object]]) -> list[Section]:
    found = []
    for start in range(0, len(rows), _BLOCK):
        block = rows[start : start + _BLOCK]
        text = "\n".join(line for row in block if (line := "\t".join(_cell(each) for each in row).strip()))
        if text:
            width = max(map(len, block))
            place = Place(sheet=title, cells=f"A{start + 1}:{column(width)}{start + len(block)}")
            found.append(Section(text, place, (title,)))
    return found


def _cell(value: object) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).replace("\n", " ")


def column(number: int) -> str:
    """1 -> "A", 27 -> "AA"."""
    letters = ""
    while number > 0:
        number, rest = divmod(number - 1, 26)
        letters = chr(65 + rest) + letters
    return letters or "A"
