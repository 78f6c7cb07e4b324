"""Hybrid search: chunks ranked by their words and by their vectors, fused, perhaps ranked again, and shown in a line.

Scores are brought to one scale and added up (Bruch, Gai and Ingber 2023, "An Analysis of Fusion Functions for Hybrid
Retrieval"). On documentation and source code that finds more than adding up reciprocal ranks does. It runs no model:
vectors of the query come from the caller, and so does what ranks again.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from edgemm.documents.records import Place
from edgemm.index import Chunk, Scope, Store
from edgemm.index.pages import Float
from edgemm.snippets import Finder
from edgemm.words import terms

Ranking = Sequence[tuple[int, float]]
"""Chunk and score, the best first; larger is better."""
Rerank = Callable[[str, Sequence[str]], Sequence[float]]
"""Scores of texts for a query, in their order."""

POOL, _WIDEST = 100, 10_000  # chunks of each ranking that are fused: more, while most of them are copies
RERANKED = 20  # of the best are ranked again
_WIDTH = 200  # characters of a snippet
_SHORT = 3  # letters: such words are marked only where the query has no longer ones


class Part(StrEnum):
    """A ranking that a hit is in."""

    WORDS = "words"
    MEANING = "meaning"
    PICTURES = "pictures"
    RERANK = "rerank"


@dataclass(frozen=True, slots=True)
class Probe:
    """A vector of the query, float32 (dimensions,), in the space of `model`."""

    part: Part
    model: int
    vector: Float


@dataclass(frozen=True, slots=True)
class Standing:
    """`rank` from 1. `score` is that of keywords.py, a cosine, or what a reranker gives."""

    rank: int
    score: float


@dataclass(frozen=True, slots=True)
class Hit:
    """A chunk that was found. `score` is the sum of the scaled scores in `parts`, each at most 1, without a reranker's.

    In `snippet`, MARK and UNMARK of snippets.py stand around the words of the query. `copies`: other files with the
    same text, as far as they were seen.
    """

    chunk: Chunk
    score: float
    parts: Mapping[Part, Standing]
    snippet: str
    copies: tuple[str, ...] = field(default=())


def search(
    store: Store,
    text: str,
    probes: Sequence[Probe] = (),
    *,
    scope: Scope | None = None,
    limit: int = 10,
    rerank: Rerank | None = None,
) -> list[Hit]:
    """The `limit` best chunks within `scope`, the best first; nothing is found by an empty query without a probe."""
    allowed = store.mask(scope) if scope and scope != Scope() else None
    wanted = max(limit, RERANKED) if rerank and limit > 0 else limit
    pool, finder = max(POOL, 2 * limit), _finder(text)
    while True:
        rankings: dict[Part, Ranking] = {Part.WORDS: store.words(text, allowed, pool)}
        rankings |= {probe.part: store.nearest(probe.model, probe.vector, pool, allowed) for probe in probes}
        hits = _hits(store, rankings, wanted, finder)
        is_all = all(len(ranking) < pool for ranking in rankings.values())
        if len(hits) >= wanted or is_all or pool >= _WIDEST:
            return (_reranked(text, hits, rerank) if rerank else hits)[: max(0, limit)]
        pool *= 10


def place(chunk: Chunk) -> Place:
    """Where it stands in its file."""
    return Place(**chunk.place)  # type: ignore[arg-type]


def fuse(rankings: Mapping[Part, Ranking]) -> list[tuple[int, float]]:
    """Every chunk of any ranking and the sum of its scaled scores, the best first."""
    scores: dict[int, float] = {}
    for part, ranking in rankings.items():
        for id, score in _scaled(part, ranking):
            scores[id] = scores.get(id, 0.0) + score
    return sorted(scores.items(), key=lambda item: (-item[1], item[0]))


def _scaled(part: Part, ranking: Ranking) -> Ranking:
    """Scores from 0 to 1, as those of words are: the last cosines of many are those of any two texts."""
    if part is Part.WORDS or not ranking:
        return ranking
    highest, lowest = max(score for _, score in ranking), min(score for _, score in ranking)
    width = highest - lowest
    return [(id, (score - lowest) / width if width > 0 else float(highest > 0)) for id, score in ranking]


def _hits(store: Store, rankings: Mapping[Part, Ranking], wanted: int, finder: Finder | None) -> list[Hit]:
    """The `wanted` best ones. A copy of a text that was found already is named there."""
    standings = _standings(rankings)
    hits: list[Hit] = []
    paths: list[dict[str, None]] = []  # of each hit, in their order
    places: dict[str, int] = {}
    for id, score in fuse(rankings):
        if len(hits) >= wanted:
            break
        for chunk in store.chunks([id]):  # one that was replaced meanwhile is gone
            path = str(chunk.path)
            place = places.setdefault(chunk.text or path, len(hits))  # a file may be in two roots
            if place == len(hits):
                hits.append(Hit(chunk, score, standings[id], _snippet(chunk, finder)))
                paths.append({})
            paths[place][path] = None
    return [replace(hit, copies=tuple(names)[1:]) for hit, names in zip(hits, paths, strict=True)]


def _standings(rankings: Mapping[Part, Ranking]) -> dict[int, dict[Part, Standing]]:
    """Of each chunk."""
    found: dict[int, dict[Part, Standing]] = {}
    for part, ranking in rankings.items():
        for rank, (id, score) in enumerate(ranking, 1):
            found.setdefault(id, {})[part] = Standing(rank, score)
    return found


def _reranked(text: str, hits: Sequence[Hit], rerank: Rerank) -> list[Hit]:
    """The first ones in the order of the reranker; pictures, which it cannot read, and all others behind them."""
    readable = [hit for hit in hits[:RERANKED] if hit.chunk.text]
    if not readable or not text.strip():
        return list(hits)
    scores = rerank(text, [hit.chunk.text for hit in readable])
    order = sorted(zip(readable, scores, strict=True), key=lambda pair: -pair[1])
    ranked = [
        replace(hit, parts={**hit.parts, Part.RERANK: Standing(rank, float(score))})
        for rank, (hit, score) in enumerate(order, 1)
    ]
    first = {hit.chunk.id for hit in readable}
    return [*ranked, *(hit for hit in hits if hit.chunk.id not in first)]


def _finder(text: str) -> Finder | None:
    found = terms(text)
    long = [term for term in found if len(term) > _SHORT or not term.isascii()]
    return Finder(long or found, unfinished=False) if found else None


def _snippet(chunk: Chunk, finder: Finder | None) -> str:
    text = chunk.text.strip()
    if not finder:
        return " ".join(text[:_WIDTH].split())
    return finder.line(text, finder.best(text, _WIDTH), _WIDTH)
