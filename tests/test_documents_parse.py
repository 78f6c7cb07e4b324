"""Every kind of document that is text or a page: its text, its headings, and where each part stands."""

import io
import json

import pytest
import tiny_office
import tiny_pdf
from PIL import Image

from edgemm.documents.kinds import Kind, of_bytes, of_name
from edgemm.documents.parsers import parser
from edgemm.documents.records import Document, Place, pack, unpack


def read(kind: Kind, data: bytes | str, name: str = "file") -> Document:
    found = parser(kind)(data.encode() if isinstance(data, str) else data, name)
    header, raw = pack(found)
    assert unpack(json.loads(json.dumps(header)), raw) == found
    return found


def headings(kind: Kind, text: str) -> list[tuple[tuple[str, ...], int]]:
    return [(section.heading, section.place.line) for section in read(kind, text).sections]


def test_markdown_sections_know_their_headings_and_lines() -> None:
    found = read(Kind.MARKDOWN, "intro\n# One\na\n## Two\nb\n```\n# no heading\n```\n# Three\nc\n")
    assert [(s.heading, s.place.line, s.text.split("\n")[0]) for s in found.sections] == [
        ((), 1, "intro"),
        (("One",), 2, "# One"),
        (("One", "Two"), 4, "## Two"),
        (("Three",), 9, "# Three"),
    ]


def test_markdown_fences_end_where_they_should() -> None:
    text = "# A\n````\n```\n# no\n````\n# B\n```inline``` code\n# C\n~~~ py\n# no\n```\n~~~\n# D\n"
    assert headings(Kind.MARKDOWN, text) == [(("A",), 1), (("B",), 6), (("C",), 8), (("D",), 13)]


def test_markdown_headings_may_be_underlined_and_closed() -> None:
    text = "---\ntitle: x\n---\n# About C#\na\n## b ##\n- x\n---\n| a\n|---|\n\nPart\n===\nz\n"
    assert headings(Kind.MARKDOWN, text) == [
        ((), 1),
        (("About C#",), 4),
        (("About C#", "b"), 6),
        (("Part",), 12),
    ]


def test_restructured_text_levels_are_those_of_its_signs() -> None:
    found = read(Kind.RST, "Title\n=====\na\n\nPart\n----\nb\n\nNext\n====\nc\n")
    assert [s.heading for s in found.sections] == [("Title",), ("Title", "Part"), ("Next",)]
    assert found.title == "Title"


def test_a_line_above_a_heading_of_restructured_text_belongs_to_it() -> None:
    assert headings(Kind.RST, "===\nTop\n===\nx\n\nSub\n===\ny\n") == [(("Top",), 1), (("Top", "Sub"), 6)]


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


@pytest.mark.parametrize(
    ("page", "text"),
    [
        ("<html><head><title>t</title><body><p>seen</p>", "seen"),
        ("<head><noscript><body>seen", "seen"),
        ("<h1>seen<p>too", "seen\ntoo"),
        ("<p>se<![if !supportLists]>en<![endif]> <![ open", "seen <![ open"),
        ("<svg><title>no</title></svg>seen", "seen"),
    ],
)
def test_what_a_page_leaves_open_hides_nothing(page: str, text: str) -> None:
    [section] = read(Kind.HTML, page).sections
    assert section.text == text


def test_a_page_is_read_in_the_encoding_that_it_names() -> None:
    page = '<meta charset="shift_jis"><p>日本語のテキスト'
    assert read(Kind.HTML, page.encode("shift_jis")).sections[0].text == "日本語のテキスト"
    assert read(Kind.HTML, page).sections[0].text == "日本語のテキスト"  # in truth it is UTF-8
    wrong = b'<meta charset="zlib"><p>caf\xe9'
    assert read(Kind.HTML, wrong).sections[0].text == "café"


def test_a_deep_page_costs_nothing() -> None:
    found = read(Kind.HTML, "<div>" * 100_000 + "deep" + "</div>" * 100_000)
    assert found.sections[0].text == "deep"


def test_pdf_pages_are_numbered_and_those_without_text_are_counted() -> None:
    found = read(Kind.PDF, tiny_pdf.write(["first page", "", "third page\nsecond line"], title="A  title"))
    assert [(s.place.shown(), s.text.split("\n")[0].strip()) for s in found.sections] == [
        ("page 1", "first page"),
        ("page 3", "third page"),
    ]
    assert found.title == "A title"
    assert found.notes == ("1 of 3 pages have no text",)


def test_words_that_a_line_end_parts_are_put_together() -> None:
    [page] = read(Kind.PDF, tiny_pdf.write(["this is an exam-\nple of words"])).sections
    assert "an example of words" in page.text


MESSAGE = "From: a@x\nTo: b@x\nSubject: Lunch\n\nAt noon?\n"


