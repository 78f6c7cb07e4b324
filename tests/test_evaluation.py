"""Figures of search: the measures by hand and by a second implementation, and every system on a made-up collection."""

import math
import random
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from edgemm.classify import Ranked
from edgemm.embed import Kind, Vectors
from edgemm.errors import PromptTooLong, UsageError
from edgemm.evaluation import Candidate, Collection, Ranking, Report, Row, Text, evaluate, shelf
from edgemm.evaluation.metrics import mean, score
from edgemm.events import Note

DIMENSIONS = 64
SUBJECTS = "moon tide harbour lantern orchard violin glacier compass beetle pepper saddle quartz".split()
FILLER = "the of and some very other small large old new thing place".split()


class Bag:
    """Vectors of words: each word has a direction of its own, and a text the sum of those of its words."""

    dimensions = DIMENSIONS

    def __init__(self, noise: float = 0.0) -> None:
        self.noise = noise

    def embed(self, texts: Sequence[str], kind: Kind = Kind.DOCUMENT) -> Vectors:
        rows = np.stack([sum((direction(word) for word in text.split()), np.zeros(DIMENSIONS)) for text in texts])
        rows += self.noise * np.stack([direction(text) for text in texts])
        return (rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)).astype(np.float32)


def direction(word: str) -> np.ndarray:
    return np.random.default_rng(zlib.crc32(word.encode())).standard_normal(DIMENSIONS)


def candidate(name: str = "bag", noise: float = 0.0) -> Candidate:
    @contextmanager
    def opened() -> Iterator[Bag]:
        yield Bag(noise)

    return Candidate(name, opened)


def collection(count: int = 40, queries: int = 12) -> Collection:
    """Passages about two subjects each; a query names both."""
    rng = random.Random(5)
    pairs = rng.sample([(a, b) for a in SUBJECTS for b in SUBJECTS if a < b], count)
    passages = [Text(f"p{i}", " ".join([a, *rng.sample(FILLER, 8), b])) for i, (a, b) in enumerate(pairs)]
    asked = tuple(Text(f"q{i}", " ".join(pairs[i])) for i in range(queries))
    return Collection("made up", passages, asked, {f"q{i}": {f"p{i}": 1.0} for i in range(queries)})


def outcome(*args: object, **more: object) -> tuple[Report, list[str]]:
    events = list(evaluate(*args, **more))  # type: ignore[arg-type]
    assert isinstance(events[-1], Report)
    return events[-1], [event.text for event in events if isinstance(event, Note)]


def row(report: Report, ranking: Ranking, model: str = "bag") -> Row:
    return next(each for each in report.rows if (each.model, each.ranking) == (model, ranking))


def test_a_ranking_has_the_figures_that_a_hand_computes() -> None:
    found = score(["a", "b", "c"], {"b": 2, "c": 1, "d": 1})
    ideal = 2 + 1 / math.log2(3) + 1 / 2
    assert found.ndcg10 == pytest.approx((2 / math.log2(3) + 1 / 2) / ideal)
    assert found.ndcg10 == pytest.approx(0.5627, abs=1e-4)
    assert found.recall10 == found.recall100 == pytest.approx(2 / 3)
    assert found.mrr10 == 1 / 2


def test_a_perfect_ranking_is_1_and_a_vain_one_0() -> None:
    perfect = score(["a", "b"], {"a": 3, "b": 1, "c": 0})
    assert (perfect.ndcg10, perfect.recall10, perfect.recall100, perfect.mrr10) == (1, 1, 1, 1)
    for found, gains in ((["x"], {"a": 1}), ([], {"a": 1}), (["a"], {}), (["a"], {"a": 0}), (["a"], {"a": -1})):
        vain = score(found, gains)
        assert (vain.ndcg10, vain.recall10, vain.recall100, vain.mrr10) == (0, 0, 0, 0)


def test_only_the_first_ten_count_and_for_recall_a_hundred() -> None:
    found = [f"n{i}" for i in range(10)] + ["a"] + [f"m{i}" for i in range(89)] + ["b"]
    scores = score(found, {"a": 1, "b": 1})
    assert (scores.ndcg10, scores.recall10, scores.mrr10) == (0, 0, 0)
    assert scores.recall100 == 1 / 2


