"""The real program on a real terminal: typing, stopping, other sizes, leaving, death, and what never gets through."""

import re
import signal
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

if sys.platform == "win32":
    pytest.skip("there are no pseudo-terminals here", allow_module_level=True)

import tiny_gguf
from conftest import Cli
from pty_driver import DOWN, ESCAPE, F1, F5, READY, Program, edgemm, program, scripted, sequences

from edgemm.paths import cache
from edgemm.sessions import Sessions, State, default_path

KEYS = "F1 help  F2 chats"
EDITOR = "attaches a file"
MODEL = "smollm2-135m-instruct"
# The screen, the cursor, the mouse, pastes and the keyboard as they were.
ENDS = (b"\x1b[?1049l", b"\x1b[?25h", b"\x1b[?1000l", b"\x1b[?1003l", b"\x1b[?2004l", b"\x1b[<u", b"\x1b[?7h")
STARTS = (b"\x1b[?1049h", b"\x1b[?25l", b"\x1b[?1000h", b"\x1b[?1003h", b"\x1b[?2004h", b"\x1b[>25u", b"\x1b[?7l")


def slow(count: int = 2000) -> list[list[str]]:
    return [[f"word{i} " for i in range(count)]]


def turns() -> list[Any]:
    with Sessions(default_path()) as sessions:
        return sessions.turns(sessions.chats()[0].id)


def assert_restored(it: Program) -> None:
    for end, start in zip(ENDS, STARTS, strict=True):
        assert it.seen.rindex(end) > it.seen.rindex(start), end


# What a user does


def test_typing_stopping_other_sizes_help_and_leaving(tmp_path: Path) -> None:
    with program(scripted(tmp_path / "s.json", answers=slow(), seconds=0.02)) as it:
        it.until(READY)
        it.send("hello")
        it.until("hello")
        it.send("\r")
        it.until("word9 ")
        for size in ((120, 40), (20, 5), (1, 1), (80, 24)):
            it.resize(*size)
            it.pause(0.3)
        it.until(KEYS)
        it.send("\x1b")  # as a terminal says it that cannot tell it from the beginning of another key
        it.until("stopped here")
        it.send(ESCAPE)  # nothing is left to stop
        it.send(F1)
        it.until("scroll · Esc close")
        assert not it.shows("stopped here")
        it.send(ESCAPE)
        it.until("stopped here")
        it.leave()
        assert_restored(it)
    [_, answer] = turns()
    assert answer.state is State.STOPPED
    assert answer.text.startswith("word0 word1 ")


@pytest.mark.parametrize("size", [(120, 40), (80, 24), (20, 5)])
def test_the_editor_is_in_sight_at_every_size(tmp_path: Path, size: tuple[int, int]) -> None:
    with program(scripted(tmp_path / "s.json"), (100, 30)) as it:
        it.until(READY)
        it.resize(*size)
        it.send("hello")
        it.until(lambda: any("hello" in line for line in it.lines()[-5:]))
        it.send("\r")
        it.until(lambda: [turn.text for turn in turns()] == ["hello", "one two"])
        it.leave()


def test_two_windows_of_one_chat_lose_nothing(tmp_path: Path) -> None:
    with program(scripted(tmp_path / "a.json", answers=[["from a"]]), (100, 30)) as a:
        a.until(READY)
        a.ask("first")
        a.until("from a")
        with program(scripted(tmp_path / "b.json", answers=[["from b"]], last=True), (100, 30)) as b:
            b.until("from a")
            b.until(READY)
            b.ask("second, in b")
            b.until("from b")
            a.ask("third, in a")
            a.until("this chat has grown in another window")
            a.until(lambda: len(turns()) == 6 and turns()[-1].state is State.DONE)
            a.leave()
            b.leave()
    assert [turn.text for turn in turns()] == ["first", "from a", "second, in b", "from b", "third, in a", "from a"]
    assert turns()[4].parent == turns()[2].parent == turns()[1].id


def test_no_color_means_none(tmp_path: Path) -> None:
    for depth in ("", "truecolor"):
        with program(scripted(tmp_path / "s.json"), NO_COLOR="1", COLORTERM=depth) as it:
            it.until(READY)
            it.ask("hello")
            it.until("one two")
            it.send(F1)
            it.until("scroll · Esc close")
            it.press(DOWN, ESCAPE)
            it.leave()
        assert colours(it.seen) <= {b"39", b"49"}  # what the terminal has anyway


def test_where_it_may_it_shows_colours(tmp_path: Path) -> None:
    with program(scripted(tmp_path / "s.json"), NO_COLOR="", COLORTERM="") as it:
        it.until(READY)
    assert len(colours(it.seen)) > 5


def colours(raw: bytes) -> set[bytes]:
    styles = b";".join(s[2:-1] for s in sequences(raw) if re.fullmatch(rb"\x1b\[[\d;]*m", s))
    return set(re.findall(rb"[34]8;5;\d+|[34]8;2;\d+;\d+;\d+|(?<![\d;])(?:[349]\d|10\d)(?!\d)", styles))


def test_a_megabyte_of_paste_and_bad_bytes_do_no_harm(tmp_path: Path) -> None:
    with program(scripted(tmp_path / "s.json")) as it:
        it.until(READY)
        it.send(b"\x1b[200~")
        for _ in range(100):
            it.send(b"line of text \xff\xfe \xc3\n" * 400)
        it.send(b"\x1b[201~")
        it.until("Pasted text")
        it.send("\r")
        it.until("one two")
        it.leave()
    assert len(turns()[0].text) > 500_000


