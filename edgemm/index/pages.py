"""Vectors on disk: int8 with a scale each, in pages of 4,096 that only grow; dead ones are marked, not removed.

It knows numbers, slots and pages, but not what a vector stands for. Functions run within the caller's transaction.
"""

import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgemm.index.database import PAGE

Int8 = NDArray[np.int8]
Float = NDArray[np.float32]
Ids = NDArray[np.int64]
Mask = NDArray[np.bool_]
Slot = tuple[int, int]  # page, and place in it

_LEVELS = 127
_TOO_DEAD = 0.2  # of a page: then it is worth moving the others


@dataclass(frozen=True, slots=True)
class Vectors:
    """n vectors: `data` int8 (n, dimensions) times `scales` float32 (n,), and the `contents` that they belong to."""

    contents: Ids
    scales: Float
    data: Int8

    def __len__(self) -> int:
        return len(self.contents)

    def only(self, which: slice | Mask) -> "Vectors":
        return Vectors(self.contents[which], self.scales[which], self.data[which])

    def longest(self) -> float:
        """The largest length of a vector, in the scale of what was quantized."""
        squares = np.einsum("ij,ij->i", self.data, self.data, dtype=np.float32, casting="unsafe")
        return float((np.sqrt(squares) * self.scales).max(initial=0))


def quantize(contents: Ids, vectors: Float) -> Vectors:
    """float32 (n, dimensions), finite, to int8: the largest number of each vector becomes 127."""
    scales = (np.abs(vectors).max(axis=1, initial=0) / _LEVELS).astype(np.float32)
    divisors = np.where(scales > 0, scales, 1)[:, None]
    data = np.clip(np.rint(vectors / divisors), -_LEVELS, _LEVELS).astype(np.int8)
    return Vectors(contents, scales, data)


def append(db: sqlite3.Connection, model: int, vectors: Vectors, avoid: int = 0) -> list[Slot]:
    """Where each of them now lies. Page `avoid` is not written to."""
    slots: list[Slot] = []
    while len(slots) < len(vectors):
        page, used = _last(db, model, vectors.data.shape[1], avoid)
        part = vectors.only(slice(len(slots), len(slots) + PAGE - used))
        _write(db, page, used, part)
        changed = (used + len(part), part.longest(), page)
        db.execute("UPDATE page SET used = ?, longest = max(longest, ?) WHERE id = ?", changed)
        slots += [(page, used + i) for i in range(len(part))]
    return slots


def read(db: sqlite3.Connection, page: int, used: int, dimensions: int) -> Vectors:
    """The first `used` vectors of a page. The arrays cannot be written to."""
    contents, scales, data = (
        _read(db, column, page, used * width)
        for column, width in (("contents", 8), ("scales", 4), ("data", dimensions))
    )
    table = np.frombuffer(data, np.int8).reshape(used, dimensions)
    return Vectors(np.frombuffer(contents, "<i8"), np.frombuffer(scales, "<f4"), table)


def bury(db: sqlite3.Connection, slots: Iterable[Slot]) -> None:
    """Mark vectors as dead."""
    _mark(db, slots, True)


def dig_out(db: sqlite3.Connection, slots: Iterable[Slot]) -> None:
    """Mark dead vectors as alive."""
    _mark(db, slots, False)


def unpack_tombs(packed: bytes) -> Mask:
    """bool (4096,): which slots are dead."""
    if len(packed) != PAGE // 8:
        raise sqlite3.DatabaseError("a page has lost its marks")
    return np.unpackbits(np.frombuffer(packed, np.uint8), bitorder="little").astype(bool)


def too_dead(db: sqlite3.Connection) -> list[tuple[int, int, int]]:
    """(model, page, dimensions) of the pages that are worth compacting."""
    query = """SELECT model.id, page.id, dimensions FROM page JOIN model ON model.id = page.model
        WHERE dead > used * ? ORDER BY page.id"""
    return db.execute(query, (_TOO_DEAD,)).fetchall()


def compact(db: sqlite3.Connection, model: int, page: int, dimensions: int) -> None:
    """Move what is alive in a page to the end of the last one, and delete it, with what is dead."""
    row = db.execute("SELECT used, tombs FROM page WHERE id = ?", (page,)).fetchone()
    if not row:
        return  # another process was faster
    vectors, dead = read(db, page, row[0], dimensions), unpack_tombs(row[1])[: row[0]]
    alive = vectors.only(~dead)
    places = append(db, model, alive, avoid=page)
    moved = [(*place, model, content) for place, content in zip(places, alive.contents.tolist(), strict=True)]
    db.executemany("UPDATE vector SET page = ?, slot = ? WHERE model = ? AND content = ?", moved)
    gone = [(model, content, page) for content in vectors.contents[dead].tolist()]
    db.executemany("DELETE FROM vector WHERE model = ? AND content = ? AND page = ?", gone)
    db.execute("DELETE FROM block WHERE page = ?", (page,))
    db.execute("DELETE FROM page WHERE id = ?", (page,))


def drop(db: sqlite3.Connection, model: int) -> None:
    """Delete every vector of a model."""
    db.execute("DELETE FROM vector WHERE model = ?", (model,))
    db.execute("DELETE FROM block WHERE page IN (SELECT id FROM page WHERE model = ?)", (model,))
    db.execute("DELETE FROM page WHERE model = ?", (model,))


def _last(db: sqlite3.Connection, model: int, dimensions: int, avoid: int) -> Slot:
    """A page with room, and how many vectors it holds."""
    query = "SELECT id, used FROM page WHERE model = ? AND used < ? AND id <> ? ORDER BY id DESC LIMIT 1"
    row = db.execute(query, (model, PAGE, avoid)).fetchone()
    if row:
        return int(row[0]), int(row[1])
    values = (model, bytes(PAGE // 8))
    page = db.execute("INSERT INTO page (model, used, dead, longest, tombs) VALUES (?, 0, 0, 0, ?)", values).lastrowid
    sizes = (page, PAGE * 8, PAGE * 4, PAGE * dimensions)
    db.execute("INSERT INTO block VALUES (?, zeroblob(?), zeroblob(?), zeroblob(?))", sizes)
    return int(page or 0), 0


def _write(db: sqlite3.Connection, page: int, used: int, part: Vectors) -> None:
    """Into the slots from `used` on. Only the parts of the file that hold them are written."""
    columns = {"contents": part.contents.astype("<i8"), "scales": part.scales.astype("<f4"), "data": part.data}
    for column, values in columns.items():
        with db.blobopen("block", column, page) as blob:
            blob.seek(used * values[:1].nbytes)
            blob.write(values.tobytes())


def _read(db: sqlite3.Connection, column: str, page: int, length: int) -> bytes:
    with db.blobopen("block", column, page, readonly=True) as blob:
        found = blob.read(length)
    if len(found) != length:
        raise sqlite3.DatabaseError(f"page {page} has lost a part")
    return found


def _mark(db: sqlite3.Connection, slots: Iterable[Slot], dead: bool) -> None:
    for page, places in _by_page(slots):
        tombs = unpack_tombs(db.execute("SELECT tombs FROM page WHERE id = ?", (page,)).fetchone()[0])
        tombs[places] = dead
        packed = np.packbits(tombs, bitorder="little").tobytes()
        db.execute("UPDATE page SET tombs = ?, dead = ? WHERE id = ?", (packed, int(tombs.sum()), page))


def _by_page(slots: Iterable[Slot]) -> Iterator[tuple[int, list[int]]]:
    found: defaultdict[int, list[int]] = defaultdict(list)
    for page, slot in slots:
        found[page].append(slot)
    yield from found.items()
