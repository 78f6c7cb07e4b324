"""Colours of code: spans of style names over a source text, for the languages that chats are full of.

Bounded in length and in time, because some lexers take quadratic time on odd sources; a language is never guessed.
It knows no theme: the names are resolved where they are drawn.
"""

import math
import time
from functools import cache
from typing import Any

from textual.content import Span

LONGEST = 16 << 10  # characters
LANGUAGES = frozenset(
    "bash c c++ cpp css diff dockerfile go html ini java javascript js json jsx kotlin lua makefile php python py"
    " python3 r ruby rust sh shell sql swift toml ts tsx typescript xml yaml yml zig".split()
)
# The names that pygments gives to kinds of token; the longest that fits wins.
_STYLES = {
    "Comment": "dim italic",
    "Keyword": "bold $text-accent",
    "Keyword.Constant": "$text-accent",
    "Literal.Number": "$text-warning",
    "Literal.String": "$text-success",
    "Name.Builtin": "$text-primary",
    "Name.Class": "bold $text-primary",
    "Name.Decorator": "$text-secondary",
    "Name.Function": "$text-primary",
    "Name.Tag": "$text-primary",
    "Name.Attribute": "$text-secondary",
    "Generic.Deleted": "$text-error",
    "Generic.Inserted": "$text-success",
    "Generic.Subheading": "bold $text-primary",
}


def spans(code: str, language: str, deadline: float = math.inf) -> list[Span]:
    """Styles of the parts of `code` that are read before `deadline` (of `time.monotonic`).

    None for a language that is not in `LANGUAGES`, or a source that is too long.
    """
    words = language.split(maxsplit=1)
    name = words[0].lower() if words else ""
    if name not in LANGUAGES or len(code) > LONGEST:
        return []
    found = []
    for start, kind, text in _lexer(name).get_tokens_unprocessed(code + "\n"):
        if style := _style(".".join(kind)):
            found.append(Span(start, min(start + len(text), len(code)), style))
        if time.monotonic() > deadline:
            break
    return found


@cache
def _lexer(name: str) -> Any:
    from pygments.lexers import get_lexer_by_name  # type: ignore[import-untyped]

    return get_lexer_by_name(name)


@cache
def _style(kind: str) -> str:
    while kind and kind not in _STYLES:
        kind = kind.rpartition(".")[0]
    return _STYLES.get(kind, "")
