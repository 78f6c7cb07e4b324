"""An answer while it grows: what it goes on from, what is told of it, and how it is stored meanwhile.

Its details come from the store, and so perhaps from a file of somebody else: what is not as it is written here is
taken as not there. It knows no model.
"""

import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from types import TracebackType
from typing import Any

from edgemm.errors import EdgemmError, ResourceError
from edgemm.events import Done, Note, Progress, Token
from edgemm.reasoning import Splitter, going_on
from edgemm.sessions import Sessions, State, Turn

_SAVE_SECONDS = 0.4  # between two looks at whether there is something to save; a kill may cost twice that
_ALIVE_SECONDS = 2.0  # between two saves of an answer that does not grow, so that no other window takes it for dead
_TOLD_SECONDS = 0.05  # between two events of one answer: each costs the model a little
TOKENS = "tokens"  # in an answer's details: [[id, text, logprob, [[text, logprob, id], ...]], ...]
_FIGURES, _EARLIER, _THINKING, _ERROR = "figures", "earlier", "thinking", "error"
Row = list[Any]


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
class Start:
    """What an answer goes on from: its text, the tokens of it, and a row for each of them where they were kept."""

    text: Splitter = field(default_factory=Splitter)
    tokens: list[int] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    earlier: list[dict[str, Any]] = field(default_factory=list)  # how its parts came about


def resumed(answer: Turn, tokens: list[int]) -> Start:
    """`tokens`: those of its text, for the model that goes on."""
    thinking = answer.details.get(_THINKING)
    inside = not answer.text and (thinking if isinstance(thinking, bool) else bool(answer.reasoning))
    rows = token_rows(answer) if tokens == list(answer.tokens) else []
    return Start(going_on(answer.text, answer.reasoning, inside), tokens, rows, _earlier(answer, len(tokens)))


def forked(answer: Turn, place: int, token: int) -> Start | None:
    """The answer up to its token `place`, and the alternative `token` in the place of that; None: there is none."""
    rows = token_rows(answer)
    found = [other for other in rows[place][3] if other[2] == token] if 0 <= place < len(rows) else []
    if not found:
        return None
    kept = [*rows[:place], [token, found[0][0], found[0][1], rows[place][3]]]
    start = Start(Splitter(), [row[0] for row in kept], kept, _earlier(answer, place))
    start.text.feed("".join(row[1] for row in kept))
    return start


def tokens_of(answer: Turn, model: str, sha256: str, vocabulary: int) -> list[int]:
    """The tokens of an answer that this model wrote; none of an answer by another one, or of a damaged one."""
    maker = answer.details.get("model")
    is_ours = isinstance(maker, dict) and (maker.get("model"), maker.get("sha256")) == (model, sha256)
    return list(answer.tokens) if is_ours and all(0 <= token < vocabulary for token in answer.tokens) else []


def token_rows(answer: Turn) -> list[Row]:
    """The tokens of an answer as its details hold them, see TOKENS; empty where they are missing or damaged."""
    rows = answer.details.get(TOKENS)
    if isinstance(rows, list) and all(map(_is_row, rows)) and [row[0] for row in rows] == list(answer.tokens):
        return rows
    return []


def _is_row(row: object) -> bool:
    match row:
        case [int(), str(), float() | int(), [*others]]:
            return all(map(_is_alternative, others))
    return False


def _is_alternative(row: object) -> bool:
    match row:
        case [str(), float() | int(), int()]:
            return True
    return False


