"""Office files and books of a few lines, written by hand (ECMA-376, EPUB 3.3): only the members that a reader needs."""

import io
import zipfile

_FORMATS = "http://schemas.openxmlformats.org"
_RELS = f"{_FORMATS}/officeDocument/2006/relationships"
_W = f'xmlns:w="{_FORMATS}/wordprocessingml/2006/main"'
_A = f'xmlns:a="{_FORMATS}/drawingml/2006/main"'
_P = f'xmlns:p="{_FORMATS}/presentationml/2006/main" xmlns:r="{_RELS}"'


def zipped(members: dict[str, str | bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)  # always of the same date
    return out.getvalue()


def paragraph(text: str, style: str = "") -> str:
    shape = f'<w:pPr><w:tabs><w:tab w:val="left"/></w:tabs><w:pStyle w:val="{style}"/></w:pPr>' if style else ""
    return f"<w:p>{shape}<w:r><w:t>{text}</w:t></w:r></w:p>"


def document(*blocks: str) -> str:
    return f"<w:document {_W}><w:body>{''.join(blocks)}</w:body></w:document>"


def docx(*blocks: str, styles: str = "", footnotes: str = "") -> bytes:
    members: dict[str, str | bytes] = {"word/document.xml": document(*blocks)}
    if styles:
        members["word/styles.xml"] = f"<w:styles {_W}>{styles}</w:styles>"
    if footnotes:
        members["word/footnotes.xml"] = f"<w:footnotes {_W}><w:footnote>{footnotes}</w:footnote></w:footnotes>"
    return zipped(members)


def _slide(text: str) -> str:
    return f"<p:sld {_P} {_A}><a:p><a:r><a:t>{text}</a:t></a:r></a:p></p:sld>"


def links(**parts: str) -> str:
    """Relationships: id="type target"."""
    each = (part.split() for part in parts.values())
    rows = (
        f'<Relationship Id="{key}" Type="{_RELS}/{kind}" Target="{target}"/>'
        for key, (kind, target) in zip(parts, each, strict=True)
    )
    return f'<Relationships xmlns="{_FORMATS}/package/2006/relationships">{"".join(rows)}</Relationships>'


def pptx(slides: dict[int, str], order: list[int], notes: dict[int, tuple[int, str]]) -> bytes:
    """Texts of slides by the number of their part, the order in which they are shown, and by slide: a note's part."""
    shown = "".join(f'<p:sldId id="{256 + n}" r:id="r{n}"/>' for n in order)
    members: dict[str, str | bytes] = {
        "ppt/presentation.xml": f"<p:presentation {_P}><p:sldIdLst>{shown}</p:sldIdLst></p:presentation>",
        "ppt/_rels/presentation.xml.rels": links(**{f"r{n}": f"slide slides/slide{n}.xml" for n in slides}),
    }
    for number, text in slides.items():
        members[f"ppt/slides/slide{number}.xml"] = _slide(text)
    for number, (part, text) in notes.items():
        members[f"ppt/notesSlides/notesSlide{part}.xml"] = _slide(text)
        target = f"notesSlide ../notesSlides/notesSlide{part}.xml"
        members[f"ppt/slides/_rels/slide{number}.xml.rels"] = links(n1=target)
    return zipped(members)


def xlsx(cells: dict[str, str]) -> bytes:
    """One sheet, "Costs", with texts in cells such as "C5", given row by row."""
    space = f'xmlns="{_FORMATS}/spreadsheetml/2006/main"'
    rows: dict[str, list[str]] = {}
    for place, text in cells.items():
        number = place.lstrip("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
        rows.setdefault(number, []).append(f'<c r="{place}" t="inlineStr"><is><t>{text}</t></is></c>')
    data = "".join(f'<row r="{number}">{"".join(row)}</row>' for number, row in rows.items())
    sheets = '<sheets><sheet name="Costs" sheetId="1" r:id="r1"/></sheets>'
    return zipped(
        {
            "[Content_Types].xml": f'<Types xmlns="{_FORMATS}/package/2006/content-types"/>',
            "_rels/.rels": links(r0="officeDocument xl/workbook.xml"),
            "xl/workbook.xml": f'<workbook {space} xmlns:r="{_RELS}">{sheets}</workbook>',
            "xl/_rels/workbook.xml.rels": links(r1="worksheet worksheets/s.xml"),
            "xl/worksheets/s.xml": f"<worksheet {space}><sheetData>{data}</sheetData></worksheet>",
        }
    )


def epub(locked: str = "") -> bytes:
    """Two chapters, whose order is not that of their names; the `locked` ones, by blanks, are encrypted."""
    opf = (
        '<package xmlns="http://www.idpf.org/2007/opf" xmlns:dc="http://purl.org/dc/elements/1.1/">'
        "<metadata><dc:title>A book</dc:title></metadata>"
        '<manifest><item id="b" href="one.xhtml"/><item id="a" href="two%20.xhtml"/></manifest>'
        '<spine><itemref idref="a"/><itemref idref="b"/><itemref idref="a"/></spine></package>'
    )
    members: dict[str, str | bytes] = {
        "META-INF/container.xml": '<c xmlns="urn:x"><rootfiles><rootfile full-path="o/p.opf"/></rootfiles></c>',
        "o/p.opf": opf,
        "o/one.xhtml": "<h1>Second</h1><p>It ends.</p>",
        "o/two .xhtml": "<h1>First</h1><p>It begins.</p>",
    }
    if locked:
        each = "".join(f'<CipherReference URI="{name}"/>' for name in locked.split())
        members["META-INF/encryption.xml"] = f"<encryption>{each}</encryption>"
    return zipped(members)


def wrapped() -> bytes:
    """The outside of an encrypted Office file (MS-OFFCRYPTO): the mark of a compound file, and a name in it."""
    return b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(504) + "EncryptedPackage".encode("utf-16-le") + bytes(480)
