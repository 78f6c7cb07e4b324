"""The line that shows why a text was found: words of the query are looked up in it and marked.

Case and Latin, Greek and Cyrillic accents do not count. It knows no index and no screen.
"""

import re
import unicodedata
from collections.abc import Sequence

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
        """Where the first of those `width` characters begins that hold the most different terms."""
        hits = []
        for match in self._pattern.finditer(_fold(text)):
            hits.append((match.start(), match.end(), match.lastindex))
            if len(hits) == _TOO_MANY:
                break
        most, place = 0, None
        for number, (start, _, _) in enumerate(hits):
            terms = {term for _, end, term in hits[number:] if end <= start + width}
            if len(terms) > most:
                most, place = len(terms), start
        return place

    def line(self, text: str, at: int | None, width: int) -> str:
        """One line of about `width` characters around the match that begins at `at`, or the beginning for None."""
        start = max(0, at - _BEFORE) if at is not None else 0
        part = _CONTROL.sub(lambda m: " " * len(m[0]), text[start : start + width])
        marked, last = [], 0
        for hit in self._pattern.finditer(_fold(part)):
            marked += [part[last : hit.start()], MARK, part[hit.start() : hit.end()], UNMARK]
            last = hit.end()
        line = " ".join("".join([*marked, part[last:]]).split())
        return "…" * (start > 0) + line + "…" * (start + width < len(text))


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