@dataclass
class Growing:
    """An answer that goes on from `start`, and is stored while it does; at the end with `details`.

    A context: what has arrived is stored at its end, whatever ends it. A thread saves, so that an answer is kept, and
    known to be alive, also while the model is silent or whoever shows it is busy.
    """

    sessions: Sessions
    turn: Turn
    details: dict[str, Any]
    start: Start
    done: Done | None = None

    def __post_init__(self) -> None:
        self._changes = threading.Lock()  # text and tokens are saved as of one moment
        self._over = threading.Event()
        self._trouble: EdgemmError | None = None
        self._is_told = False
        self._keeper = threading.Thread(target=self._keep, name="edgemm-answer", daemon=True)

    def __enter__(self) -> "Growing":
        self._keeper.start()
        return self

    def __exit__(self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None) -> None:
        self._over.set()
        self._keeper.join()
        text, reasoning = self.start.text.shown()
        self.sessions.finish(
            self.turn.id, self._state(error), text, reasoning, self.start.tokens, self._all_details(error)
        )

    def grow(self, events: Iterator[Progress | Token | Done]) -> Events:
        """Take the answer from `events`, and tell of it. Raises what they raise."""
        told = 0.0
        try:
            for event in events:
                yield from self._troubles()
                if isinstance(event, Done):
                    self.done = event
                elif isinstance(event, Progress):
                    yield event
                elif self._add(event) and time.monotonic() - told > _TOLD_SECONDS:
                    told = time.monotonic()
                    yield self._grown()
        except EdgemmError:
            yield self._grown()  # what arrived last
            raise
        self.start.text.finish()
        yield self._grown()

    def _grown(self) -> Grown:
        return Grown(self.start.text.answer, self.start.text.reasoning)

    def _add(self, token: Token) -> bool:
        with self._changes:
            if token.id >= 0:
                if token.top and len(self.start.rows) == len(self.start.tokens):
                    alternatives = [list(each) for each in token.top]
                    self.start.rows.append([token.id, token.text, token.logprob, alternatives])
                self.start.tokens.append(token.id)
            self.start.text.feed(token.text)
        return bool(token.text)

    def _keep(self) -> None:
        before, at = self._now(), time.monotonic()
        while not self._over.wait(_SAVE_SECONDS):
            now = self._now()
            if now == before and time.monotonic() - at < _ALIVE_SECONDS:
                continue
            try:
                self.sessions.update(self.turn.id, *now)
                before, at = now, time.monotonic()
            except EdgemmError as error:
                self._trouble = error

    def _now(self) -> tuple[str, str, list[int]]:
        with self._changes:
            return *self.start.text.shown(), list(self.start.tokens)

    def _troubles(self) -> Iterator[Note]:
        """A full disk ends no answer: it may have room again at the end. Raises what is no lack of that kind."""
        error, self._trouble = self._trouble, None
        if error is not None and not isinstance(error, ResourceError):
            raise error
        if error is not None and not self._is_told:
            self._is_told = True
            yield Note(f"the answer is not saved at present: {error}")

    def _state(self, error: BaseException | None) -> State:
        if self.done is not None:
            return State.DONE if self.done.reason == "stop" else State.STOPPED
        return State.FAILED if isinstance(error, Exception) else State.STOPPED  # a closed iterator, Ctrl-C

    def _all_details(self, error: BaseException | None) -> dict[str, Any]:
        text, rows, old = self.start.text, self.start.rows, self.turn.details
        kept = {name: old[name] for name in old if name not in (TOKENS, _FIGURES, _EARLIER, _THINKING, _ERROR)}
        found = {
            _FIGURES: asdict(self.done) if self.done else None,
            TOKENS: rows if len(rows) == len(self.start.tokens) else None,
            _EARLIER: self.start.earlier,
            _ERROR: str(error) if self.done is None and isinstance(error, EdgemmError) else None,
        }
        thinking = {_THINKING: text.inside} if text.inside or text.reasoning else {}
        return kept | self.details | {name: value for name, value in found.items() if value} | thinking


def _earlier(answer: Turn, tokens: int) -> list[dict[str, Any]]:
    """How the first `tokens` of an answer came about, before it goes on: with which model, seed and figures."""
    before = answer.details.get(_EARLIER)
    part = {name: answer.details[name] for name in ("sampling", "model", _FIGURES) if name in answer.details}
    parts = [{"tokens": tokens} | part] if part else []
    return (before if isinstance(before, list) else []) + parts
