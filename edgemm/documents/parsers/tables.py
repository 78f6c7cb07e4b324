"""Comma-separated values, JSON and notebooks: their own text, lines counted; a notebook's cells one by one."""

import json
from typing import Any

from edgemm.documents.decode import text_of
from edgemm.documents.parsers.plain import markdown, text
from edgemm.documents.records import Document, Place, Section, Unreadable


def table(data: bytes, name: str) -> Document:
    """As typed: a line is a row, and says where it stands."""
    return text(data, name)


def json_lines(data: bytes, name: str) -> Document:
    return text(data, name)


def notebook(data: bytes, name: str) -> Document:
    """Jupyter's nbformat 4: Markdown and code cells; outputs are left out."""
    try:
        book: Any = json.loads(text_of(data))
        cells = [(str(cell["cell_type"]), "".join(cell["source"])) for cell in book["cells"]]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Unreadable("damaged: not a notebook of format 4") from error
    sections: list[Section] = []
    heading: tuple[str, ...] = ()
    for number, (kind, source) in enumerate(cells, 1):
        if not source.strip():
            continue
        if kind == "markdown" and (found := markdown(source.encode(), name).sections):
            heading = found[-1].heading or heading
        sections.append(Section(source, Place(cells=f"cell {number}"), heading))
    return Document(name.rsplit("/", 1)[-1], tuple(sections))
