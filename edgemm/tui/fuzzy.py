"""How well a few typed letters fit a path or a name: one number, in one pass, whatever the letters are.

Letters together count more than scattered ones, the file's own name more than its folders. Pure.
"""

from collections.abc import Callable, Iterable
from typing import TypeVar

_T = TypeVar("_T")
_TOGETHER, _WORD_START, _NAME_START, _SCATTERED = 200.0, 40.0, 60.0, 100.0


def score(query: str, text: str) -> float | None:
    """Higher is better; None: not all letters of `query` (lower case) occur in `text` in this order."""
    lowered = text.lower()
    at = lowered.rfind(query)  # the last place is the likeliest to lie in the file's own name
    if at >= 0:
        return _TOGETHER + _start_bonus(lowered, at) - len(lowered) / 100
    gaps, place = 0, len(lowered)
    for letter in reversed(query):
        found = lowered.rfind(letter, 0, place)
        if found < 0:
            return None
        gaps += place - found - 1
        place = found
    return _SCATTERED - gaps - len(lowered) / 100


def rank(query: str, items: Iterable[_T], name: Callable[[_T], str], limit: int) -> list[_T]:
    """The `limit` best of `items`; those that fit equally well keep their order. An empty query takes the first."""
    wanted = query.lower()
    found = [(value, item) for item in items if (value := score(wanted, name(item))) is not None]
    if query:
        found.sort(key=lambda pair: -pair[0])
    return [item for _, item in found[:limit]]


def _start_bonus(text: str, at: int) -> float:
    if at == 0 or text[at - 1] == "/":
        return _NAME_START
    return 0.0 if text[at - 1].isalnum() else _WORD_START
