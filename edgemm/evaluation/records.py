"""What an evaluation reads and what it ends with: plain frozen records, and how texts are drawn from many."""

import hashlib
import heapq
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

_SEED = b"edgemm"  # the same texts are drawn on every machine
_LOT_BYTES = 16

Gains = Mapping[str, float]
"""Passage key -> how relevant it is for a query. What is not in there has no gain."""


@dataclass(frozen=True, slots=True)
class Text:
    """A passage or a query. `title` is embedded before the text and found by its words."""

    key: str
    text: str
    title: str = ""


@dataclass(frozen=True, slots=True)
class Collection:
    """`passages` are read once. `judged`: query key -> its gains; every query has one. `notes`: what was left out."""

    name: str
    passages: Iterable[Text]
    queries: tuple[Text, ...]
    judged: Mapping[str, Gains]
    notes: tuple[str, ...] = ()


class Ranking(StrEnum):
    """How passages are ranked."""

    BM25 = "BM25"
    FLOAT = "float32"
    INT8 = "int8"
    HYBRID = "hybrid"
    RERANKED = "reranked"


@dataclass(frozen=True, slots=True)
class Scores:
    """Each from 0 to 1; of one query, or the mean of all."""

    ndcg10: float
    recall10: float
    recall100: float
    mrr10: float


@dataclass(frozen=True, slots=True)
class Row:
    """One system. `kept`: its nDCG@10 as a share of the reference's.

    `margin` is half the width of the 95 % interval of `kept`, from the differences of the two, query by query.
    """

    model: str
    ranking: Ranking
    scores: Scores
    kept: float
    margin: float


@dataclass(frozen=True, slots=True)
class Report:
    """`reference`: model and ranking that `kept` compares with."""

    name: str
    passages: int
    queries: int
    reference: tuple[str, Ranking]
    rows: tuple[Row, ...]


def lot(key: str) -> bytes:
    """A number that a text draws: the same for the same key, and otherwise as if by chance."""
    return hashlib.blake2b(key.encode("utf-8", "replace"), digest_size=_LOT_BYTES, key=_SEED).digest()


def drawn(texts: Iterable[Text], count: int) -> tuple[Text, ...]:
    """`count` of the texts, drawn by lot, whatever order they come in; sorted by their keys."""
    return tuple(sorted(heapq.nsmallest(count, texts, key=lambda text: lot(text.key)), key=lambda text: text.key))
