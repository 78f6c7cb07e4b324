"""Passages of the user's documents as numbered quotes of a prompt, and the quotes that an answer cites.

A quote remembers the hash of its file, so that one from a file that has changed since is marked. It knows no index and
no model.
"""

import re
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from edgemm.attachments import Attachment, Kind, plain_name
from edgemm.errors import EdgemmError
from edgemm.events import Note, Work
from edgemm.package import sha256

QUOTES = 4  # of a question, unless the user says otherwise
Find = Callable[[str, str], list[Attachment]]
"""Quotes for a question, the best first, out of the documents that the first argument names: a folder, or `ALL`."""
ALL = "*"

_CITED = re.compile(r"\[(\d{1,3}(?:\s*[,;]\s*\d{1,3})*)\]")
_WORD = re.compile(r"[^\W_]+")
_SENTENCE = re.compile(r"(?<=[.!?。！？])\s+|\n+")
_SHORT = 3  # letters: such words say nothing about where a sentence comes from
_LIKE, _LEAST = 0.6, 3  # of the words of a sentence, and words, that are in a quote that it seems to come from
_MOST = 64 << 20  # bytes of a file that is compared with its hash


class State(StrEnum):
    """What has become of the file of a quote."""

    SAME = "same"
    CHANGED = "changed"
    GONE = "gone"
    UNKNOWN = "unknown"  # in a chat that was imported


class By(StrEnum):
    """How it is known that an answer comes from a quote."""

    NUMBER = "number"  # the answer names it
    WORDS = "words"  # the answer names none, and a sentence of it has the words of the quote
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Source:
    quote: Attachment
    by: By
    state: State

    def shown(self) -> str:
        """ "[1] plan.md, lines 3-10 — changed since"."""
        where = f", {self.quote.place}" if self.quote.place else ""
        told = {State.CHANGED: " — changed since", State.GONE: " — no longer there"}.get(self.state, "")
        return f"[{self.quote.number}] {plain_name(self.quote.name)}{where}{told}"


def search(
    find: Find, docs: str, question: str, fits: Callable[[Sequence[Attachment]], bool]
) -> Work[list[Attachment]]:
    """Quotes for a question, as many as fit; why there are none is noted."""
    try:
        found = find(docs, question)
    except EdgemmError as error:
        yield Note(f"your documents were not searched: {error}")
        return []
    quotes = _fitting(found, fits)
    if not quotes:
        yield Note("no passage fits into the context" if found else "nothing in your documents was found for this")
    return quotes


def _fitting(found: Sequence[Attachment], fits: Callable[[Sequence[Attachment]], bool]) -> list[Attachment]:
    """As many of the first as fit."""
    low, high = 0, len(found)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(found[:middle]) else (low, middle - 1)
    return list(found[:low])


def sources(answer: str, attached: Sequence[Attachment]) -> list[Source]:
    """The quotes among what was sent with a question, and whether the answer comes from them."""
    quotes = [each for each in attached if each.kind is Kind.QUOTE]
    if not quotes:
        return []
    named = cited(answer)
    known = {each.number for each in quotes} & named
    alike = set() if known else _alike(answer, quotes)
    by = {**dict.fromkeys(alike, By.WORDS), **dict.fromkeys(known, By.NUMBER)}
    return [Source(each, by.get(each.number, By.NOTHING), state(each)) for each in quotes]


def cited(answer: str) -> set[int]:
    """The numbers that an answer cites: [1], or [2, 3]."""
    return {int(number) for match in _CITED.finditer(answer) for number in re.findall(r"\d+", match[1])}


def lines(found: Sequence[Source]) -> list[str]:
    """Sources for the eye: those that the answer comes from, each in a line, and the others in one."""
    used = [each for each in found if each.by is not By.NOTHING]
    others = [each for each in found if each.by is By.NOTHING]
    shown = [each.shown() + (" (by its words)" if each.by is By.WORDS else "") for each in used]
    return shown + ([f"not cited: {'; '.join(each.shown() for each in others)}"] if others else [])


def state(quote: Attachment) -> State:
    """Whether the file is still as it was. It is only read when its time is another one."""
    if not quote.path:
        return State.UNKNOWN
    path = Path(quote.path)
    try:
        facts = path.stat()
        if not stat.S_ISREG(facts.st_mode):
            return State.GONE
        if facts.st_mtime_ns == quote.mtime_ns:
            return State.SAME
        return State.SAME if facts.st_size <= _MOST and sha256(path) == quote.sha256 else State.CHANGED
    except (OSError, ValueError):
        return State.GONE


def _alike(answer: str, quotes: Sequence[Attachment]) -> set[int]:
    """For each sentence the quote that has most of its words, if it has enough of them."""
    held = {quote.number: _words(quote.text) for quote in quotes}
    found = set()
    for sentence in _SENTENCE.split(answer):
        words = _words(sentence)
        if len(words) >= _LEAST:
            best = max(held, key=lambda number: len(words & held[number]))
            if len(words & held[best]) >= _LIKE * len(words):
                found.add(best)
    return found


def _words(text: str) -> set[str]:
    """Longer words; of scripts without spaces, pairs of letters would be better, but a run is a word here."""
    return {word for word in map(str.casefold, _WORD.findall(text)) if len(word) > _SHORT}
