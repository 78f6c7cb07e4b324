"""What a search hands out: chunks by their ids, the chunks of a content, and masks that say which chunks may be found.

It only reads, and knows neither words nor vectors.
"""

import json
import math
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np

from edgemm.index.pages import Ids, Mask
from edgemm.index.records import Chunk, Medium, Scope, unpack_name

_CHUNK = """SELECT chunk.id, root.path, file.name, kind, file.title, taken,
    ord, text, heading, place, start, "end", medium, file.hash, mtime_ns
    FROM chunk JOIN content ON content.id = chunk.content JOIN file ON file.id = chunk.file
    JOIN root ON root.id = file.root WHERE chunk.id = ?"""


def chunks(db: sqlite3.Connection, ids: Iterable[int]) -> list[Chunk]:
    """In the order of `ids`, without those that are gone."""
    rows = (db.execute(_CHUNK, (int(id),)).fetchone() for id in ids)
    return [_chunk(row) for row in rows if row]


def of_content(db: sqlite3.Connection, content: int, allowed: Mask | None) -> list[int]:
    """The chunks that have it, the oldest first."""
    found = [row[0] for row in db.execute("SELECT id FROM chunk WHERE content = ? ORDER BY id", (content,))]
    return [id for id in found if allows(allowed, id)]


def allows(allowed: Mask | None, chunk: int) -> bool:
    """A mask that is too short does not allow what is beyond it."""
    return allowed is None or (chunk < len(allowed) and bool(allowed[chunk]))


def mask(db: sqlite3.Connection, scope: Scope) -> Mask:
    """bool (largest id + 1,), indexed by chunk."""
    roots = {id: Path(unpack_name(path)) for id, path in db.execute("SELECT id, path FROM root")}
    inside = {id: prefixes for id, path in roots.items() if (prefixes := _prefixes(path, scope.folders)) is not None}
    query = "SELECT first, chunks, root, name, kind, mtime_ns, taken FROM file WHERE chunks > 0"
    rows = db.execute(query).fetchall()
    found = np.zeros(max((row[0] + row[1] for row in rows), default=0), bool)
    for first, count, root, name, kind, mtime_ns, taken in rows:
        held = root in inside and _below(unpack_name(name), inside[root])
        if held and _holds(scope, root, unpack_name(name), kind) and _is_of_time(scope, mtime_ns, taken):
            found[first : first + count] = True
    return found


def contents_of(db: sqlite3.Connection) -> tuple[Ids, Ids]:
    """The ids of all chunks, and the content of each."""
    rows = db.execute("SELECT first, chunks, contents FROM file WHERE chunks > 0").fetchall()
    ids = [np.arange(first, first + count) for first, count, _ in rows]
    contents = np.frombuffer(b"".join(raw for *_, raw in rows), "<i8")
    found = np.concatenate(ids) if ids else np.empty(0, np.int64)
    if len(found) != len(contents):
        raise sqlite3.DatabaseError("a file has lost some of its chunks")
    return found, contents


def count(db: sqlite3.Connection) -> int:
    """How many chunks there are."""
    return int(db.execute("SELECT coalesce(sum(chunks), 0) FROM file").fetchone()[0])


def _holds(scope: Scope, root: int, name: str, kind: str) -> bool:
    return (
        (not scope.roots or root in scope.roots)
        and (not scope.kinds or kind in scope.kinds)
        and (not scope.names or any(fnmatchcase(name, pattern) for pattern in scope.names))
    )


def _prefixes(root: Path, folders: Sequence[Path]) -> tuple[str, ...] | None:
    """Names below `root` that one of `folders` allows: () for all of them, None for none."""
    if not folders or any(root.is_relative_to(folder) for folder in folders):
        return ()
    return tuple(folder.relative_to(root).as_posix() for folder in folders if folder.is_relative_to(root)) or None


def _below(name: str, prefixes: tuple[str, ...]) -> bool:
    return not prefixes or any(name == prefix or name.startswith(f"{prefix}/") for prefix in prefixes)


def _is_of_time(scope: Scope, mtime_ns: int, taken: str) -> bool:
    if scope.since == -math.inf and scope.until == math.inf:
        return True
    when = mtime_ns / 1e9
    with suppress(ValueError, OverflowError, OSError):
        when = datetime.fromisoformat(taken).timestamp()
    return scope.since <= when < scope.until


def _chunk(row: Sequence[Any]) -> Chunk:
    id, root, name, kind, title, taken, order, text, heading, place, start, end, medium, hash, mtime_ns = row
    path, where = Path(unpack_name(root)), json.loads(place)
    above = tuple(json.loads(heading))
    file = (path, unpack_name(name), kind, title, taken)
    return Chunk(id, *file, order, text, above, where, start, end, Medium(str(medium)), hash, mtime_ns)
