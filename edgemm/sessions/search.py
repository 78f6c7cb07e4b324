"""Finding messages by their words: what is indexed, how a query is asked, and the line that shows the match.

Any text is a valid query. Every word of it must be there; the last may be unfinished. Case and Latin, Greek and
Cyrillic accents do not count, and in scripts without spaces any run of letters is found. It knows no screen.
"""

import re
import sqlite3
import unicodedata

from edgemm import words
from edgemm.sessions.records import MARK, UNMARK, Hit
from edgemm.words import UNSPACED

_BEFORE, _WIDTH = 30, 140  # characters of a snippet: before the match, and in all
_CONTROL = re.compile(r"[\x00-\x20\x7f]+")

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
    pattern = _pattern(terms)
    rows = db.execute(_FIND.format(" AND ".join(where)), (*values, limit)).fetchall()
    return [
        Hit(chat, title, message, role, _snippet(text, reasoning, pattern))
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


def _pattern(terms: list[str]) -> "re.Pattern[str]":
    """What to mark in a folded text."""
    *whole, last = map(_fold, terms)
    patterns = [*(_term_pattern(term, False) for term in whole), _term_pattern(last, words.has_word(last[-1]))]
    return re.compile("|".join(patterns))


def _term_pattern(term: str, unfinished: bool) -> str:
    parts = re.findall(r"[^\W_]+", term)
    if not parts:
        return re.escape(term)
    body = r"[\W_]+".join(map(re.escape, parts))
    start = "" if re.match(f"[{UNSPACED}]", parts[0]) else r"(?<![^\W_])"
    end = "" if unfinished or re.match(f"[{UNSPACED}]", parts[-1][-1]) else r"(?![^\W_])"
    return start + body + end


def _snippet(text: str, reasoning: str, pattern: "re.Pattern[str]") -> str:
    """One line around the first match, or the beginning of the text where the match cannot be pointed at."""
    match = pattern.search(_fold(text))
    if not match and (found := pattern.search(_fold(reasoning))):
        text, match = reasoning, found
    start = max(0, match.start() - _BEFORE) if match else 0
    part = _CONTROL.sub(lambda m: " " * len(m[0]), text[start : start + _WIDTH])
    marked, at = [], 0
    for hit in pattern.finditer(_fold(part)):
        marked += [part[at : hit.start()], MARK, part[hit.start() : hit.end()], UNMARK]
        at = hit.end()
    line = " ".join("".join([*marked, part[at:]]).split())
    return "…" * (start > 0) + line + "…" * (start + _WIDTH < len(text))


class _Folding(dict[int, str]):
    """Character -> the one that stands for it in a comparison. One for one, so that positions stay."""

    def __missing__(self, code: int) -> str:
        letter = chr(code)
        base = unicodedata.normalize("NFD", letter)[0] if code < 0x2000 else letter  # beyond it, accents are letters
        lower = base.lower()
        self[code] = lower if len(lower) == 1 else letter
        return self[code]


_FOLDING = _Folding()


def _fold(text: str) -> str:
    return text.translate(_FOLDING)
