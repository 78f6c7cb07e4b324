"""Scripted models for the tests of conversations, and short ways to open a chat and to read its events."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgemm.answer import Events, Grown
from edgemm.backends import Prompt, Sampling
from edgemm.backends.fake import FakeGenerator
from edgemm.chat_settings import ChatSettings
from edgemm.conversation import Conversation, Facts
from edgemm.events import Done, Progress, Token
from edgemm.prompt import Message
from edgemm.sessions import Sessions, Turn

ANSWERS = ["one two three four", "alpha beta", "final"]


class Recorder(FakeGenerator):
    """A scripted model that remembers what it was asked: messages, and then (tokens, sampling)."""

    def __init__(self, answers: Sequence[str], **options: Any) -> None:
        super().__init__(answers, **options)
        self.info = replace(self.info, vocabulary=10_000)  # alternatives have ids above 1,000
        self.prompts: list[list[Message]] = []
        self.asked: list[tuple[list[int], Sampling]] = []

    def prompt(self, messages: Sequence[Message]) -> Prompt:
        self.prompts.append(list(messages))
        return super().prompt(messages)

    def generate(self, tokens: Sequence[int], sampling: Sampling) -> Iterator[Progress | Token | Done]:
        self.asked.append((list(tokens), sampling))
        return super().generate(tokens, sampling)


class Saving(Recorder):
    """A scripted model whose KV cache can be saved: a list of tokens, as JSON."""

    def __init__(self, answers: Sequence[str], **options: Any) -> None:
        super().__init__(answers, **options)
        self.info = replace(self.info, can_save=True)
        self.saves = 0

    def save_state(self, path: Path) -> int:
        self.saves += 1
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.write_text(json.dumps(self._cached))

    def restore_state(self, path: Path) -> int:
        self._cached = json.loads(path.read_text()) if path.is_file() else []
        return len(self._cached)


class Waiting(Recorder):
    """A scripted model that does `wait` before its first token, as a long prefill does."""

    def __init__(self, answers: Sequence[str], wait: Any) -> None:
        super().__init__(answers)
        self._wait = wait

    def generate(self, tokens: Sequence[int], sampling: Sampling) -> Iterator[Progress | Token | Done]:
        for event in super().generate(tokens, sampling):
            yield event
            if isinstance(event, Progress):
                self._wait()


def opened(sessions: Sessions, model: FakeGenerator | None = None, **settings: Any) -> Conversation:
    """A new chat."""
    chat = sessions.create("fake", settings=ChatSettings(**settings).to_json())
    return reopened(sessions, chat.id, model)


def reopened(sessions: Sessions, chat: int, model: FakeGenerator | None = None) -> Conversation:
    return Conversation(sessions, chat, model or Recorder(ANSWERS), Facts("fake", "00ff"))


def texts(chat: Conversation) -> list[str]:
    return [turn.text for turn in chat.branch()]


def last(chat: Conversation) -> Turn:
    return chat.branch()[-1]


def finish(events: Events) -> list[Any]:
    return list(events)


def react(events: Iterable[Any], kind: type, act: Callable[[], object], seen: list[Any] | None = None) -> None:
    """Do `act` at each event of that kind; `seen` gets every event, also when an error ends them."""
    for event in events:
        if seen is not None:
            seen.append(event)
        if isinstance(event, kind):
            act()


def stop_after(events: Iterable[Any], chat: Conversation, words: int) -> None:
    for event in events:
        if isinstance(event, Grown) and len((event.reasoning + event.text).split()) >= words:
            chat.stop()


def close_after(events: Any, words: int) -> None:
    """Leave the events when so many words are there."""
    for event in events:
        if isinstance(event, Grown) and len((event.reasoning + event.text).split()) >= words:
            break
    events.close()
