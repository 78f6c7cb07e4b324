"""Word, PowerPoint, spreadsheets and books: text, headings and places as their readers see them."""

from test_documents_parse import read
from tiny_office import docx, epub, paragraph, pptx, xlsx

from edgemm.documents.kinds import Kind


def test_word_headings_paragraphs_and_tables() -> None:
    cell = "<w:tc>" + paragraph("x") + paragraph("y") + "</w:tc>"
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
        (("Report", "Costs"), "Costs\nx y\tx y"),
    ]


def test_a_word_file_is_named_after_its_first_heading() -> None:
    found = read(Kind.DOCX, docx(paragraph("One", "Heading1"), paragraph("a"), paragraph("Two", "Heading1")))
    assert found.title == "One"


def test_word_headings_are_found_by_what_their_style_is() -> None:
    styles = (
        '<w:style w:styleId="berschrift1"><w:name w:val="heading 1"/></w:style>'
        '<w:style w:styleId="Ours"><w:name w:val="Our head"/><w:basedOn w:val="berschrift1"/></w:style>'
        '<w:style w:styleId="Deep"><w:name w:val="x"/><w:pPr><w:outlineLvl w:val="1"/></w:pPr></w:style>'
        '<w:style w:styleId="Loop"><w:name w:val="y"/><w:basedOn w:val="Loop"/></w:style>'
    )
    texts = {"berschrift1": "A", "Ours": "B", "Deep": "C", "Loop": "d"}
    found = read(Kind.DOCX, docx(*(paragraph(text, style) for style, text in texts.items()), styles=styles))
    assert [(s.heading, s.text) for s in found.sections] == [(("A",), "A"), (("B",), "B"), (("B", "C"), "C\nd")]


def test_word_text_of_content_controls_boxes_and_footnotes_is_there_once() -> None:
    box = f"<w:Choice><w:txbxContent>{paragraph('box')}</w:txbxContent></w:Choice>"
    found = read(
        Kind.DOCX,
        docx(
            f"<w:sdt><w:sdtContent>{paragraph('a')}{paragraph('b')}</w:sdtContent></w:sdt>",
            f"<w:p><w:AlternateContent>{box}{box.replace('Choice', 'Fallback')}</w:AlternateContent></w:p>",
            f"<w:del>{paragraph('gone')}</w:del>",
            footnotes=paragraph("note"),
        ),
    )
    assert [s.text for s in found.sections] == ["a\nb\nbox", "note"]
    assert found.sections[1].heading == ("Footnotes",)


def test_a_table_in_a_table_is_text_of_its_cell() -> None:
    inner = f"<w:tbl><w:tr><w:tc>{paragraph('in')}</w:tc><w:tc>{paragraph('ner')}</w:tc></w:tr></w:tbl>"
    outer = f"<w:tbl><w:tr><w:tc>{inner}</w:tc><w:tc>{paragraph('out')}</w:tc></w:tr></w:tbl>"
    assert read(Kind.DOCX, docx(outer)).sections[0].text == "in ner\tout"


def test_slides_are_numbered_as_they_are_shown_and_have_their_own_notes() -> None:
    slides = {1: "one", 2: "two", 12: "twelve"}
    found = read(Kind.PPTX, pptx(slides, order=[12, 1, 2], notes={2: (1, "of two")}))
    assert [(s.place.shown(), s.text) for s in found.sections] == [
        ("slide 1", "twelve"),
        ("slide 2", "one"),
        ("slide 3", "two\nof two"),
    ]


def test_sheets_name_their_cells() -> None:
    found = read(Kind.SHEET, xlsx({"A1": "a", "B1": "b", "A2": "c", "B2": "d"}))
    assert [(s.place.shown(), s.text) for s in found.sections] == [("sheet Costs, A1:B2", "a\tb\nc\td")]


def test_cells_are_counted_from_the_corner_of_the_sheet() -> None:
    [section] = read(Kind.SHEET, xlsx({"C5": "a", "C7": "b", "AB7": "c"})).sections
    assert section.place.shown() == "sheet Costs, C5:AB7"
    assert section.text.split("\n") == ["a", "", "b" + "\t" * 25 + "c"]


def test_a_long_sheet_is_parted_in_blocks_of_rows() -> None:
    found = read(Kind.SHEET, xlsx({f"B{n}": f"row {n}" for n in range(3, 103)}))
    assert [s.place.cells for s in found.sections] == ["B3:B42", "B43:B82", "B83:B102"]
    assert found.sections[1].text.startswith("row 43\n")


def test_chapters_come_in_reading_order_and_once() -> None:
    found = read(Kind.EPUB, epub())
    assert found.title == "A book"
    assert [s.heading for s in found.sections] == [("First",), ("Second",)]


def test_chapters_that_are_encrypted_are_counted() -> None:
    found = read(Kind.EPUB, epub(locked="o/one.xhtml o/font.otf"))
    assert [s.heading for s in found.sections] == [("First",)]
    assert found.notes == ("1 of 2 chapters are missing or encrypted",)
