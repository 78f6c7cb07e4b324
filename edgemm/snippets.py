"""The line that shows why a text was found: words of the query are looked up in it and marked.

Case and Latin, Greek and Cyrillic accents do not count. It knows no index and no screen.
"""

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Sequence
from itertools import islice

from edgemm.words import UNSPACED, has_word

MARK, UNMARK = "\x02", "\x03"  # stand around each match; a text loses its own control characters
_BEFORE = 30  # characters of a line before the match
_TOO_MANY = 1000  # matches are looked at, to find where most of them are
_CONTROL = re.compile(r"[\x00-\x20\x7f]+")


class Finder:
    """Finds the terms of one query in texts. The last one may be `unfinished`."""

    def __init__(self, terms: Sequence[str], unfinished: bool = True) -> None:
        *whole, last = map(_fold, terms)
        found = [*(_term(term, False) for term in whole), _term(last, unfinished and has_word(last[-1]))]
        self._pattern = re.compile("|".join(f"({each})" for each in found))

    def first(self, text: str) -> int | None:
        """Where the first match begins."""
        match = self._pattern.search(_fold(text))
        return match.start() if match else None

    def best(self, text: str, width: int) -> int | None:
        """Where the match begins whose `line` of that width holds the most different terms: the first such one."""
        hits = list(islice(self._pattern.finditer(_fold(text)), _TOO_MANY))
        terms, ends = [hit.lastindex for hit in hits], [hit.end() for hit in hits]
        most, place = 0, None
        for number, hit in enumerate(hits):
            last = bisect_right(ends, _begin(text, hit.start(), width) + width)
            found = len(set(terms[number:last]))
            if found > most:
                most, place = found, hit.start()
        return place

    def line(self, text: str, at: int | None, width: int) -> str:
        """One line of about `width` characters around the match that begins at `at`, or the beginning for None."""
        start = _begin(text, at or 0, width)
        part = _CONTROL.sub(lambda m: " " * len(m[0]), text[start : start + width])
        marked, last = [], 0
        for hit in self._pattern.finditer(_fold(part)):
            marked += [part[last : hit.start()], MARK, part[hit.start() : hit.end()], UNMARK]
            last = hit.end()
        line = " ".join("".join([*marked, part[last:]]).split())
        return "…" * (start > 0) + line + "…" * (start + width < len(text))


def _begin(text: str, at: int, width: int) -> int:
    """Where a line begins that shows what is at `at`: before it, and early enough to be filled."""
    return max(0, min(at - _BEFORE, len(text) - width))


def _term(term: str, unfinished: bool) -> str:
    parts = re.findall(r"[^\W_]+", term)
    if not parts:
        return re.escape(term)
    body = r"[\W_]+".join(map(re.escape, parts))
    start = "" if re.match(f"[{UNSPACED}]", parts[0]) else r"(?<![^\W_])"
    end = "" if unfinished or re.match(f"[{UNSPACED}]", parts[-1][-1]) else r"(?![^\W_])"
    return start + body + end


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