def test_inline_it_stands_below_what_is_there(tmp_path: Path) -> None:
    with program(scripted(tmp_path / "s.json", inline=True), (90, 30)) as it:
        it.until(lambda: b"\x1b[6n" in it.seen)
        it.send("\x1b[3;1R")  # where the cursor stands: a terminal answers
        it.until(lambda: it.wrote(READY))
        it.send("hello\r")
        it.until(lambda: it.wrote("one two"))
        it.leave()
        assert b"\x1b[?1049h" not in it.seen


# Ends of all kinds


def test_what_was_said_is_there_after_a_kill(tmp_path: Path) -> None:
    with program(scripted(tmp_path / "s.json", answers=slow(), seconds=0.02)) as it:
        it.until(READY)
        it.ask("hello")
        it.until("word20")
        it.until(lambda: "word20 " in turns()[1].text)
        it.kill()
    [question, answer] = turns()
    assert question.text == "hello"
    assert answer.text.startswith("word0 word1 ")
    with program(scripted(tmp_path / "s.json", last=True)) as it:
        it.until("word20")
        it.until(READY)
        it.ask("again")
        it.until("one two")
        it.leave()


def test_told_to_end_it_keeps_the_answer_and_leaves_the_terminal_as_it_was(tmp_path: Path) -> None:
    with program(scripted(tmp_path / "s.json", answers=slow(), seconds=0.02)) as it:
        it.until(READY)
        it.ask("hello")
        it.until("word9")
        it.signal(signal.SIGTERM)
        assert it.wait() == 0
        assert_restored(it)
    assert turns()[1].state is State.STOPPED


def test_it_ends_when_its_terminal_goes_away(tmp_path: Path) -> None:
    with program(scripted(tmp_path / "s.json", answers=slow(), seconds=0.02)) as it:
        it.until(READY)
        it.ask("hello")
        it.until("word30")
        it.hang_up()
        psutil.Process(it.pid).wait(10)
        it.code = 0  # psutil has taken it
    assert turns()[0].text == "hello"


def test_sent_to_the_background_it_gives_the_terminal_back(tmp_path: Path) -> None:
    with program(scripted(tmp_path / "s.json", answers=slow(), seconds=0.02)) as it:
        it.until(READY)
        it.ask("hello")
        it.until("word9")
        it.signal(signal.SIGTSTP)
        it.until(lambda: psutil.Process(it.pid).status() == psutil.STATUS_STOPPED)
        it.pause(0.2)
        assert_restored(it)
        it.signal(signal.SIGCONT)
        it.until("word60")
        it.send(ESCAPE)
        it.until("stopped here")
        it.leave()


def test_a_bug_leaves_the_terminal_as_it_was_and_a_traceback_behind(tmp_path: Path) -> None:
    with program(scripted(tmp_path / "s.json", answers=[[7]])) as it:
        it.until(READY)
        it.send("hello\r")
        assert it.wait() == 1
        assert it.wrote("ended by a bug")
        assert_restored(it)
    assert "TypeError" in (cache() / "stderr.log").read_text("utf-8")
    assert turns()[0].text == "hello"


def test_native_prints_never_reach_the_screen(tmp_path: Path) -> None:
    noise = "ggml_assert: \x1b[2J boom\n"
    with program(scripted(tmp_path / "s.json", noise=noise)) as it:
        it.until(READY)
        it.ask("hello")
        it.until("one two")
        it.leave()
        assert b"boom" not in it.seen
        assert not it.shows("boom")
    assert (cache() / "stderr.log").read_text("utf-8").count("boom") == 2


# The real model


@pytest.fixture
def real_model(smollm2: Path, home: Path) -> str:
    home.mkdir(parents=True, exist_ok=True)
    (home / MODEL).symlink_to(smollm2.resolve().parent)
    return MODEL


@pytest.mark.starter
def test_the_model_is_killed_and_answers_again(real_model: str) -> None:
    with program(edgemm("chat", "-m", real_model, "--max-tokens", 200), (100, 30)) as it:
        it.until("/4,096 tokens", 60)
        it.ask("Write a story about the sea.")
        it.until(lambda: len(turns()) == 2 and len(turns()[1].text) > 20, 60)
        for child in psutil.Process(it.pid).children():
            child.kill()
        it.until("F5 answers again", 60)
        assert turns()[1].state is State.FAILED
        it.send(F5)
        it.until("2/2", 60)
        it.until(lambda: len(turns()) == 3 and turns()[2].text, 60)
        it.leave()
    with program(edgemm("chat", "--last"), (100, 30)) as it:
        it.until("2/2", 60)
        it.until("/4,096 tokens", 60)
        it.leave()
    assert turns()[2].state in (State.DONE, State.STOPPED)
    assert turns()[2].parent == turns()[0].id


# Where no screen can stand


def test_on_a_terminal_that_cannot_move_its_cursor_it_is_line_by_line(tmp_path: Path) -> None:
    model = tiny_gguf.write(tmp_path / "tiny.gguf")
    with program(edgemm("chat", "-m", model), TERM="dumb") as it:
        it.until(lambda: it.wrote("type a message, /help for commands"))
        it.send("/exit\r")
        assert it.wait() == 0
        assert b"\x1b[?1049h" not in it.seen


def test_in_a_pipe_it_is_line_by_line(cli: Cli, tmp_path: Path) -> None:
    done = cli("chat", "-m", tiny_gguf.write(tmp_path / "tiny.gguf"), stdin="/help\n")
    assert done.returncode == 0
    assert "/regenerate" in done.stdout
    assert "\x1b" not in done.stdout
