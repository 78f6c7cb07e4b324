"""A document in chunks that fit a model's window: cut at headings, then paragraphs, lines, sentences, words.

Chunks keep exact offsets, lines and rows. Neighbours overlap a little, so that what stands across a cut is found. It
knows no model: how many tokens a text has, and where each begins, is told by a function.
"""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from edgemm.documents.records import Document, Place, Section

Span = tuple[int, int]
Count = Callable[[Sequence[str]], list[list[Span]]]
"""The tokens of each text, as first character and last character + 1, without marks that a model adds."""

_OVERLAP = 0.15  # of a chunk is said again by the next one
_EARLIEST = 0.5  # of a chunk must be filled before a good place for a cut is taken
_PREFIX = 0.25  # of the window is for title and headings, at most
_LEAST = 8  # tokens of text in a chunk, however long its headings
_PIECE = 200_000  # characters that are tokenised at once, so that memory does not grow with a section
# WordPiece makes one token of a word of more than 100 characters, whatever it holds. A span this long counts as one
# token a character, as it would have if it were cut.
_LONGEST = 32
# From the best place for a cut to the worst; each match ends where the next chunk begins.
_CUTS = [
    re.compile(pattern)
    for pattern in (
        r"\n[^\S\n]*\n(?=\S)",  # a paragraph, or what stands at the left margin of source code
        r"\n(?=(?:export |pub |async |static |public )?(?:class|def|func|fn|function|impl|struct|interface|type) )",
        r"\n[^\S\n]*\n",
        r"\n",
        r"[。！？]|[.!?]\s+",
        r"\s+",
    )
]
_FINE = _CUTS[3:]
_ROWS = re.compile(r"([A-Z]+)(\d+):([A-Z]+)\d+")


@dataclass(frozen=True, slots=True)
class Chunk:
    """`text` is section.text[start:end]; `prefix`, title and headings, is embedded before it and shown nowhere."""

    text: str
    place: Place
    heading: tuple[str, ...]
    start: int
    end: int
    section: int
    prefix: str = ""

    def embedded_text(self) -> str:
        return f"{self.prefix}\n{self.text}" if self.prefix else self.text


def chunks(document: Document, count: Count, max_tokens: int, overlap: float = _OVERLAP) -> Iterator[Chunk]:
    """Chunks of at most `max_tokens` tokens, their prefix included. Every character but blank ones is in some chunk.

    `overlap`: the share of a chunk, below a half, that the next one repeats at most.
    """
    for number, section in enumerate(document.sections):
        prefix, used = _prefix(document.title, section, count, int(max_tokens * _PREFIX))
        cutter = _Cutter(count, max(_LEAST, max_tokens - used), overlap)
        newlines, counted = 0, 0
        for start, end in cutter.section(section.text):
            text = section.text[start:end]
            if not text.strip():
                continue
            first = start + len(text) - len(text.lstrip())
            newlines += section.text.count("\n", counted, first)
            counted = first
            place = _place(section.place, newlines, text.strip().count("\n"))
            yield Chunk(text, place, section.heading, start, end, number, prefix)


def _prefix(title: str, section: Section, count: Count, most: int) -> tuple[str, int]:
    """Title and headings in one line, cut to `most` tokens, and how many it has with the line end."""
    parts = [title, *(h for h in section.heading if h != title)]
    text = " ".join(" > ".join(part for part in parts if part).split())
    tokens = _spans(text, count)
    if len(tokens) > most:
        text = text[: tokens[most - 1][1]] if most > 0 else ""
    return text, min(len(tokens), most) + 1


def _spans(text: str, count: Count) -> list[Span]:
    """Its tokens, in which no word hides that would become many tokens when it is cut."""
    found: list[Span] = []
    for start, end in count([text])[0]:
        if end - start > _LONGEST and not text[start:end].isspace():
            found += [(at, at + 1) for at in range(start, end)]
        else:
            found.append((start, end))
    return found


@dataclass(frozen=True, slots=True)
class _Cutter:
    """Cuts texts to at most `room` tokens."""

    count: Count
    room: int
    overlap: float

    def section(self, text: str) -> Iterator[Span]:
        """Where chunks begin and end. A long text is cut a piece at a time."""
        begin = 0
        while begin < len(text):
            end = _piece_end(text, begin)
            found = list(self._piece(text[begin:end]))
            if end < len(text) and len(found) > 1:
                end = begin + found.pop()[0]  # it was cut by the end of the piece: the next piece begins with it
            yield from ((begin + start, begin + stop) for start, stop in found)
            begin = end

    def _piece(self, text: str) -> Iterator[Span]:
        tokens = _spans(text, self.count)
        starts = list(accumulate((start for start, _ in tokens), max))
        ends = list(accumulate((end for _, end in tokens), max))
        begin = 0
        while begin < len(text):
            first = bisect_right(ends, begin)  # the first token that ends after it
            last = first + self.room
            end = len(text)
            if last < len(tokens):
                end = _best(text, max(begin, starts[first + int(self.room * _EARLIEST)]), ends[last - 1], starts[last])
            end = self._fitting(text, begin, end)
            yield begin, end
            if end >= len(text):
                return
            back = max(first + 1, bisect_left(starts, end) - int(self.room * self.overlap))
            begin = _start(text, max(begin + 1, starts[back]), end) if back < len(starts) else end

    def _fitting(self, text: str, begin: int, end: int) -> int:
        """An earlier end, where the halves of a word that was cut have more tokens than the word had."""
        if _is_between(text, begin) and _is_between(text, end):
            return end
        while end - begin > 1 and len(self.count([text[begin:end]])[0]) > self.room:
            end = begin + (end - begin) * 7 // 8
        return end


def _piece_end(text: str, begin: int) -> int:
    """At a line end if there is one in the second half, else at a blank, else anywhere."""
    end = begin + _PIECE
    if end >= len(text):
        return len(text)
    cuts = (text.rfind(mark, begin + _PIECE // 2, end) + 1 for mark in "\n ")
    return next((cut for cut in cuts if cut), end)


def _best(text: str, earliest: int, latest: int, following: int) -> int:
    """The end of the last good cut between two characters; else between the tokens."""
    for pattern in _CUTS:
        found = [match.end() for match in pattern.finditer(text, earliest, following + 1) if match.end() <= following]
        if found and found[-1] > earliest:
            return found[-1]
    return max(latest, earliest + 1)


def _start(text: str, earliest: int, end: int) -> int:
    """Where the overlap begins: after a line or a sentence if there is one, else after a blank."""
    for pattern in _FINE:
        match = pattern.search(text, earliest, end)
        if match and match.end() < end:
            return match.end()
    return end


def _is_between(text: str, at: int) -> bool:
    """Whether no word is cut there."""
    return at in (0, len(text)) or text[at - 1].isspace() or text[at].isspace()


def _place(place: Place, before: int, within: int) -> Place:
    """Of a part with `within` line ends, that begins `before` line ends after the section: its lines, or its rows."""
    if place.line:
        return replace(place, line=place.line + before, end_line=place.line + before + within)
    if place.sheet and (rows := _ROWS.fullmatch(place.cells)):
        first = int(rows[2]) + before
        return replace(place, cells=f"{rows[1]}{first}:{rows[3]}{first + within}")
    return place
