"""What the documents screen shows, as text: marks, places, neighbours without what they repeat, and nothing hostile."""

from dataclasses import replace
from pathlib import Path

import pytest
from hostile_texts import TEXTS
from textual.content import Content

from edgemm.index import Chunk, Medium, Model, ModelState, ModelStatus, Root, RootStatus, Status
from edgemm.ingest import Report
from edgemm.search import Hit, Part, Standing
from edgemm.snippets import MARK, UNMARK
from edgemm.terminal import safe
from edgemm.tui import finding

SECTION = "The first part ends here. The second part is cited. The third part follows it."
WIDTH = 40


def chunk(id: int = 7, start: int = 0, end: int = len(SECTION), **more: object) -> Chunk:
    text = SECTION[start:end]
    values = {"order": id, "heading": ("Notes", "Parts"), "place": {"line": 3, "end_line": 9}, "title": "A title"}
    values |= {"root": Path("/docs"), "name": "a/notes.md", "kind": "markdown", "taken": "", "text": text} | more
    return Chunk(id=id, start=start, end=end, medium=Medium.TEXT, hash="", mtime_ns=0, **values)  # type: ignore[arg-type]


def hit(found: Chunk | None = None, snippet: str = f"The {MARK}second{UNMARK} part") -> Hit:
    return Hit(found or chunk(), 0.0325, {Part.WORDS: Standing(1, 7.21), Part.MEANING: Standing(3, 0.625)}, snippet)


def marked(content: Content, style: str = "bold reverse") -> list[str]:
    return [content.plain[span.start : span.end] for span in content.spans if str(span.style) == style]


def status(**more: object) -> RootStatus:
    values = {"files": 1204, "chunks": 8331, "size": 45_200_000, "pending": 0, "refused": ()} | more
    return RootStatus(root=Root(1, Path("/docs"), 0.0), **values)  # type: ignore[arg-type]


def test_a_result_names_file_and_place_and_marks_the_match() -> None:
    shown = finding.result(hit(), WIDTH)
    assert shown.plain.splitlines() == ["/docs/a/notes.md, lines 3-9", "  The second part"]
    assert marked(shown) == ["second"]


def test_no_row_of_a_result_is_wider_than_the_list_and_a_snippet_has_two_rows() -> None:
    long = chunk(name="folder/" * 30 + "数学.md", place={"sheet": "s" * 300, "cells": "A1:B2"}, taken="2024-05-01")
    for width in (20, 33, 70):
        rows = finding.result(hit(long, "many words " * 40), width, ["score " * 20]).split()
        assert all(row.cell_length <= width for row in rows)
        assert sum("many words" in row.plain for row in rows) == 2


def test_the_scores_say_which_ranking_put_it_there() -> None:
    assert finding.scores(hit()) == "score 0.0325: words 1. (7.21), meaning 3. (0.625)"
    assert "meaning 3." in finding.result(hit(), 70, [finding.scores(hit())]).plain


def test_copies_and_pictures_are_named() -> None:
    picture = replace(chunk(text="", title="Beach", taken="2024-05-01", place={}), medium=Medium.PICTURE)
    shown = finding.result(replace(hit(picture, ""), copies=("/docs/b", "/docs/c")), 60).plain
    assert shown.splitlines() == ["/docs/a/notes.md, taken 2024-05-01", "  Beach", "  also in 2 other files"]
    assert "a picture" in finding.preview([picture], picture, (), WIDTH).text.plain


def test_the_cited_passage_has_a_bar_and_stands_between_its_neighbours_without_what_they_repeat() -> None:
    before, cited, after = chunk(6, 0, 30), chunk(7, 26, 55), chunk(8, 48, len(SECTION))
    assert before.text.endswith("The ")
    assert cited.text.endswith(after.text[:7])
    shown = finding.preview([before, cited, after], cited, {"second"}, 60)
    rows = shown.text.plain.splitlines()
    assert rows == ["  The first part ends here.", "▌ The second part is cited. The", "   third part follows it."]
    assert (shown.at, marked(shown.text)) == (1, ["second"])


def test_neighbours_of_other_files_and_far_ones_are_left_out() -> None:
    cited = chunk(7, 26, 55)
    others = [chunk(6, name="b.md"), chunk(8, name="c.md"), replace(chunk(9), order=12)]
    assert finding.preview(others, cited, (), 60).text.plain == f"▌ {cited.text.strip()}"


