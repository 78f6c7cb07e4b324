"""Fixtures that type into the line mode, through a pipe or at a terminal."""

import io
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from line_mode import Run, Seen, Terminal

from edgemm.backends.fake import FakeGenerator
from edgemm.chat_settings import ChatSettings
from edgemm.desk import Desk
from edgemm.talk import converse


@pytest.fixture
def desk(home: Path) -> Iterator[Desk]:
    made = Desk(opener=lambda name: FakeGenerator(["one two three", "four five", "six"]))
    yield made
    made.close()


@pytest.fixture
def say(desk: Desk, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Pipe lines into the line mode."""

    def run(*typed: str, chat: int | None = None, to: Desk = desk) -> Seen:
        monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in typed)))
        converse(to, "fake", chat)
        return Seen(*capsys.readouterr())

    return run


@pytest.fixture
def prompted(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Type lines at a terminal; Terminal stands for it."""

    def run(*typed: str, chat: int | None = None, to: Desk = desk) -> Seen:
        out, err = Terminal(), Terminal()
        monkeypatch.setenv("TERM", "dumb")
        monkeypatch.setattr(sys, "stdin", Terminal("".join(f"{line}\n" for line in typed)))
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr(sys, "stderr", err)
        converse(to, "fake", chat)
        return Seen(out.getvalue(), err.getvalue())

    return run


@pytest.fixture
def full(home: Path) -> Desk:
    """A chat of 4 messages, whose model has no room for a long one more."""
    desk = Desk(opener=lambda name: FakeGenerator(["x" * 60], context=1000), settings=ChatSettings(max_tokens=100))
    chat = desk.open_chat(desk.new_chat("fake").id)
    for number in range(2):
        list(chat.send(f"question {number} " + "y" * 240))
    return desk
