"""What vectors belong to: embedded texts and pictures, each kept once; found, claimed by chunks, and let go.

It knows neither files nor the numbers in a vector. Every function runs within the caller's transaction.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path

from edgemm.index import pages
from edgemm.index.records import Medium, Pending, embedded_text, unpack_name

_PENDING = """SELECT wanted.id, content.hash, content.medium, chunk.prefix, chunk.text, root.path, file.name
    FROM (SELECT content AS id FROM vector WHERE model = ? AND page IS NULL AND content > ?
        ORDER BY content LIMIT ?) AS wanted
    JOIN content ON content.id = wanted.id
    JOIN chunk ON chunk.id = (SELECT min(id) FROM chunk WHERE chunk.content = wanted.id)
    JOIN file ON file.id = chunk.file
    JOIN root ON root.id = file.root
    ORDER BY wanted.id"""
_PENDING_SIZE = """SELECT count(*), coalesce(sum(length(chunk.prefix) + length(chunk.text)), 0)
    FROM vector JOIN chunk ON chunk.id = (SELECT min(id) FROM chunk WHERE chunk.content = vector.content)
    WHERE model = ? AND page IS NULL"""
_WANT = """INSERT OR IGNORE INTO vector (model, content)
    SELECT model.id, content.id FROM content JOIN model ON model.medium = content.medium WHERE content.id = ?"""
_DROP_PENDING = """DELETE FROM vector WHERE content = ? AND page IS NULL AND model = ?"""
_SLOTS = """SELECT page, slot FROM model JOIN vector ON vector.model = model.id
    WHERE vector.content = ? AND page IS NOT NULL"""


def claim(db: sqlite3.Connection, keys: Iterable[tuple[bytes, Medium]]) -> list[int]:
    """The id of each content, which is made, or dug out again, where it is not there."""
    ids: dict[bytes, int] = {}
    found, wanted, buried = [], [], []
    for hash, medium in keys:
        if hash not in ids:
            row = db.execute("SELECT id, buried FROM content WHERE hash = ?", (hash,)).fetchone()
            ids[hash] = row[0] if row else _add(db, hash, medium)
            if not row or row[1]:
                wanted.append(ids[hash])
            if row and row[1]:
                buried.append(ids[hash])
        found.append(ids[hash])
    _dig_out(db, buried)
    db.executemany(_WANT, [(id,) for id in wanted])
    return found


def release(db: sqlite3.Connection, ids: Iterable[int]) -> None:
    """Bury those that no chunk has any more."""
    held = "SELECT 1 FROM chunk WHERE content = ? LIMIT 1"
    alone = [id for id in sorted(set(ids)) if not db.execute(held, (id,)).fetchone()]
    models = [row[0] for row in db.execute("SELECT id FROM model")]
    db.executemany("UPDATE content SET buried = 1 WHERE id = ?", [(id,) for id in alone])
    db.executemany(_DROP_PENDING, [(id, model) for id in alone for model in models])
    pages.bury(db, _slots(db, alone))


def pending(db: sqlite3.Connection, model: int, limit: int, after: int) -> list[Pending]:
    """Contents without a vector of `model`, in the order in which they came, beyond the content `after`."""
    return [
        Pending(id, hash, embedded_text(prefix, text) if medium == Medium.TEXT else "", _path(root, name))
        for id, hash, medium, prefix, text, root, name in db.execute(_PENDING, (model, after, limit))
    ]


def pending_size(db: sqlite3.Connection, model: int) -> tuple[int, int]:
    """How many contents have no vector of `model`, and how many characters they are."""
    count, size = db.execute(_PENDING_SIZE, (model,)).fetchone()
    return int(count), int(size)


def missing(db: sqlite3.Connection, model: int, hashes: Sequence[bytes]) -> dict[int, int]:
    """Position in `hashes` -> content, for those that are still without a vector of `model`."""
    query = """SELECT id FROM content JOIN vector ON vector.content = content.id AND vector.model = ?
        WHERE hash = ? AND page IS NULL"""
    found: dict[int, int] = {}  # content -> position: a hash that is given twice is one vector
    for position, hash in enumerate(hashes):
        row = db.execute(query, (model, hash)).fetchone()
        if row:
            found.setdefault(row[0], position)
    return {position: content for content, position in found.items()}


def forget_buried(db: sqlite3.Connection) -> None:
    """Delete the buried ones that have no vector left."""
    db.execute(
        """DELETE FROM content WHERE buried = 1 AND NOT EXISTS (
            SELECT 1 FROM model JOIN vector ON vector.model = model.id AND vector.content = content.id
        )"""
    )


def _add(db: sqlite3.Connection, hash: bytes, medium: Medium) -> int:
    return int(db.execute("INSERT INTO content (hash, medium) VALUES (?, ?)", (hash, medium)).lastrowid or 0)


def _dig_out(db: sqlite3.Connection, ids: Sequence[int]) -> None:
    db.executemany("UPDATE content SET buried = 0 WHERE id = ?", [(id,) for id in ids])
    pages.dig_out(db, _slots(db, ids))


def _slots(db: sqlite3.Connection, ids: Sequence[int]) -> list[tuple[int, int]]:
    return [place for id in ids for place in db.execute(_SLOTS, (id,))]


def _path(root: str | bytes, name: str | bytes) -> Path:
    return Path(unpack_name(root)) / unpack_name(name)
