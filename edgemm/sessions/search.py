"""Finding messages by their words: what is indexed, how a query is asked.

Any text is a valid query. Every word of it must be there; the last may be unfinished. Case and accents do not count,
and in scripts without spaces any run of letters is found. It knows no screen.
"""

import re
import sqlite3

from edgemm import words
from edgemm.sessions.records import Hit
from edgemm.snippets import Finder

_WIDTH = 140  # characters of a snippet

# A message that is still being written is not indexed: it would be indexed anew at every save.
_FILL = """INSERT INTO words (rowid, text, reasoning)
    SELECT id, spaced(text), spaced(reasoning) FROM message WHERE state <> 'streaming' AND {} = ?"""
_EMPTY = """INSERT INTO words (words, rowid, text, reasoning)
    SELECT 'delete', id, spaced(text), spaced(reasoning) FROM message WHERE state <> 'streaming' AND {} = ?"""
_FIND = """SELECT message.chat, chat.title, message.id, role, text, reasoning
    FROM message JOIN chat ON chat.id = message.chat WHERE {} ORDER BY message.id DESC LIMIT ?"""
_MATCH = "message.id IN (SELECT rowid FROM words WHERE words MATCH ?)"
_LIKE = r"(text LIKE ? ESCAPE '\' OR reasoning LIKE ? ESCAPE '\')"


def add_message(db: sqlite3.Connection, message: int) -> None:
    db.execute(_FILL.format("id"), (message,))


def remove_message(db: sqlite3.Connection, message: int) -> None:
    """Before its text or state changes: the index can only forget a text that it is shown."""
    db.execute(_EMPTY.format("id"), (message,))


def remove_chat(db: sqlite3.Connection, chat: int) -> None:
    """Before its messages are deleted. Merging the index wipes the words, which it would only mark otherwise."""
    db.execute(_EMPTY.format("chat"), (chat,))
    db.execute("INSERT INTO words (words) VALUES ('optimize')")


def find(db: sqlite3.Connection, query: str, limit: int) -> list[Hit]:
    """Newest first. Nothing is found by a query without a visible character."""
    terms = words.terms(query)
    if not terms:
        return []
    where, values = _conditions(terms)
    finder = Finder(terms)
    rows = db.execute(_FIND.format(" AND ".join(where)), (*values, limit)).fetchall()
    return [
        Hit(chat, title, message, role, _snippet(text, reasoning, finder))
        for chat, title, message, role, text, reasoning in rows
    ]


def _conditions(terms: list[str]) -> tuple[list[str], list[str]]:
    """Words are looked up in the index; a term of signs alone, which it does not hold, in the texts."""
    phrases = [words.phrase(term) for term in terms if words.has_word(term)]
    if phrases and words.has_word(terms[-1][-1]):
        phrases[-1] += "*"
    signs = ["%{}%".format(re.sub(r"([\\%_])", r"\\\1", term)) for term in terms if not words.has_word(term)]
    where = [_MATCH] * bool(phrases) + [_LIKE] * len(signs)
    return where, [" AND ".join(phrases)] * bool(phrases) + [sign for sign in signs for _ in range(2)]


def _snippet(text: str, reasoning: str, finder: Finder) -> str:
    """One line around the first match, or the beginning of the text where the match cannot be pointed at."""
    at = finder.first(text)
    if at is None and (found := finder.first(reasoning)) is not None:
        text, at = reasoning, found
    return finder.line(text, at, _WIDTH)
