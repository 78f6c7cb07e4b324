"""Every chat in one SQLite file. What a method has written when it returns survives a kill of the process.

One connection behind one lock: a `Sessions` may be used from any thread, and several processes may share the file.
It knows no model and no screen, and never decides what is said.
"""

import json
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgemm import paths
from edgemm.errors import BadFile, UsageError
from edgemm.sessions import database, search
from edgemm.sessions.records import ChatInfo, Hit, Json, State, Turn, encode
from edgemm.words import clean

_STALE_SECONDS = 10.0  # a writer saves at least this often
_CHAT = """SELECT id, title, model, settings, leaf, created, updated,
    (SELECT count(*) FROM message WHERE message.chat = chat.id) FROM chat"""
_TURN = "SELECT id, chat, parent, role, text, reasoning, state, tokens, details, created FROM message"
_INSERT = """INSERT INTO message (chat, parent, role, text, reasoning, state, tokens, details, created, updated)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""


def default_path() -> Path:
    return paths.data() / "chats.sqlite"


class Sessions:
    """The chats in the file `path`, or in memory for None.

    Every method raises `UsageError` for a chat or message that does not exist (any more), `DiskFull`, `BadFile` for a
    damaged file, and `ResourceError` when another program holds the file for 10 s. A failed method changes nothing.
    """

    def __init__(self, path: Path | None = None) -> None:
        """Raises `BadFile` (damaged, of a newer version, not writable) or `DiskFull`."""
        self._path = path
        self._lock = threading.RLock()
        self._db = database.connect(path)

    def create(self, model: str, *, title: str = "", settings: Json | None = None) -> ChatInfo:
        with self._write() as db:
            return self._chat(db, _add_chat(db, model, title, settings or {}, time.time()))

    def chats(self, limit: int = 200) -> list[ChatInfo]:
        """The last updated first."""
        with self._read() as db:
            rows = db.execute(f"{_CHAT} ORDER BY updated DESC, id DESC LIMIT ?", (limit,)).fetchall()
        return [self._decode_chat(row) for row in rows]

    def chat(self, chat: int) -> ChatInfo:
        with self._read() as db:
            return self._chat(db, chat)

    def rename(self, chat: int, title: str) -> None:
        self._set(chat, "title", clean(title))

    def set_model(self, chat: int, model: str) -> None:
        self._set(chat, "model", clean(model))

    def set_settings(self, chat: int, settings: Json) -> None:
        self._set(chat, "settings", encode(settings))

    def set_leaf(self, chat: int, message: int | None) -> None:
        """Show another branch."""
        self._set(chat, "leaf", message)

    def delete(self, chat: int) -> None:
        """Delete the chat, and wipe its text from the file."""
        with self._write() as db:
            search.remove_chat(db, chat)
            db.execute("UPDATE chat SET leaf = NULL WHERE id = ?", (chat,))
            db.execute("DELETE FROM message WHERE chat = ?", (chat,))
            _changed(db.execute("DELETE FROM chat WHERE id = ?", (chat,)), "chat", chat)
        with self._read() as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()  # the log still holds what was deleted

    def add(
        self,
        chat: int,
        parent: int | None,
        role: str,
        text: str,
        *,
        state: State = State.DONE,
        details: Json | None = None,
    ) -> Turn:
        """Append a message below `parent`; it becomes the chat's leaf."""
        now = time.time()
        turn = Turn(0, chat, parent, role, clean(text), "", state, (), details or {}, now)
        with self._write() as db:
            turn = replace(turn, id=_add_turn(db, turn))
            db.execute("UPDATE chat SET leaf = ?, updated = ? WHERE id = ?", (turn.id, now, chat))
        return turn

    def update(self, message: int, text: str, reasoning: str = "", tokens: Sequence[int] = ()) -> None:
        """Save how far a streaming message has come, or only that its writer is alive.

        Nothing happens when it is no longer streaming: a late save never undoes the end.
        """
        values = (clean(text), clean(reasoning), encode(list(tokens)), time.time(), message)
        with self._write() as db:
            _turn_exists(db, message)
            db.execute(
                "UPDATE message SET text = ?, reasoning = ?, tokens = ?, updated = ?"
                " WHERE id = ? AND state = 'streaming'",
                values,
            )

    def finish(
        self,
        message: int,
        state: State,
        text: str,
        reasoning: str = "",
        tokens: Sequence[int] = (),
        details: Json | None = None,
    ) -> None:
        """The message as it stays. `details` None: those that it has are kept."""
        now = time.time()
        with self._write() as db:
            _turn_exists(db, message)
            search.remove_message(db, message)
            db.execute(
                "UPDATE message SET state = ?, text = ?, reasoning = ?, tokens = ?,"
                " details = coalesce(?, details), updated = ? WHERE id = ?",
                (
                    state,
                    clean(text),
                    clean(reasoning),
                    encode(list(tokens)),
                    None if details is None else encode(details),
                    now,
                    message,
                ),
            )
            search.add_message(db, message)
            db.execute("UPDATE chat SET updated = ? WHERE id = (SELECT chat FROM message WHERE id = ?)", (now, message))

    def reopen(self, message: int) -> None:
        """Let a message grow again: it streams until the next `finish`."""
        with self._write() as db:
            _turn_exists(db, message)
            search.remove_message(db, message)
            db.execute("UPDATE message SET state = 'streaming', updated = ? WHERE id = ?", (time.time(), message))

    def recover(self, chat: int) -> int:
        """Mark as stopped what no writer has saved for 10 s, and say how many messages that were."""
        where = "chat = ? AND state = 'streaming' AND abs(? - updated) > ?"  # abs: the clock may have been set back
        with self._write() as db:
            query = f"SELECT id FROM message WHERE {where}"
            stale = [row[0] for row in db.execute(query, (chat, time.time(), _STALE_SECONDS))]
            for message in stale:
                db.execute("UPDATE message SET state = 'stopped' WHERE id = ?", (message,))
                search.add_message(db, message)
        return len(stale)

    def insert(self, chat: ChatInfo, turns: Sequence[Turn]) -> ChatInfo:
        """Store a copy of a chat under new ids, all or nothing. A parent must stand before its children.

        What was streaming when it was copied is stopped.
        """
        ids: dict[int | None, int | None] = {None: None}
        with self._write() as db:
            new = _add_chat(db, chat.model, chat.title, chat.settings, chat.created)
            for turn in turns:
                if turn.parent not in ids:
                    raise UsageError(f"message {turn.id}", f"follows message {turn.parent}, which is missing", "add it")
                state = State.STOPPED if turn.state is State.STREAMING else turn.state
                ids[turn.id] = _add_turn(db, replace(turn, chat=new, parent=ids[turn.parent], state=state))
            leaf = ids.get(chat.leaf)
            db.execute("UPDATE chat SET leaf = ?, updated = ? WHERE id = ?", (leaf, time.time(), new))
            return self._chat(db, new)

    def turn(self, message: int) -> Turn:
        with self._read() as db:
            row = db.execute(f"{_TURN} WHERE id = ?", (message,)).fetchone()
        if row is None:
            raise _missing("message", message)
        return self._decode_turn(row)

    def turns(self, chat: int) -> list[Turn]:
        """Every message of every branch, oldest first; empty for an unknown chat."""
        with self._read() as db:
            rows = db.execute(f"{_TURN} WHERE chat = ? ORDER BY id", (chat,)).fetchall()
        return [self._decode_turn(row) for row in rows]

    def revision(self) -> int:
        """A number that changes when another `Sessions` has written to the file."""
        with self._read() as db:
            return int(db.execute("PRAGMA data_version").fetchone()[0])

    def search(self, query: str, limit: int = 50) -> list[Hit]:
        """Messages that hold every word of `query`, newest first."""
        with self._read() as db:
            return search.find(db, query, limit)

    def prompts(self, limit: int = 500) -> list[str]:
        """What the user asked, each text once, newest last."""
        found: dict[str, None] = {}
        with self._read() as db:
            for (text,) in db.execute("SELECT text FROM message WHERE role = 'user' ORDER BY id DESC"):
                found[text] = None
                if len(found) >= limit:
                    break
        return list(found)[::-1]

    def close(self) -> None:
        with self._lock, database.faults(self._path):
            self._db.close()

    def __enter__(self) -> "Sessions":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _read(self) -> Iterator[sqlite3.Connection]:
        with self._lock, database.faults(self._path):
            yield self._db

    @contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        with self._read() as db, database.transaction(db):
            yield db

    def _set(self, chat: int, column: str, value: object) -> None:
        with self._write() as db:
            _changed(db.execute(f"UPDATE chat SET {column} = ? WHERE id = ?", (value, chat)), "chat", chat)

    def _chat(self, db: sqlite3.Connection, chat: int) -> ChatInfo:
        row = db.execute(f"{_CHAT} WHERE id = ?", (chat,)).fetchone()
        if row is None:
            raise _missing("chat", chat)
        return self._decode_chat(row)

    def _decode_chat(self, row: tuple[Any, ...]) -> ChatInfo:
        id, title, model, settings, leaf, created, updated, messages = row
        with self._damage(f"chat {id}"):
            _check(row, (int, str, str, str, int | None, float, float, int))
            return ChatInfo(id, title, model, _object(settings), leaf, created, updated, messages)

    def _decode_turn(self, row: tuple[Any, ...]) -> Turn:
        id, chat, parent, role, text, reasoning, state, tokens, details, created = row
        with self._damage(f"message {id}"):
            _check(row, (int, int, int | None, str, str, str, str, str, str, float))
            ids = tuple(json.loads(tokens))
            return Turn(id, chat, parent, role, text, reasoning, State(state), ids, _object(details), created)

    @contextmanager
    def _damage(self, what: str) -> Iterator[None]:
        try:
            yield
        except (ValueError, TypeError, RecursionError) as error:
            where = self._path or "chats in memory"
            raise BadFile(where, f"{what} is damaged ({error})", "restore a copy, or delete the chat") from error


