"""Snippets: which part of a text is shown for a query, and which words of it are marked, in any script."""

import time

import pytest

from edgemm.snippets import MARK, UNMARK, Finder


def marked(text: str, *terms: str, width: int = 200, unfinished: bool = False) -> list[str]:
    """The marked parts of the line around the best place."""
    finder = Finder(terms, unfinished)
    line = finder.line(text, finder.best(text, width), width)
    return [piece.split(UNMARK)[0] for piece in line.split(MARK)[1:]]


@pytest.mark.parametrize(
    ("text", "terms", "found"),
    [
        ("The Ibex climbs.", ["ibex"], ["Ibex"]),
        ("ibexes and an ibex", ["ibex"], ["ibex"]),
        ("Café au lait", ["cafe"], ["Café"]),
        ("CAFÉ", ["café"], ["CAFÉ"]),
        ("Ο Σωκράτης", ["σωκρατης"], ["Σωκράτης"]),
        ("Ёлка стоит", ["елка"], ["Ёлка"]),
        ("İstanbul ışık", ["istanbul"], ["İstanbul"]),
        ("die Straße", ["straße"], ["Straße"]),
        ("山羊在山上", ["山羊"], ["山羊"]),
        ("東京都の空", ["都の"], ["都の"]),
        ("한국어를 배워요", ["한국어"], ["한국어"]),
        ("ภาษาไทยยาก", ["ไทย"], ["ไทย"]),
        ("السلام عليكم", ["عليكم"], ["عليكم"]),
        ("हिन्दी भाषा", ["हिन्दी"], ["हिन्द"]),
        ("e-mail or e mail", ["e-mail"], ["e-mail", "e mail"]),
        ("a (b) [c] c++ .*", ["[c]", ".*"], ["c", "c", ".*"]),
        ("\U0001f98c deer \U0001f98c", ["\U0001f98c"], ["\U0001f98c", "\U0001f98c"]),
        ("snake_case_name", ["snake_case_name"], ["snake_case_name"]),
        ("nothing here", ["ibex"], []),
    ],
)
def test_words_of_the_query_are_marked(text: str, terms: list[str], found: list[str]) -> None:
    assert marked(text, *terms) == found


def test_the_last_word_may_be_unfinished_and_no_other() -> None:
    assert marked("climbing rocks", "climb", "roc", unfinished=True) == ["roc"]
    assert marked("climbing rocks", "climb", "roc") == []


def test_the_part_with_the_most_different_words_is_shown() -> None:
    text = "ibex ibex ibex " + "x " * 300 + "the ibex on the rocks " + "x " * 300 + "rocks"
    assert marked(text, "ibex", "rocks", width=100) == ["ibex", "rocks"]


def test_what_was_counted_is_shown() -> None:
    """The line begins before its first match, so that it ends sooner than `width` characters after it."""
    text = "x" * 80 + " ibex " + "y" * 80 + " rocks " + "z " * 300 + "an ibex on rocks " + "x " * 50
    assert marked(text, "ibex", "rocks", width=100) == ["ibex", "rocks"]


def test_a_line_is_one_line_without_the_marks_of_the_text() -> None:
    text = f"before\n\n{MARK}false{UNMARK}\t\x1b[31m an ibex\r\n\x00after"
    finder = Finder(["ibex"], unfinished=False)
    assert finder.line(text, finder.first(text), 200) == f"before false [31m an {MARK}ibex{UNMARK} after"


def test_what_is_left_out_is_said() -> None:
    text = "a " * 200 + "ibex" + " b" * 200
    finder = Finder(["ibex"], unfinished=False)
    line = finder.line(text, finder.best(text, 60), 60)
    assert line.startswith("…a a")
    assert line.endswith("b b…")
    assert len(line) <= 64
    assert finder.line("short", None, 60) == "short"
    assert finder.line("a" * 40 + " ibex", 41, 60) == "a" * 40 + f" {MARK}ibex{UNMARK}"
    assert finder.line("a " * 40 + "ibex", 80, 60) == "…" + "a " * 28 + f"{MARK}ibex{UNMARK}"
    assert finder.line("x" * 70, None, 60) == "x" * 60 + "…"


def test_where_the_first_match_is() -> None:
    finder = Finder(["rocks", "ibex"], unfinished=False)
    assert finder.first("an ibex on rocks") == 3
    assert finder.first("") is None
    assert finder.best("", 10) is None


@pytest.mark.parametrize("terms", [["a"], ["a"] * 32, ["a.a.a.a", "b"], ["_" * 500 + "a"], ["a" + "_" * 500 + "b"]])
@pytest.mark.parametrize("text", ["a " * 50_000, "a_" * 50_000, "a" * 100_000, "_" * 100_000])
def test_no_text_and_no_query_takes_long(text: str, terms: list[str]) -> None:
    started = time.process_time()
    finder = Finder(terms)
    finder.line(text, finder.best(text, 200), 200)
    assert time.process_time() - started < 1
