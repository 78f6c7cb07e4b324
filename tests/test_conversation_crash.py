"""A process that is killed while an answer streams: what was acknowledged is there, and at most a second is lost."""

import random
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from conftest import ROOT
from scripted import Recorder, finish, last, reopened, texts

from edgemm.sessions import Sessions, State, Turn, store

ROUNDS, TOGETHER = 100, 5
WORD = 0.003  # seconds
LOST = 1.0  # seconds of text
MACHINE = 0.6  # seconds that a busy machine may add
# It tells what a user would know: a question is stored when Begun arrives, so much text is saved, so much is shown.
CHILD = """
import sys, time
from pathlib import Path
from edgemm.answer import Begun, Grown
from edgemm.backends.fake import FakeGenerator
from edgemm.conversation import Conversation, Facts
from edgemm.sessions import Sessions

def tell(*what):
    sys.stdout.write(" ".join(map(str, what)) + "\\n")
    sys.stdout.flush()

class Told(Sessions):
    def update(self, message, text, reasoning="", tokens=()):
        super().update(message, text, reasoning, tokens)
        tell("saved", message, len(text), len(tokens))

    def finish(self, message, state, text, reasoning="", tokens=(), details=None):
        super().finish(message, state, text, reasoning, tokens, details)
        tell("saved", message, len(text), len(tokens))

answers = [" ".join(f"{n}.{i}" for i in range(count)) for n, count in enumerate((40, 2000))]
sessions = Told(Path(sys.argv[1]))
model = FakeGenerator(answers, seconds_per_token=float(sys.argv[3]))
chat = Conversation(sessions, int(sys.argv[2]), model, Facts("m"))
for number in range(2):
    for event in chat.send(f"question {number}"):
        if isinstance(event, Begun):
            tell("begun", event.question.id, event.answer.id)
            answer = event.answer.id
        elif isinstance(event, Grown):
            tell("shown", answer, len(event.text), time.monotonic())
"""


@dataclass
class Known:
    """What a process acknowledged before it was killed. Lengths in characters and tokens, times in seconds."""

    questions: list[int] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    saved: dict[int, tuple[int, int]] = field(default_factory=dict)
    shown: list[tuple[int, int, float]] = field(default_factory=list)

    def due(self, answer: int) -> int:
        """Characters that were shown so long before the end that they must be there."""
        end = max((at for _, _, at in self.shown), default=0) - LOST - MACHINE
        return max((length for message, length, at in self.shown if message == answer and at <= end), default=0)


def known(out: Path) -> Known:
    found = Known()
    for line in out.read_text().splitlines(keepends=True):
        if not line.endswith("\n"):  # cut by the kill
            break
        kind, message, *rest = line.split()
        if kind == "begun":
            found.questions.append(int(message))
            found.answers.append(int(rest[0]))
        elif kind == "saved":
            found.saved[int(message)] = (int(rest[0]), int(rest[1]))
        else:
            found.shown.append((int(message), int(rest[0]), float(rest[1])))
    return found


def killed(path: Path, chats: list[int], seeded: random.Random, longest: float) -> list[Known]:
    """One process for each chat, all in one file, each killed at a moment of its own."""
    outs = [path.with_name(f"{chat}.out") for chat in chats]
    living = {}
    for chat, out in zip(chats, outs, strict=True):
        with out.open("wb") as file:
            command = [sys.executable, "-c", CHILD, str(path), str(chat), str(WORD)]
            living[out] = subprocess.Popen(command, cwd=ROOT, stdout=file)
    ends: dict[Path, float] = {}
    try:
        while living:
            time.sleep(0.005)
            for out, process in list(living.items()):
                assert process.poll() is None, "it ended by itself"
                if out not in ends and out.stat().st_size:
                    ends[out] = time.monotonic() + seeded.uniform(0, longest)
                if time.monotonic() > ends.get(out, float("inf")):
                    end(living.pop(out))
    finally:
        for process in living.values():
            end(process)
    return [known(out) for out in outs]


def end(process: "subprocess.Popen[bytes]") -> None:
    process.kill()
    process.wait(60)


def check(turns: dict[int, Turn], found: Known) -> None:
    assert all(turns[question].role == "user" for question in found.questions)
    assert all(turns[question].text == f"question {n}" for n, question in enumerate(found.questions))
    for number, answer in enumerate(found.answers):
        turn, (characters, tokens) = turns[answer], found.saved.get(answer, (0, 0))
        whole = " ".join(f"{number}.{i}" for i in range(2000))
        assert whole.startswith(turn.text)
        assert len(turn.text) >= max(characters, found.due(answer))
        assert len(turn.tokens) >= tokens
        assert len(turn.tokens) == len(turn.text.split())  # text and tokens are of one moment
    assert len(turns) <= 2 * len(found.questions) + 2  # at most one question and answer that were not acknowledged


def test_a_hundred_kills_lose_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    path, seeded = tmp_path / "chats.sqlite", random.Random(11)
    acknowledged = lengths = long = 0
    for batch in range(ROUNDS // TOGETHER):
        with Sessions(path) as sessions:
            chats = [sessions.create("m", settings={"max_tokens": 9000}).id for _ in range(TOGETHER)]
        results = killed(path, chats, seeded, 3.0 if batch % 10 == 0 else 0.6)
        with Sessions(path) as sessions:
            for chat, found in zip(chats, results, strict=True):
                check({turn.id: turn for turn in sessions.turns(chat)}, found)
                acknowledged += len(found.questions)
                lengths += len(found.saved)
                long += any(found.due(answer) for answer in found.answers)
    assert acknowledged >= ROUNDS
    assert lengths > ROUNDS // 2
    assert long >= 2  # otherwise nothing was asked of the saves while an answer streams
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_killed_answer_is_stopped_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "_STALE_SECONDS", 0.1)
    path = tmp_path / "chats.sqlite"
    with Sessions(path) as sessions:
        chat = sessions.create("m", settings={"max_tokens": 9000}).id
    killed(path, [chat], random.Random(1), 2.0)
    time.sleep(0.2)
    with Sessions(path) as sessions:
        window = reopened(sessions, chat, Recorder(["and on"]))
        cut = last(window)
        assert cut.state is State.STOPPED
        finish(window.resume(cut.id))
        assert last(window).text == f"{cut.text}and on"
        finish(window.send("next"))
        assert texts(window)[-2:] == ["next", "and on"]
