"""The passages of an evaluation in a store of their own: words, int8 vectors, and for a small one also floats.

Rankings are of chunks, whose keys it knows. It knows neither gains nor figures.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgemm.embed import Kind, Vectors
from edgemm.evaluation.records import Text
from edgemm.events import Progress, Work
from edgemm.index import FileFacts, Passage, Scope, Store
from edgemm.index.records import embedded_text, text_hash
from edgemm.index.store import Found
from edgemm.words import clean

MOST_FLOATS = 20_000  # passages of which float32 vectors are held as well
_TOGETHER = 500  # passages are stored in one transaction
_EMBEDDED = 512  # are embedded at a time


class Embeds(Protocol):
    """What `Embedder` is of use for here."""

    @property
    def dimensions(self) -> int: ...

    def embed(self, texts: Sequence[str], kind: Kind = Kind.DOCUMENT) -> Vectors: ...


@dataclass(frozen=True, slots=True)
class Shelf:
    """`keys` of the passages by their number, and by number too: `chunks`, ids in the store, and hashes of contents."""

    store: Store
    keys: tuple[str, ...]
    chunks: NDArray[np.int64]
    hashes: tuple[bytes, ...]

    def key(self, chunk: int) -> str:
        return self.keys[int(np.searchsorted(self.chunks, chunk))]

    def texts(self, chunks: Iterable[int]) -> list[str]:
        """As they are embedded."""
        return [embedded_text(" ".join(each.heading), each.text) for each in self.store.chunks(chunks)]


@dataclass(frozen=True, slots=True)
class Floats:
    """Vectors before they are rounded, float32 (passages, dimensions), in the order of `chunks`."""

    chunks: NDArray[np.int64]
    vectors: Vectors

    def nearest_each(self, queries: Vectors, count: int) -> list[Found]:
        """Chunks with the largest dot products, for each row of float32 (q, dimensions)."""
        count = min(count, len(self.chunks))
        return [self._best(scores, count) for scores in queries @ self.vectors.T]

    def _best(self, scores: Vectors, count: int) -> Found:
        found = np.sort(np.argpartition(-scores, count - 1)[:count])
        ordered = found[np.argsort(-scores[found], kind="stable")]
        return list(zip(self.chunks[ordered].tolist(), scores[ordered].tolist(), strict=True))


def filled(store: Store, passages: Iterable[Text]) -> Work[Shelf]:
    """Put the passages into an empty store."""
    root = store.add_root(Path(store.path.parent)).id
    keys: list[str] = []
    hashes: list[bytes] = []
    left = iter(passages)
    while some := list(islice(left, _TOGETHER)):
        rows = [Passage(text.text, (text.title,) if text.title else (), prefix=text.title) for text in some]
        store.put(root, FileFacts(f"part{len(keys)}", 0, 0, "", "text"), rows)
        keys += [text.key for text in some]
        hashes += [text_hash(clean(row.embedded_text())) for row in rows]
        yield Progress("read", len(keys), 0, "passages")
    return Shelf(store, tuple(keys), np.flatnonzero(store.mask(Scope())), tuple(hashes))


def embedded(shelf: Shelf, name: str, engine: Embeds, stage: str) -> Work[tuple[int, Floats | None]]:
    """Give every passage its vector. The number of the model in the store, and floats if they are not too many.

    The vectors of the model before are dropped.
    """
    model = shelf.store.add_model(name, "", engine.dimensions)
    total, done, last = shelf.store.pending_size(model.id)[0], 0, 0
    kept: list[Vectors] = []
    places: dict[bytes, int] = {}
    while some := shelf.store.pending(model.id, _EMBEDDED, last):
        vectors = engine.embed([each.text for each in some])
        shelf.store.add_vectors(model.id, [each.hash for each in some], vectors)
        if len(shelf.keys) <= MOST_FLOATS:
            places |= {each.hash: done + n for n, each in enumerate(some)}
            kept.append(vectors)
        last, done = some[-1].id, done + len(some)
        yield Progress(stage, done, total, "texts")
    shelf.store.model_ready(model.id)
    if not kept:
        return model.id, None
    return model.id, Floats(shelf.chunks, np.concatenate(kept)[[places[hash] for hash in shelf.hashes]])