def test_a_neighbour_of_another_section_says_where_it_is_from() -> None:
    other = chunk(8, heading=("Notes", "Later"), place={"page": 4}, text="Something else.")
    rows = finding.preview([other], chunk(7, text="Cited."), (), WIDTH).text.plain.splitlines()
    assert rows == ["▌ Cited.", "  Notes > Later · page 4", "  Something else."]


def test_indents_stay_and_long_lines_are_broken() -> None:
    text = "def f():\n\treturn 1\n" + "x" * 100
    rows = finding.preview([], chunk(text=text), (), 30).text.split(allow_blank=True)
    assert [row.plain for row in rows[:2]] == ["▌ def f():", "▌     return 1"]
    assert all(row.cell_length <= 30 for row in rows)
    assert "".join(row.plain.removeprefix("▌ ") for row in rows[2:]) == "x" * 100


def test_words_are_marked_as_the_search_found_them() -> None:
    words = finding.marked_words(f"{MARK}Car{UNMARK} and {MARK}契約{UNMARK}")
    shown = finding.preview([], chunk(text="a CAR, not a carpet; 新契約書"), words, 60).text
    assert marked(shown) == ["CAR", "契約"]


@pytest.mark.parametrize(
    ("place", "copied"),
    [({"line": 3}, "/docs/a/notes.md:3"), ({"page": 2}, "/docs/a/notes.md, page 2"), ({}, "/docs/a/notes.md")],
)
def test_a_place_is_copied_as_editors_take_it(place: dict[str, int], copied: str) -> None:
    assert finding.location(chunk(place=place)) == copied


def test_a_quote_cannot_be_closed_by_its_text() -> None:
    quoted = finding.quote(chunk(text="a\n```\nIgnore this."))
    assert quoted == "From notes.md, lines 3-9:\n````\na\n```\nIgnore this.\n````\n"


def test_a_place_that_makes_no_sense_is_no_place() -> None:
    for place in ({"colour": 3}, {"line": 1, "end_line": "x"}):
        assert finding.place(chunk(place=place)) == ""
        assert "notes.md" in finding.title(chunk(place=place)).plain


def test_a_folder_says_how_it_stands() -> None:
    assert finding.folder(status(), False, 70).plain.splitlines() == [
        "/docs",
        "  1,204 files · 8,331 passages · 45.2 MB",
    ]
    shown = finding.folder(status(files=1, pending=12, refused=(("a", "b"),)), True, 90).plain
    assert shown.endswith("is not there now · 1 file · 8,331 passages · 45.2 MB · 12 pending · 1 refused")


def test_refused_files_are_listed_with_their_reasons() -> None:
    refused = tuple((f"file-{n}.pdf", "is encrypted") for n in range(600))
    lines = finding.details(status(refused=refused, pending=2), True).plain.splitlines()
    assert "600 files not read:" in lines
    assert "file-7.pdf: is encrypted" in lines
    assert lines[-1] == "and 100 more"


def test_the_models_and_the_size_of_the_index_are_told() -> None:
    model = Model(1, "mini", "f", 8, Medium.TEXT, ModelState.BUILDING)
    found = Status((), (ModelStatus(model, 1500, 3),), 2_000_000)
    assert finding.summary(found).plain == "mini (text): 1,500 vectors, 3 pending, being built\nthe index has 2.0 MB"
    assert "words alone" in finding.summary(replace(found, models=())).plain


def test_the_outcome_of_a_run_is_one_line() -> None:
    report = Report(files=5, added=2, removed=1, embedded=9)
    report.refused["is encrypted"] = 2
    assert finding.outcome(report) == "5 files · 2 new · 1 gone · 9 passages embedded · 2 refused"
    assert finding.outcome(Report(files=1)) == "1 file · nothing has changed"


def test_nothing_of_a_document_or_its_name_stays_a_control_character_or_becomes_markup() -> None:
    for text in [*TEXTS, "lone \ud800 surrogate"]:
        odd = chunk(name=f"{text}.md", heading=(text,), title=text, taken=text, text=text, place={"sheet": text})
        other = replace(odd, id=8, order=8, heading=())
        root = replace(status(refused=((text, text),)), root=Root(1, Path("/docs") / text, 0.0))
        shown = [
            finding.result(hit(odd, text), 30, [text and "x"]),
            finding.title(odd),
            finding.preview([odd, other], odd, {text.casefold()} - {""}, 30).text,
            finding.details(root, True),
            Content(finding.location(odd)),
        ]
        for each in shown:
            assert safe(each.plain) == each.plain
            assert not any("\ud800" <= letter <= "\udfff" for letter in each.plain)
            assert not any("@click" in str(span.style) for span in each.spans)
        assert "\n" not in shown[1].plain + shown[4].plain
