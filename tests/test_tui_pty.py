"""The real program on a real terminal: typing, stopping, other sizes, leaving, death, and what never gets through."""

import json
import os
import signal
import sqlite3
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

if sys.platform == "win32":
    pytest.skip("there are no pseudo-terminals here", allow_module_level=True)

from conftest import Cli
from hostile_texts import TEXTS
from pty_driver import Program, program, scripted, sequences, text

from edgemm.paths import cache
from edgemm.sessions import Sessions, State, default_path

EDITOR = "attaches a file"
READY = "/1,048,576 tokens"  # the meter: the model is loaded


def script(path: Path, **values: Any) -> str:
    path.write_text(json.dumps({"answers": [["one ", "two"]], **values}), "utf-8")
    return str(path)


def slow(count: int = 600) -> list[list[str]]:
    return [[f"word{i} " for i in range(count)]]


def turns() -> list[Any]:
    with Sessions(default_path()) as sessions:
        return sessions.turns(sessions.chats()[0].id)


def test_typing_stopping_other_sizes_and_leaving(tmp_path: Path) -> None:
    with program(scripted(script(tmp_path / "s.json", answers=slow(), seconds=0.02))) as it:
        it.until(READY)
        it.send("hello\r")
        it.until("word9 ")
        for size in ((120, 40), (20, 5), (1, 1), (80, 24)):
            it.resize(*size)
            it.pause(0.3)
        it.send("\x1b")
        it.until("stopped here")
        it.send("\x1bOP")  # F1
        it.until("Keys")
        it.send("\x1b")
        it.pause(0.5)
        it.send("\x11")  # Ctrl+Q
        assert it.wait() == 0
        for ends in (b"\x1b[?1049l", b"\x1b[?25h", b"\x1b[?1000l"):  # screen, cursor and mouse as they were
            assert it.seen.rindex(ends) > it.seen.rindex(b"\x1b[?1049h")
    [_, answer] = turns()
    assert answer.state is State.STOPPED
    assert answer.text.startswith("word0 word1 ")


def test_what_was_said_is_there_after_a_kill(tmp_path: Path) -> None:
    path = script(tmp_path / "s.json", answers=slow(), seconds=0.02)
    with program(scripted(path)) as it:
        it.until(READY)
        it.send("hello\r")
        it.until("word60 ")
        it.kill()
    [question, answer] = turns()
    assert question.text == "hello"
    assert len(answer.text.split()) > 10  # of 60, at 50 a second: a second at most is lost
    script(tmp_path / "s.json", last=True)
    with program(scripted(path)) as it:
        it.until("word10 ")
        it.until(READY)
        it.send("again\r")
        it.until("one two")


def test_native_prints_never_reach_the_screen(tmp_path: Path) -> None:
    noise = "ggml_assert: \x1b[2J boom\n"
    with program(scripted(script(tmp_path / "s.json", noise=noise))) as it:
        it.until(READY)
        it.send("hello\r")
        it.until("one two")
        it.send("\x11")
        assert it.wait() == 0
        assert b"boom" not in it.seen


def test_inline_it_stands_below_what_is_there(tmp_path: Path) -> None:
    with program(scripted(script(tmp_path / "s.json", inline=True)), (90, 30)) as it:
        it.until(lambda: it.read() and b"\x1b[6n" in it.seen)
        it.send("\x1b[3;1R")  # where the cursor stands: a terminal answers
        it.until("new chat")
        it.until(READY)
        it.send("hello\r")
        it.until("one two")
        it.send("\x11")
        assert it.wait() == 0
        assert b"\x1b[?1049h" not in it.seen


def test_a_bug_leaves_the_terminal_as_it_was_and_a_traceback_behind(tmp_path: Path) -> None:
    with program(scripted(script(tmp_path / "s.json", answers=[[7]]))) as it:
        it.until(READY)
        it.send("hello\r")
        assert it.wait() == 1
        assert b"ended by a bug" in it.seen
        assert it.seen.rindex(b"\x1b[?1049l") > it.seen.rindex(b"\x1b[?1049h")
    assert "TypeError" in (cache() / "stderr.log").read_text("utf-8")
    assert turns()[0].text == "hello"


