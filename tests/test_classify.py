"""Scores of texts on scripted encoders, whose answers follow from the words."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from tiny_words import ID, VOCABULARY, classifier, manifest, tokenizer, words

from edgemm.backends.fake import FakeHead
from edgemm.batches import BatchOptions, windows
from edgemm.classify import Classifier, Label, shares
from edgemm.errors import BadFile, PromptTooLong, UsageError
from edgemm.manifest import Inputs
from edgemm.tokenizer import Overflow


def counted(ids: list[int], _: list[int]) -> list[float]:
    """How often a text says "good" and "bad"."""
    return [float(ids.count(ID["good"])), float(ids.count(ID["bad"]))]


LABELS = ("positive", "negative")


def names(labels: Sequence[Label]) -> list[str]:
    return [label.name for label in labels]


# Labels


def test_labels_come_sorted_in_input_order() -> None:
    with classifier("classify", counted, labels=LABELS) as model:
        good, bad = model.classify(["a good day", "bad bad dog and a cat on the mat"])
    assert names(good) == ["positive", "negative"]
    assert names(bad) == ["negative", "positive"]
    assert good[0].score == pytest.approx(1 / (1 + math.exp(-1)), abs=1e-6)
    assert sum(label.score for label in bad) == pytest.approx(1, abs=1e-6)


def test_the_manifest_says_what_scores_mean() -> None:
    def scored(kind: str) -> dict[str, float]:
        with classifier("classify", counted, labels=LABELS, scores=kind) as model:
            return {label.name: label.score for label in model.classify(["good bad bad"])[0]}

    assert scored("") == {"positive": 1, "negative": 2}
    assert scored("sigmoid")["negative"] == pytest.approx(1 / (1 + math.exp(-2)), abs=1e-6)
    assert scored("softmax")["negative"] == pytest.approx(1 / (1 + math.exp(-1)), abs=1e-6)


def test_shares_do_not_overflow() -> None:
    huge = np.array([[-1e4, 0, 1e4]], np.float32)
    with np.errstate(all="raise", under="ignore"):
        np.testing.assert_allclose(shares(huge, "sigmoid"), [[0, 0.5, 1]])
        np.testing.assert_allclose(shares(huge, "softmax"), [[0, 0, 1]])


def test_only_the_best_are_given_when_asked() -> None:
    with classifier("classify", counted, labels=LABELS) as model:
        assert names(model.classify(["bad"], top_k=1)[0]) == ["negative"]


def test_a_long_text_is_split_and_its_windows_are_averaged_by_tokens() -> None:
    text = " ".join(["good"] * 6 + ["bad"] * 2)  # windows of 6 and 2 words beside two marks
    with classifier("classify", counted, max_tokens=8, labels=LABELS, scores="") as model:
        [labels] = model.classify([text])
    found = {label.name: label.score for label in labels}
    assert found == {"positive": pytest.approx(8 * 6 / 12), "negative": pytest.approx(4 * 2 / 12)}


def test_a_long_text_is_cut_or_refused_when_asked() -> None:
    text = " ".join(["good"] * 6 + ["bad"] * 2)
    with classifier("classify", counted, 8, BatchOptions(overflow=Overflow.CUT), labels=LABELS, scores="") as model:
        assert model.classify([text])[0] == [Label("positive", 6), Label("negative", 0)]
    with (
        classifier("classify", counted, 8, BatchOptions(overflow=Overflow.REFUSE), labels=LABELS) as model,
        pytest.raises(PromptTooLong, match="has 10 tokens, this model takes 8"),
    ):
        model.classify([text])


def test_the_second_text_of_a_pair_has_a_type_and_is_the_one_that_is_split() -> None:
    def scores(ids: list[int], types: list[int]) -> list[float]:
        seen.append([word for word, kind in zip(words(ids), types, strict=True) if kind == 0])
        return [float(sum(types)), 0]

    seen: list[list[str]] = []
    with classifier("classify", scores, 8, labels=LABELS, scores="") as model:
        [labels] = model.classify([("who sat ?", "the cat sat on a mat")])
    assert seen == [["[CLS]", "who", "sat", "?", "[SEP]"]] * 3
    assert {label.name: label.score for label in labels}["positive"] == 3  # two words and the end


def test_a_model_without_token_types_gets_none() -> None:
    class Bare:
        def encode(self, rows: Sequence[Sequence[int]]) -> np.ndarray:
            return np.ones((len(rows), 1), np.float32)

        def close(self) -> None:
            pass

    facts = manifest("rerank", inputs=Inputs(16), scores="sigmoid")
    with Classifier(Bare(), tokenizer(), facts) as model:
        assert [r.index for r in model.rerank("cat", ["dog", "mat"])] == [0, 1]


def test_labels_without_names_are_numbered() -> None:
    with classifier("classify", counted) as model:
        assert names(model.classify(["good"])[0]) == ["LABEL_0", "LABEL_1"]


def test_the_caller_s_names_come_first_and_must_be_as_many() -> None:
    with classifier("classify", counted, labels=LABELS, names=("yes", "no")) as model:
        assert names(model.classify(["good"])[0]) == ["yes", "no"]
    with (
        classifier("classify", counted, labels=LABELS, names=("a", "b", "c")) as model,
        pytest.raises(UsageError, match="3 names were given, tiny has 2 outputs"),
    ):
        model.classify(["good"])
    with (
        classifier("classify", counted, labels=("one",)) as model,
        pytest.raises(BadFile, match="names 1 labels for 2 outputs"),
    ):
        model.classify(["good"])


def test_empty_input() -> None:
    with classifier("classify", counted, labels=LABELS) as model:
        assert model.classify([]) == []
        assert [label.score for label in model.classify([""])[0]] == [0.5, 0.5]
        with pytest.raises(UsageError, match="pass a list"):
            model.classify("good")


def test_whether_a_sentence_follows() -> None:
    def follows(ids: list[int], types: list[int]) -> list[float]:
        return [float(sum(types)), float(types.count(0))]

    with classifier("next-sentence", follows, labels=("is next", "is not next")) as model:
        assert names(model.next_sentence("a cat", "the cat sat on the mat")) == ["is next", "is not next"]
        assert names(model.next_sentence("the cat sat on the mat", "a cat")) == ["is not next", "is next"]


@pytest.mark.parametrize("task", ["classify", "rerank", "fill-mask", "question-answering", "token-classify"])
def test_only_the_method_of_the_task_can_be_called(task: str) -> None:
    with classifier(task, counted) as model:
        calls: dict[str, Callable[[], Any]] = {
            "classify": lambda: model.classify(["a"]),
            "rerank": lambda: model.rerank("a", ["a"]),
            "fill-mask": lambda: model.fill_mask("a [MASK]"),
            "question-answering": lambda: model.answer("a", "a"),
            "token-classify": lambda: model.tokens("a"),
            "next-sentence": lambda: model.next_sentence("a", "a"),
        }
        del calls[task]
        for other, call in calls.items():
            with pytest.raises(UsageError, match=rf"tiny: is for {task}, not for {other} — call \w+\("):
                call()


def test_a_manifest_without_inputs_is_refused() -> None:
    with pytest.raises(BadFile, match="no `inputs`"):
        Classifier(FakeHead(counted), tokenizer(), manifest("classify", inputs=None))


# Ranking


def common(ids: list[int], types: list[int]) -> list[float]:
    """How many words of the second text are in the first."""
    first = {i for i, kind in zip(ids, types, strict=True) if kind == 0} - {ID["[SEP]"]}
    return [float(sum(i in first for i, kind in zip(ids, types, strict=True) if kind == 1)) - 1]


def test_texts_come_in_the_order_of_their_worth() -> None:
    texts = ["a dog", "the red cat sat", "", "red cat"]
    with classifier("rerank", common, scores="sigmoid") as model:
        found = model.rerank("red cat sat", texts)
        assert [r.index for r in found] == [1, 3, 0, 2]
        assert [r.text for r in found] == [texts[r.index] for r in found]
        assert found[0].score == pytest.approx(1 / (1 + math.exp(-2)), abs=1e-6)
        assert [r.index for r in model.rerank("red cat sat", texts, top_k=2)] == [1, 3]
        assert model.rerank("red", []) == []


def test_of_a_long_text_the_best_window_counts() -> None:
    long = " ".join(["dog"] * 50 + ["red", "cat"])
    with classifier("rerank", common, 12, scores="") as model:
        found = model.rerank("red cat", ["cat", long])
    assert [(r.index, r.score) for r in found] == [(1, 1), (0, 0)]


def test_ranking_keeps_the_token_budget() -> None:
    encoder = FakeHead(common)
    texts = [" ".join(["cat"] * n) for n in range(1, 60)]
    with Classifier(encoder, tokenizer(), manifest("rerank", 64), BatchOptions(batch_tokens=128, window=20)) as model:
        model.rerank("cat", texts)
    assert sum(map(len, encoder.batches)) == len(texts)
    assert all(max(batch) * len(batch) <= 128 for batch in encoder.batches)


def test_a_query_that_leaves_no_room_is_refused_with_both_numbers() -> None:
    with classifier("rerank", common, 8) as model:
        with pytest.raises(PromptTooLong, match="has 13 tokens with the marks around it, this model takes 8"):
            model.rerank("cat " * 10, ["dog"])
        with pytest.raises(UsageError, match="the query is empty"):
            model.rerank(" ", ["dog"])


# Masks


def after(ids: list[int], _: list[int]) -> np.ndarray:
    """For each place the word that follows, in the vocabulary, on the one before it."""
    found = np.zeros((len(ids), len(VOCABULARY)), np.float32)
    for place, before in enumerate([0, *ids[:-1]]):
        found[place, before + 1] = 5
        found[place, before + 2] = 4
    return found


def test_every_mask_is_filled_and_the_rest_of_the_text_stays() -> None:
    with classifier("fill-mask", after) as model:
        first, second = model.fill_mask("On  the [MASK], good [MASK]!", top_k=2)
    assert [(f.mask, f.token, f.text) for f in first] == [
        (0, "cat", "On  the cat, good [MASK]!"),
        (0, "dog", "On  the dog, good [MASK]!"),
    ]
    assert [(f.mask, f.text) for f in second] == [
        (1, "On  the [MASK], good bad!"),
        (1, "On  the [MASK], good day!"),
    ]
    rest = len(VOCABULARY) - 2
    assert first[0].score == pytest.approx(math.exp(5) / (math.exp(5) + math.exp(4) + rest), abs=1e-6)


def test_both_spellings_of_a_mask_are_understood() -> None:
    with classifier("fill-mask", after) as model:
        assert model.fill_mask("the <mask> sat", 1)[0][0].text == "the cat sat"


def test_a_piece_of_a_word_joins_the_word_before_it() -> None:
    with classifier("fill-mask", after) as model:
        filled = model.fill_mask("cat and [MASK].", 1)[0][0]
    assert (filled.token, filled.text) == ("##s", "cat ands.")


def test_a_mask_at_the_start() -> None:
    def always(ids: list[int], _: list[int]) -> np.ndarray:
        return np.eye(len(VOCABULARY), dtype=np.float32)[[ID["dog"]] * len(ids)]

    with classifier("fill-mask", always) as model:
        assert model.fill_mask("[MASK] sat", 1)[0][0].text == "dog sat"


def test_texts_that_cannot_be_filled() -> None:
    with classifier("fill-mask", after, 8) as model:
        for text in ("", "the cat sat", "the MASK"):
            with pytest.raises(UsageError, match=r"the text holds no \[MASK\]"):
                model.fill_mask(text)
        with pytest.raises(PromptTooLong, match="has 12 tokens, this model takes 8"):
            model.fill_mask("cat " * 9 + "[MASK]")


def test_a_mask_that_the_tokenizer_does_not_know_is_a_bad_file() -> None:
    with (
        classifier("fill-mask", after, inputs=Inputs(16, mask_token="<blank>")) as model,
        pytest.raises(BadFile, match="0 masks of 1 times '<blank>'"),
    ):
        model.fill_mask("the <blank>")


# Windows


@pytest.mark.parametrize("overlap", [0, 1, 2, 3])
@pytest.mark.parametrize("length", [1, 4, 5, 11, 12, 13, 40])
def test_windows_hold_every_token_and_share_the_overlap(length: int, overlap: int) -> None:
    row = tokenizer().pair("who ?", " ".join(["cat"] * length), 1000)
    found = windows(row, 1, 12, overlap)
    assert all(len(each.ids) <= 12 for each in found)
    places = [[o for o, which in zip(each.offsets, each.texts, strict=True) if which == 1] for each in found]
    assert sorted({place for own in places for place in own}) == [(4 * i, 4 * i + 3) for i in range(length)]
    assert all(left[-overlap:] == right[:overlap] for left, right in pairwise(places) if overlap)
    assert sum(map(len, places)) == length + overlap * (len(found) - 1)
    assert all(words(each.ids)[:4] == ["[CLS]", "who", "?", "[SEP]"] for each in found)
