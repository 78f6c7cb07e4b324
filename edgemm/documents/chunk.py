"""A document in chunks that fit a model's window: cut at headings, then paragraphs, lines, sentences, words.

Chunks keep exact offsets and lines. Neighbours overlap a little, so that what stands across a cut is found. It knows no
model: how many tokens a text has, and where each begins, is told by a function.
"""

import re
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from edgemm.documents.records import Document, Place, Section

Span = tuple[int, int]
Count = Callable[[Sequence[str]], list[list[Span]]]
"""The tokens of each text, as first character and last character + 1, without marks that a model adds."""

_OVERLAP = 0.15  # of a chunk is said again by the next one
_EARLIEST = 0.5  # of a chunk must be filled before a good place for a cut is taken
_PREFIX = 0.25  # of the window is for title and headings, at most
# From the best place for a cut to the worst; each match ends where the next chunk begins.
_CUTS = [
    re.compile(pattern)
    for pattern in (r"\n(?=(?:class|def|async def|func|fn) )", r"\n\s*\n", r"\n", r"[.!?。！？]\s+", r"\s+")
]


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


def chunks(document: Document, count: Count, max_tokens: int) -> Iterator[Chunk]:
    """Chunks of at most `max_tokens` tokens, their prefix included. Every character but blank ones is in some chunk."""
    spans = count([section.text for section in document.sections])
    for number, (section, tokens) in enumerate(zip(document.sections, spans, strict=True)):
        prefix, used = _prefix(document.title, section, count, int(max_tokens * _PREFIX))
        for start, end in _cuts(section.text, tokens, max(8, max_tokens - used)):
            text = section.text[start:end]
            if text.strip():
                yield Chunk(text, _place(section, start, end), section.heading, start, end, number, prefix)


def _prefix(title: str, section: Section, count: Count, most: int) -> tuple[str, int]:
    """Title and headings in one line, cut to `most` tokens, and how many it has."""
    parts = [title, *(h for h in section.heading if h != title)]
    text = " > ".join(part for part in parts if part)
    tokens = count([text])[0]
    if len(tokens) > most:
        text = text[: tokens[most - 1][1]] if most > 0 else ""
    return text, min(len(tokens), most) + 1


def _cuts(text: str, tokens: list[Span], room: int) -> Iterator[Span]:
    """Where chunks begin and end, each of at most `room` tokens."""
    if not tokens:
        return
    starts, ends = [t[0] for t in tokens], [t[1] for t in tokens]
    begin, first = 0, 0  # a character, and the first token from there on
    while first < len(tokens):
        last = first + room
        if last >= len(tokens):
            yield begin, len(text)
            return
        end = _best(text, starts[first + int(room * _EARLIEST)], ends[last - 1], starts[last])
        yield begin, end
        after = bisect_left(starts, end)
        back = max(first + 1, after - int(room * _OVERLAP))
        begin = _best_start(text, starts[back], end) if back < after else end
        first = max(bisect_left(starts, begin), first + 1)
        begin = min(begin, starts[first]) if first < len(tokens) else begin


def _best(text: str, earliest: int, latest: int, following: int) -> int:
    """The end of the last good cut between two characters; else between the tokens."""
    for pattern in _CUTS:
        found = [match.end() for match in pattern.finditer(text, earliest, following) if match.end() <= following]
        if found:
            return found[-1]
    return max(latest, earliest + 1)


def _best_start(text: str, earliest: int, end: int) -> int:
    """Where the overlap begins: after a line or a sentence if there is one, else after a blank."""
    for pattern in _CUTS[2:]:
        match = pattern.search(text, earliest, end)
        if match and match.end() < end:
            return match.end()
    return end


def _place(section: Section, start: int, end: int) -> Place:
    """The lines of a part of a section, where lines count."""
    place = section.place
    if not place.line:
        return place
    text = section.text
    begins = start + len(text[start:end]) - len(text[start:end].lstrip())
    ends = start + len(text[start:end].rstrip())
    first = place.line + text.count("\n", 0, begins)
    return replace(place, line=first, end_line=first + text.count("\n", begins, ends))
