"""PDF files, page by page, through PDFium."""

import re
from typing import Any

from edgemm.documents.records import Document, Place, Section, Unreadable

_PAGES = 5000
_HYPHEN = re.compile("[\x02\ufffe](?:\r?\n)?")  # how PDFium writes one that parts a word at the end of a line


def pdf(data: bytes, name: str) -> Document:
    import pypdfium2

    try:
        file = pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError as error:
        text = str(error).lower()
        why = "encrypted: it asks for a password" if "password" in text else f"damaged: {error}"
        raise Unreadable(why) from error
    with file:
        count = len(file)
        texts = [_page(file, number) for number in range(min(count, _PAGES))]
        title = str(file.get_metadata_dict().get("Title", ""))
    sections = [Section(text, Place(page=number)) for number, text in enumerate(texts, 1) if text and text.strip()]
    if not sections:
        damaged = f"damaged: none of its {count:,} pages can be read" if None in texts else ""
        raise Unreadable(damaged or "no text on its pages: a scan; run a text recognition (OCR) first")
    return Document(" ".join(title.split()) or name.rsplit("/", 1)[-1], tuple(sections), tuple(_notes(texts, count)))


def _page(file: Any, number: int) -> str | None:
    """Its text; None for a page that is damaged."""
    import pypdfium2

    try:
        page = file[number]
        words = page.get_textpage()
        text = str(words.get_text_bounded())
        words.close()
        page.close()
    except pypdfium2.PdfiumError:
        return None
    return _HYPHEN.sub("", text).replace("\r\n", "\n").replace("\r", "\n")


def _notes(texts: list[str | None], count: int) -> list[str]:
    blank, damaged = sum(text is not None and not text.strip() for text in texts), texts.count(None)
    notes = [f"{blank:,} of {count:,} pages have no text"] if blank else []
    notes += [f"{damaged:,} of {count:,} pages are damaged"] if damaged else []
    return notes + ([f"pages after {_PAGES:,} were left out"] if count > _PAGES else [])
