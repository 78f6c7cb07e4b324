"""Runs every system over one collection: words, each model's vectors in float32 and int8, both fused, ranked again.

Vectors and words lie in a temporary folder that is gone at the end, however it ends.
"""

import math
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from edgemm.classify import Ranked
from edgemm.embed import Kind, Vectors
from edgemm.errors import PromptTooLong, UsageError
from edgemm.evaluation import metrics
from edgemm.evaluation.records import Collection, Gains, Ranking, Report, Row, Scores, Text
from edgemm.evaluation.shelf import MOST_FLOATS, Embeds, Floats, Shelf, embedded, filled
from edgemm.events import Note, Progress, Work
from edgemm.index import Store
from edgemm.index.store import Found
from edgemm.search import POOL, RERANKED, Part, fuse

_TOGETHER = 32  # queries are scanned for at once
_NORMAL = 1.96  # standard errors on each side of a mean hold 95 % of a normal distribution
_System = tuple[str, Ranking]


class Ranks(Protocol):
    """What a reranking `Classifier` is of use for here."""

    def rerank(self, query: str, texts: Sequence[str]) -> list[Ranked]: ...


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model by the name that is shown, and how it is opened."""

    name: str
    open: Callable[[], AbstractContextManager[Embeds]]


def evaluate(
    collection: Collection, candidates: Sequence[Candidate], reranker: Ranks | None = None
) -> Generator[Progress | Note | Report, None, None]:
    """Every system over the collection; the last event is the `Report`.

    What is ranked again is the best 20 of the fused rankings. Raises `UsageError` without a passage, and when no
    passage that is judged is there.
    """
    scratch = tempfile.TemporaryDirectory(prefix="edgemm-eval-", ignore_cleanup_errors=True)
    with scratch as folder, Store(Path(folder) / "index.sqlite") as store:
        shelf = yield from filled(store, collection.passages)
        queries, judged = yield from _known(collection, shelf)
        run = _Run(shelf, queries, judged, _Again(shelf, reranker) if reranker else None)
        yield from run.words()
        for number, candidate in enumerate(candidates, 1):
            floats = yield from run.model(candidate, f"embed {number}/{len(candidates)}")
            if floats is None and number == 1:
                yield Note(f"float32 vectors are left out: they are held for {MOST_FLOATS:,} passages at most")
        if run.again and run.again.refused:
            yield Note(f"{len(run.again.refused):,} queries are too long for the reranker, and keep their order")
        yield _report(collection.name, shelf, run, [candidate.name for candidate in candidates])


def _known(collection: Collection, shelf: Shelf) -> Work[tuple[tuple[Text, ...], Mapping[str, Gains]]]:
    """The queries that can be answered, and the judgements of passages that are there."""
    if not shelf.keys:
        raise UsageError(collection.name, "holds no passage", "name a folder with documents")
    there = set(shelf.keys)
    judged = {query: {key: g for key, g in gains.items() if key in there} for query, gains in collection.judged.items()}
    lost = sum(map(len, collection.judged.values())) - sum(map(len, judged.values()))
    queries = tuple(query for query in collection.queries if any(gain > 0 for gain in judged[query.key].values()))
    if not queries:
        why = "not one passage that is judged as relevant is in the corpus"
        raise UsageError(collection.name, why, "check that judgements and corpus belong together")
    if lost:
        left = len(collection.queries) - len(queries)
        yield Note(f"{lost:,} judgements name passages that are not in the corpus; {left:,} queries are left out")
    return queries, judged


@dataclass
class _Again:
    """The first ones of a ranking in the order of a reranker, which sees each pair of texts once."""

    shelf: Shelf
    reranker: Ranks
    refused: set[str] = field(default_factory=set)
    _seen: dict[tuple[str, int], float] = field(default_factory=dict)

    def ranked(self, query: Text, found: Found) -> Found:
        first, others = [chunk for chunk, _ in found[:RERANKED]], found[RERANKED:]
        new = [chunk for chunk in first if (query.key, chunk) not in self._seen]
        if not query.text.strip() or query.key in self.refused:
            return found
        try:
            for each in self.reranker.rerank(query.text, self.shelf.texts(new)) if new else ():
                self._seen[query.key, new[each.index]] = each.score
        except PromptTooLong:
            self.refused.add(query.key)
            return found
        scored = [(chunk, self._seen[query.key, chunk]) for chunk in first]
        return [*sorted(scored, key=lambda pair: -pair[1]), *others]


@dataclass
class _Run:
    """The scores of every system, query by query."""

    shelf: Shelf
    queries: tuple[Text, ...]
    judged: Mapping[str, Gains]
    again: _Again | None
    scores: dict[_System, list[Scores]] = field(default_factory=lambda: defaultdict(list))
    _words: list[Found] = field(default_factory=list)

    def words(self) -> Work[None]:
        for query in self.queries:
            found = self.shelf.store.words(query.text, None, POOL)
            self._words.append(found)
            self._add("", Ranking.BM25, query, found)
            yield Progress("words", len(self._words), len(self.queries), "queries")

    def model(self, candidate: Candidate, stage: str) -> Work[Floats | None]:
        with candidate.open() as engine:
            model, floats = yield from embedded(self.shelf, candidate.name, engine, stage)
            asked = engine.embed([query.text for query in self.queries], Kind.QUERY)
        for start in range(0, len(self.queries), _TOGETHER):
            some = range(start, min(start + _TOGETHER, len(self.queries)))
            self._ask(candidate.name, model, floats, some, asked[some.start : some.stop])
            yield Progress(stage.replace("embed", "search"), some.stop, len(self.queries), "queries")
        return floats

    def _ask(self, name: str, model: int, floats: Floats | None, numbers: Sequence[int], asked: Vectors) -> None:
        if floats:
            for number, found in zip(numbers, floats.nearest_each(asked, POOL), strict=True):
                self._add(name, Ranking.FLOAT, self.queries[number], found)
        for number, found in zip(numbers, self.shelf.store.nearest_each(model, asked, POOL), strict=True):
            query, fused = self.queries[number], fuse({Part.WORDS: self._words[number], Part.MEANING: found})
            self._add(name, Ranking.INT8, query, found)
            self._add(name, Ranking.HYBRID, query, fused)
            if self.again:
                self._add(name, Ranking.RERANKED, query, self.again.ranked(query, fused))

    def _add(self, name: str, ranking: Ranking, query: Text, found: Found) -> None:
        """A query that is a passage itself does not count as found, as BEIR has it."""
        keys = [key for chunk, _ in found if (key := self.shelf.key(chunk)) != query.key]
        self.scores[name, ranking].append(metrics.score(keys, self.judged[query.key]))


def _report(name: str, shelf: Shelf, run: _Run, models: Sequence[str]) -> Report:
    systems: list[_System] = [(model, ranking) for model in ("", *models) for ranking in Ranking]
    there = [system for system in systems if system in run.scores]
    reference = there[1] if len(there) > 1 else there[0]
    rows = tuple(_row(system, run.scores[system], run.scores[reference]) for system in there)
    return Report(name, len(shelf.keys), len(run.queries), reference, rows)


def _row(system: _System, own: Sequence[Scores], reference: Sequence[Scores]) -> Row:
    base = statistics.fmean(one.ndcg10 for one in reference)
    differences = np.array([one.ndcg10 - other.ndcg10 for one, other in zip(own, reference, strict=True)])
    error = float(differences.std(ddof=1)) / math.sqrt(len(own)) if len(own) > 1 else 0.0
    scores = metrics.mean(own)
    kept, margin = (scores.ndcg10 / base, _NORMAL * error / base) if base else (0.0, 0.0)
    return Row(*system, scores, kept, margin)
