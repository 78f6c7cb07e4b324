"""Does the package still behave like its checkpoint? Measured through the engine that users run.

Compared on held-out texts: the direction of the vectors, who their neighbours are, and whether a text's vector depends
on its batch mates. It judges against a floor and decides nothing. Chats are compared in judge.py.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from converters.checkpoint import Array
from converters.recipe import BIG, SMALL, Floor
from edgemm import models
from edgemm.batches import BatchOptions
from edgemm.embed import Embedder
from edgemm.package import Package
from edgemm.tokenizer import Overflow, Tokenizer

NEIGHBOURS = 10


@dataclass(frozen=True, slots=True)
class Comparison:
    """`metrics` by name; `failures` are sentences about what lies below the floor."""

    metrics: dict[str, float]
    failures: tuple[str, ...]

    @property
    def passed(self) -> bool:
        return not self.failures


def compare(package: Package, texts: Sequence[str], reference: Array, floor: Floor) -> Comparison:
    """Run `package` on `texts` and compare with `reference`: float32 (len(texts), dimensions)."""
    started = time.perf_counter()
    with models.open_embedder(package.path, BatchOptions(overflow=Overflow.CUT)) as embedder:
        loaded = time.perf_counter() - started
        metrics = similarity(embedder.embed(texts), reference) | {
            "batch_invariance": _batch_invariance(embedder, texts),
            "load_seconds": round(loaded, 3),
            "tokens_per_second": _speed(embedder, package, texts),
        }
    return Comparison(metrics, tuple(failures(metrics, floor)))


def similarity(vectors: Array, reference: Array) -> dict[str, float]:
    """Cosine (mean, min) of each pair of rows, and the share of the ten nearest neighbours that stay."""
    ours, theirs = _unit(vectors), _unit(reference)
    cosines = np.sum(ours * theirs, axis=1)
    return {
        "cosine_mean": float(cosines.mean()),
        "cosine_min": float(cosines.min()),
        "top10_overlap": _overlap(_neighbours(ours), _neighbours(theirs)),
    }


def label_likeness(scores: Array, reference: Array) -> dict[str, float]:
    """Of scores (rows, labels): their correlation, and the share of rows whose highest score stays.

    What is added to all scores of a row changes no share, so that only differences count; with one label, its own.
    """
    several = scores.shape[1] > 1
    ours, theirs = ((each - each.mean(axis=1 if several else 0, keepdims=True)) for each in (scores, reference))
    size = float(np.linalg.norm(ours) * np.linalg.norm(theirs))
    found = {"label_correlation": float(np.sum(ours * theirs)) / size if size else 1.0}
    if several:
        found["same_label"] = float((scores.argmax(axis=1) == reference.argmax(axis=1)).mean())
    return found


def failures(metrics: dict[str, float], floor: Floor, weights: int = 0) -> list[str]:
    """What lies below the floor, a sentence each; figures that were not measured cannot fail.

    `weights`: how many the model has, because small chat models lose more by the same rounding.
    """
    least = {
        "label_correlation": floor.cosine_min,
        "cosine_mean": floor.cosine_mean,
        "cosine_min": floor.cosine_min,
        "top10_overlap": floor.overlap,
        "batch_invariance": floor.invariance,
    }
    most = floor.divergence * (SMALL if weights < BIG else 1)
    low = [(name, limit) for name, limit in least.items() if metrics.get(name, limit) < limit]
    found = [f"{name} is {metrics[name]:.5f}, the floor is {limit}" for name, limit in low]
    if metrics.get("divergence_mean", 0.0) > most:
        found.append(f"divergence_mean is {metrics['divergence_mean']:.5f}, the most is {most:g}")
    return found


def _batch_invariance(embedder: Embedder, texts: Sequence[str]) -> float:
    """The least cosine between a text embedded alone and among all others."""
    return least_cosine(embedder.embed(texts), np.concatenate([embedder.embed([text]) for text in texts]))


def least_cosine(vectors: Array, others: Array) -> float:
    """Of each pair of rows."""
    return float(np.sum(_unit(vectors) * _unit(others), axis=1).min())


def _speed(embedder: Embedder, package: Package, texts: Sequence[str]) -> float:
    rows = Tokenizer(package.path / "tokenizer.json").ids(texts)
    started = time.perf_counter()
    embedder.embed(texts)
    return round(sum(map(len, rows)) / (time.perf_counter() - started), 1)


def _unit(vectors: Array) -> Array:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(norms, 1e-12), np.float32)


def _neighbours(unit: Array) -> list[set[int]]:
    scores = unit @ unit.T
    np.fill_diagonal(scores, -np.inf)
    count = min(NEIGHBOURS, len(unit) - 1)
    return [set(row.tolist()) for row in np.argpartition(-scores, count - 1, axis=1)[:, :count]]


def _overlap(ours: list[set[int]], theirs: list[set[int]]) -> float:
    return float(np.mean([len(a & b) / len(b) for a, b in zip(ours, theirs, strict=True)]))
