"""Turns as entries, and figures as short texts."""

from typing import Any

import pytest

from edgemm.events import Progress
from edgemm.sessions import State, Turn
from edgemm.tui import view

DONE = {
    "reason": "stop",
    "prompt_tokens": 100,
    "reused_tokens": 97,
    "generated_tokens": 1043,
    "prefill_seconds": 0.44,
    "decode_seconds": 10.43,
    "drafted": 14,
    "accepted": 7,
}


def turn(number: int, parent: int | None = None, role: str = "assistant", **changes: Any) -> Turn:
    values = {"text": "t", "reasoning": "", "state": State.DONE, "tokens": (), "details": {}} | changes
    return Turn(id=number, chat=1, parent=parent, role=role, created=0.0, **values)


def test_figures_are_told_in_one_line() -> None:
    expected = "1,043 tokens · 100.0/s · first token 0.4 s · 97% cached · 50% of 14 drafts right"
    assert view.figures(DONE) == expected
    assert view.footer(DONE) == "100.0/s · first 0.4 s · 97% cached · 50% of 14 drafts"
    assert "drafts" not in view.figures(DONE | {"drafted": 0})


@pytest.mark.parametrize("damaged", [None, 7, [], {}, DONE | {"prompt_tokens": 0}, DONE | {"decode_seconds": "x"}])
def test_damaged_figures_are_none(damaged: Any) -> None:
    assert view.figures(damaged) == view.footer(damaged) == ""


def test_a_version_knows_its_place() -> None:
    turns = [turn(1, role="user"), turn(2, 1), turn(3, 1)]
    assert [e.branch for e in view.entries(turns, 3)] == [(1, 1), (2, 2)]


def test_the_way_an_answer_ended_is_told() -> None:
    def notes(**changes: Any) -> str:
        return " ".join(view.entry(each := turn(1, **changes), [each]).notes)

    assert notes() == ""
    assert "F6 goes on" in notes(state=State.STOPPED)
    assert "F5 answers again" in notes(state=State.FAILED)
    assert "longest answer" in notes(state=State.STOPPED, details={"figures": DONE | {"reason": "length"}})
    assert "edited" in notes(details={"edited": True})
    assert "they met" in notes(role="user", details={"context": {"start": 1, "summary": "they met"}})
    assert notes(details={"context": 7, "model": 7, "figures": 7}) == ""


def test_an_answer_shows_the_passages_that_it_cites() -> None:
    row = {"name": "plan.md", "kind": "quote", "text": "a plan", "bytes": 6, "sha256": "ff", "number": 1}
    quotes = [row | {"path": "", "place": "page 3", "mtime_ns": 0}, row | {"number": 2, "path": "", "place": ""}]
    turns = [
        turn(1, role="user", details={"attachments": [*quotes, {"kind": "quote"}]}),
        turn(2, 1, text="So it is [1]."),
    ]
    question, answer = view.entries(turns, 2)
    assert (question.attachments, question.sources) == ((), ())
    assert answer.sources == ("[1] plan.md, page 3",)
    growing = turn(2, 1, text="So [1]", state=State.STREAMING)
    assert view.entry(growing, [turns[0], growing]).sources == ()


def test_the_meter_and_the_clock() -> None:
    assert view.meter(2048, 4096) == "████···· 2,048/4,096 tokens"
    assert view.meter(9000, 4096, 12).endswith("9,000/4,096 tokens · 12 typed")
    told = view.reading(Progress("prefill", 300, 1000, "tokens"), 2.0, 100)
    assert told == "reading the prompt: 300 of 1,000 tokens, 7 s left — Esc stops"
    assert view.reading(Progress("prefill", 100, 1000, "tokens"), 2.0, 100).endswith("100 of 1,000 tokens — Esc stops")
    assert view.reading(Progress("prefill", 1000, 1000, "tokens"), 2.0, 0).endswith("1,000 of 1,000 tokens — Esc stops")


def test_a_context_of_nothing_and_an_empty_one_have_a_meter() -> None:
    assert view.meter(0, 0) == "········ 0/0 tokens"
    assert view.meter(1, 4096).startswith("········ ")


def test_what_goes_on_and_what_waits_is_told() -> None:
    assert view.at_work(True, 0) == "answering — Esc stops"
    assert view.at_work(True, 2) == "answering — Esc stops · 2 waiting"
    assert view.at_work(False, 1) == "1 waiting"


def test_an_entry_names_its_model_and_its_files() -> None:
    files = [{"name": "n.txt", "kind": "text", "text": "x", "bytes": 1, "sha256": ""}, {"name": 7}, "x"]
    asked = turn(1, role="user", details={"attachments": files, "model": {"model": "m"}})
    answer = turn(2, 1, details={"model": {"model": "m"}, "figures": DONE})
    first, second = view.entries([asked, answer], 2)
    assert (first.name, first.attachments, second.name) == ("", ("n.txt",), "m")
    assert second.figures == view.figures(DONE)
    growing = view.growing(answer, [asked, answer], "other")
    assert (growing.name, growing.figures, growing.notes) == ("other", "", ())


def test_a_branch_that_is_not_open_is_not_shown() -> None:
    turns = [turn(1, role="user"), turn(2, 1), turn(3, 1), turn(4, 2, "user")]
    assert [e.id for e in view.entries(turns, 4)] == [1, 2, 4]
    assert view.entries(turns, None) == []
