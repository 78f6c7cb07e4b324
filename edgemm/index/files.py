"""Folders, files and their chunks: put in, taken out, and what is known of them. Runs in the caller's transaction.

It hands contents on to contents.py and knows no vector.
"""

import sqlite3
import time
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from edgemm.errors import UsageError
from edgemm.index import contents
from edgemm.index.records import (
    FileFacts,
    Known,
    Medium,
    Passage,
    Root,
    pack_json,
    pack_name,
    pack_place,
    picture_hash,
    text_hash,
    unpack_name,
)
from edgemm.words import clean

_LARGEST = (1 << 63) - 1
_AT_ONCE = 500  # passages in memory
_PUT = """INSERT INTO file
    (root, name, size, mtime_ns, hash, kind, state, why, title, taken, parser, first, chunks, contents)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, 0, x'')
    ON CONFLICT (root, name) DO UPDATE SET size = excluded.size, mtime_ns = excluded.mtime_ns, hash = excluded.hash,
    kind = excluded.kind, state = excluded.state, why = excluded.why, title = excluded.title, taken = excluded.taken,
    parser = excluded.parser, first = 0, chunks = 0, contents = x''"""
_CHUNK = """INSERT INTO chunk (id, file, content, ord, start, "end", place, heading, prefix, text)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""
_FILL = """INSERT INTO words (rowid, headline, text)
    SELECT chunk.id, headline(name, title, heading), indexed(text) FROM chunk JOIN file ON file.id = chunk.file
    WHERE chunk.id >= ? AND chunk.id < ?"""
_EMPTY = """INSERT INTO words (words, rowid, headline, text)
    SELECT 'delete', chunk.id, headline(name, title, heading), indexed(text)
    FROM chunk JOIN file ON file.id = chunk.file WHERE chunk.id >= ? AND chunk.id < ?"""


class Encoded(NamedTuple):
    key: bytes
    medium: Medium
    columns: tuple[int | str, ...]  # of the chunk, from `start` on


def roots(db: sqlite3.Connection) -> list[Root]:
    rows = db.execute("SELECT id, path, added FROM root ORDER BY id").fetchall()
    return [Root(id, Path(unpack_name(path)), added) for id, path, added in rows]


def add_root(db: sqlite3.Connection, path: Path) -> Root:
    """The root at `path`, which may be there already."""
    db.execute("INSERT OR IGNORE INTO root (path, added) VALUES (?, ?)", (pack_name(str(path)), time.time()))
    return next(root for root in roots(db) if root.path == path)


def check_root(db: sqlite3.Connection, root: int) -> None:
    if not db.execute("SELECT 1 FROM root WHERE id = ?", (root,)).fetchone():
        raise UsageError(f"folder {root}", "is not in the index, or was removed elsewhere", "add it first")


def known(db: sqlite3.Connection, root: int) -> dict[str, Known]:
    check_root(db, root)
    rows = db.execute("SELECT name, size, mtime_ns, hash, parser FROM file WHERE root = ?", (root,))
    return {unpack_name(name): Known(*facts) for name, *facts in rows}


def encode(facts: FileFacts, passage: Passage) -> Encoded:
    """A passage of the file as it is stored."""
    picture = passage.medium == Medium.PICTURE
    key = picture_hash(facts.hash) if picture else text_hash(clean(passage.embedded_text()))
    place, heading = pack_place(passage.place), pack_json(passage.heading)
    columns = (passage.start, passage.end, place, heading, clean(passage.prefix), clean(passage.text))
    return Encoded(key, passage.medium, columns)


def put(db: sqlite3.Connection, root: int, facts: FileFacts, passages: Iterable[Encoded]) -> int:
    """Replace what is stored of a file, and say how many chunks it has. Raises `UsageError` for an unknown root.

    Passages are taken a few at a time, for those of a large file need as much memory as its text.
    """
    check_root(db, root)
    before = _take_out(db, root, facts.name)
    file, first = _put_facts(db, root, facts), _next_chunk(db)
    claimed: list[int] = []
    left = iter(passages)
    while some := list(islice(left, _AT_ONCE)):
        ids = contents.claim(db, ((passage.key, passage.medium) for passage in some))
        start = first + len(claimed)
        numbers = range(len(claimed), len(claimed) + len(some))
        rows = ((first + n, file, id, n, *each.columns) for n, id, each in zip(numbers, ids, some, strict=True))
        db.executemany(_CHUNK, rows)
        db.execute(_FILL, (start, start + len(some)))
        claimed += ids
    held = (first, len(claimed), np.asarray(claimed, "<i8").tobytes(), file)
    db.execute("UPDATE file SET first = ?, chunks = ?, contents = ? WHERE id = ?", held)
    contents.release(db, set(before) - set(claimed))
    return len(claimed)


def _put_facts(db: sqlite3.Connection, root: int, facts: FileFacts) -> int:
    """The id of the file's row, which has no chunks yet."""
    row = (
        *(root, pack_name(facts.name), facts.size, _bounded(facts.mtime_ns), facts.hash, clean(facts.kind)),
        *(facts.state, clean(facts.why), clean(facts.title), clean(facts.taken), facts.parser),
    )
    db.execute(_PUT, row)
    return int(db.execute("SELECT id FROM file WHERE root = ? AND name = ?", row[:2]).fetchone()[0])


def touch(db: sqlite3.Connection, root: int, name: str, size: int, mtime_ns: int) -> None:
    """Raises `UsageError` for a file that is not stored."""
    values = (size, _bounded(mtime_ns), root, pack_name(name))
    if not db.execute("UPDATE file SET size = ?, mtime_ns = ? WHERE root = ? AND name = ?", values).rowcount:
        raise UsageError(name, f"is not in the index of folder {root}", "put it there first")


def forget(db: sqlite3.Connection, root: int, names: Iterable[str]) -> None:
    """Names that are not stored are passed over."""
    for name in names:
        before = _take_out(db, root, name)
        db.execute("DELETE FROM file WHERE root = ? AND name = ?", (root, pack_name(name)))
        contents.release(db, before)


def remove_root(db: sqlite3.Connection, root: int) -> None:
    """With the files that are left."""
    names = [unpack_name(row[0]) for row in db.execute("SELECT name FROM file WHERE root = ?", (root,))]
    forget(db, root, names)
    db.execute("DELETE FROM root WHERE id = ?", (root,))


def _take_out(db: sqlite3.Connection, root: int, name: str) -> list[int]:
    """Delete the chunks of a file, and say which contents they had. Its row is needed for that, and stays."""
    query = "SELECT first, chunks, contents FROM file WHERE root = ? AND name = ?"
    row = db.execute(query, (root, pack_name(name))).fetchone()
    if not row:
        return []
    span = (row[0], row[0] + row[1])
    db.execute(_EMPTY, span)  # the index can only forget a text that it is shown
    db.execute("DELETE FROM chunk WHERE id >= ? AND id < ?", span)
    return [int(content) for content in np.frombuffer(row[2], "<i8")]


def _bounded(mtime_ns: int) -> int:
    """Some file systems know times that SQLite's numbers do not reach."""
    return max(-_LARGEST, min(mtime_ns, _LARGEST))


def _next_chunk(db: sqlite3.Connection) -> int:
    row = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'chunk'").fetchone()
    return int(row[0]) + 1 if row else 1
