"""An answer's tokens with their probabilities, and how they are laid out in lines: plain data, no widget.

It reads what was stored with an answer and trusts none of it; it does not know where it was stored.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rich.cells import cell_len, chop_cells

from edgemm.errors import BadFile
from edgemm.terminal import safe

_EMPTY, _NEWLINE, _TAB = "·", "⏎", "⇥   "


@dataclass(frozen=True, slots=True)
class Alternative:
    """A token that could have stood in a place; `probability` in 0..1, before penalties and temperature."""

    id: int
    text: str
    probability: float


@dataclass(frozen=True, slots=True)
class Sampled:
    """A token of an answer, and the likeliest ones in its place. `probability` None: it is not known."""

    id: int
    text: str
    probability: float | None
    top: tuple[Alternative, ...] = ()


@dataclass(frozen=True, slots=True)
class Level:
    """How sure the model was: `least` is the lowest probability of the level."""

    name: str
    least: float


LEVELS = (Level("sure", 0.9), Level("likely", 0.5), Level("unsure", 0.2), Level("guess", 0.0))


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a line: `text` fills `width` cells from column `start` on and belongs to the token `token`."""

    token: int
    text: str
    start: int
    width: int


Line = list[Part]


def level(probability: float | None) -> Level | None:
    """The first of `LEVELS` that `probability` reaches; None where it is not known."""
    return None if probability is None else next(each for each in LEVELS if probability >= each.least)


def read(rows: Sequence[Any]) -> list[Sampled]:
    """The tokens in `rows`, each (id, text, logprob, [(text, logprob, id), ...]). Raises `BadFile`."""
    found = []
    for number, row in enumerate(rows):
        try:
            identity, text, logprob, top = row
            alternatives = [Alternative(int(i), str(t), _probability(p)) for t, p, i in top]
            probability = None if logprob is None else _probability(logprob)
            found.append(Sampled(int(identity), str(text), probability, tuple(alternatives)))
        except (TypeError, ValueError, OverflowError) as error:
            why = f"token {number} of the stored answer is damaged"
            raise BadFile("probabilities", why, "ask again with probabilities on") from error
    return found


def choices(token: Sampled) -> list[Alternative]:
    """What could have stood in the place of `token`, likeliest first; the token itself is among them."""
    found = sorted(token.top, key=lambda each: -each.probability)
    if token.id >= 0 and token.probability is not None and token.id not in {each.id for each in found}:
        found.append(Alternative(token.id, token.text, token.probability))
    return found


def perplexity(tokens: Sequence[Sampled]) -> float | None:
    """exp of the mean negative log-probability: among how many tokens the model wavered, on average."""
    known = [max(token.probability, 1e-30) for token in tokens if token.probability is not None]
    return math.exp(-sum(map(math.log, known)) / len(known)) if known else None


def shown(text: str) -> str:
    """`text` of a token with its white space made visible, and nothing in it that a terminal obeys."""
    return safe(text).replace("\n", _NEWLINE).replace("\t", _TAB) or _EMPTY


def lay_out(tokens: Sequence[Sampled], width: int) -> list[Line]:
    """The tokens in lines of at most `width` cells, broken between words where that is possible."""
    lines: list[Line] = [[]]
    for word in _words(tokens):
        size = sum(cell_len(text) for _, text in word)
        if lines[-1] and _used(lines[-1]) + size > width >= size:
            lines.append([])
        for token, text in word:
            _place(lines, token, text, max(1, width))
    return lines if lines[-1] else lines[:-1]


def nearest(line: Line, column: int) -> int:
    """The token of `line` at `column`, or the one that is next to it."""
    return min(line, key=lambda part: max(part.start - column, column - (part.start + part.width - 1))).token


def _probability(logprob: Any) -> float:
    value = float(logprob)
    if math.isnan(value):
        raise ValueError("not a number")
    return math.exp(min(0.0, value))


def _words(tokens: Sequence[Sampled]) -> Iterator[list[tuple[int, str]]]:
    """Runs of tokens between which a line may break: before white space, and after the end of a line."""
    word: list[tuple[int, str]] = []
    for index, token in enumerate(tokens):
        if word and (token.text[:1].isspace() or word[-1][1].endswith(_NEWLINE)):
            yield word
            word = []
        word.append((index, shown(token.text)))
    if word:
        yield word


def _place(lines: list[Line], token: int, text: str, width: int) -> None:
    """Put a token at the end of the last line; it goes on below after an end of line, or when the line is full."""
    for piece in _pieces(text):
        room = width - _used(lines[-1])
        chops = [piece] if cell_len(piece) <= room else chop_cells(piece, width)
        for chop in chops:
            if lines[-1] and cell_len(chop) > width - _used(lines[-1]):
                lines.append([])
            lines[-1].append(Part(token, chop, _used(lines[-1]), cell_len(chop)))
        if piece.endswith(_NEWLINE):
            lines.append([])


def _pieces(text: str) -> list[str]:
    parts = text.split(_NEWLINE)
    return [f"{part}{_NEWLINE}" for part in parts[:-1]] + ([parts[-1]] if parts[-1] else [])


def _used(line: Line) -> int:
    return line[-1].start + line[-1].width if line else 0
