"""The chats' SQLite file: its tables, and how it is opened.

It knows tables and versions, but not what a chat is used for. `spaced` is what the search index was built with.
"""

import sqlite3
from contextlib import AbstractContextManager
from pathlib import Path

from edgemm import sqlite
from edgemm.words import spaced

_BUSY_SECONDS = sqlite.BUSY_SECONDS
_APPLICATION = 0x65646D6D  # "edmm": tells our file from any other SQLite file

# AUTOINCREMENT: an id is never given twice, so nothing kept elsewhere by id can meet the wrong chat.
# The pairs (chat, id) make it impossible that a parent or a leaf lies in another chat.
_CHATS = f"""
PRAGMA application_id = {_APPLICATION}

CREATE TABLE chat (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    title TEXT NOT NULL,
    model TEXT NOT NULL,
    settings TEXT NOT NULL,
    leaf INTEGER,
    created REAL NOT NULL,
    updated REAL NOT NULL,
    FOREIGN KEY (id, leaf) REFERENCES message (chat, id)
)

CREATE TABLE message (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    chat INTEGER NOT NULL REFERENCES chat (id),
    parent INTEGER CHECK (parent < id),
    role TEXT NOT NULL CHECK (role IN ('user', 'assistant')),
    text TEXT NOT NULL,
    reasoning TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('streaming', 'done', 'stopped', 'failed')),
    tokens TEXT NOT NULL,
    details TEXT NOT NULL,
    created REAL NOT NULL,
    updated REAL NOT NULL,
    UNIQUE (chat, id),
    FOREIGN KEY (chat, parent) REFERENCES message (chat, id)
)

CREATE INDEX children ON message (chat, parent)

CREATE INDEX newest ON chat (updated)
"""

# No copy of the texts is kept: the index is filled and emptied by the statements in search.py.
_SEARCH = """
CREATE VIRTUAL TABLE words USING fts5 (
    text, reasoning, content = '', columnsize = 0, tokenize = 'unicode61 remove_diacritics 2'
)

INSERT INTO words (rowid, text, reasoning)
SELECT id, spaced(text), spaced(reasoning) FROM message WHERE state <> 'streaming'
"""

MIGRATIONS = (_CHATS, _SEARCH)  # the file's `user_version` counts how many it has seen

transaction = sqlite.transaction


def connect(path: Path | None) -> sqlite3.Connection:
    """Open and migrate the file, or a database in memory for None. Usable from any thread, by one at a time.

    Raises `BadFile` (damaged, of another program, of a newer version, not writable), `DiskFull` or `ResourceError`.
    """
    return sqlite.connect(path, _schema())


def faults(path: Path | None) -> AbstractContextManager[None]:
    """Turn SQLite's errors into `DiskFull`, `BadFile`, `ResourceError` or `UsageError`."""
    return sqlite.faults(path, _schema())


def _schema() -> sqlite.Schema:
    return sqlite.Schema(
        noun="chats",
        member="chat or message",
        repair="restore a copy, or move it away to begin anew",
        application=_APPLICATION,
        migrations=MIGRATIONS,
        functions=(("spaced", 1, spaced),),
        pragmas=("secure_delete = ON",),
        busy_seconds=_BUSY_SECONDS,
    )
