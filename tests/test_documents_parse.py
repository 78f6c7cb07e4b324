"""Every kind of document: its text, its headings, and where each part stands."""

import io
import json
import zipfile

import pytest
import tiny_pdf
from PIL import Image

from edgemm.documents.kinds import Kind, of_bytes, of_name
from edgemm.documents.parsers import parser
from edgemm.documents.records import Document, Place, Unreadable, from_json, to_json

W = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
A = 'xmlns:a="http://schemas.openxmlformats.org/drawingml/2006/main"'


def zipped(**members: str | bytes) -> bytes:
    """Names with "__" for slashes and "_" for dots."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name.replace("__", "/").replace("_xml", ".xml").replace("_opf", ".opf"), content)
    return out.getvalue()


def paragraph(text: str, style: str = "") -> str:
    shape = f'<w:pPr><w:pStyle w:val="{style}"/></w:pPr>' if style else ""
    return f"<w:p>{shape}<w:r><w:t>{text}</w:t></w:r></w:p>"


def docx(*blocks: str) -> bytes:
    return zipped(word__document_xml=f"<w:document {W}><w:body>{''.join(blocks)}</w:body></w:document>")


def pptx(*slides: str) -> bytes:
    members = {
        f"ppt__slides__slide{n}_xml": f"<p {A}><a:p><a:r><a:t>{text}</a:t></a:r></a:p></p>"
        for n, text in enumerate(slides, 1)
    }
    return zipped(**members)


def xlsx(rows: list[list[str]]) -> bytes:
    cells = "".join(
        "<row>" + "".join(f'<c t="inlineStr"><is><t>{value}</t></is></c>' for value in row) + "</row>" for row in rows
    )
    space = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
    rels = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        file.writestr(
            "[Content_Types].xml", '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"/>'
        )
        sheets = '<sheets><sheet name="Costs" sheetId="1" r:id="r1"/></sheets>'
        file.writestr("xl/workbook.xml", f'<workbook {space} xmlns:r="{rels}">{sheets}</workbook>')
        package = 'xmlns="http://schemas.openxmlformats.org/package/2006/relationships"'
        file.writestr(
            "_rels/.rels",
            f'<Relationships {package}><Relationship Id="r0" Type="{rels}/officeDocument" Target="xl/workbook.xml"/>'
            "</Relationships>",
        )
        file.writestr(
            "xl/_rels/workbook.xml.rels",
            f'<Relationships {package}><Relationship Id="r1" Type="{rels}/worksheet" Target="worksheets/s.xml"/>'
            "</Relationships>",
        )
        file.writestr("xl/worksheets/s.xml", f"<worksheet {space}><sheetData>{cells}</sheetData></worksheet>")
    return out.getvalue()


def epub() -> bytes:
    opf = (
        '<package xmlns="http://www.idpf.org/2007/opf" xmlns:dc="http://purl.org/dc/elements/1.1/">'
        "<metadata><dc:title>A book</dc:title></metadata>"
        '<manifest><item id="b" href="two.xhtml"/><item id="a" href="one.xhtml"/></manifest>'
        '<spine><itemref idref="a"/><itemref idref="b"/></spine></package>'
    )
    container = '<c xmlns="urn:x"><rootfiles><rootfile full-path="o/p.opf"/></rootfiles></c>'
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        file.writestr("META-INF/container.xml", container)
        file.writestr("o/p.opf", opf)
        file.writestr("o/one.xhtml", "<h1>First</h1><p>It begins.</p>")
        file.writestr("o/two.xhtml", "<h1>Second</h1><p>It ends.</p>")
    return out.getvalue()


def read(kind: Kind, data: bytes | str, name: str = "file") -> Document:
    found = parser(kind)(data.encode() if isinstance(data, str) else data, name)
    assert from_json(json.loads(json.dumps(to_json(found)))) == found
    return found


def test_markdown_sections_know_their_headings_and_lines() -> None:
    found = read(Kind.MARKDOWN, "intro\n# One\na\n## Two\nb\n```\n# no heading\n```\n# Three\nc\n")
    assert [(s.heading, s.place.line, s.text.split("\n")[0]) for s in found.sections] == [
        ((), 1, "intro"),
        (("One",), 2, "# One"),
        (("One", "Two"), 4, "## Two"),
        (("Three",), 9, "# Three"),
    ]


def test_restructured_text_levels_are_those_of_its_signs() -> None:
    found = read(Kind.RST, "Title\n=====\na\n\nPart\n----\nb\n\nNext\n====\nc\n")
    assert [s.heading for s in found.sections] == [("Title",), ("Title", "Part"), ("Next",)]
    assert found.title == "Title"


def test_html_is_what_a_reader_sees() -> None:
    found = read(
        Kind.HTML,
        "<html><head><title>T &amp; t</title><style>x{}</style></head><body><h1>One</h1><p>a<b>b</b></p>"
        "<script>evil()</script><ul><li>c</li></ul><h2>Two</h2><table><tr><td>d</td><td>e</td></tr></table>",
    )
    assert found.title == "T & t"
    assert [s.heading for s in found.sections] == [("One",), ("One", "Two")]
    text = "\n".join(s.text for s in found.sections)
    assert "ab" in text
    assert "- c" in text
    assert "evil" not in text


def test_a_deep_page_costs_nothing() -> None:
    found = read(Kind.HTML, "<div>" * 100_000 + "deep" + "</div>" * 100_000)
    assert found.sections[0].text == "deep"


def test_pdf_pages_are_numbered() -> None:
    found = read(Kind.PDF, tiny_pdf.write(["first page", "", "third page\nsecond line"]))
    assert [(s.place.shown(), s.text.split("\n")[0].strip()) for s in found.sections] == [
        ("page 1", "first page"),
        ("page 3", "third page"),
    ]


def test_word_headings_paragraphs_and_tables() -> None:
    cell = "<w:tc>" + paragraph("x") + "</w:tc>"
    found = read(
        Kind.DOCX,
        docx(
            paragraph("Report", "Title"),
            paragraph("start"),
            paragraph("Costs", "Heading2"),
            f"<w:tbl><w:tr>{cell}{cell}</w:tr></w:tbl>",
        ),
    )
    assert [(s.heading, s.text) for s in found.sections] == [
        (("Report",), "Report\nstart"),
        (("Report", "Costs"), "Costs\nx\tx"),
    ]


def test_slides_are_numbered() -> None:
    found = read(Kind.PPTX, pptx("one", "two"))
    assert [(s.place.shown(), s.text) for s in found.sections] == [("slide 1", "one"), ("slide 2", "two")]


def test_sheets_name_their_cells() -> None:
    found = read(Kind.SHEET, xlsx([["a", "b"], ["c", "d"]]))
    assert [(s.place.shown(), s.text) for s in found.sections] == [("sheet Costs, A1:B2", "a\tb\nc\td")]


def test_chapters_come_in_reading_order() -> None:
    found = read(Kind.EPUB, epub())
    assert found.title == "A book"
    assert [s.heading for s in found.sections] == [("First",), ("Second",)]


MESSAGE = "From: a@x\nTo: b@x\nSubject: Lunch\n\nAt noon?\n"


def test_messages_and_mailboxes() -> None:
    [one] = read(Kind.MAIL, MESSAGE, "m.eml").sections
    assert one.heading == ("Lunch",)
    assert one.text.endswith("Subject: Lunch\n\nAt noon?")
    box = read(Kind.MAIL, f"From a@x Mon\n{MESSAGE}\nFrom b@x Tue\n{MESSAGE.replace('Lunch', 'Dinner')}", "b.mbox")
    assert [s.heading for s in box.sections] == [("Lunch",), ("Dinner",)]


def test_notebooks_cell_by_cell() -> None:
    cells = [
        {"cell_type": "markdown", "source": ["# Plan\n", "text"]},
        {"cell_type": "code", "source": "x = 1", "outputs": [{"text": "hidden"}]},
    ]
    found = read(Kind.NOTEBOOK, json.dumps({"cells": cells}))
    assert [(s.heading, s.place.cells) for s in found.sections] == [(("Plan",), "cell 1"), (("Plan",), "cell 2")]
    assert "hidden" not in str(found)


def test_a_picture_says_when_it_was_taken() -> None:
    out = io.BytesIO()
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9003] = "2024:05:01 12:30:00"
    Image.new("RGB", (4, 4)).save(out, "JPEG", exif=exif)
    assert read(Kind.IMAGE, out.getvalue()).taken == "2024-05-01T12:30:00"


def test_tables_and_code_count_their_lines() -> None:
    for kind in (Kind.TABLE, Kind.JSON, Kind.CODE, Kind.TEXT):
        [section] = read(kind, b"a,b\r\nc,d\r\n").sections
        assert section.text == "a,b\nc,d\n"
        assert section.place == Place(line=1)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_encodings_are_found_out(encoding: str) -> None:
    assert read(Kind.TEXT, "Grüße – ok\n".encode(encoding)).sections[0].text == "Grüße – ok\n"


BOMB = zipped(word__document_xml=b"<a>" + b" " * 50_000_000 + b"</a>")
ENTITIES = '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><x>&b;</x>'


@pytest.mark.parametrize(
    ("kind", "data", "why"),
    [
        (Kind.PDF, tiny_pdf.write(["", ""]), "a scan"),
        (Kind.PDF, tiny_pdf.write(["text"])[:200], "damaged"),
        (Kind.PDF, b"%PDF-1.4\n" + bytes(range(256)), "damaged"),
        (Kind.DOCX, BOMB, "far more than it holds"),
        (Kind.DOCX, zipped(word__document_xml=ENTITIES), "declares entities"),
        (Kind.DOCX, docx(paragraph("x"))[:100], "damaged"),
        (Kind.DOCX, zipped(other="x"), "not there"),
        (Kind.DOCX, zipped(word__document_xml="<a><b></a>"), "damaged XML"),
        (Kind.PPTX, zipped(other="x"), "no slides"),
        (Kind.SHEET, xlsx([["a"]])[:-40], "damaged"),
        (Kind.SHEET, b"\xd0\xcf\x11\xe0" + bytes(600), "damaged"),
        (Kind.EPUB, zipped(other="x"), "not there"),
        (Kind.MAIL, b"\n", "no message"),
        (Kind.NOTEBOOK, b"{}", "not a notebook"),
        (Kind.NOTEBOOK, b"[" * 100_000, "not a notebook"),
        (Kind.TEXT, bytes(range(256)) * 4, "binary"),
        (Kind.IMAGE, b"\x89PNG\r\n\x1a\n" + bytes(50), "no picture"),
    ],
)
def test_what_cannot_be_read_says_why(kind: Kind, data: bytes, why: str) -> None:
    with pytest.raises(Unreadable, match=why):
        parser(kind)(data, "file")


def test_kinds_are_told_by_name_and_by_bytes() -> None:
    assert of_name("a/b.MD") is Kind.MARKDOWN
    assert of_name("Makefile") is Kind.CODE
    assert of_name("x.exe") is None
    assert of_name(".md") is None
    assert of_bytes(b"%PDF-1.7", Kind.TEXT) is Kind.PDF
    assert of_bytes(b"hello", Kind.PDF) is Kind.TEXT


def test_places_are_said_in_words() -> None:
    assert [p.shown() for p in (Place(page=3), Place(line=4, end_line=9), Place(line=4, end_line=4), Place())] == [
        "page 3",
        "lines 4-9",
        "line 4",
        "",
    ]
