"""How an index stands: what is in it, whether it is whole, and what can be had of a damaged one.

It only reads, and moves a damaged file out of the way.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import numpy as np

from edgemm.errors import disk_errors
from edgemm.index import models, pages
from edgemm.index.files import roots
from edgemm.index.pages import Ids
from edgemm.index.records import Model, ModelStatus, Root, RootStatus, Status, unpack_name
from edgemm.sqlite import pragma

_SHOWN = 20  # complaints of SQLite's own
# What does not fit -> how to find it. Each query counts rows.
_RULES = {
    "chunks without a file": "SELECT count(*) FROM chunk WHERE file NOT IN (SELECT id FROM file)",
    "chunks without a content": "SELECT count(*) FROM chunk WHERE content NOT IN (SELECT id FROM content)",
    "files with chunks that are gone": """SELECT count(*) FROM file WHERE chunks <> (
        SELECT count(*) FROM chunk WHERE chunk.file = file.id AND chunk.id >= first AND chunk.id < first + chunks)
        OR length(contents) <> 8 * chunks""",
    "chunks outside of their file": """SELECT count(*) FROM chunk JOIN file ON file.id = chunk.file
        WHERE chunk.id < first OR chunk.id >= first + chunks""",
    "contents that nothing has": """SELECT count(*) FROM content
        WHERE buried = 0 AND id NOT IN (SELECT content FROM chunk)""",
    "buried contents that are in use": """SELECT count(*) FROM content
        WHERE buried = 1 AND id IN (SELECT content FROM chunk)""",
    "contents that no model will see": """SELECT count(*) FROM content JOIN model ON model.medium = content.medium
        WHERE buried = 0 AND NOT EXISTS (SELECT 1 FROM vector WHERE model = model.id AND content = content.id)""",
    "vectors outside of their page": """SELECT count(*) FROM vector LEFT JOIN page
        ON page.id = vector.page AND page.model = vector.model AND slot < used
        WHERE vector.page IS NOT NULL AND page.id IS NULL""",
    "pages with another number of vectors": """SELECT count(*) FROM page
        LEFT JOIN (SELECT page, count(*) AS number FROM vector GROUP BY page) AS held ON held.page = page.id
        WHERE used <> coalesce(number, 0)""",
    "pages without their block": "SELECT count(*) FROM page WHERE id NOT IN (SELECT page FROM block)",
}


def status(db: sqlite3.Connection) -> Status:
    """Within a snapshot."""
    all_models = models.models(db)
    waiting = {model.id: _waiting(db, model.id) for model in all_models}
    newest = {model.medium: model.id for model in all_models}
    pending = np.concatenate([np.empty(0, np.int64), *(waiting[id] for id in newest.values())])
    return Status(
        tuple(_root_status(db, root, pending) for root in roots(db)),
        tuple(ModelStatus(model, _vectors(db, model.id), len(waiting[model.id])) for model in all_models),
        pragma(db, "page_count") * pragma(db, "page_size"),
    )


def problems(db: sqlite3.Connection) -> list[str]:
    """What is wrong, in words; empty when all is well. Within a snapshot, and without the words: see `wrong_words`."""
    found = [row[0] for row in db.execute(f"PRAGMA integrity_check({_SHOWN})") if row[0] != "ok"]
    if found:
        return found  # what could be read of such a file says little
    for what, query in _RULES.items():
        if number := db.execute(query).fetchone()[0]:
            found.append(f"{number} {what}")
    for model in models.models(db):
        rows = db.execute("SELECT id, used, dead, tombs FROM page WHERE model = ? ORDER BY id", (model.id,)).fetchall()
        for row in rows:
            found += [f"page {row[0]} of model {model.name}: {what}" for what in _wrong_page(db, model, *row)]
    return found


def wrong_words(db: sqlite3.Connection) -> list[str]:
    """What is wrong with the index of words. SQLite takes the question for a change, so it needs a writer."""
    try:
        db.execute("INSERT INTO words (words) VALUES ('integrity-check')")
        return []
    except sqlite3.DatabaseError as error:
        return [f"the index of words is damaged ({error})"]


def _wrong_page(db: sqlite3.Connection, model: Model, page: int, used: int, dead: int, tombs: bytes) -> Iterator[str]:
    try:
        vectors, marks = pages.read(db, page, used, model.dimensions), pages.unpack_tombs(tombs)[:used]
    except sqlite3.Error as error:
        yield str(error)
        return
    if not (np.isfinite(vectors.scales) & (vectors.scales >= 0)).all():
        yield "a scale is no number"
    if marks.sum() != dead:
        yield f"{dead} dead vectors, {marks.sum()} are marked"
    query = """SELECT buried FROM vector JOIN content ON content.id = vector.content
        WHERE model = ? AND content = ? AND page = ? AND slot = ?"""
    for slot, content in enumerate(vectors.contents.tolist()):
        row = db.execute(query, (model.id, content, page, slot)).fetchone()
        if row is None or row[0] != marks[slot]:
            yield f"vector {slot} belongs to nothing, or is marked wrongly"


def move_away(path: Path) -> list[Path]:
    """Rename a damaged index to `<name>.damaged`, and say which folders were in it, as far as that can be read."""
    found: list[Path] = []
    with suppress(sqlite3.Error), closing(sqlite3.connect(path)) as db:
        found = [Path(unpack_name(row[0])) for row in db.execute("SELECT path FROM root ORDER BY id")]
    with disk_errors(path):
        path.replace(path.with_name(f"{path.name}.damaged"))
        for ending in ("-wal", "-shm"):  # they belong to the damaged file
            path.with_name(path.name + ending).unlink(missing_ok=True)
    return found


def _root_status(db: sqlite3.Connection, root: Root, waiting: Ids) -> RootStatus:
    query = "SELECT count(*), coalesce(sum(chunks), 0), coalesce(sum(size), 0) FROM file WHERE root = ?"
    files, chunks, size = db.execute(query, (root.id,)).fetchone()
    raw = db.execute("SELECT contents FROM file WHERE root = ? AND chunks > 0", (root.id,))
    contents = np.frombuffer(b"".join(row[0] for row in raw), "<i8")
    refused = db.execute("SELECT name, why FROM file WHERE root = ? AND state = 'refused' ORDER BY name", (root.id,))
    why = tuple((unpack_name(name), reason) for name, reason in refused)
    return RootStatus(root, files, chunks, size, int(np.isin(contents, waiting).sum()), why)


def _waiting(db: sqlite3.Connection, model: int) -> Ids:
    rows = db.execute("SELECT content FROM vector WHERE model = ? AND page IS NULL", (model,))
    return np.fromiter((row[0] for row in rows), np.int64)


def _vectors(db: sqlite3.Connection, model: int) -> int:
    """Those that a search can find."""
    query = "SELECT coalesce(sum(used - dead), 0) FROM page WHERE model = ?"
    return int(db.execute(query, (model,)).fetchone()[0])
