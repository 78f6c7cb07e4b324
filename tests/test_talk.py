"""The chat line by line: answers on stdout, the rest on stderr, every command, nothing that a terminal obeys."""

import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from edgemm.backends.fake import FakeGenerator
from edgemm.desk import Desk
from edgemm.errors import UnknownModel
from edgemm.sessions import Sessions, default_path
from edgemm.talk import converse

EVIL = "\x1b]0;t\a\x9b31m\u202e[/]"


def talk(
    typed: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    answers: Sequence[str] = ("one two", "three"),
    model: str = "fake",
    **options: Any,
) -> tuple[str, str]:
    """What a chat prints on stdout and stderr when `typed` is piped into it."""
    monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
    desk = Desk(opener=lambda _: FakeGenerator(answers, **options))
    try:
        converse(desk, model)
    finally:
        desk.close()
    found = capsys.readouterr()
    return found.out, found.err


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    return lambda typed, **options: talk(typed, monkeypatch, capsys, **options)


def test_answers_are_data_and_all_else_is_not(run: Any) -> None:
    out, err = run("hello\n")
    assert out == "one two\n"
    assert "[2 tokens" in err
    assert "context " in err


def test_several_lines_are_one_message(run: Any) -> None:
    out, _ = run('first\\\nsecond\n/history\n"""\nthird\n\n/fourth\n"""\n/history\n')
    assert "user: first\nsecond" in out
    assert "user: third\n\n/fourth" in out


def test_every_command_answers_in_words(run: Any, tmp_path: Path) -> None:
    (tmp_path / "n.txt").write_text("note")
    (tmp_path / "s.json").write_text('{"type": "object"}')
    lines = [
        "hello",
        "/regenerate",
        "/branch",
        "/branch 1",
        "/edit hi",
        "/continue",
        "/search hello",
        "/chats",
        "/rename my chat",
        "/system be kind",
        "/system",
        "/persona",
        "/persona brief",
        "/set temperature 0",
        "/settings",
        "/tokens",
        f"/attach {tmp_path / 'n.txt'}",
        "/attach off",
        f"/schema {tmp_path / 's.json'}",
        "/schema off",
        "/model",
        f"/export {tmp_path / 'c.json'}",
        f"/import {tmp_path / 'c.json'}",
        "/new",
        "/open 1",
        "/history",
        "/delete",
        "/delete yes",
        "/compare x",
        "/nothing",
        "/help",
        "/exit",
        "never",
    ]
    out, err = run("\n".join(lines) + "\n")
    for part in ("1 answer: one two", "be kind", "Brief: ", "temperature: 0.0", "/regenerate: ", "chat 1, hello: user"):
        assert part in out, part
    for part in ("written to ", "deleted", "needs the chat screen", "/nothing: is no command", "no probabilities"):
        assert part in err, part
    assert "go with the next question" in err
    assert "never" not in out
    assert "Traceback" not in err


def test_nothing_that_a_terminal_obeys_gets_through(run: Any) -> None:
    typed = f"{EVIL}\n/rename {EVIL}\n/chats\n/search t\n/history\n/system {EVIL}\n/system\n/{EVIL}\n/attach {EVIL}\n"
    out, err = run(typed, answers=[EVIL], model=f"m{EVIL}")
    assert not set(out + err) & set("\x1b\a\x9b\u202e")
    assert "[/]" in out


def test_an_error_ends_no_chat(run: Any) -> None:
    out, err = run(f"{'x' * 5000}\nhello\n")
    assert "fit beside an answer" in err
    assert out == "one two\n"
    out, err = run("a\nb\n", die_after=1)
    assert "as the script says" in err
    assert out.endswith("three\n")


def test_what_would_be_left_out_must_be_allowed(run: Any) -> None:
    typed = "".join(f"{i} {'x' * 60}\n" for i in range(4))
    out, err = run(typed, answers=["y" * 60], context=400)
    assert "oldest messages would be left out" in err
    assert "/set policy drop" in err
    out, err = run(f"/set policy drop\n{typed}", answers=["y" * 60], context=400)
    assert out.count("y" * 60) == 4
    assert "left out from here on" in err


def test_an_unused_chat_leaves_nothing_and_a_used_one_stays(run: Any) -> None:
    run("/exit\n")
    run("hello\n")
    with Sessions(default_path()) as sessions:
        assert [info.title for info in sessions.chats()] == ["hello"]


def test_a_model_that_does_not_open_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def opener(name: str) -> FakeGenerator:
        raise UnknownModel(name, "is not there", "pull it")

    monkeypatch.setattr(sys, "stdin", io.StringIO("hello\n"))
    desk = Desk(opener=opener)
    with pytest.raises(UnknownModel):
        converse(desk, "none")
    assert desk.chats() == []
    desk.close()
