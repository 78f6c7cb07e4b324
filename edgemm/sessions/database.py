"""The chats' SQLite file: how it is opened, migrated, and how its failures read.

It knows tables and versions, but not what a chat is used for. One rule holds for every later version: scripts are
only ever added to MIGRATIONS, never changed, and `spaced` is what the search index was built with.
"""

import os
import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from edgemm.errors import BadFile, DiskFull, ResourceError, UsageError, disk_errors

_BUSY_SECONDS = 10.0
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

# Thai and Lao, Burmese, Khmer, Chinese and Japanese, Korean: a word may begin anywhere in a run of letters.
UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"
_LETTER = re.compile(f"[{UNSPACED}]")

_FULL = {
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR_WRITE,  # what a limit on file sizes gives
    sqlite3.SQLITE_IOERR_FSYNC,
    sqlite3.SQLITE_IOERR_TRUNCATE,
    sqlite3.SQLITE_IOERR_SHMOPEN,
    sqlite3.SQLITE_IOERR_SHMSIZE,
}
_RESTORE = "restore a copy, or move it away to begin anew"
_UNWRITABLE = {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM}


def spaced(text: str) -> str:
    """`text` with each letter of an unspaced script as a word, so that any run of them can be found as a phrase."""
    return text if text.isascii() else _LETTER.sub(r" \g<0> ", text)


def connect(path: Path | None) -> sqlite3.Connection:
    """Open and migrate the file, or a database in memory for None. Usable from any thread, by one at a time.

    Raises `BadFile` (damaged, of another program, of a newer version, not writable), `DiskFull` or `ResourceError`.
    """
    with faults(path):
        if path:
            _make(path)
        db = _open(path)
        try:
            _check_owner(db, path)
            _configure(db)
            _migrate(db, path)
        except BaseException:
            db.close()
            raise
        return db


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """All or nothing; when it ends, the changes are committed."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield db
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:  # a full disk has rolled back already
            db.execute("ROLLBACK")
        raise


@contextmanager
def faults(path: Path | None) -> Iterator[None]:
    """Turn SQLite's errors into `DiskFull`, `BadFile`, `ResourceError` or `UsageError`."""
    try:
        yield
    except sqlite3.ProgrammingError as error:
        raise UsageError("chats", str(error), "open them again") from error
    except sqlite3.IntegrityError as error:
        raise UsageError("chats", f"no such chat or message ({error})", "open the chat again") from error
    except UnicodeError as error:  # of the damaged name that SQLite's own message quotes
        raise BadFile(path or "chats in memory", "is damaged", _RESTORE) from error
    except sqlite3.Error as error:
        where, code = path or "chats in memory", getattr(error, "sqlite_errorcode", 0)
        if code in _FULL:
            raise DiskFull(where, f"the disk is full ({error})", "free some space; nothing was changed") from error
        if code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise ResourceError(where, "another program holds it", "close that program and try again") from error
        if code & 0xFF in _UNWRITABLE:
            raise BadFile(where, f"cannot be written ({error})", "check the path and its permissions") from error
        raise BadFile(where, f"is damaged ({error})", _RESTORE) from error


def _make(path: Path) -> None:
    """An empty file that only the user may read; SQLite gives its companions the same rights.

    An existing file is not touched: closing it here would drop the locks of this process's other connections.
    """
    with disk_errors(path):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))


def _open(path: Path | None) -> sqlite3.Connection:
    return sqlite3.connect(path or ":memory:", timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)


def _configure(db: sqlite3.Connection) -> None:
    db.text_factory = lambda raw: raw.decode("utf-8", "replace")  # one damaged byte must not hide a chat
    db.create_function("spaced", 1, spaced, deterministic=True)
    _write_ahead(db)
    for pragma in ("synchronous = NORMAL", "foreign_keys = ON", "trusted_schema = OFF", "secure_delete = ON"):
        db.execute(f"PRAGMA {pragma}")
    with transaction(db):  # a file that cannot be written is found out now
        pass


def _write_ahead(db: sqlite3.Connection) -> None:
    """SQLite does not wait for a lock when the journal changes, so two programs that start at once need this."""
    deadline = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            db.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def _check_owner(db: sqlite3.Connection, path: Path | None) -> None:
    version, owner = _pragma(db, "user_version"), _pragma(db, "application_id")
    if owner != _APPLICATION and _pragma(db, "schema_version"):
        raise BadFile(path, "is a database of another program", "choose another path")
    if version > len(MIGRATIONS):
        why = f"has version {version}, this edgemm reads up to {len(MIGRATIONS)}"
        raise BadFile(path, why, "update edgemm, or move the file away")


def _migrate(db: sqlite3.Connection, path: Path | None) -> None:
    """Each missing script in a transaction of its own, so that a kill leaves the file at one version or the next."""
    began = _pragma(db, "user_version")
    while (version := _pragma(db, "user_version")) < len(MIGRATIONS):
        with transaction(db):
            if _pragma(db, "user_version") != version:
                continue  # another process was faster
            if path and version == began > 0:
                _backup(path, version)
            for statement in MIGRATIONS[version].split("\n\n"):
                db.execute(statement)
            db.execute(f"PRAGMA user_version = {version + 1}")


def _backup(path: Path, version: int) -> None:
    """A copy beside the file. The caller holds the write lock, so it is a copy of exactly this version."""
    copy = path.with_name(f"{path.name}.v{version}.backup")
    partial = copy.with_name(f"{copy.name}.partial")
    with disk_errors(partial):
        partial.unlink(missing_ok=True)
    _make(partial)
    with closing(_open(path)) as source, closing(_open(partial)) as target:
        source.backup(target)
    with disk_errors(copy):
        partial.replace(copy)


def _pragma(db: sqlite3.Connection, name: str) -> int:
    return int(db.execute(f"PRAGMA {name}").fetchone()[0])
