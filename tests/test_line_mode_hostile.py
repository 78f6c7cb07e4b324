"""The line mode shows nothing foreign as a control sequence: answers, titles, names, files, probabilities."""

import json
import sys
from pathlib import Path

import pytest
from line_mode import HOSTILE, Run, assert_harmless

from edgemm import commands, paths
from edgemm.answer import TOKENS
from edgemm.backends.fake import FakeGenerator
from edgemm.desk import Desk

pytest_plugins = ("talking",)


# Nothing foreign reaches the terminal


def test_no_answer_question_or_title_drives_the_terminal(say: Run) -> None:
    desk = Desk(opener=lambda name: FakeGenerator([f"an {HOSTILE} answer"]))
    seen = say(
        f"a {HOSTILE} question",
        "/history",
        f"/rename {HOSTILE}",
        "/chats",
        "/search question",
        "/regenerate",
        "/branch",
        "/branch 1",
        f"/system {HOSTILE}",
        "/system",
        "/settings",
        "/new",
        "/open 1",
        to=desk,
    )
    assert_harmless(seen)
    assert "␛[2J" in seen.out
    assert "␛[2J" in seen.err


def test_no_name_of_a_model_drives_the_terminal(say: Run, tmp_path: Path) -> None:
    desk = Desk(opener=lambda name: FakeGenerator(["yes"]))
    chat = desk.new_chat(HOSTILE).id
    seen = say("/model", "hello", "/chats", f"/model {HOSTILE}", chat=chat, to=desk)
    assert_harmless(seen)
    assert "␛[2J" in seen.out
    assert "␛[2J" in seen.err


@pytest.mark.skipif(sys.platform == "win32", reason="Windows allows no such file names")
def test_no_file_name_drives_the_terminal(say: Run, tmp_path: Path) -> None:
    name = tmp_path / "\x1b[2J\x9b31m\u202e"
    text = Path(f"{name}.txt")
    text.write_text(HOSTILE)
    seen = say(
        f"/attach {text}",
        f"/attach {name}.missing",
        "hello",
        f"/export {name}.md",
        f"/export {name}.md",
        f"/export {name}.xyz",
        f"/import {name}.md",
        f"/import {name}.json",
        f"/schema {text}",
        f"/schema {name}.json",
    )
    assert_harmless(seen)
    assert seen.err.count("[2J") >= 5


@pytest.mark.parametrize("row", commands.ROWS, ids=lambda row: row.name)
def test_no_argument_drives_the_terminal(say: Run, row: commands.Command) -> None:
    assert_harmless(
        say("hello", f"/{row.name} {HOSTILE}", f"/{HOSTILE}", f"/set {HOSTILE} 1", f"/set policy {HOSTILE}")
    )


def test_no_probability_or_persona_drives_the_terminal(say: Run, desk: Desk) -> None:
    path = paths.data() / "personas.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([{"name": "x", "about": HOSTILE, "system": HOSTILE}, {HOSTILE: 1}]))
    chat = desk.new_chat("fake").id
    turn = desk.sessions.add(chat, None, "user", "hello")
    rows = [[1, HOSTILE, -0.5, [[HOSTILE, -0.5, 1], [HOSTILE, -1, 2]]]]
    desk.sessions.add(chat, turn.id, "assistant", "hi", details={TOKENS: rows})
    seen = say("/tokens", "/persona", "/persona x", "/system", f"/persona {HOSTILE}", chat=chat)
    assert_harmless(seen)
    assert "␛" in seen.out
