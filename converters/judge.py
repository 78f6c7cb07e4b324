"""How far a GGUF file is from its reference, measured by running both: a judge for chats and one for embeddings.

Chats are compared token by token on held-out text: the Kullback-Leibler divergence of the next-token distributions,
how often the likeliest token stays, and the perplexities. Both models run in step and their logits are dropped as soon
as they are compared, so memory does not grow with the text. It knows no recipe and no floor.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from converters.checkpoint import Array
from converters.verify import similarity
from edgemm.backends.worker import LoadOptions, Worker
from edgemm.events import Progress, Work

Pair = tuple[Sequence[int], Sequence[int]]  # what is read, and (with an encoder beside the decoder) what is scored
Metrics = dict[str, float]
WINDOW = 512


class Judge(Protocol):
    def run(self, model: Path, stage: str, threads: int = 0) -> Work[Metrics]:
        """Figures of `model`; "loss" is 0 for a perfect copy."""
        ...


@dataclass(frozen=True, slots=True)
class ChatJudge:
    """Compares with the file `reference` on windows of token ids."""

    reference: Path
    pairs: Sequence[Pair]
    context: int = WINDOW

    def run(self, model: Path, stage: str, threads: int = 0) -> Work[Metrics]:
        divergences: list[Array] = []
        surprise = np.zeros(2)
        same = total = 0
        options = LoadOptions(context=self.context, threads=threads)
        with Worker(self.reference, options) as theirs, Worker(model, options) as ours:
            for done, (tokens, answer) in enumerate(self.pairs):
                yield Progress(stage, done, len(self.pairs), "texts")
                scored = np.array(answer or tokens)
                at = 0
                for p_logits, q_logits in zip(theirs.score(tokens, answer), ours.score(tokens, answer), strict=True):
                    p, q = log_softmax(p_logits), log_softmax(q_logits)
                    divergences.append(divergence(p, q))
                    same += int(np.sum(p.argmax(axis=1) == q.argmax(axis=1)))
                    following = scored[at + 1 : at + 1 + len(p)]
                    places = np.arange(len(following))
                    surprise -= (float(p[places, following].sum()), float(q[places, following].sum()))
                    at, total = at + len(p), total + len(following)
        values = np.maximum(np.concatenate(divergences), 0)
        reference, perplexity = np.exp(surprise / max(1, total))
        return {
            "loss": float(values.mean()),
            "divergence_mean": float(values.mean()),
            "divergence_999": float(np.quantile(values, 0.999)),
            "same_top_token": same / len(values),
            "perplexity": float(perplexity),
            "perplexity_ratio": float(perplexity / reference),
        }


@dataclass(frozen=True, slots=True)
class ProbeJudge:
    """The mean divergence alone, from log-probabilities that are kept: for many builds on little text.

    `expected` has those of each pair: float32 (tokens, vocabulary).
    """

    expected: Sequence[Array]
    pairs: Sequence[Pair]
    context: int

    def run(self, model: Path, stage: str, threads: int = 0) -> Work[Metrics]:
        yield Progress(stage, 0, len(self.pairs), "texts")
        found = log_probabilities(model, self.pairs, self.context, threads)
        values = [divergence(p, q) for p, q in zip(self.expected, found, strict=True)]
        return {"loss": max(0.0, float(np.concatenate(values).mean()))}


def log_probabilities(model: Path, pairs: Sequence[Pair], context: int, threads: int = 0) -> list[Array]:
    """Of the next token after each token of each pair: float32 (tokens, vocabulary)."""
    with Worker(model, LoadOptions(context=context, threads=threads)) as worker:
        return [np.concatenate([log_softmax(piece) for piece in worker.score(*pair)]) for pair in pairs]


@dataclass(frozen=True, slots=True)
class EmbedJudge:
    """Compares with `vectors`, float32 (texts, dimensions), of the rows of token ids. `labels`: they are scores."""

    vectors: Array
    rows: Sequence[Sequence[int]]
    labels: bool = False

    def run(self, model: Path, stage: str, threads: int = 0) -> Work[Metrics]:
        yield Progress(stage, 0, len(self.rows), "texts")
        ours = embed(model, self.rows, threads)
        if self.labels:
            correlation = float(np.corrcoef(ours.ravel(), self.vectors.ravel())[0, 1])
            return {"label_correlation": correlation, "loss": 1 - correlation}
        figures = similarity(ours, self.vectors)
        return figures | {"loss": 1 - figures["cosine_mean"]}


def embed(model: Path, rows: Sequence[Sequence[int]], threads: int = 0, *, exact: bool = False) -> Array:
    """Pooled vectors of a GGUF file, not normalized: float32 (rows, dimensions)."""
    with Worker(model, LoadOptions(embedding=True, threads=threads, exact=exact)) as worker:
        return worker.encode(rows)


def log_softmax(logits: Array) -> Array:
    """Log-probabilities of each row."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)), np.float32)


def divergence(p: Array, q: Array) -> Array:
    """Kullback-Leibler divergence of `q` from `p`, both log-probabilities, of each row: nats."""
    return np.asarray(np.sum(np.exp(p) * (p - q), axis=1))


def windows(rows: Sequence[Sequence[int]], first: Sequence[int], size: int = WINDOW) -> list[Pair]:
    """The texts of `rows` one behind the other, in windows of `size` tokens that begin with `first`."""
    stream = [token for row in rows for token in row]
    step = size - len(first)
    return [([*first, *stream[at : at + step]], ()) for at in range(0, len(stream), step)]
