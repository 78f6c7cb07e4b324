"""What one chat may set: system prompt, sampling, answer schema, and what happens when the context is full.

A `ChatSettings` is valid by construction: each field has one row of limits, and a value outside it raises
`UsageError`. It knows no model, so whether a schema can be obeyed or a prompt fits is for others to say.
"""

import json
import math
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import Any

from edgemm.backends import Sampling
from edgemm.errors import UsageError

MAX_SCHEMA = 64 << 10  # characters
_INT32 = 2**31 - 1  # the samplers take C integers
_DEFAULT = Sampling()


class Policy(StrEnum):
    """What to do when the conversation no longer fits into the context."""

    REFUSE = "refuse"  # say so, with both numbers
    DROP = "drop"  # leave out the oldest turns
    SUMMARISE = "summarise"  # replace the oldest turns by a summary


@dataclass(frozen=True, slots=True)
class Limit:
    """`kind` of a number, and the least and the most that it may be."""

    kind: type[int] | type[float]
    low: float
    high: float

    def __str__(self) -> str:
        word = "a whole number" if self.kind is int else "a number"
        return (
            f"{word} of at least {self.low:g}" if self.high == _INT32 else f"{word} in {self.low:g}..{self.high:.10g}"
        )


LIMITS = {
    "max_tokens": Limit(int, 1, _INT32),
    "temperature": Limit(float, 0, 5),
    "top_k": Limit(int, 0, _INT32),
    "top_p": Limit(float, 0, 1),
    "min_p": Limit(float, 0, 1),
    "repetition_penalty": Limit(float, 0.1, 5),
    "seed": Limit(int, 0, 2**32 - 1),
    "top_logprobs": Limit(int, 0, 5),
    "draft": Limit(int, 0, 64),
}
"""The numbers of `ChatSettings`, in the order in which a form shows them. `seed` may also be None."""


@dataclass(frozen=True, slots=True)
class ChatSettings:
    """Settings of one chat; the numbers mean what they mean in `Sampling`. Raises `UsageError` for a bad value.

    `top_logprobs`: likeliest tokens kept for each token, 0 keeps none. `draft`: most tokens guessed ahead, 0: none.
    `schema`: a JSON schema that answers must obey, as text; empty: none. `docs`: the folder whose passages go with
    each question, or "*" for every indexed one; empty: none.
    """

    system: str = ""
    max_tokens: int = _DEFAULT.max_tokens
    temperature: float = _DEFAULT.temperature
    top_k: int = _DEFAULT.top_k
    top_p: float = _DEFAULT.top_p
    min_p: float = _DEFAULT.min_p
    repetition_penalty: float = _DEFAULT.repetition_penalty
    seed: int | None = _DEFAULT.seed
    top_logprobs: int = _DEFAULT.top_logprobs
    draft: int = _DEFAULT.draft
    schema: str = _DEFAULT.schema
    policy: Policy = Policy.REFUSE
    docs: str = ""

    def __post_init__(self) -> None:
        for name, limit in LIMITS.items():
            _check_number(name, getattr(self, name), limit)
        for name in ("system", "schema", "docs"):
            _check_text(name, getattr(self, name))
        _check_schema(self.schema)
        if not isinstance(self.policy, Policy):
            raise UsageError("policy", f"{self.policy!r} is none of {', '.join(Policy)}", "choose one of these")

    def sampling(self) -> Sampling:
        """How the next token is chosen in this chat."""
        return Sampling(**{name: getattr(self, name) for name in (*LIMITS, "schema")})

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, which `from_json` takes."""
        return asdict(self) | {"policy": str(self.policy)}

    @staticmethod
    def from_json(values: object) -> "ChatSettings":
        """The settings in `values`; what is not there has its default. Raises `UsageError` for an unknown key."""
        if not isinstance(values, dict):
            raise UsageError("chat settings", f"expected an object, found {type(values).__name__}", _RESET)
        unknown = sorted(set(map(str, values)) - {field.name for field in fields(ChatSettings)})
        if unknown:
            raise UsageError("chat settings", f"unknown key {unknown[0]!r}", _RESET)
        policy = values.get("policy", Policy.REFUSE)
        known = {"policy": Policy(policy)} if policy in tuple(Policy) else {}
        return ChatSettings(**{**values, **known})


_RESET = "take the key out, or start from the defaults"


def parse(name: str, text: str) -> int | float | None:
    """The number that was typed for `name`; nothing typed means a new seed each time. Raises `UsageError`."""
    if name not in LIMITS:
        raise UsageError(name, "is no number of a chat", f"choose one of {', '.join(LIMITS)}")
    limit, typed = LIMITS[name], text.strip()
    if name == "seed" and not typed:
        return None
    try:
        value = limit.kind(typed.replace(",", ".") if limit.kind is float else typed)
    except ValueError:
        raise _bad(name, typed, limit) from None
    _check_number(name, value, limit)
    return value


def _check_number(name: str, value: object, limit: Limit) -> None:
    if name == "seed" and value is None:
        return
    kinds = (int,) if limit.kind is int else (int, float)
    if type(value) not in kinds:  # a bool is an int to isinstance
        raise _bad(name, value, limit)
    assert isinstance(value, int | float)
    if not limit.low <= value <= limit.high or math.isnan(value):
        raise _bad(name, value, limit)


def _bad(name: str, value: object, limit: Limit) -> UsageError:
    shown = repr(value)
    shown = shown if len(shown) <= 40 else shown[:40] + "…"
    return UsageError(name, f"{shown} is not {limit}", "change it")


def _check_text(name: str, value: object) -> None:
    if not isinstance(value, str):
        raise UsageError(name, f"expected text, found {type(value).__name__}", "put it in quotes")


def _check_schema(schema: str) -> None:
    if len(schema) > MAX_SCHEMA:
        raise UsageError("schema", f"has {len(schema):,} characters, {MAX_SCHEMA:,} are allowed", "make it shorter")
    if not schema:
        return
    try:
        whole = isinstance(json.loads(schema), dict)
    except (ValueError, RecursionError):
        whole = False
    if not whole:
        raise UsageError("schema", "is not a JSON object", 'write one, such as {"type": "object"}')
