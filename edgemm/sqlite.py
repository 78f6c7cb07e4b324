"""Our SQLite files: how one is opened, migrated and locked, and how SQLite's failures read.

It knows versions and locks, but no table. One rule holds for every schema: scripts are only ever added to its
migrations, never changed.
"""

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgemm.errors import BadFile, DiskFull, ResourceError, UsageError, disk_errors

BUSY_SECONDS = 10.0
_POLL = 0.05  # seconds between two looks at a lock
_FULL = {
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR_WRITE,  # what a limit on file sizes gives
    sqlite3.SQLITE_IOERR_FSYNC,
    sqlite3.SQLITE_IOERR_TRUNCATE,
    sqlite3.SQLITE_IOERR_SHMOPEN,
    sqlite3.SQLITE_IOERR_SHMSIZE,
}
_UNWRITABLE = {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM}


@dataclass(frozen=True, slots=True)
class Schema:
    """What makes a file ours, and how its errors read.

    `migrations`: scripts of statements with a blank line between them; the file's `user_version` counts how many it
    has seen. `application`: the `application_id` that the first one gives it. `functions`: name, number of arguments,
    and the function that statements may call. `noun` names the file's content, `member` what a row of it is called,
    `repair` says what helps when it is damaged.
    """

    noun: str
    member: str
    repair: str
    application: int
    migrations: tuple[str, ...]
    functions: tuple[tuple[str, int, Callable[..., Any]], ...] = ()
    pragmas: tuple[str, ...] = ()
    busy_seconds: float = BUSY_SECONDS


def connect(path: Path | None, schema: Schema) -> sqlite3.Connection:
    """Open and migrate the file, or a database in memory for None. Usable from any thread, by one at a time.

    Raises `BadFile` (damaged, of another program, of a newer version, not writable), `DiskFull` or `ResourceError`.
    """
    with faults(path, schema):
        if path:
            _make(path)
        db = _open(path, schema.busy_seconds)
        try:
            _check_owner(db, path, schema)
            _configure(db, schema)
            _migrate(db, path, schema)
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
def snapshot(db: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """Everything that is read within is of one moment."""
    db.execute("BEGIN")
    try:
        yield db
    finally:
        if db.in_transaction:
            db.execute("ROLLBACK")


@contextmanager
def exclusive(path: Path, seconds: float, busy: str) -> Iterator[None]:
    """A lock that one process at a time holds; the system gives it back when that process dies.

    It is the lock of an empty database at `path`, which works alike on every system. Raises `ResourceError` with
    `busy`, which names the holder, after `seconds`.
    """
    with disk_errors(path):
        path.touch(0o600)
    with closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as db:
        deadline = time.monotonic() + seconds
        while not _locked(db, path):
            if time.monotonic() >= deadline:
                raise ResourceError(path, busy, "wait until it has finished and try again")
            time.sleep(_POLL)
        yield


def _locked(db: sqlite3.Connection, path: Path) -> bool:
    try:
        db.execute("BEGIN EXCLUSIVE")
        return True
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY:
            return False
        raise BadFile(path, f"cannot be locked ({error})", "check the path and its permissions") from error


@contextmanager
def faults(path: Path | None, schema: Schema) -> Iterator[None]:
    """Turn SQLite's errors into `DiskFull`, `BadFile`, `ResourceError` or `UsageError`."""
    try:
        yield
    except sqlite3.ProgrammingError as error:
        raise UsageError(schema.noun, str(error), "open the file again") from error
    except sqlite3.IntegrityError as error:
        raise UsageError(schema.noun, f"no such {schema.member} ({error})", "choose another one") from error
    except UnicodeError as error:  # of the damaged name that SQLite's own message quotes
        raise BadFile(path or f"{schema.noun} in memory", "is damaged", schema.repair) from error
    except sqlite3.Error as error:
        where, code = path or f"{schema.noun} in memory", getattr(error, "sqlite_errorcode", 0)
        if code in _FULL:
            raise DiskFull(where, f"the disk is full ({error})", "free some space; nothing was changed") from error
        if code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise ResourceError(where, "another program holds it", "close that program and try again") from error
        if code & 0xFF in _UNWRITABLE:
            raise BadFile(where, f"cannot be written ({error})", "check the path and its permissions") from error
        raise BadFile(where, f"is damaged ({error})", schema.repair) from error


def _make(path: Path) -> None:
    """An empty file that only the user may read; SQLite gives its companions the same rights.

    An existing file is not touched: closing it here would drop the locks of this process's other connections.
    """
    with disk_errors(path):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))


def _open(path: Path | None, seconds: float) -> sqlite3.Connection:
    return sqlite3.connect(path or ":memory:", timeout=seconds, isolation_level=None, check_same_thread=False)


def _configure(db: sqlite3.Connection, schema: Schema) -> None:
    db.text_factory = lambda raw: raw.decode("utf-8", "replace")  # one damaged byte must not hide a row
    for name, arguments, function in schema.functions:
        db.create_function(name, arguments, function, deterministic=True)
    _write_ahead(db, schema.busy_seconds)
    for pragma in ("synchronous = NORMAL", "foreign_keys = ON", "trusted_schema = OFF", *schema.pragmas):
        db.execute(f"PRAGMA {pragma}")
    with transaction(db):  # a file that cannot be written is found out now
        pass


def _write_ahead(db: sqlite3.Connection, seconds: float) -> None:
    """SQLite does not wait for a lock when the journal changes, so two programs that start at once need this."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            db.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def _check_owner(db: sqlite3.Connection, path: Path | None, schema: Schema) -> None:
    with snapshot(db):  # another process may be making the file
        version, owner, tables = (pragma(db, name) for name in ("user_version", "application_id", "schema_version"))
    if owner != schema.application and tables:
        raise BadFile(path, "is a database of another program", "choose another path")
    if version > len(schema.migrations):
        why = f"has version {version}, this edgemm reads up to {len(schema.migrations)}"
        raise BadFile(path, why, "update edgemm, or move the file away")


def _migrate(db: sqlite3.Connection, path: Path | None, schema: Schema) -> None:
    """Each missing script in a transaction of its own, so that a kill leaves the file at one version or the next."""
    began = pragma(db, "user_version")
    while (version := pragma(db, "user_version")) < len(schema.migrations):
        with transaction(db):
            if pragma(db, "user_version") != version:
                continue  # another process was faster
            if path and version == began > 0:
                _backup(path, version)
            for statement in schema.migrations[version].split("\n\n"):
                db.execute(statement)
            db.execute(f"PRAGMA user_version = {version + 1}")


def _backup(path: Path, version: int) -> None:
    """A copy beside the file. The caller holds the write lock, so it is a copy of exactly this version."""
    copy = path.with_name(f"{path.name}.v{version}.backup")
    partial = copy.with_name(f"{copy.name}.partial")
    with disk_errors(partial):
        partial.unlink(missing_ok=True)
    _make(partial)
    with closing(_open(path, BUSY_SECONDS)) as source, closing(_open(partial, BUSY_SECONDS)) as target:
        source.backup(target)
    with disk_errors(copy):
        partial.replace(copy)


def pragma(db: sqlite3.Connection, name: str) -> int:
    """The number that `PRAGMA name` answers with."""
    return int(db.execute(f"PRAGMA {name}").fetchone()[0])
