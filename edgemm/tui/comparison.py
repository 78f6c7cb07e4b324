"""The same prompt to two models, one after the other: what each answers, and where the answers part.

It opens a model through a function that it is given, and closes it before the next one is opened, so that one model
at a time is in memory and neither slows the other down. It knows no screen.
"""

from collections import abc
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Protocol, runtime_checkable

from edgemm.backends import Generator, Sampling, common_prefix
from edgemm.events import Done, Progress, Token
from edgemm.prompt import Message

Opener = Callable[[str], Generator]


@dataclass(frozen=True, slots=True)
class Opened:
    """`generator` is loaded, and can be cancelled from another thread."""

    generator: Generator


@dataclass(frozen=True, slots=True)
class Answered:
    """The whole answer in the texts of its tokens. `memory`: the most bytes of RAM held; 0: not known."""

    tokens: tuple[str, ...]
    done: Done
    memory: int


@dataclass(frozen=True, slots=True)
class Divergence:
    """Two answers are the same for `characters`; `left` and `right` are the indices of the tokens that differ.

    The index of an answer that ended there is its number of tokens.
    """

    characters: int
    left: int
    right: int


@runtime_checkable
class _Measured(Protocol):
    def memory(self) -> int: ...


def greedy(sampling: Sampling) -> Sampling:
    """`sampling` with nothing left to chance, so that two models differ by their weights alone."""
    return replace(sampling, temperature=0.0, seed=0)


def answer(
    opener: Opener, name: str, messages: Sequence[Message], sampling: Sampling
) -> abc.Generator[Opened | Progress | Token | Answered, None, None]:
    """Open the model `name`, ask it, close it. Raises what opening and generating raise."""
    generator = opener(name)
    try:
        yield Opened(generator)
        texts: list[str] = []
        for event in generator.generate(generator.prompt(messages).tokens, sampling):
            if isinstance(event, Token):
                texts.append(event.text)
            if isinstance(event, Done):
                memory = generator.memory() if isinstance(generator, _Measured) else 0
                yield Answered(tuple(texts), event, memory)
            else:
                yield event
    finally:
        generator.close()


def divergence(left: Sequence[str], right: Sequence[str]) -> Divergence | None:
    """Where two answers part, by their texts, since two models may cut them into other tokens; None: they are equal."""
    ours, theirs = "".join(left), "".join(right)
    if ours == theirs:
        return None
    same = common_prefix([*map(ord, ours)], [*map(ord, theirs)])
    return Divergence(same, _token_at(left, same), _token_at(right, same))


def _token_at(tokens: Sequence[str], character: int) -> int:
    """The index of the token that holds the character with this index."""
    ends = accumulate(map(len, tokens))
    return next((index for index, end in enumerate(ends) if end > character), len(tokens))
