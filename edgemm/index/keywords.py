"""Chunks by their words: any text is a valid query, and the rarer words of it decide.

A chunk need not hold every word. Ranking is BM25 (Robertson et al. 1994), as FTS5 has it, and costs about a
microsecond for each chunk that holds a word; words that are everywhere are left out where rarer ones are left. Scores
say how much words have to tell: where those that matter are in no chunk, what is left ("a", "the") weighs little. It
knows no vector.
"""

import math
import sqlite3
from collections.abc import Callable, Sequence

from edgemm.index import lookup
from edgemm.index.pages import Mask
from edgemm.words import phrases

Ranked = list[tuple[int, float]]
"""Chunk and score, the best first: BM25 as a share of the best one's, times the share of the query that is found."""

_COMMON = 0.1  # of the chunks: a word in more of them says little
_FEW = 1000  # chunks are ranked in no time, however common the word
_MOST = 60_000  # chunks are ranked at most, counted once for each word
_SAMPLE = 20_000  # chunks are ranked when every word is common
_WORDS = 3  # are looked at then: each costs time by itself
_WEIGHTS = "2.0, 1.0"  # of a match in the headline and in the text
_RANK = f"""SELECT rowid, -bm25(words, {_WEIGHTS}) AS score FROM words
    WHERE words MATCH ? AND allowed(rowid) ORDER BY score DESC, rowid LIMIT ?"""
_RANK_SAMPLE = f"""SELECT rowid, score FROM (
        SELECT rowid, -bm25(words, {_WEIGHTS}) AS score FROM words WHERE words MATCH ? AND allowed(rowid) LIMIT ?
    ) ORDER BY score DESC, rowid LIMIT ?"""


def search(db: sqlite3.Connection, query: str, allowed: Mask | None, limit: int) -> Ranked:
    """The `limit` best chunks that `allowed`, bool indexed by chunk, does not rule out."""
    if limit <= 0 or not (found := phrases(query)):
        return []
    chunks = lookup.count(db)
    common = max(_FEW, int(chunks * _COMMON))
    counts = {phrase: _count(db, phrase, common + 1) for phrase in found}
    if not any(counts.values()):  # perhaps the last word is not finished
        counts = {found[-1] + "*": _count(db, found[-1] + "*", common + 1)}
    there = [phrase for phrase in sorted(counts, key=lambda phrase: counts[phrase]) if counts[phrase]]
    rare = _affordable([phrase for phrase in there if counts[phrase] <= common], counts)
    db.create_function("allowed", 1, _test(allowed))
    if rare:
        ranked = db.execute(_RANK, (" OR ".join(rare), limit)).fetchall()
    else:
        ranked = _sample(db, there, limit) if there else []
    return _scaled(ranked, _share(counts, chunks))


def _share(counts: dict[str, int], chunks: int) -> float:
    """Of the words' weight (their inverse document frequency), that of the words that are in any chunk."""
    weights = {phrase: math.log(1 + (chunks - count + 0.5) / (count + 0.5)) for phrase, count in counts.items()}
    return sum(weight for phrase, weight in weights.items() if counts[phrase]) / sum(weights.values())


def _scaled(ranked: Ranked, highest: float) -> Ranked:
    best = max((score for _, score in ranked), default=0.0)
    return [(chunk, highest * score / best if best > 0 else 0.0) for chunk, score in ranked]


def _affordable(rarest_first: Sequence[str], counts: dict[str, int]) -> list[str]:
    """As many as can be ranked in time; one at least."""
    kept: list[str] = []
    total = 0
    for phrase in rarest_first:
        total += counts[phrase]
        if kept and total > _MOST:
            break
        kept.append(phrase)
    return kept


def _sample(db: sqlite3.Connection, common: list[str], limit: int) -> Ranked:
    """Of the first chunks that hold all of them, or else any: the best ones."""
    for operator in (" AND ", " OR "):
        query = operator.join(common[:_WORDS])
        if found := db.execute(_RANK_SAMPLE, (query, _SAMPLE, limit)).fetchall():
            return found
    return []


def _count(db: sqlite3.Connection, phrase: str, most: int) -> int:
    """Chunks that hold it, counted up to `most`."""
    query = "SELECT count(*) FROM (SELECT 1 FROM words WHERE words MATCH ? LIMIT ?)"
    return int(db.execute(query, (phrase, most)).fetchone()[0])


def _test(allowed: Mask | None) -> Callable[[int], int]:
    if allowed is None:
        return lambda chunk: 1
    flags = allowed.tobytes()
    return lambda chunk: flags[chunk] if chunk < len(flags) else 0
