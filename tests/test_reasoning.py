"""Thoughts and answer, whatever the places at which the text is cut."""

import pytest

from edgemm.reasoning import Splitter

CASES = [
    ("plain", "", "plain"),
    ("<think>\nwhy\n</think>\n\nbecause", "why", "because"),
    ("why\n</think>\nbecause", "why", "because"),  # the template has opened the block
    ("<think></think>because", "", "because"),
    ("<think>never ends", "never ends", ""),
    ("a < b and <thin> air", "", "a < b and <thin> air"),
    ("say <think> aloud", "", "say <think> aloud"),  # thoughts stand at the beginning alone
    ("<think>a</think>b<think>c</think>d", "a", None),
    ("ends in <", "", "ends in <"),
    ("", "", ""),
]


@pytest.mark.parametrize(("text", "reasoning", "answer"), CASES)
def test_any_cut_gives_the_same(text: str, reasoning: str, answer: str | None) -> None:
    for size in (1, 2, 3, 5, 100):
        found = Splitter()
        for start in range(0, len(text), size):
            found.feed(text[start : start + size])
        found.finish()
        if answer is not None:
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
