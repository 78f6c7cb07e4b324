"""PDF files, page by page, through PDFium."""

from edgemm.documents.records import Document, Place, Section, Unreadable

_PAGES = 5000


def pdf(data: bytes, name: str) -> Document:
    import pypdfium2

    try:
        file = pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError as error:
        text = str(error).lower()
        raise Unreadable("encrypted: it asks for a password" if "password" in text else f"damaged: {error}") from error
    try:
        count = len(file)
        sections = []
        for number in range(min(count, _PAGES)):
            text = file[number].get_textpage().get_text_bounded().replace("\r\n", "\n").replace("\r", "\n")
            if text.strip():
                sections.append(Section(text, Place(page=number + 1)))
        title = file.get_metadata_dict().get("Title", "").strip()
    except pypdfium2.PdfiumError as error:
        raise Unreadable(f"damaged: {error}") from error
    if count and not sections:
        raise Unreadable("no text on its pages: a scan; run a text recognition (OCR) first")
    notes = (f"pages after {_PAGES:,} were left out",) if count > _PAGES else ()
    return Document(title or name.rsplit("/", 1)[-1], tuple(sections), notes)
