"""The line mode: answers on stdout, notes on stderr, Ctrl-C, dead models, and a context that is full."""

import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from line_mode import Run, Terminal, only_chat, scripted, texts

from edgemm.answer import Grown
from edgemm.backends.fake import FakeGenerator
from edgemm.desk import Desk
from edgemm.errors import NotEnoughMemory
from edgemm.events import Progress, Token
from edgemm.sessions import State
from edgemm.talk import converse, show

pytest_plugins = ("talking",)


# Questions and answers


def test_answers_go_to_stdout_and_everything_else_to_stderr(say: Run) -> None:
    seen = say("hello", "", "again")
    assert seen.out == "one two three\nfour five\n"
    assert "fake: type a message, /help for commands, Ctrl-D to leave\n" in seen.err


def test_the_figures_of_a_turn_are_one_line(say: Run, desk: Desk) -> None:
    say("/set seed 123", "hello")
    seen = say("more", chat=only_chat(desk).id)
    [line] = [line for line in seen.err.splitlines() if line.startswith("[")]
    assert line == "[2 tokens, 1000.0/s, first token 0.0 s, prompt 59 (36 reused), context 61/4096, seed 123]"


def test_the_chat_is_stored(say: Run, desk: Desk) -> None:
    say("hello")
    assert texts(desk, only_chat(desk).id) == ["hello", "one two three"]
    assert only_chat(desk).title == "hello"


def test_a_chat_goes_on_where_it_was_left(say: Run, desk: Desk) -> None:
    say("hello")
    seen = say("/history", "again", chat=only_chat(desk).id)
    assert "chat 1, hello: 2 messages, /history shows them" in seen.err
    assert seen.out == "user: hello\nassistant: one two three\nfour five\n"


def test_a_chat_in_which_nothing_was_said_leaves_no_trace(say: Run, desk: Desk) -> None:
    say("/new", "/new", "/settings")
    assert not desk.sessions.chats()


def test_a_chat_that_cannot_be_saved_says_so(say: Run, tmp_path: Path) -> None:
    path = tmp_path / "damaged.sqlite"
    path.write_bytes(b"damaged" * 1000)
    seen = say("hello", to=Desk(opener=lambda name: FakeGenerator(["yes"]), path=path))
    assert "chats are not saved: " in seen.err
    assert seen.out == "yes\n"


def test_a_line_that_ends_in_a_backslash_goes_on(say: Run, desk: Desk) -> None:
    say("one\\", "two\\", "three", "four")
    assert texts(desk, only_chat(desk).id)[::2] == ["one\ntwo\nthree", "four"]


def test_lines_between_two_fences_are_one_message(say: Run, desk: Desk) -> None:
    say('"""', "one", "", "two\\", "/exit", '"""', "next")
    assert texts(desk, only_chat(desk).id)[::2] == ["one\n\ntwo\\\n/exit", "next"]


def test_what_stands_between_fences_is_no_command(say: Run, desk: Desk) -> None:
    say('"""', "/exit", '"""', '"""', "//x", '"""', "//exit")
    assert texts(desk, only_chat(desk).id)[::2] == ["/exit", "//x", "/exit"]


@pytest.mark.parametrize("typed", [["hello\\"], ['"""', "hello"]])
def test_a_message_that_the_end_of_the_file_cuts_off_is_sent(say: Run, desk: Desk, typed: list[str]) -> None:
    assert say(*typed).out == "one two three\n"
    assert texts(desk, only_chat(desk).id)[0].strip() == "hello"