def test_more_relevant_passages_than_ten_can_still_be_perfect() -> None:
    keys = [f"k{i}" for i in range(30)]
    assert score(keys, dict.fromkeys(keys, 1.0)).ndcg10 == 1
    assert score(keys, dict.fromkeys(keys, 1.0)).recall10 == pytest.approx(1 / 3)


def second_opinion(found: list[str], gains: dict[str, float]) -> float:
    """nDCG@10 by arrays: gains in the order that was found, over those in the best order."""
    discounts = 1 / np.log2(np.arange(2, 12))
    own = np.array(([gains.get(key, 0) for key in found] + [0] * 10)[:10]).clip(0)
    best = np.array((sorted(gains.values(), reverse=True) + [0] * 10)[:10]).clip(0)
    return float(own @ discounts / (best @ discounts)) if best.any() else 0.0


def test_two_implementations_agree_on_random_rankings() -> None:
    rng = random.Random(3)
    for _ in range(300):
        keys = [f"k{i}" for i in range(rng.randint(1, 40))]
        gains = {key: float(rng.randint(-1, 3)) for key in rng.sample(keys, rng.randint(0, len(keys)))}
        found = rng.sample(keys, rng.randint(0, len(keys)))
        assert score(found, gains).ndcg10 == pytest.approx(second_opinion(found, gains))


def test_the_mean_is_that_of_each_figure() -> None:
    both = mean([score(["a"], {"a": 1}), score(["x", "b"], {"b": 1})])
    assert both.mrr10 == 0.75
    assert both.recall100 == 1
    assert both.ndcg10 == pytest.approx((1 + 1 / math.log2(3)) / 2)


def test_every_system_is_in_the_report_and_the_first_model_is_the_measure() -> None:
    report, notes = outcome(collection(), [candidate("one"), candidate("two", noise=3.0)])
    each = [Ranking.FLOAT, Ranking.INT8, Ranking.HYBRID]
    systems = [("", Ranking.BM25), *(("one", kind) for kind in each), *(("two", kind) for kind in each)]
    assert [(row.model, row.ranking) for row in report.rows] == systems
    assert (report.passages, report.queries, report.reference) == (40, 12, ("one", Ranking.FLOAT))
    assert notes == []
    base, noisy = row(report, Ranking.FLOAT, "one"), row(report, Ranking.INT8, "two")
    assert (base.kept, base.margin) == (1, 0)
    assert noisy.kept == pytest.approx(noisy.scores.ndcg10 / base.scores.ndcg10)
    assert noisy.kept < 0.95
    assert noisy.margin > 0


def test_float_rankings_are_those_of_the_exact_dot_products() -> None:
    made, bag = collection(), Bag()
    report, _ = outcome(made, [candidate()])
    passages = list(made.passages)
    cosines = bag.embed([q.text for q in made.queries]) @ bag.embed([p.text for p in passages]).T
    expected = []
    for query, scores in zip(made.queries, cosines, strict=True):
        found = [passages[i].key for i in sorted(range(len(passages)), key=lambda i: -scores[i])]
        expected.append(score(found, made.judged[query.key]))
    assert row(report, Ranking.FLOAT).scores == mean(expected)
    assert row(report, Ranking.INT8).scores.ndcg10 == pytest.approx(mean(expected).ndcg10, abs=0.02)


def test_words_alone_find_what_names_both_subjects() -> None:
    report, _ = outcome(collection(), [candidate()])
    assert row(report, Ranking.BM25, "").scores.mrr10 == 1
    assert row(report, Ranking.HYBRID).scores.ndcg10 > 0.9


def test_copies_of_a_passage_are_found_each_under_its_own_key() -> None:
    made = Collection("copies", [Text("a", "moon tide"), Text("b", "moon tide"), Text("c", "violin")], (), {})
    asked = (Text("q", "moon tide"),)
    report, _ = outcome(Collection(made.name, made.passages, asked, {"q": {"a": 1.0, "b": 1.0}}), [candidate()])
    assert {each.scores.recall10 for each in report.rows} == {1.0}


