"""What a chat is made of: plain frozen records, and the JSON in which their open-ended parts are kept.

It knows no database and no screen.
"""

import json
import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

Json = dict[str, Any]


class State(StrEnum):
    """How far a message has come."""

    STREAMING = "streaming"  # being written; a reader with no writer at hand shows it as stopped
    DONE = "done"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class ChatInfo:
    """One chat. `leaf` is the message at which its open branch ends; times are seconds since 1970."""

    id: int
    title: str
    model: str
    settings: Json
    leaf: int | None
    created: float
    updated: float
    messages: int  # on all branches


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of role "user" or "assistant". `parent` None: it opens the chat. Parents have the smaller ids."""

    id: int
    chat: int
    parent: int | None
    role: str
    text: str
    reasoning: str
    state: State
    tokens: tuple[int, ...]  # generated token ids
    details: Json  # figures, attachments, seed, ...: whatever else is to be kept
    created: float


@dataclass(frozen=True, slots=True)
class Hit:
    """A message that a search found. In `snippet`, MARK and UNMARK stand around each match."""

    chat: int
    title: str
    message: int
    role: str
    snippet: str


def encode(value: Any) -> str:
    """`value` as standard JSON in ASCII: NaN and infinities, which JSON does not have, become null."""
    try:
        return json.dumps(value, allow_nan=False, separators=(",", ":"))
    except ValueError:
        return json.dumps(_finite(value), separators=(",", ":"))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
