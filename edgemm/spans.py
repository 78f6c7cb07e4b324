"""From a score for every token to pieces of the text: named entities, and answers to a question.

Pure functions over token offsets (`Pair`) and arrays of scores. They run no model and split no text.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgemm.tokenizer import Pair

Array = NDArray[np.float32]
LONGEST_ANSWER = 30  # tokens, as in the evaluation of SQuAD
_OUTSIDE = "O"
_SCHEME = re.compile(r"([BIESLU])-(.+)")  # begin, inside, end or last, single or unit
_STARTS = "BSU"
_KEPT = 20  # spans of a window that are looked at for each answer that is wanted


@dataclass(frozen=True, slots=True)
class Entity:
    """`text` stands at characters `start`..`end` of the input; `score` is the mean of its tokens."""

    label: str
    text: str
    score: float
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Answer:
    """`text` stands at characters `start`..`end` of the context; it is empty when the context holds no answer."""

    text: str
    score: float
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Marked:
    """A token of a text, and the label that it got."""

    label: str
    score: float
    start: int
    end: int


def entities(text: str, tokens: Sequence[Marked]) -> list[Entity]:
    """Neighbours of one kind are one entity, as far as the scheme of the labels (B-, I-, ...) does not part them."""
    found: list[list[Marked]] = []
    names: list[str] = []
    last = _OUTSIDE
    for token in tokens:
        mark, name = _parts(token.label)
        if name != _OUTSIDE and name == last and mark not in _STARTS:
            found[-1].append(token)
        elif name != _OUTSIDE:
            found.append([token])
            names.append(name)
        last = name
    return [_entity(text, name, group) for name, group in zip(names, found, strict=True)]


def _parts(label: str) -> tuple[str, str]:
    """B-PER -> B, PER. A label without a scheme goes on with its neighbour."""
    found = _SCHEME.fullmatch(label)
    return (found[1], found[2]) if found else ("I", label)


def _entity(text: str, name: str, group: Sequence[Marked]) -> Entity:
    start, end = trimmed(text, group[0].start, group[-1].end)
    score = sum(token.score for token in group) / len(group)
    return Entity(name, text[start:end], score, start, end)


def trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    """The span without blanks at its ends: some tokenizers count them to a word."""
    inside = text[start:end]
    return start + len(inside) - len(inside.lstrip()), end - len(inside) + len(inside.rstrip())


def answers(context: str, rows: Sequence[Pair], logits: Sequence[Array], top_k: int) -> list[Answer]:
    """The best spans of `context`, none over another, the best first.

    `rows` are windows of question and context, `logits` float32 (tokens, 2) for the start and the end of an answer.
    Shares are taken over all windows together. The first token stands for "no answer": its score is the least of
    all windows', because one window with an answer is enough.
    """
    places = [_places(row) for row in rows]
    total = _log_sums(logits, places)
    nothing = Answer("", math.exp(min(float(values[0].sum()) for values in logits) - total), 0, 0)
    spans = [span for row in zip(rows, logits, places, strict=True) for span in _spans(*row, _KEPT * top_k)]
    chosen: list[Answer] = []
    for score, start, end in sorted(spans, key=lambda span: -span[0]):
        if len(chosen) == top_k:
            break
        start, end = trimmed(context, start, end)
        if start < end and all(end <= other.start or other.end <= start for other in chosen):
            chosen.append(Answer(context[start:end], math.exp(score - total), start, end))
    return sorted([*chosen, nothing], key=lambda answer: -answer.score)[:top_k]


def _places(row: Pair) -> NDArray[np.bool_]:
    """Which tokens are of the context."""
    return np.array([which == 1 for which in row.texts])


def _log_sums(logits: Sequence[Array], places: Sequence[NDArray[np.bool_]]) -> float:
    """Log of the sum over all starts, plus that over all ends; the first token of each window is one of both."""
    kept = [np.append(True, inside[1:]) for inside in places]
    allowed = np.concatenate([values[own] for values, own in zip(logits, kept, strict=True)])
    most = allowed.max(axis=0).astype(np.float64)
    return float((most + np.log(np.exp(allowed - most).sum(axis=0))).sum())


def _spans(row: Pair, logits: Array, inside: NDArray[np.bool_], most: int) -> list[tuple[float, int, int]]:
    """Up to `most` of the best: start + end logit, first character, last character + 1."""
    within = np.where(inside[:, None], logits, -np.inf)
    ends = np.pad(within[:, 1], (0, LONGEST_ANSWER - 1), constant_values=-np.inf)
    scores = within[:, :1] + np.lib.stride_tricks.sliding_window_view(ends, LONGEST_ANSWER)  # (start, length - 1)
    flat = scores.reshape(-1)
    best = np.argsort(-flat, kind="stable")[:most]
    found = [(float(flat[i]), *divmod(int(i), LONGEST_ANSWER)) for i in best if np.isfinite(flat[i])]
    return [(score, row.offsets[first][0], row.offsets[first + more][1]) for score, first, more in found]