def test_messages_and_mailboxes() -> None:
    [one] = read(Kind.MAIL, MESSAGE, "m.eml").sections
    assert one.heading == ("Lunch",)
    assert one.text.endswith("Subject: Lunch\n\nAt noon?")
    box = read(Kind.MAIL, f"From a@x Mon\n{MESSAGE}\nFrom b@x Tue\n{MESSAGE.replace('Lunch', 'Dinner')}", "b.mbox")
    assert [s.heading for s in box.sections] == [("Lunch",), ("Dinner",)]


def test_a_line_that_begins_with_from_parts_no_message() -> None:
    box = read(Kind.MAIL, f"From a@x Mon\r\n{MESSAGE}From here on\r\n\r\n>From there\r\nend\r\n", "b.mbox")
    assert box.sections[0].text.endswith("At noon?\nFrom here on\n\nFrom there\nend")


def test_a_message_with_broken_headers_is_read_as_it_was_sent() -> None:
    found = read(Kind.MAIL, "From: a\nTo: =?utf-8?q?=?= <a@[ >,;:\nDate: \x01\nSubject: =?x?\n\nbody", "m.eml")
    assert found.sections[0].text.endswith("\n\nbody")
    assert found.title == "=?x?"


def test_attachments_are_counted_and_not_opened() -> None:
    parts = (
        "Content-Type: text/html; charset=utf-8\n\n<p>Hello</p>",
        'Content-Type: application/pdf\nContent-Disposition: attachment; filename="a.pdf"\n\nhidden',
    )
    body = "".join(f"--b\n{part}\n" for part in parts)
    found = read(Kind.MAIL, f"Subject: x\nContent-Type: multipart/mixed; boundary=b\n\n{body}--b--\n", "m.eml")
    assert found.sections[0].text == "Subject: x\n\nHello"
    assert found.notes == ("attachments that were not opened: 1",)


def test_notebooks_cell_by_cell() -> None:
    cells = [
        {"cell_type": "markdown", "source": ["# Plan\n", "text"]},
        {"cell_type": "code", "source": "x = 1", "outputs": [{"text": "hidden"}]},
    ]
    found = read(Kind.NOTEBOOK, json.dumps({"cells": cells}))
    assert [(s.heading, s.place.shown()) for s in found.sections] == [(("Plan",), "cell 1"), (("Plan",), "cell 2")]
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


def test_what_has_no_encoding_is_replaced_on_the_way() -> None:
    found = parser(Kind.NOTEBOOK)(b'{"cells":[{"cell_type":"code","source":"a\\ud800b\\u0000c"}]}', "bad\udcff.ipynb")
    sent = unpack(*pack(found))
    assert sent.sections[0].text == "a\ufffdb\ufffdc"
    assert sent.title == "bad\ufffd.ipynb"


def test_kinds_are_told_by_name() -> None:
    assert of_name("a/b.MD") is Kind.MARKDOWN
    assert of_name("Makefile") is Kind.CODE
    assert of_name("x.exe") is None
    assert of_name(".md") is None


@pytest.mark.parametrize(
    ("data", "named", "kind"),
    [
        (b"%PDF-1.7", Kind.TEXT, Kind.PDF),
        (b"mail header\n%PDF-1.7", Kind.PDF, Kind.PDF),
        (b"mail header\n%PDF-1.7", Kind.TEXT, Kind.TEXT),
        (b"hello", Kind.PDF, Kind.TEXT),
        (b"\xff\xd8\xff\xe0", Kind.PDF, Kind.IMAGE),
        (b"\n<!DOCTYPE html><table>", Kind.SHEET, Kind.HTML),
        (b"a\tb\n", Kind.SHEET, Kind.TABLE),
        (b"a\0\tb\n", Kind.SHEET, Kind.SHEET),
        (tiny_office.xlsx({"A1": "x"}), Kind.DOCX, Kind.SHEET),
        (tiny_office.docx(), Kind.TEXT, Kind.DOCX),
        (tiny_office.epub(), Kind.PPTX, Kind.EPUB),
        (tiny_office.wrapped(), Kind.SHEET, Kind.SHEET),
    ],
)
def test_a_file_of_the_wrong_suffix_is_read_as_what_it_is(data: bytes, named: Kind, kind: Kind) -> None:
    assert of_bytes(data, named) is kind


def test_places_are_said_in_words() -> None:
    places = (
        Place(page=3),
        Place(line=4, end_line=9),
        Place(line=4, end_line=4),
        Place(slide=2),
        Place(sheet="Costs", cells="A1:D20"),
        Place(cells="cell 4"),
        Place(),
    )
    assert [p.shown() for p in places] == [
        "page 3",
        "lines 4-9",
        "line 4",
        "slide 2",
        "sheet Costs, A1:D20",
        "cell 4",
        "",
    ]
