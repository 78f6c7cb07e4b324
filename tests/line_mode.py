"""What a line mode is tried with: what was seen of it, a terminal that is none, scripted models."""

import io
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from edgemm.backends import Sampling
from edgemm.backends.fake import FakeGenerator
from edgemm.desk import Desk
from edgemm.events import Done, Progress, Token
from edgemm.sessions import ChatInfo

HOSTILE = "\x1b[2J\x1b]0;t\x07\x9b31m\u202egnp\r\x08\U000e0041"
Run = Callable[..., "Seen"]


class Seen(NamedTuple):
    out: str
    err: str


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def only_chat(desk: Desk) -> ChatInfo:
    [chat] = desk.chats()
    return chat


def texts(desk: Desk, chat: int) -> list[str]:
    return [turn.text for turn in desk.sessions.turns(chat)]


def assert_harmless(seen: Seen) -> None:
    for text in seen:
        found = [c for c in text if unicodedata.category(c) == "Cc" and c not in "\n\t"]
        found += [c for c in text if c in "\u202e" or ord(c) >= 0xE0000]
        assert not found, ascii(text)


class Scripted(FakeGenerator):
    """A model that thinks, reads slowly, or calls back while it answers."""

    def __init__(self, events: Sequence[Progress | Token | Callable[[], None]], **options: int) -> None:
        super().__init__(["unused"], **options)  # type: ignore[arg-type]
        self._events = events

    def generate(self, tokens: Sequence[int], sampling: Sampling) -> Iterator[Progress | Token | Done]:
        count, reason = 0, "stop"
        self._cancelled.clear()
        for event in self._events:
            if self._cancelled.is_set():
                reason = "cancelled"
                break
            if isinstance(event, Progress | Token):
                count += isinstance(event, Token)
                yield event
            else:
                event()
        yield Done(reason, len(tokens), 0, count, 0.4, 1.0)


def scripted(*events: Progress | Token | Callable[[], None]) -> Desk:
    return Desk(opener=lambda name: Scripted(events))
