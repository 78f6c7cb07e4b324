"""What searches keep in memory: the vectors of each model, one byte a dimension, read again only where they have grown.

What is handed out never changes, so that it can be searched while others write. It knows no query.
"""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemm.index import lookup, pages
from edgemm.index.pages import Float, Ids, Mask, Vectors
from edgemm.sqlite import pragma


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The vectors of one moment: `parts` by page, and the same ids and scales in one piece.

    `longest`: no vector is longer. `alive` bool (n,).
    """

    parts: dict[int, Vectors]
    starts: tuple[int, ...]  # of each part
    contents: Ids
    scales: Float
    alive: Mask
    longest: float

    def __len__(self) -> int:
        return len(self.contents)


class Memory:
    """Of one connection, used within its transactions by one thread at a time."""

    def __init__(self) -> None:
        self._version = -1  # of the file: it changes when another connection has written
        self._fresh: dict[int, Snapshot] = {}
        self._stale: dict[int, Snapshot] = {}
        self._contents: tuple[Ids, Ids] | None = None

    def vectors(self, db: sqlite3.Connection, model: int, dimensions: int) -> Snapshot:
        """Those of `model` as they are in the file."""
        self._look(db)
        if model not in self._fresh:
            self._fresh[model] = _load(db, model, dimensions, self._stale.pop(model, None))
        return self._fresh[model]

    def contents(self, db: sqlite3.Connection, allowed: Mask | None) -> Mask | None:
        """bool, indexed by content: those of a chunk that is `allowed`, which is indexed by chunk."""
        if allowed is None:
            return None
        self._look(db)
        if self._contents is None:
            self._contents = lookup.contents_of(db)
        ids, contents = self._contents
        wanted = np.zeros(int(contents.max(initial=0)) + 1, bool)
        within = ids < len(allowed)
        wanted[contents[within][allowed[ids[within]]]] = True
        return wanted

    def _look(self, db: sqlite3.Connection) -> None:
        version = pragma(db, "data_version")
        if version == self._version:
            return
        there = {row[0] for row in db.execute("SELECT id FROM model")}
        held = self._stale | self._fresh
        self._stale = {model: snapshot for model, snapshot in held.items() if model in there}
        self._fresh, self._contents, self._version = {}, None, version


def _load(db: sqlite3.Connection, model: int, dimensions: int, last: Snapshot | None) -> Snapshot:
    """Pages of `last` that have not grown are taken from it; slots are never written twice."""
    query = "SELECT id, used, longest, tombs FROM page WHERE model = ? AND used > 0 ORDER BY id"
    rows = db.execute(query, (model,)).fetchall()
    held = last.parts if last else {}
    parts = {}
    for page, used, _, _ in rows:
        part = held.get(page)
        parts[page] = part if part and len(part) == used else pages.read(db, page, used, dimensions)
    ends = np.cumsum([0, *map(len, parts.values())])
    dead = [pages.unpack_tombs(tombs)[:used] for _, used, _, tombs in rows]
    return Snapshot(
        parts,
        tuple(ends[:-1].tolist()),
        _joined([part.contents for part in parts.values()], np.int64),
        _joined([part.scales for part in parts.values()], np.float32),
        ~_joined(dead, bool),
        max((longest for _, _, longest, _ in rows), default=0.0),
    )


def _joined(arrays: Sequence[NDArray[Any]], kind: type) -> NDArray[Any]:
    return np.concatenate(arrays).astype(kind, copy=False) if arrays else np.empty(0, kind)
