"""The chat screen is killed a hundred times while it answers: each question it took is there, the database whole."""

import random
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

if sys.platform == "win32":
    pytest.skip("there are no pseudo-terminals here", allow_module_level=True)

from pty_driver import READY, program, scripted

from edgemm.sessions import Sessions, State, Turn, default_path

DEATHS, TOGETHER = 100, 3
LATEST = 1.0  # seconds
WORDS, WORD = 2000, 0.01  # of an answer; seconds for each


def test_a_hundred_deaths_lose_no_question_and_damage_nothing(tmp_path: Path) -> None:
    chance, taken = random.Random(7), set[int]()
    waiting = [_life(number, chance, tmp_path, taken) for number in range(DEATHS)]
    running: list[Iterator[None]] = []
    while waiting or running:
        running += [waiting.pop() for _ in range(min(len(waiting), TOGETHER - len(running)))]
        running = [life for life in running if next(life, life) is not life]
    assert len(taken) >= DEATHS * 0.75  # the others may have died before they were answered
    with closing(sqlite3.connect(default_path())) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert database.execute("PRAGMA foreign_key_check").fetchall() == []
    _assert_kept(_stored(), taken)


def _life(number: int, chance: random.Random, folder: Path, taken: set[int]) -> Iterator[None]:
    """One program from its start to its death, in steps. Every other one goes on with a chat that others may hold.

    It dies soon after Enter, or soon after its answer has begun; `taken` are those whose answer was seen.
    """
    answer = [_word(number, place) for place in range(WORDS)]
    command = scripted(folder / f"{number}.json", answers=[answer], seconds=WORD, last=bool(number % 2))
    with program(command, (100, 30)) as it:
        yield from it.steps(READY)
        it.ask(f"question {number}")
        if number % 4:
            yield from it.steps(_mark(number))
        end = time.monotonic() + chance.uniform(0, LATEST)
        while time.monotonic() < end:
            it.read(0.01)
            yield
        it.kill()
        it.pause(0.05)  # what it wrote before
        if number % 4 or it.shows(_mark(number)):
            taken.add(number)


def _word(number: int, place: int) -> str:
    return f"{_mark(number)}{place} "


def _mark(number: int) -> str:
    """What every word of an answer begins with."""
    return f"w{number}x"


def _stored() -> list[Turn]:
    with Sessions(default_path()) as sessions:
        return [turn for chat in sessions.chats(10_000) for turn in sessions.turns(chat.id)]


def _assert_kept(turns: list[Turn], taken: set[int]) -> None:
    """Every question once, with its answer as far as it came: a beginning of what the model says, and none is done."""
    asked = {turn.id: int(turn.text.split()[1]) for turn in turns if turn.role == "user"}
    assert len(set(asked.values())) == len(asked)
    assert taken <= set(asked.values())
    answers = {asked[turn.parent]: turn for turn in turns if turn.role == "assistant" and turn.parent is not None}
    assert taken <= set(answers)
    for number, turn in answers.items():
        assert "".join(_word(number, place) for place in range(WORDS)).startswith(turn.text)
        assert turn.state is not State.DONE
    assert any(turn.text for turn in answers.values())
