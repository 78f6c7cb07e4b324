"""What the engines tell their callers while they work: four typed events.

An engine yields them, and raises an `EdgemmError` when it fails; a door (command line, server, terminal screen)
translates them. Nothing here knows who listens.
"""

from collections.abc import Generator
from dataclasses import dataclass
from typing import TypeVar

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Progress:
    """`done` of `total` units of `stage` ("download", "prefill", ...). `total` 0: not known."""

    stage: str
    done: int
    total: int
    unit: str = "it"


@dataclass(frozen=True, slots=True)
class Note:
    """Something that the user should know, in one line; the work goes on."""

    text: str


@dataclass(frozen=True, slots=True)
class Token:
    """One sampled token. `text` is complete UTF-8, and empty while a character or a stop text is unfinished.

    `id` -1: text that was held back and belongs to tokens before. `logprob` (natural logarithm) and `top`, the
    likeliest tokens as (text, logprob, id), are there when `Sampling.top_logprobs` asks for them; they are those of
    the model's own distribution, before penalties and temperature.
    """

    id: int
    text: str
    logprob: float | None = None
    top: tuple[tuple[str, float, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Done:
    """The end of a generation. `reason`: "stop" (end token or stop text), "length" or "cancelled".

    `drafted` tokens were guessed ahead of the model, and `accepted` of them were right (speculative decoding).
    """

    reason: str
    prompt_tokens: int
    reused_tokens: int
    generated_tokens: int
    prefill_seconds: float
    decode_seconds: float
    drafted: int = 0
    accepted: int = 0

    @property
    def tokens_per_second(self) -> float:
        return self.generated_tokens / self.decode_seconds if self.decode_seconds > 0 else 0.0


Work = Generator[Progress | Note, None, _T]
"""A piece of work that tells how far it is, and ends with a value: `value = yield from work()`."""


def value_of(work: Work[_T]) -> _T:
    """Run `work` to its end, its progress unseen, and give its value."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