def test_no_color_means_none(tmp_path: Path) -> None:
    with program(scripted(script(tmp_path / "s.json")), NO_COLOR="1") as it:
        it.until(READY)
        it.send("hello\r")
        it.until("one two")
        styles = [s for s in sequences(it.seen) if s.endswith(b"m") and s.startswith(b"\x1b[")]
    shades = {tuple(map(int, parts)) for s in styles for parts in _colours(s)}
    assert all(red == green == blue for red, green, blue in shades), shades


def _colours(style: bytes) -> list[list[bytes]]:
    """The true colours in one SGR sequence."""
    parts = style[2:-1].split(b";")
    return [parts[i + 2 : i + 5] for i in range(len(parts) - 4) if parts[i] in (b"38", b"48") and parts[i + 1] == b"2"]


def test_a_megabyte_of_paste_and_bad_bytes_do_no_harm(tmp_path: Path) -> None:
    with program(scripted(script(tmp_path / "s.json"))) as it:
        it.until(READY)
        it.send(b"\x1b[200~")
        block = b"line of text \xff\xfe \xc3\n" * 400
        for _ in range(100):
            it.send(block)
            it.read(0)
        it.send(b"\x1b[201~")
        it.until("Pasted text", 30)
        it.send("\r")
        it.until("one two", 30)
    assert len(turns()[0].text) > 500_000


@pytest.mark.starter
def test_the_model_is_killed_and_answers_again(smollm2: Path) -> None:
    home = smollm2.parent.parent
    command = [sys.executable, "-m", "edgemm", "chat", "-m", "smollm2-135m-instruct", "--max-tokens", "60"]
    store = Path(os.environ["EDGEMM_HOME"])
    store.mkdir(parents=True, exist_ok=True)
    (store / "smollm2-135m-instruct").symlink_to((home / "smollm2-135m-instruct").resolve())
    with program(command, (100, 30)) as it:
        it.until("/4,096 tokens", 60)
        it.send("Write a story about the sea.\r")
        it.until("smollm2-135m-instruct", 60)
        it.until(lambda: it.read() and len(turns()) == 2 and psutil.Process(it.pid).children())
        time.sleep(0.4)
        for child in psutil.Process(it.pid).children():
            os.kill(child.pid, signal.SIGKILL)
        it.until("F5 answers again", 60)
        it.send("\x1b[15~")  # F5
        it.until("first token", 60)
        it.send("\x11")
        assert it.wait() == 0
    assert [turn.state for turn in turns()][-1] in (State.DONE, State.STOPPED)


@pytest.mark.parametrize("environment", [{"TERM": "dumb"}, {}])
def test_without_a_screen_it_is_line_by_line(environment: dict[str, str], cli: Cli, tmp_path: Path) -> None:
    import tiny_gguf

    path = tiny_gguf.write(tmp_path / "tiny.gguf")
    if environment:
        with program([sys.executable, "-m", "edgemm", "chat", "-m", str(path)], **environment) as it:
            it.until("type a message, /help for commands")
            it.send("/exit\r")
            assert it.wait() == 0
            assert b"\x1b[?1049h" not in it.seen
    else:
        done = cli("chat", "-m", path, stdin="/help\n")
        assert done.returncode == 0
        assert "/regenerate" in done.stdout


# Hostile texts


def pieces(value: str) -> list[str]:
    """Cut so that every sequence is split at some place."""
    return [value[i : i + 3] for i in range(0, len(value), 3)] if len(value) > 40 else list(value)


def harmless(tmp_path: Path) -> set[bytes]:
    """The kinds of sequences that the program itself writes."""
    with program(scripted(script(tmp_path / "plain.json"))) as it:
        _session(it, ["hello there", "more"])
        return set(map(kind, sequences(it.seen)))


