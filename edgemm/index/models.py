"""The models that vectors come from: one serves while the next is built, and the change is one transaction.

It knows no vector. Every function runs within the caller's transaction.
"""

import sqlite3
from typing import Any

from edgemm.errors import UsageError
from edgemm.index import pages
from edgemm.index.records import Medium, Model, ModelState

_MODEL = "SELECT id, name, fingerprint, dimensions, medium, state FROM model"


def models(db: sqlite3.Connection) -> list[Model]:
    """The oldest first."""
    return [_model(row) for row in db.execute(f"{_MODEL} ORDER BY id").fetchall()]


def find(db: sqlite3.Connection, model: int) -> Model:
    row = db.execute(f"{_MODEL} WHERE id = ?", (model,)).fetchone()
    if row is None:
        raise UsageError(f"model {model}", "has no vectors in the index, or was replaced", "ask for the model again")
    return _model(row)


def add(db: sqlite3.Connection, name: str, fingerprint: str, dimensions: int, medium: Medium) -> Model:
    """The model, which may be there already. Everything of its medium is pending for a new one."""
    values = (name, fingerprint, dimensions, medium)
    where = "WHERE name = ? AND fingerprint = ? AND dimensions = ? AND medium = ?"
    if row := db.execute(f"{_MODEL} {where}", values).fetchone():
        return _model(row)
    query = "INSERT INTO model (name, fingerprint, dimensions, medium, state) VALUES (?, ?, ?, ?, 'building')"
    model = int(db.execute(query, values).lastrowid or 0)
    wanted = "SELECT ?, id FROM content WHERE medium = ? AND buried = 0"
    db.execute(f"INSERT INTO vector (model, content) {wanted}", (model, medium))
    return find(db, model)


def make_ready(db: sqlite3.Connection, model: int) -> None:
    """Let searches use it, and drop every other one of its medium, with its vectors."""
    chosen = find(db, model)
    db.execute("UPDATE model SET state = 'ready' WHERE id = ?", (model,))
    for other in models(db):
        if other.medium == chosen.medium and other.id != model:
            drop(db, other.id)


def drop(db: sqlite3.Connection, model: int) -> None:
    pages.drop(db, model)
    db.execute("DELETE FROM model WHERE id = ?", (model,))


def _model(row: tuple[Any, ...]) -> Model:
    id, name, fingerprint, dimensions, medium, state = row
    return Model(id, name, fingerprint, dimensions, Medium(medium), ModelState(state))
