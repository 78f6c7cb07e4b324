"""Exact nearest neighbours: the int8 products of a query with every vector, then floats for the best.

The query is rounded to int8 for the first pass only. How far that can be off is known, so the second pass takes every
vector that the first may have put too low. Larger dot products are nearer. It knows no database.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from edgemm import device
from edgemm.backends.ort import Int8Scan
from edgemm.index.cache import Snapshot
from edgemm.index.pages import Float, Ids, Mask

Scored = list[tuple[int, float]]  # content and score, the best first

_LEVELS, _LEVELS_WITHOUT_VNNI = 127, 63  # of a rounded query: the products stay exact
_POOL, _LEAST_POOL = 4, 64  # candidates that are scored in floats: as many times k, and at least
_MOST = 1 << 14  # candidates that are scored in floats, at most
_TOGETHER = 4  # queries at once
_STRIDE = 8  # pages that a thread takes at once: few enough that no core waits long for a busy one
_SLACK = 1e-5  # of the product of the lengths: rounding of float32


class Scanner:
    """Scans with all cores. Safe to use from several threads."""

    def __init__(self) -> None:
        self._products = Int8Scan()
        self._pool = ThreadPoolExecutor(device.cores(), thread_name_prefix="edgemm-scan")
        self._levels = _LEVELS_WITHOUT_VNNI if device.saturates_int8() else _LEVELS

    def nearest(self, vectors: Snapshot, queries: Float, k: int, allowed: Mask | None = None) -> list[Scored]:
        """The `k` best of those that are alive and allowed, for each row of `queries`, float32 (q, dimensions).

        `allowed` bool (largest content + 1,) is indexed by content, and applies before the best are chosen.
        """
        among = vectors.alive if allowed is None else vectors.alive & _lookup(allowed, vectors.contents)
        found: list[Scored] = []
        for start in range(0, len(queries), _TOGETHER):
            some = queries[start : start + _TOGETHER]
            columns, steps = self._rounded(some)
            scores = self._scores(vectors, columns, steps)
            scores[:, ~among] = -np.inf
            for query, row, column, step in zip(some, scores, columns.T, steps, strict=True):
                error = _length(query - column * step) * vectors.longest
                error += _SLACK * _length(query) * vectors.longest
                found.append(_best(vectors, query, row, k, error))
        return found

    def close(self) -> None:
        self._pool.shutdown()

    def _rounded(self, queries: Float) -> tuple[NDArray[np.int8], Float]:
        """int8 (dimensions, q) and the step of each query."""
        largest = np.abs(queries).max(axis=1, initial=0)
        steps = np.where(largest > 0, largest / self._levels, 1).astype(np.float32)
        rounded = np.clip(np.rint(queries / steps[:, None]), -self._levels, self._levels)
        return np.ascontiguousarray(rounded.T.astype(np.int8)), steps

    def _scores(self, vectors: Snapshot, columns: NDArray[np.int8], steps: Float) -> Float:
        """float32 (q, n): what the rounded queries give."""
        scores = np.empty((len(steps), len(vectors)), np.float32)
        parts = list(zip(vectors.starts, vectors.parts.values(), strict=True))

        def scan(first: int) -> None:
            for start, part in parts[first : first + _STRIDE]:
                products = self._products.products(part.data, columns)
                np.multiply(products.T, part.scales, out=scores[:, start : start + len(part)], casting="unsafe")

        list(self._pool.map(scan, range(0, len(parts), _STRIDE)))
        scores *= steps[:, None]
        return scores


def _best(vectors: Snapshot, query: Float, scores: Float, k: int, error: float) -> Scored:
    """The `k` largest exact scores, where `scores` are off by at most `error`."""
    pool = _largest(scores, max(_POOL * k, _LEAST_POOL))
    exact = _exact(vectors, query, pool)
    if len(pool) > k:
        bound = np.partition(exact, -k)[-k] - error
        if scores[pool].min() > bound:  # there may be more of them outside of the pool
            pool = np.flatnonzero(scores >= bound)
            pool = pool if len(pool) <= _MOST else pool[_largest(scores[pool], _MOST)]
            exact = _exact(vectors, query, pool)
    contents = vectors.contents[pool]
    order = np.lexsort((contents, -exact))[:k]
    return list(zip(contents[order].tolist(), exact[order].tolist(), strict=True))


def _largest(scores: Float, count: int) -> Ids:
    """Places of the `count` largest scores that are allowed, in no order."""
    if len(scores) > count:
        places = np.argpartition(scores, -count)[-count:]
        return places[scores[places] > -np.inf]
    return np.flatnonzero(scores > -np.inf)


def _exact(vectors: Snapshot, query: Float, places: Ids) -> Float:
    """float32 (len(places),): with the query as it is."""
    parts: Sequence[int] = list(vectors.parts)
    numbers = np.searchsorted(vectors.starts, places, side="right") - 1
    found = np.empty(len(places), np.float32)
    for number in np.unique(numbers):
        here = numbers == number
        rows = places[here] - vectors.starts[number]
        part = vectors.parts[parts[number]]
        found[here] = (part.data[rows].astype(np.float32) @ query) * part.scales[rows]
    return found


def _lookup(allowed: Mask, contents: Ids) -> Mask:
    """bool (n,): `allowed` of each content; what is beyond the mask is not."""
    within = contents < len(allowed)
    return within if not len(allowed) else within & allowed[np.where(within, contents, 0)]


def _length(vector: Float) -> float:
    return float(np.linalg.norm(vector))