def test_bytes_that_are_no_text_do_not_end_the_chat(tmp_path: Path) -> None:
    script = (
        "from edgemm.backends.fake import FakeGenerator\n"
        "from edgemm.desk import Desk\n"
        "from edgemm.talk import converse\n"
        "converse(Desk(opener=lambda name: FakeGenerator(['gr\\u00fc\\u00df \\U0001f600'])), 'fake')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        input=b"bad \xff\xfe bytes\nand more\n",
        capture_output=True,
        timeout=60,
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == b"gr?? ?\ngr?? ?\n"


def test_thoughts_stay_off_stdout_and_stderr(say: Run) -> None:
    words = ["<think>", "let me ", "see", "</think>", "\n\nParis"]
    seen = say("hello", to=scripted(*(Token(i, word) for i, word in enumerate(words))))
    assert seen.out == "Paris\n"
    assert "let me" not in seen.err


def test_thoughts_that_looked_like_the_answer_are_told(say: Run) -> None:
    words = ["let me see", "</think>", "Paris"]
    seen = say("hello", to=scripted(*(Token(i, word) for i, word in enumerate(words))))
    assert seen.out == "let me see\nParis\n"
    assert "that was the model thinking" in seen.err


def test_a_model_that_thinks_long_is_heard_of() -> None:
    now = iter([0.0, 1.0, 11.0, 12.0, 30.0])
    answer = show.Answer(clock=lambda: next(now))
    told = io.StringIO()
    before, sys.stderr = sys.stderr, told
    try:
        for count in range(1, 6):
            answer.grow(Grown("", "word " * count))
    finally:
        sys.stderr = before
    assert told.getvalue() == "thinking\nthinking: 3 words so far\nthinking: 5 words so far\n"


def test_a_long_prompt_is_told_with_the_time_that_is_left(capsys: pytest.CaptureFixture[str]) -> None:
    now = iter([0.0, 2.0, 5.0, 6.0, 10.0])
    reading = show.Reading(clock=lambda: next(now))
    for done in (100, 200, 350, 400, 600):
        reading.show(Progress("prefill", done, 1100, "tokens"))
    assert capsys.readouterr().err == (
        "reading the prompt: 350 of 1,100 tokens, 15 s left\nreading the prompt: 600 of 1,100 tokens, 10 s left\n"
    )


def test_a_terminal_gets_a_prompt_and_names(prompted: Run) -> None:
    seen = prompted("hello", "one\\", "two")
    assert seen.out == "You: Assistant: one two three\nYou: ... Assistant: four five\nYou: "
    assert "\x1b" not in seen.out + seen.err
    assert "\r" not in seen.out + seen.err


def test_a_prompt_never_gets_into_a_file(desk: Desk, monkeypatch: pytest.MonkeyPatch, say: Run) -> None:
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdin", Terminal("hello\n"))
    monkeypatch.setattr(sys, "stdout", out)
    converse(desk, "fake")
    assert out.getvalue() == "one two three\n"


# Ctrl-C and failures


def interrupt() -> None:
    signal.raise_signal(signal.SIGINT)


def test_ctrl_c_stops_an_answer_and_keeps_it(say: Run) -> None:
    desk = scripted(Token(1, "one"), Token(2, " two"), interrupt, Token(3, " three"))
    seen = say("hello", "/history", to=desk)
    assert seen.out == "one two\nuser: hello\nassistant: one two\n"
    assert ", stopped: /continue goes on]" in seen.err
    [_, answer] = desk.sessions.turns(1)
    assert (answer.text, answer.state) == ("one two", State.STOPPED)


def test_a_second_ctrl_c_leaves_at_once_and_loses_nothing(say: Run) -> None:
    desk = scripted(Token(1, "one"), Token(2, " two"), interrupt_twice, Token(3, " three"))
    with pytest.raises(KeyboardInterrupt):
        say("hello", "never", to=desk)
    [_, answer] = desk.sessions.turns(1)
    assert answer.text == "one two"
    assert answer.state is not State.STREAMING


def interrupt_twice() -> None:
    interrupt()
    interrupt()


def test_ctrl_c_at_the_prompt_forgets_what_was_begun(
    prompted: Run, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = iter(["one\\", KeyboardInterrupt, '"""', "two", KeyboardInterrupt, "three", EOFError])

    def typed(prompt: str = "") -> str:
        line = next(lines)
        if isinstance(line, str):
            return line
        raise line

    monkeypatch.setattr("builtins.input", typed)
    prompted()
    assert texts(desk, only_chat(desk).id)[::2] == ["three"]


def test_ctrl_c_ends_a_chat_that_reads_a_pipe(say: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def typed(prompt: str = "") -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("builtins.input", typed)
    with pytest.raises(KeyboardInterrupt):
        say()


def test_a_model_that_dies_costs_one_line_and_the_chat_goes_on(say: Run) -> None:
    desk = Desk(opener=lambda name: FakeGenerator(["one two three", "four"], die_after=2))
    seen = say("hello", "again", to=desk)
    assert seen.out == "one two\nfour\n"
    assert seen.err.count("edgemm: fake: model stopped") == 1
    assert [turn.state for turn in desk.sessions.turns(1)][1] is State.FAILED


def test_a_model_that_cannot_be_loaded_ends_it_before_it_begins(say: Run) -> None:
    def fail(name: str) -> FakeGenerator:
        raise NotEnoughMemory(name, "needs 9 GB", "close something")

    desk = Desk(opener=fail)
    with pytest.raises(NotEnoughMemory):
        say("hello", to=desk)
    assert not desk.sessions.chats()


# When the context is full


def test_a_pipe_is_refused_with_both_numbers(say: Run, full: Desk) -> None:
    seen = say("z" * 300, chat=1, to=full)
    assert "900 tokens fit beside an answer: the" in seen.err
    assert "/set policy drop" in seen.err
    assert len(full.sessions.turns(1)) == 4


def test_a_pipe_that_allows_it_leaves_the_oldest_out(say: Run, full: Desk) -> None:
    seen = say("/set policy drop", "z" * 300, chat=1, to=full)
    assert "oldest messages would be left out" in seen.err
    assert seen.out == "x" * 60 + "\n"
    assert len(full.sessions.turns(1)) == 6


@pytest.mark.parametrize(("typed", "summary"), [("d", ""), ("s", "x" * 60)])
def test_a_terminal_is_asked_and_told_what_would_go(prompted: Run, full: Desk, typed: str, summary: str) -> None:
    seen = prompted("z" * 300, typed, chat=1, to=full)
    assert "user: question 0 yyy" in seen.err
    assert "oldest messages would be left out. d: leave them out, s: summarise them" in seen.err
    question = full.sessions.turns(1)[4]
    assert question.details["context"]["summary"] == summary


@pytest.mark.parametrize("typed", ["n", "", "drop"])
def test_anything_but_yes_sends_nothing(prompted: Run, full: Desk, typed: str) -> None:
    seen = prompted("z" * 300, typed, chat=1, to=full)
    assert "not sent\n" in seen.err
    assert len(full.sessions.turns(1)) == 4


def test_many_messages_that_would_go_are_counted(prompted: Run) -> None:
    desk = Desk(opener=lambda name: FakeGenerator(["x"], context=400))
    chat = desk.open_chat(desk.new_chat("fake").id)
    for number in range(8):
        list(chat.send(f"q{number}"))
    seen = prompted("z" * 250, "", chat=1, to=desk)
    assert seen.err.count("user: q") == 2
    assert "and 12 more\n" in seen.err
