"""Files that are damaged, locked, bombs, or not what they say: each is refused with its reason, none is waited for."""

import contextlib
import socket
import time
from typing import Any

import pytest
import tiny_pdf
from tiny_office import document, docx, epub, paragraph, pptx, wrapped, xlsx, zipped

from edgemm.documents.child import answer
from edgemm.documents.kinds import Kind
from edgemm.documents.parsers import parser
from edgemm.documents.records import Document, Unreadable

BOMB = zipped({"word/document.xml": b"<a>" + b" " * 50_000_000 + b"</a>"})
SHEET_BOMB = xlsx({"A1": "x"} | {f"A{n}": "x" * 30_000 for n in range(2, 1000)})
ENTITIES = '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><x>&b;</x>'
WIDE = '<?xml version="1.0" encoding="UTF-16"?>' + ENTITIES
SLIDES = pptx({1: "one"}, order=[1], notes={})


@pytest.mark.parametrize(
    ("kind", "data", "why"),
    [
        (Kind.PDF, tiny_pdf.write(["", ""]), "a scan"),
        (Kind.PDF, tiny_pdf.write([]), "no text|damaged"),
        (Kind.PDF, tiny_pdf.write(["text"])[:200], "damaged"),
        (Kind.PDF, b"%PDF-1.4\n" + bytes(range(256)), "damaged"),
        (Kind.PDF, tiny_pdf.encrypted(), "encrypted: it asks for a password"),
        (Kind.DOCX, BOMB, "ZIP bomb: 50.0 MB are packed in 0.0"),
        (Kind.DOCX, zipped({"word/document.xml": ENTITIES}), "declares entities"),
        (Kind.DOCX, zipped({"word/document.xml": WIDE.encode("utf-16")}), "declares entities"),
        (Kind.DOCX, zipped({"word/document.xml": WIDE.encode("utf-16")[2:]}), "declares entities"),
        (Kind.DOCX, docx(paragraph("x"))[:100], "damaged"),
        (Kind.DOCX, zipped({"other": "x"}), "not there"),
        (Kind.DOCX, zipped({"word/document.xml": "<a><b></a>"}), "damaged XML"),
        (Kind.DOCX, zipped({"word/document.xml": "<a/>"}), "no body"),
        (Kind.DOCX, wrapped(), "encrypted"),
        (Kind.DOCX, wrapped()[:500], "before 2007"),
        (Kind.PPTX, zipped({"other": "x"}), "no slides"),
        (Kind.PPTX, SLIDES[: len(SLIDES) // 2], "damaged"),
        (Kind.SHEET, xlsx({"A1": "a"})[:-40], "damaged"),
        (Kind.SHEET, b"\xd0\xcf\x11\xe0" + bytes(600), "damaged"),
        (Kind.SHEET, wrapped(), "encrypted"),
        (Kind.SHEET, SHEET_BOMB, "ZIP bomb"),
        (Kind.EPUB, zipped({"other": "x"}), "not there"),
        (Kind.EPUB, epub()[:300], "damaged"),
        (Kind.EPUB, epub(locked="o/one.xhtml o/two%20.xhtml"), "DRM"),
        (Kind.MAIL, b"\n", "no message"),
        (Kind.NOTEBOOK, b"{}", "not a notebook"),
        (Kind.NOTEBOOK, b"[" * 100_000, "not a notebook"),
        (Kind.TEXT, bytes(range(256)) * 4, "binary"),
        (Kind.TEXT, docx(), "ZIP archive"),
        (Kind.IMAGE, b"\x89PNG\r\n\x1a\n" + bytes(50), "no picture"),
    ],
)
def test_what_cannot_be_read_says_why(kind: Kind, data: bytes, why: str) -> None:
    with pytest.raises(Unreadable, match=why):
        parser(kind)(data, "file")


def test_an_archive_of_too_many_bytes_is_refused_before_it_is_unpacked() -> None:
    members: dict[str, str | bytes] = {f"m{n}": bytes(9 << 20) for n in range(30)}
    with pytest.raises(Unreadable, match="283 MB"):
        parser(Kind.DOCX)(zipped(members), "file")


def test_deep_xml_is_refused(tmp_path: Any) -> None:
    path = tmp_path / "deep.docx"
    path.write_bytes(docx("<w:p>" * 50_000 + "</w:p>" * 50_000))
    header, raw = answer({"path": str(path), "name": path.name, "kind": "docx", "most": 1 << 26})
    assert header == {"refused": "is nested too deeply"}
    assert raw == b""


GOOD = {
    Kind.PDF: tiny_pdf.write(["text of a page"]),
    Kind.DOCX: docx(paragraph("text")),
    Kind.PPTX: SLIDES,
    Kind.SHEET: xlsx({"A1": "text"}),
    Kind.EPUB: epub(),
    Kind.MAIL: b"Subject: x\n\ntext",
    Kind.HTML: b"<h1>text</h1>",
    Kind.NOTEBOOK: b'{"cells":[{"cell_type":"code","source":"text"}]}',
}


@pytest.mark.parametrize("kind", GOOD)
def test_a_file_that_is_cut_anywhere_is_read_or_refused(kind: Kind) -> None:
    data = GOOD[kind]
    assert parser(kind)(data, "file").sections
    for end in range(0, len(data), max(1, len(data) // 60)):
        with contextlib.suppress(Unreadable):
            assert isinstance(parser(kind)(data[:end], "file"), Document)


@pytest.mark.parametrize("kind", GOOD)
def test_no_parser_opens_a_connection(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a connection")

    for name in ("socket", "create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, refuse)
    data = GOOD[kind]
    if kind is Kind.HTML:
        data = b'<link rel=stylesheet href="http://x.invalid/a"><img src="http://x.invalid/b"><p>text'
    assert parser(kind)(data, "file").sections


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        (Kind.MARKDOWN, b"# " + b"#" * 400_000 + b"a"),
        (Kind.MARKDOWN, b"# " + b" #" * 200_000 + b"a"),
        (Kind.MARKDOWN, b"`" * 400_000 + b"\n" + b"-" * 400_000 + b"a"),
        (Kind.RST, b"a\n" + b"=" * 400_000 + b" " * 400_000 + b"a"),
        (Kind.HTML, b"<p>" + b"\n \n" * 200_000 + b"x"),
        (Kind.MAIL, b"Subject: x\n\n" + b"\nFrom" * 200_000),
    ],
)
def test_no_pattern_takes_a_time_that_grows_with_the_square(kind: Kind, data: bytes) -> None:
    started = time.process_time()
    parser(kind)(data, "file.mbox")
    assert time.process_time() - started < 5  # some 0.1 s; with the square, minutes


def test_an_entity_of_html_is_a_sign_like_any_other() -> None:
    [section] = parser(Kind.HTML)(b"<p>&lt;b&gt; &#27;[2J &#xD800;", "file").sections
    assert section.text.startswith("<b> ")


def test_document_text_is_not_taken_for_a_declaration() -> None:
    member = document(paragraph("write &lt;!DOCTYPE html&gt; first"))
    found = parser(Kind.DOCX)(zipped({"word/document.xml": member}), "file")
    assert found.sections[0].text == "write <!DOCTYPE html> first"
