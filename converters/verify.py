"""Does the package still behave like its checkpoint? Measured through the engine that users run.

Compared on held-out texts: the direction of the vectors, who their neighbours are, whether a text's vector depends on
its batch mates, and whether both tokenizers give the same ids. It judges against a floor and decides nothing.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from converters.checkpoint import Array
from converters.recipe import Floor
from edgemm import models
from edgemm.backends.worker import LoadOptions, Worker
from edgemm.embed import Embedder, EmbedOptions
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
    with models.open_embedder(package.path, EmbedOptions(overflow=Overflow.CUT)) as embedder:
        loaded = time.perf_counter() - started
        metrics = similarity(embedder.embed(texts), reference) | {
            "batch_invariance": _batch_invariance(embedder, texts),
            "load_seconds": round(loaded, 3),
            "tokens_per_second": _speed(embedder, package, texts),
        }
    gguf = package.file(".gguf")
    if gguf is not None:
        metrics["tokenizer_agreement"] = _tokenizer_agreement(package, texts)
    return Comparison(metrics, tuple(_failures(metrics, floor)))


def similarity(vectors: Array, reference: Array) -> dict[str, float]:
    """Cosine (mean, min) of each pair of rows, and the share of the ten nearest neighbours that stay."""
    ours, theirs = _unit(vectors), _unit(reference)
    cosines = np.sum(ours * theirs, axis=1)
    return {
        "cosine_mean": float(cosines.mean()),
        "cosine_min": float(cosines.min()),
        "top10_overlap": _overlap(_neighbours(ours), _neighbours(theirs)),
    }


def _failures(metrics: dict[str, float], floor: Floor) -> list[str]:
    limits = {"cosine_mean": floor.cosine_mean, "cosine_min": floor.cosine_min, "top10_overlap": floor.overlap}
    limits |= {"tokenizer_agreement": 1.0} if "tokenizer_agreement" in metrics else {}
    return [
        f"{name} is {metrics[name]:.5f}, the floor is {least}"
        for name, least in limits.items()
        if metrics[name] < least
    ]


def _batch_invariance(embedder: Embedder, texts: Sequence[str]) -> float:
    """The least cosine between a text embedded alone and among all others."""
    together = _unit(embedder.embed(texts))
    alone = _unit(np.concatenate([embedder.embed([text]) for text in texts]))
    return float(np.sum(together * alone, axis=1).min())


def _speed(embedder: Embedder, package: Package, texts: Sequence[str]) -> float:
    rows = Tokenizer(package.path / "tokenizer.json").ids(texts)
    started = time.perf_counter()
    embedder.embed(texts)
    return round(sum(map(len, rows)) / (time.perf_counter() - started), 1)


def _tokenizer_agreement(package: Package, texts: Sequence[str]) -> float:
    """The share of texts for which llama.cpp and `tokenizers` give the same ids."""
    gguf = package.file(".gguf")
    assert gguf is not None
    expected = Tokenizer(package.path / "tokenizer.json").ids(texts)
    with Worker(gguf, LoadOptions(embedding=True)) as worker:
        same = [worker.tokenize(t, add_special=True) == ids for t, ids in zip(texts, expected, strict=True)]
    return sum(same) / len(same)


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
