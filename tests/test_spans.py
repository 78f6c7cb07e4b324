"""Entities and answers: pieces of a text from a score for every token, on scripted encoders."""

import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_tokenizers
from tiny_words import classifier, manifest, words

from edgemm.backends.fake import FakeHead
from edgemm.classify import Classifier
from edgemm.errors import PromptTooLong, UsageError
from edgemm.tokenizer import Tokenizer

Scores = Callable[[list[int], list[int]], Any]

# Entities

TAGS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
TAG = {"Ada": "B-PER", "Lovelace": "I-PER", "Paris": "B-LOC", "London": "I-LOC"}


def tagged(ids: list[int], _: list[int]) -> np.ndarray:
    return 4 * np.eye(len(TAGS), dtype=np.float32)[[TAGS.index(TAG.get(word, "O")) for word in words(ids)]]


def test_entities_are_grouped_with_their_place() -> None:
    text = "Ada Lovelace lives in  Paris"
    with classifier("token-classify", tagged, labels=TAGS) as model:
        person, place = model.tokens(text)
    assert (person.label, person.text, person.start, person.end) == ("PER", "Ada Lovelace", 0, 12)
    assert (place.label, place.text) == ("LOC", "Paris")
    assert text[place.start : place.end] == "Paris"
    assert place.score == pytest.approx(math.exp(4) / (math.exp(4) + 4), abs=1e-6)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Ada Ada Lovelace", ["Ada", "Ada Lovelace"]),  # B- begins anew
        ("London London", ["London London"]),  # I- without a B- goes on
        ("Paris London", ["Paris London"]),
        ("Ada London", ["Ada", "London"]),  # of another kind
        ("Ada and Lovelace", ["Ada", "Lovelace"]),  # something between
        ("the cat sat", []),
        ("", []),
    ],
)
def test_how_neighbours_are_grouped(text: str, found: list[str]) -> None:
    with classifier("token-classify", tagged, labels=TAGS) as model:
        assert [entity.text for entity in model.tokens(text)] == found


def test_a_long_text_gives_what_a_short_one_gives() -> None:
    text = "the cat sat on Ada Lovelace and Paris " * 9
    with classifier("token-classify", tagged, 128, labels=TAGS) as model:
        expected = model.tokens(text)
    for size in (4, 5, 9, 12, 31):
        with classifier("token-classify", tagged, size, labels=TAGS) as model:
            assert model.tokens(text) == expected


def test_tokens_that_are_blanks_part_nothing(tmp_path: Path) -> None:
    """Byte-level tokenizers have them; what a model says of them means nothing."""
    own = Tokenizer(tiny_tokenizers.write(tmp_path, "modernbert") / "tokenizer.json")
    text = "Ada   Lovelace"
    row = own.single(text)
    blanks = {i for i, (start, end) in zip(row.ids, row.offsets, strict=True) if not text[start:end].strip()}
    assert len(blanks) > 2  # with both marks

    def scores(ids: list[int], _: list[int]) -> np.ndarray:
        return np.eye(2, dtype=np.float32)[[int(i not in blanks) for i in ids]]

    with Classifier(FakeHead(scores), own, manifest("token-classify", 64, labels=("O", "PER"))) as model:
        assert [(entity.text, entity.start, entity.end) for entity in model.tokens(text)] == [(text, 0, len(text))]


# Answers


def marked(start: str, end: str, nothing: float = -9) -> Scores:
    """The answer goes from the word `start` to the word `end` of the context."""

    def scores(ids: list[int], types: list[int]) -> np.ndarray:
        found = np.zeros((len(ids), 2), np.float32)
        for place, (word, kind) in enumerate(zip(words(ids), types, strict=True)):
            found[place] = 6 * (word == start) + kind, 6 * (word == end) + kind
        found[0] = nothing
        return found

    return scores


def test_an_answer_is_a_span_of_the_context() -> None:
    context = "Ada  Lovelace lives in London ."
    with classifier("question-answering", marked("in", "London"), 32) as model:
        [answer] = model.answer("where lives Ada in London ?", context)
    assert (answer.text, answer.start, answer.end) == ("in London", 20, 29)
    assert 0.5 < answer.score < 1


def test_scores_are_shares_of_all_spans_and_of_none() -> None:
    with classifier("question-answering", marked("a", "a", nothing=-100)) as model:
        answers = model.answer("who", "cat dog", top_k=9)
    spans = {answer.text: answer.score for answer in answers if answer.text}
    assert spans == {"cat": pytest.approx(0.25, abs=1e-6), "dog": pytest.approx(0.25, abs=1e-6)}


def test_an_end_before_its_start_is_no_answer() -> None:
    with classifier("question-answering", marked("London", "Ada"), 32) as model:
        [answer] = model.answer("who", "Ada lives in London")
    assert answer.text in ("Ada", "London")


def test_answers_do_not_lie_over_each_other() -> None:
    context = "the cat sat on a mat"
    with classifier("question-answering", marked("cat", "sat"), 32) as model:
        answers = [answer for answer in model.answer("who", context, top_k=4) if answer.text]
    assert answers[0].text == "cat sat"
    spans = sorted((answer.start, answer.end) for answer in answers)
    assert all(end <= start for (_, end), (start, _) in pairwise(spans))


def test_no_answer_is_an_empty_text() -> None:
    with classifier("question-answering", marked("Paris", "Paris", nothing=9), 32) as model:
        none, second = model.answer("where", "Ada lives in Paris", top_k=2)
    assert (none.text, none.start, none.end) == ("", 0, 0)
    assert second.text == "Paris"
    assert none.score > second.score


def test_an_answer_far_behind_is_found_by_a_window() -> None:
    context = "the cat sat on a mat . " * 30 + "Ada Lovelace lives in London ." + " the dog sat ." * 20
    with classifier("question-answering", marked("Ada", "Lovelace", nothing=2), 24) as model:
        [answer] = model.answer("who lives in London ?", context)
    assert answer.text == "Ada Lovelace"
    assert context[answer.start : answer.end] == "Ada Lovelace"


def test_no_answer_of_a_long_context_is_that_of_all_its_windows() -> None:
    context = "the cat sat on a mat . " * 30
    with classifier("question-answering", marked("Ada", "Ada", nothing=5), 24) as model:
        assert model.answer("who", context)[0].text == ""


def test_an_answer_has_at_most_30_tokens() -> None:
    context = "Ada " + "cat " * 40 + "Paris"
    with classifier("question-answering", marked("Ada", "Paris"), 64) as model:
        [answer] = model.answer("who", context)
    assert len(answer.text.split()) <= 30


def test_a_question_needs_a_context() -> None:
    with classifier("question-answering", marked("Ada", "Ada"), 8) as model:
        with pytest.raises(UsageError, match="the context is empty"):
            model.answer("who", "")
        with pytest.raises(UsageError, match="the question is empty"):
            model.answer("", "Ada")
        with pytest.raises(PromptTooLong, match="has 12 tokens with the marks around it, this model takes 8"):
            model.answer("who " * 9, "Ada")
