"""Figures of the index: the exact scan of vectors, its agreement with floats, and words among 200,000 chunks.

Targets are milliseconds of this machine. The peer of the scan is the same search in float32 with numpy, which needs
four times the memory.
"""

import statistics
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from bench import Result, seconds
from numpy.typing import NDArray

from edgemm.index import FileFacts, Passage, Scope, Store
from edgemm.index.cache import Snapshot
from edgemm.index.database import PAGE
from edgemm.index.pages import quantize
from edgemm.index.scan import Scanner

DIMENSIONS, QUERIES, TOP = 384, 200, 10
CHUNKS, WORDS, VOCABULARY = 200_000, 80, 50_000
SEED = 11

Float = NDArray[np.float32]


def unit_vectors(rng: np.random.Generator, count: int) -> Float:
    """Half of them near one of a thousand centres, as texts on one subject are; half anywhere."""
    vectors = rng.standard_normal((count, DIMENSIONS), np.float32)
    centres = np.random.default_rng(SEED).standard_normal((1000, DIMENSIONS), np.float32)
    vectors[::2] += 2 * centres[rng.integers(0, len(centres), len(vectors[::2]))]
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def snapshot(count: int) -> tuple[Snapshot, Float]:
    """`count` vectors as the index holds them in memory, and as floats before they were rounded."""
    rng = np.random.default_rng(SEED)
    floats = np.concatenate([unit_vectors(rng, min(PAGE, count - at)) for at in range(0, count, PAGE)])
    starts = range(0, count, PAGE)
    ids = np.arange(1, count + 1)
    parts = {at // PAGE: quantize(ids[at : at + PAGE], floats[at : at + PAGE]) for at in starts}
    scales = np.concatenate([part.scales for part in parts.values()])
    longest = max(part.longest() for part in parts.values())
    return Snapshot(parts, tuple(starts), ids, scales, np.ones(count, bool), longest), floats


def p50(work: Callable[[int], object], repeats: int = 31) -> float:
    """Milliseconds."""
    work(0)
    return 1000 * statistics.median(seconds(lambda i=i: work(i)) for i in range(repeats))  # type: ignore[misc]


def scan() -> list[Result]:
    scanner, queries = Scanner(), unit_vectors(np.random.default_rng(SEED + 1), QUERIES)
    results = []
    for count, target in ((50_000, 10), (1_000_000, 80)):
        vectors, floats = snapshot(count)
        ours = p50(lambda i, v=vectors: scanner.nearest(v, queries[i : i + 1], TOP))  # type: ignore[misc]
        theirs = p50(lambda i, f=floats: np.argpartition(f @ queries[i], -TOP)[-TOP:], 9)  # type: ignore[misc]
        detail = f"p50 of 31; float32 in numpy, four times the memory: {theirs:.1f} ms"
        results.append(Result(f"{count:,} x {DIMENSIONS}, the {TOP} nearest", ours, target, "ms", False, detail))
    results += agreement(scanner, vectors, floats, queries)
    scanner.close()
    return results


def agreement(scanner: Scanner, vectors: Snapshot, floats: Float, queries: Float) -> list[Result]:
    """With a search in floats of what is stored, and of the vectors before they were rounded to int8."""
    found = [{id for id, _ in one} for one in scanner.nearest(vectors, queries, TOP)]
    best = [top(floats, query) for query in queries]
    kept = statistics.mean(len(a & b) / TOP for a, b in zip(found, best, strict=True))
    worth = sum(gain(floats, query, a) for query, a in zip(queries, found, strict=True))
    worth /= sum(gain(floats, query, a) for query, a in zip(queries, best, strict=True))
    for part, start in zip(vectors.parts.values(), vectors.starts, strict=True):
        floats[start : start + len(part)] = part.data * part.scales[:, None]
    same = statistics.mean(a == top(floats, query) for a, query in zip(found, queries, strict=True))
    what = f"{QUERIES} queries, {len(vectors):,} vectors"
    return [
        Result("the same nearest as in floats of what is stored", 100 * same, 99, "% of queries", True, what),
        Result(
            "cosines of the nearest / of those in float32", 100 * worth, 99.9, "%", True, f"{kept:.1%} are the same"
        ),
    ]


def top(floats: Float, query: Float) -> set[int]:
    return {int(place) + 1 for place in np.argpartition(floats @ query, -TOP)[-TOP:]}


def gain(floats: Float, query: Float, ids: set[int]) -> float:
    return float((floats[[id - 1 for id in ids]] @ query).sum())


@contextmanager
def library() -> Iterator[tuple[Store, NDArray[np.int64]]]:
    """CHUNKS chunks of WORDS words, as frequent as in a language (Zipf); and in how many chunks each word is."""
    words = np.random.default_rng(SEED).zipf(1.07, (CHUNKS, WORDS)) % VOCABULARY
    with tempfile.TemporaryDirectory() as folder, Store(Path(folder) / "index.sqlite") as index:
        root = index.add_root(Path(folder)).id
        for number, rows in enumerate(np.array_split(words, CHUNKS // 100)):
            passages = [Passage(" ".join(f"w{word}" for word in row)) for row in rows.tolist()]
            index.put(root, FileFacts(f"f{number % 10}/{number}", 1, 1, "", "text"), passages)
        yield index, np.bincount(np.concatenate([np.unique(row) for row in words]), minlength=VOCABULARY)


def keywords() -> list[Result]:
    with library() as (index, held):
        by_count = np.argsort(-held)
        stop, middle, rare = by_count[:6], by_count[(held[by_count] < CHUNKS / 10)][:6], by_count[2000:2003]
        queries = {
            "three rare words": rare,
            "three rare words and six stop-words": [*rare, *stop],
            "six words that are each in almost a tenth": middle,
            "six stop-words": stop,
        }
        results = [_keywords(index, what, " ".join(f"w{word}" for word in words)) for what, words in queries.items()]
        mask = index.mask(Scope(names=("f3/*",)))
        query = " ".join(f"w{word}" for word in middle)
        inside = p50(lambda _: index.words(query, mask), 9)
        results.append(Result("the same six, within a tenth of the files", inside, 60, "ms", False, "p50 of 9"))
    return results


def _keywords(index: Store, what: str, query: str) -> Result:
    return Result(f"{what}, {CHUNKS:,} chunks", p50(lambda _: index.words(query), 9), 60, "ms", False, "p50 of 9")


def results() -> list[Result]:
    return [*scan(), *keywords()]


if __name__ == "__main__":
    from bench import table
    from rich.console import Console

    Console(width=150).print(table(results(), "search"))