def test_a_title_is_embedded_and_found_by_its_words() -> None:
    passages = [Text("a", "old place", "violin"), Text("b", "new place", "glacier"), Text("empty", "")]
    made = Collection("titled", passages, (Text("q", "violin"),), {"q": {"a": 1.0}})
    report, _ = outcome(made, [candidate()])
    assert {each.scores.mrr10 for each in report.rows} == {1.0}


def test_a_query_that_is_a_passage_does_not_find_itself() -> None:
    passages = [Text("a", "moon tide harbour"), Text("b", "moon tide lantern"), Text("c", "pepper saddle")]
    report, _ = outcome(Collection("own", passages, (passages[0],), {"a": {"b": 1.0}}), [candidate()])
    assert {each.scores.mrr10 for each in report.rows} == {1.0}


def test_judgements_of_passages_that_are_not_there_are_counted() -> None:
    made = collection()
    judged = {**made.judged, "q0": {"p0": 1.0, "gone": 1.0}, "q1": {"lost": 1.0}}
    report, notes = outcome(Collection(made.name, made.passages, made.queries, judged), [candidate()])
    assert report.queries == 11
    assert notes == ["2 judgements name passages that are not in the corpus; 1 queries are left out"]


def test_judgements_that_are_all_of_another_corpus_are_refused() -> None:
    made = collection()
    judged = {query.key: {"gone": 1.0} for query in made.queries}
    with pytest.raises(UsageError, match="not one passage that is judged"):
        list(evaluate(Collection(made.name, made.passages, made.queries, judged), [candidate()]))
    with pytest.raises(UsageError, match="holds no passage"):
        list(evaluate(Collection(made.name, [], made.queries, made.judged), [candidate()]))


def test_floats_of_too_many_passages_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelf, "MOST_FLOATS", 39)
    report, notes = outcome(collection(), [candidate("one"), candidate("two")])
    assert report.reference == ("one", Ranking.INT8)
    assert {each.ranking for each in report.rows} == {Ranking.BM25, Ranking.INT8, Ranking.HYBRID}
    assert len(notes) == 1
    assert "float32 vectors are left out" in notes[0]


class Contrary:
    """A reranker that prefers what names the query's second word first."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int]] = []

    def rerank(self, query: str, texts: Sequence[str]) -> list[Ranked]:
        self.calls.append((query, len(texts)))
        if query.startswith("long"):
            raise PromptTooLong("the first text", "is too long", "shorten it")
        scores = [float(text.endswith(query.split()[-1]) and query.split()[0] in text) for text in texts]
        order = sorted(range(len(texts)), key=lambda i: -scores[i])
        return [Ranked(i, scores[i], texts[i]) for i in order]


def test_the_best_of_both_are_ranked_again_and_each_pair_is_scored_once() -> None:
    reranker = Contrary()
    report, _ = outcome(collection(), [candidate("one"), candidate("same")], reranker)
    for model in ("one", "same"):
        assert row(report, Ranking.RERANKED, model).scores.ndcg10 == 1
    assert [count for _, count in reranker.calls] == [20] * 12


def test_a_query_that_is_too_long_for_the_reranker_keeps_its_order() -> None:
    made = collection()
    asked = (Text("q0", "long " + made.queries[0].text), *made.queries[1:])
    reranker = Contrary()
    report, notes = outcome(
        Collection(made.name, made.passages, asked, made.judged), [candidate(), candidate("b")], reranker
    )
    assert notes == ["1 queries are too long for the reranker, and keep their order"]
    assert sum(query.startswith("long") for query, _ in reranker.calls) == 1
    assert row(report, Ranking.RERANKED).scores.recall100 == row(report, Ranking.HYBRID).scores.recall100


def test_nothing_is_left_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    outcome(collection(), [candidate()])
    events = evaluate(collection(), [candidate()])
    next(events)
    assert list(tmp_path.iterdir())
    events.close()  # as when the work is interrupted
    broken = Candidate("broken", lambda: (_ for _ in ()).throw(UsageError("broken", "is broken", "mend it")))
    with pytest.raises(UsageError, match="is broken"):
        outcome(collection(), [broken])
    assert list(tmp_path.iterdir()) == []