def kind(sequence: bytes) -> bytes:
    """A sequence without its numbers, but with what makes it a mode, a title, a clipboard."""
    if sequence.startswith(b"\x1b["):
        return sequence if b"?" in sequence or sequence.endswith((b"h", b"l")) else b"\x1b[" + sequence[-1:]
    return sequence[:5]


def _session(it: Program, questions: list[str]) -> None:
    it.until(READY)
    for number, question in enumerate(questions):
        it.send(b"\x1b[200~" + question.encode("utf-8", "replace").replace(b"\x1b[201~", b"") + b"\x1b[201~")
        it.read(0.02)
        it.send("\r")
        it.until(lambda n=number: it.read(0.02) and _answers() > n)  # type: ignore[misc]
    it.pause(0.5)
    it.send("\x11")
    assert it.wait() == 0


def _answers() -> int:
    with Sessions(default_path()) as sessions:
        chats = sessions.chats()
        found = sessions.turns(chats[0].id) if chats else []
    return sum(turn.role == "assistant" and turn.state is not State.STREAMING for turn in found)


def test_no_hostile_text_drives_the_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(TEXTS) >= 200
    monkeypatch.setenv("EDGEMM_HOME", str(tmp_path / "plain"))
    allowed = harmless(tmp_path)
    monkeypatch.setenv("EDGEMM_HOME", str(tmp_path / "evil"))
    groups = [TEXTS[i : i + 20] for i in range(0, len(TEXTS), 20)]
    answers = [[piece for value in group for piece in (*pieces(value), "\n\n")] for group in groups]
    path = script(
        tmp_path / "evil.json", answers=answers, model="m\x1b]0;x\a", title="t\x1b]52;c;YQ==\a[@click=app.quit]"
    )
    with program(scripted(path), (100, 30)) as it:
        it.until(READY)
        _session_of(it, groups)
        raw = it.seen
    foreign = {s for s in sequences(raw) if kind(s) not in allowed}
    assert not foreign, foreign
    assert not [c for c in text(raw) if ord(c) < 32 and c not in "\r\n\t\x0f\x0e"]
    shown = raw.decode("utf-8", "replace")
    assert not [
        c for c in shown if 0x80 <= ord(c) < 0xA0 or c in "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
    ]
    assert not [c for c in shown if 0xE0000 <= ord(c) < 0xE0080]


def _session_of(it: Program, groups: list[list[str]]) -> None:
    """Each group is what the model answers to its own first text."""
    for number, group in enumerate(groups):
        it.send(b"\x1b[200~" + group[0].encode("utf-8", "replace").replace(b"\x1b[201~", b"") + b" q\x1b[201~")
        it.read(0.02)
        it.send("\r")
        it.until(lambda n=number: it.read(0.02) and _answers() > n)  # type: ignore[misc]
    it.pause(0.5)
    for key in ("\x1bOQ", "\x1b", "\x1bOP", "\x1b"):  # the chat list with its titles, help
        it.send(key)
        it.pause(0.4)
    it.send("\x11")
    assert it.wait() == 0


# Death


def test_a_hundred_deaths_lose_no_acknowledged_message(tmp_path: Path) -> None:
    path = script(tmp_path / "s.json", answers=slow(2000), seconds=0.005)
    acknowledged = 0
    for death in range(100):
        with program(scripted(path)) as it:
            it.until(READY)
            it.send(f"question {death}\r")
            it.until("word1 ")
            acknowledged += 1
            it.pause((death % 10) / 40)
            it.kill()
    database = sqlite3.connect(default_path())
    assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    with Sessions(default_path()) as sessions:
        chats = [sessions.turns(info.id) for info in sessions.chats(1000)]
    questions = {found[0].text for found in chats if found}
    assert questions == {f"question {n}" for n in range(acknowledged)}
    assert all(found[1].role == "assistant" for found in chats if found)