def _add_chat(db: sqlite3.Connection, model: str, title: str, settings: Json, created: float) -> int:
    row = (clean(title), clean(model), encode(settings), created, created)
    done = db.execute("INSERT INTO chat (title, model, settings, created, updated) VALUES (?, ?, ?, ?, ?)", row)
    return int(done.lastrowid or 0)


def _add_turn(db: sqlite3.Connection, turn: Turn) -> int:
    text, reasoning = clean(turn.text), clean(turn.reasoning)
    tokens, details = encode(list(turn.tokens)), encode(turn.details)
    row = (turn.chat, turn.parent, turn.role, text, reasoning, turn.state, tokens, details, turn.created, time.time())
    message = int(db.execute(_INSERT, row).lastrowid or 0)
    search.add_message(db, message)
    return message


def _turn_exists(db: sqlite3.Connection, message: int) -> None:
    if not db.execute("SELECT 1 FROM message WHERE id = ?", (message,)).fetchone():
        raise _missing("message", message)


def _changed(done: sqlite3.Cursor, kind: str, id: int) -> None:
    if not done.rowcount:
        raise _missing(kind, id)


def _missing(kind: str, id: int) -> UsageError:
    return UsageError(f"{kind} {id}", "does not exist, or was deleted elsewhere", "choose another one")


def _object(text: str) -> Json:
    value = json.loads(text)
    if not isinstance(value, dict):
        raise TypeError("no JSON object")
    return value


def _check(row: tuple[Any, ...], kinds: tuple[Any, ...]) -> None:
    for value, kind in zip(row, kinds, strict=True):
        if not isinstance(value, kind):
            raise TypeError(f"{type(value).__name__} where {kind} belongs")
