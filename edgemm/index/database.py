"""The index's SQLite file: its tables, and how it is opened.

It knows tables and versions, but not how they are filled.

    root -> file -> chunk -> content <- vector -> page, block
                     words (FTS5)          model

A `content` is an embedded text, or a picture, once, however many chunks have it: it is what vectors belong to. One
that no chunk has any more is buried, with its vectors marked dead, until the index is compacted; until then a file
that comes back, or was only moved, embeds nothing.
"""

import json
import sqlite3
from contextlib import AbstractContextManager
from pathlib import Path

from edgemm import sqlite
from edgemm.index.records import unpack_name
from edgemm.words import STEMMER, clean, spaced, unjoined

PAGE = 4096  # vectors of a page
REPAIR = "run `edgemm index verify --rebuild`"
_APPLICATION = 0x65646D69  # "edmi": tells our file from any other SQLite file

# AUTOINCREMENT: no id is given twice, so that what a reader keeps in memory never meets the wrong row.
# `file.contents` repeats chunk.content of its chunks, which have the ids from `first` on, as int64: a filter reads it
# for a million chunks in a few milliseconds. `vector.page` is NULL while the vector is missing.
# A page grows by incremental writes into its `block`, which is made in full size; `tombs` has a bit a slot.
_TABLES = f"""
PRAGMA application_id = {_APPLICATION}

CREATE TABLE root (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    path NOT NULL UNIQUE,
    added REAL NOT NULL
)

CREATE TABLE file (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    root INTEGER NOT NULL REFERENCES root (id),
    name NOT NULL,
    size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    hash TEXT NOT NULL,
    kind TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('read', 'refused')),
    why TEXT NOT NULL,
    title TEXT NOT NULL,
    taken TEXT NOT NULL,
    parser INTEGER NOT NULL,
    first INTEGER NOT NULL,
    chunks INTEGER NOT NULL,
    contents BLOB NOT NULL,
    UNIQUE (root, name)
)

CREATE TABLE content (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    hash BLOB NOT NULL UNIQUE,
    medium TEXT NOT NULL CHECK (medium IN ('text', 'picture')),
    buried INTEGER NOT NULL DEFAULT 0
)

CREATE TABLE chunk (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    file INTEGER NOT NULL,
    content INTEGER NOT NULL REFERENCES content (id),
    ord INTEGER NOT NULL,
    start INTEGER NOT NULL,
    "end" INTEGER NOT NULL,
    place TEXT NOT NULL,
    heading TEXT NOT NULL,
    prefix TEXT NOT NULL,
    text TEXT NOT NULL
)

CREATE INDEX chunk_content ON chunk (content)

CREATE VIRTUAL TABLE words USING fts5 (headline, text, content = '', tokenize = '{STEMMER}')

CREATE TABLE model (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    dimensions INTEGER NOT NULL CHECK (dimensions > 0),
    medium TEXT NOT NULL CHECK (medium IN ('text', 'picture')),
    state TEXT NOT NULL CHECK (state IN ('building', 'ready')),
    UNIQUE (name, fingerprint, dimensions, medium)
)

CREATE TABLE vector (
    model INTEGER NOT NULL REFERENCES model (id),
    content INTEGER NOT NULL,
    page INTEGER,
    slot INTEGER,
    PRIMARY KEY (model, content)
) WITHOUT ROWID

CREATE INDEX pending ON vector (model, content) WHERE page IS NULL

CREATE TABLE page (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    model INTEGER NOT NULL REFERENCES model (id),
    used INTEGER NOT NULL,
    dead INTEGER NOT NULL,
    longest REAL NOT NULL,
    tombs BLOB NOT NULL
)

CREATE INDEX page_model ON page (model)

CREATE TABLE block (
    page INTEGER PRIMARY KEY REFERENCES page (id),
    contents BLOB NOT NULL,
    scales BLOB NOT NULL,
    data BLOB NOT NULL
)
"""

MIGRATIONS = (_TABLES,)


def connect(path: Path) -> sqlite3.Connection:
    """Open and migrate the file. Raises `BadFile`, `DiskFull` or `ResourceError`."""
    return sqlite.connect(path, _schema())


def faults(path: Path) -> AbstractContextManager[None]:
    """Turn SQLite's errors into `DiskFull`, `BadFile`, `ResourceError` or `UsageError`."""
    return sqlite.faults(path, _schema())


def headline(name: str | bytes, title: str, heading: str) -> str:
    """What of a chunk is found besides its text: the file's name and title, and the headings above it."""
    return indexed(clean(" ".join([unpack_name(name), title, *json.loads(heading)])))


def indexed(text: str) -> str:
    """`text` as the index of words holds it, which can only forget a text that it is shown again as it was."""
    return spaced(unjoined(text))


def _schema() -> sqlite.Schema:
    return sqlite.Schema(
        noun="index",
        member="folder or model",
        repair=REPAIR,
        application=_APPLICATION,
        migrations=MIGRATIONS,
        functions=(("indexed", 1, indexed), ("headline", 3, headline)),
        pragmas=("journal_size_limit = 67108864",),
    )
