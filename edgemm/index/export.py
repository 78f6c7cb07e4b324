"""Every chunk of an index with its vector, a few at a time: what an export to another engine reads.

It only reads, and knows no format. Every function runs within the caller's transaction.
"""

import hashlib
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from edgemm.index import lookup, models
from edgemm.index.pages import Int8
from edgemm.index.records import Chunk, Medium, Model

_KEY_BYTES = 16
_ROWS = """SELECT chunk.id, content.id, content.hash, vector.model, vector.page, vector.slot
    FROM chunk JOIN content ON content.id = chunk.content JOIN file ON file.id = chunk.file
    LEFT JOIN vector ON vector.content = chunk.content AND page IS NOT NULL
        AND vector.model = CASE content.medium WHEN 'text' THEN ? ELSE ? END
    WHERE chunk.id > ? AND chunk.id <= ? ORDER BY chunk.id LIMIT ?"""


@dataclass(frozen=True, slots=True)
class Quantized:
    """One vector: `data` int8 (dimensions,) times `scale`."""

    data: Int8
    scale: float


@dataclass(frozen=True, slots=True)
class Record:
    """A chunk, its vector if it has one, and what names it on every machine, as the function `key` makes it."""

    key: str
    chunk: Chunk
    vector: Quantized | None


def last(db: sqlite3.Connection) -> int:
    """The newest chunk's id; 0: there is none."""
    return int(db.execute("SELECT coalesce(max(id), 0) FROM chunk").fetchone()[0])


def read(db: sqlite3.Connection, using: Iterable[Model], after: int, until: int, limit: int) -> list[Record]:
    """The next `limit` chunks with ids above `after` and up to `until`, and their vectors of the models `using`.

    Raises `UsageError` for a model that is gone.
    """
    chosen = {model.medium: models.find(db, model.id) for model in using}
    ids = (chosen[medium].id if medium in chosen else None for medium in (Medium.TEXT, Medium.PICTURE))
    rows = db.execute(_ROWS, (*ids, after, until, limit)).fetchall()
    dimensions = {model.id: model.dimensions for model in chosen.values()}
    places = [(model, page, slot, content) for _, content, _, model, page, slot in rows if page is not None]
    vectors = _vectors(db, places, dimensions)
    found = lookup.chunks(db, (row[0] for row in rows))
    return [
        Record(key(chunk, hash), chunk, vectors.get(content))
        for chunk, (_, content, hash, *_) in zip(found, rows, strict=True)
    ]


def key(chunk: Chunk, content: bytes) -> str:
    """32 hexadecimal digits: BLAKE2b of the file's name below its root, the order, start and end of the chunk in it,
    and the hash of its content, which is that of the embedded text or of the picture's bytes.

    The row's id, the root and the file's time have no part in it. So the same folder gives the same keys elsewhere,
    and two roots that hold the same file under the same name give the same keys, too.
    """
    place = f"{chunk.name}\0{chunk.order}\0{chunk.start}\0{chunk.end}\0"
    return hashlib.blake2b(place.encode("utf-8", "surrogatepass") + content, digest_size=_KEY_BYTES).hexdigest()


def _vectors(
    db: sqlite3.Connection, places: Iterable[tuple[int, int, int, int]], dimensions: Mapping[int, int]
) -> dict[int, Quantized]:
    """Of (model, page, slot, content), by content. Nothing but the slots themselves is read."""
    wanted: defaultdict[tuple[int, int], dict[int, int]] = defaultdict(dict)
    for model, page, slot, content in places:
        wanted[model, page][slot] = content
    found: dict[int, Quantized] = {}
    for (model, page), contents in wanted.items():
        found |= _of_page(db, page, contents, dimensions[model])
    return found


def _of_page(db: sqlite3.Connection, page: int, contents: Mapping[int, int], dimensions: int) -> dict[int, Quantized]:
    with (
        db.blobopen("block", "contents", page, readonly=True) as owners,
        db.blobopen("block", "scales", page, readonly=True) as scales,
        db.blobopen("block", "data", page, readonly=True) as data,
    ):
        found: dict[int, Quantized] = {}
        for slot, content in sorted(contents.items()):
            owner = np.frombuffer(_slot(owners, slot, 8), "<i8")
            scale = np.frombuffer(_slot(scales, slot, 4), "<f4")
            vector = np.frombuffer(_slot(data, slot, dimensions), np.int8)
            if len(vector) != dimensions or owner.tolist() != [content]:
                raise sqlite3.DatabaseError(f"page {page} has lost a part")
            found[content] = Quantized(vector, float(scale[0]))
    return found


def _slot(blob: sqlite3.Blob, slot: int, width: int) -> bytes:
    blob.seek(slot * width)
    return blob.read(width)
