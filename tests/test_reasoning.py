"""Thoughts and answer, whatever the places at which the text is cut."""

import pytest

from edgemm.reasoning import Splitter, going_on

CASES = [
    ("plain", "", "plain"),
    ("<think>\nwhy\n</think>\n\nbecause", "why", "because"),
    ("why\n</think>\nbecause", "why", "because"),  # the template has opened the block
    ("<think></think>because", "", "because"),
    ("<think>never ends", "never ends", ""),
    ("a < b and <thin> air", "", "a < b and <thin> air"),
    ("say <think> aloud", "", "say <think> aloud"),  # thoughts stand at the beginning alone
    ("<think>a</think>b<think>c</think>d", "a", "b<think>c</think>d"),  # one block; a later mark is text
    ("why</think>because </think> so", "why", "because </think> so"),
    ("<think></think>so </think> it is", "", "so </think> it is"),
    ("  \n<think>\n\n why\n\n</think>\n\n\nbecause\n", "why", "because\n"),
    ("write `</think>` behind them", "", "write `</think>` behind them"),  # an answer about the mark
    ('the mark "</think>" and </think> yes', 'the mark "</think>" and', " yes"),
    ("<think>it says `</think> yes", "it says `", " yes"),
    ("<<think>", "", "<<think>"),
    ("<thin", "", "<thin"),
    ("<think>a</thin", "a</thin", ""),
    ("a</think", "", "a</think"),
    ("<think>a<b</think>c<d", "a<b", "c<d"),
    ("ends in <", "", "ends in <"),
    ("", "", ""),
]


@pytest.mark.parametrize(("text", "reasoning", "answer"), CASES)
def test_any_cut_gives_the_same(text: str, reasoning: str, answer: str) -> None:
    for size in (1, 2, 3, 5, 100):
        found = Splitter()
        for start in range(0, len(text), size):
            found.feed(text[start : start + size])
        found.finish()
        assert (found.reasoning, found.answer) == (reasoning, answer), size


def test_nothing_of_a_mark_is_shown_before_it_is_known() -> None:
    found = Splitter()
    seen = set()
    for letter in "<think>x</think>y":
        found.feed(letter)
        seen |= {found.answer, found.reasoning}
    assert not any("<" in text for text in seen)


def test_an_answer_goes_on_where_it_was_cut() -> None:
    found = Splitter(answer="Hello", reasoning="greet")
    found.feed(" there <think> b")
    found.finish()
    assert found.answer == "Hello there <think> b"
    assert found.reasoning == "greet"


# Of an empty block nothing is stored, so that nobody knows of it when another mark comes.
@pytest.mark.parametrize(("text", "reasoning", "answer"), [case for case in CASES if "so </think>" not in case[2]])
def test_any_cut_can_be_gone_on_with(text: str, reasoning: str, answer: str) -> None:
    """As a stopped answer is stored, and then taken up again."""
    for place in range(len(text) + 1):
        first = Splitter()
        first.feed(text[:place])
        stored, thoughts = first.shown()
        second = going_on(stored, thoughts, first.inside)
        second.feed(text[place:])
        second.finish()
        assert second.reasoning.strip() == reasoning.strip(), place
        assert second.answer.strip() == answer.strip(), place


def test_what_is_shown_is_what_the_end_would_leave() -> None:
    found = Splitter()
    found.feed("<think>a</thi")
    assert found.shown() == ("", "a</thi")
    assert found.reasoning == "a"
    found.feed("nk>b<")
    assert found.shown() == ("b<", "a")
