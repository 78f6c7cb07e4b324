"""An answer while it grows: what is told of it, and how it is stored meanwhile. It knows no model."""

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from edgemm.errors import EdgemmError
from edgemm.events import Done, Note, Progress, Token
from edgemm.reasoning import Splitter
from edgemm.sessions import Sessions, State, Turn

_SAVE_SECONDS = 0.5  # of an answer that a kill may cost
_TOLD_SECONDS = 0.05  # between two events of one answer: each costs the model a little
TOKENS = "tokens"  # in an answer's details: [[id, text, logprob, [[text, logprob, id], ...]], ...]


@dataclass(frozen=True, slots=True)
class Begun:
    """The question and its answer are stored, and the answer is about to grow."""

    question: Turn
    answer: Turn


@dataclass(frozen=True, slots=True)
class Grown:
    """All of an answer that streams, its reasoning apart."""

    text: str
    reasoning: str


@dataclass(frozen=True, slots=True)
class Ended:
    """The answer as it is stored."""

    answer: Turn
    done: Done


Events = Iterator[Progress | Note | Begun | Grown | Ended]


@dataclass
class Growing:
    """An answer that grows, and is stored while it does."""

    sessions: Sessions
    turn: Turn
    details: dict[str, Any]
    text: Splitter = field(default_factory=Splitter)
    tokens: list[int] = field(default_factory=list)
    rows: list[list[Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.tokens = list(self.turn.tokens)
        self.rows = list(self.turn.details.get(TOKENS, []))
        self.text.answer, self.text.reasoning = self.turn.text, self.turn.reasoning

    def run(self, events: Iterator[Progress | Token | Done], ended: Callable[[int, Done], Turn]) -> Events:
        state, done = State.FAILED, None
        saved, told = time.monotonic(), 0.0
        try:
            for event in events:
                if isinstance(event, Done):
                    done = event
                elif isinstance(event, Progress):
                    yield event
                elif self._grow(event) and time.monotonic() - told > _TOLD_SECONDS:
                    told = time.monotonic()
                    yield Grown(self.text.answer, self.text.reasoning)
                if time.monotonic() - saved > _SAVE_SECONDS:
                    self.sessions.update(self.turn.id, self.text.answer, self.text.reasoning, self.tokens)
                    saved = time.monotonic()
            state = State.STOPPED if done is None or done.reason != "stop" else State.DONE
        except GeneratorExit:
            state = State.STOPPED
            raise
        except EdgemmError:
            yield Grown(self.text.answer, self.text.reasoning)  # what arrived last
            raise
        finally:
            self._finish(state, done)
        if done is not None:
            yield Grown(self.text.answer, self.text.reasoning)
            yield Ended(ended(self.turn.id, done), done)

    def _grow(self, token: Token) -> bool:
        if token.id >= 0:
            self.tokens.append(token.id)
            if token.top:
                self.rows.append([token.id, token.text, token.logprob, [list(each) for each in token.top]])
        self.text.feed(token.text)
        return bool(token.text)

    def _finish(self, state: State, done: Done | None) -> None:
        self.text.finish()
        figures = {"figures": asdict(done)} if done is not None else {}
        details = self.turn.details | self.details | figures | ({TOKENS: self.rows} if self.rows else {})
        self.sessions.finish(self.turn.id, state, self.text.answer, self.text.reasoning, self.tokens, details)
