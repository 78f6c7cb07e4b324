"""An index with a few files, for tests: made-up words, and vectors that follow from the embedded text."""

import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgemm.index import FileFacts, Medium, Model, Passage, Pending, Store

DIMENSIONS = 24


def facts(name: str, hash: str = "", **more: object) -> FileFacts:
    return FileFacts(name, 10, 1_000_000_007, hash or ascii(name), "text", **more)  # type: ignore[arg-type]


def passages(*texts: str) -> list[Passage]:
    return [Passage(text, ("Notes",), {"line": n + 1}, 100 * n, 100 * n + len(text)) for n, text in enumerate(texts)]


def vector(text: str) -> NDArray[np.float32]:
    """Always the same for a text, of length 1."""
    found = np.random.default_rng(zlib.crc32(text.encode())).standard_normal(DIMENSIONS, np.float32)
    return found / np.linalg.norm(found)


def embed(index: Store, model: Model, batch: int = 7) -> int:
    """Give everything its vector, and say how many texts and pictures that took."""
    count = 0
    while waiting := index.pending(model.id, batch):
        stored = index.add_vectors(model.id, [p.hash for p in waiting], np.stack([embedding(p) for p in waiting]))
        assert stored == len(waiting)
        count += stored
    return count


def embedding(pending: Pending) -> NDArray[np.float32]:
    return vector(pending.text or pending.hash.hex())


def a_model(index: Store, name: str = "mini", medium: Medium = Medium.TEXT) -> Model:
    return index.add_model(name, "f1", DIMENSIONS, medium)


def library(index: Store, path: Path, files: int = 5, each: int = 4) -> int:
    """`files` files of `each` passages "passage 0 of file 0" and so on; the id of their root."""
    root = index.add_root(path).id
    for file in range(files):
        index.put(root, facts(f"f{file}.txt"), passages(*(f"passage {n} of file {file}" for n in range(each))))
    return root


def texts_of(index: Store, found: list[tuple[int, float]]) -> list[str]:
    return [chunk.text for chunk in index.chunks(id for id, _ in found)]
