"""What is kept of an answer, whatever ends it: a stop, a closed iterator, a dead model, a full disk."""

import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from scripted import (
    ANSWERS,
    Recorder,
    Waiting,
    close_after,
    finish,
    last,
    opened,
    react,
    reopened,
    stop_after,
    texts,
)

from edgemm import answer
from edgemm.answer import Begun, Ended, Grown
from edgemm.errors import DiskFull, ModelStopped, PromptTooLong, UsageError
from edgemm.events import Note, Progress
from edgemm.sessions import Sessions, State, store

SLOW = 0.06  # seconds for each word: longer than between two events


@pytest.fixture
def sessions() -> Sessions:
    return Sessions()


def test_a_stopped_answer_keeps_its_text_and_goes_on_with_exactly_its_tokens(sessions: Sessions) -> None:
    model = Recorder(["one two three four five six", "and more"], seconds_per_token=SLOW)
    chat = opened(sessions, model)
    stop_after(chat.send("a"), chat, 3)
    stopped = last(chat)
    assert stopped.state is State.STOPPED
    assert stopped.text.startswith("one two three")
    assert stopped.details["figures"]["reason"] == "cancelled"
    events = finish(chat.resume(stopped.id))
    assert (events[0].answer.id, events[0].answer.text, events[0].answer.state) == (
        stopped.id,
        stopped.text,
        State.STREAMING,
    )
    [grown] = [turn for turn in chat.turns if turn.role == "assistant"]
    assert (grown.text, grown.state) == (f"{stopped.text}and more", State.DONE)
    assert model.asked[1][0] == [*model.asked[0][0], *stopped.tokens]
    assert grown.tokens == (*stopped.tokens, 0, 1)


def test_an_abandoned_answer_is_kept_and_the_next_question_carries_it(sessions: Sessions) -> None:
    model = Recorder(ANSWERS)
    chat = opened(sessions, model)
    close_after(chat.send("a"), 1)
    assert [(turn.text, turn.state) for turn in sessions.turns(chat.info.id)][1] == ("one", State.STOPPED)
    assert last(chat).text == "one"
    finish(chat.send("b"))
    assert [m["content"] for m in model.prompts[-1]] == ["a", "one", "b"]


@pytest.mark.parametrize("kind", [Begun, Progress])
def test_an_answer_that_is_abandoned_before_its_first_word_does_not_stream_on(sessions: Sessions, kind: type) -> None:
    chat = opened(sessions)
    events: Any = chat.send("a")
    next(event for event in events if isinstance(event, kind))
    events.close()
    assert [turn.state for turn in sessions.turns(chat.info.id)] == [State.DONE, State.STOPPED]
    finish(chat.resume(last(chat).id))
    assert last(chat).text in ANSWERS
    assert last(chat).state is State.DONE
    assert len(chat.turns) == 2


def test_an_answer_that_is_left_at_its_last_event_is_whole(sessions: Sessions) -> None:
    chat = opened(sessions)
    events: Any = chat.send("a")
    while not (isinstance(event := next(events), Grown) and event.text == ANSWERS[0]):
        pass
    events.close()
    assert (last(chat).text, last(chat).state) == (ANSWERS[0], State.DONE)


def test_closing_the_events_ends_the_work_of_the_model(sessions: Sessions) -> None:
    made = []  # holds the model's events, so that nothing but a call closes them

    class Held(Recorder):
        def generate(self, *request: Any) -> Any:
            made.append(super().generate(*request))
            return made[-1]

    chat = opened(sessions, Held(ANSWERS))
    close_after(chat.send("a"), 1)
    assert [events.gi_frame for events in made] == [None]


def test_a_model_that_dies_leaves_what_it_said_and_the_next_question_works(sessions: Sessions) -> None:
    model = Recorder(ANSWERS, die_after=2)
    chat = opened(sessions, model)
    with pytest.raises(ModelStopped, match="as the script says"):
        finish(chat.send("a"))
    assert (last(chat).text, last(chat).state) == ("one two", State.FAILED)
    assert "as the script says" in last(chat).details["error"]
    failed = last(chat).id
    finish(chat.send("b"))
    assert texts(chat) == ["a", "one two", "b", "alpha beta"]
    assert [m["content"] for m in model.prompts[-1]] == ["a", "one two", "b"]
    finish(chat.resume(failed))
    assert chat.turn(failed).text == "one twofinal"
    assert chat.turn(failed).state is State.DONE
    assert "error" not in chat.turn(failed).details


def test_the_last_words_of_a_model_that_dies_are_told(sessions: Sessions) -> None:
    chat = opened(sessions, Recorder(ANSWERS, die_after=3))
    told: list[Any] = []
    with pytest.raises(ModelStopped):
        react(chat.send("a"), Grown, bool, told)
    assert told[-1] == Grown("one two three", "")


def test_ctrl_c_stops_an_answer(sessions: Sessions) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    chat = opened(sessions, Waiting(ANSWERS, interrupt))
    with pytest.raises(KeyboardInterrupt):
        finish(chat.send("a"))
    assert last(chat).state is State.STOPPED


def test_a_stop_before_the_model_is_at_work_is_heard(sessions: Sessions) -> None:
    chat = opened(sessions)
    events = chat.send("a")
    assert isinstance(next(events), Begun)
    chat.stop()
    [*_, ended] = events
    assert isinstance(ended, Ended)
    assert (ended.answer.text, ended.answer.state, ended.done.reason) == ("", State.STOPPED, "cancelled")
    [*_, ended] = chat.send("b")  # a stop holds for one answer
    assert isinstance(ended, Ended)
    assert ended.done.reason == "stop"


def test_an_answer_cut_at_its_longest_is_not_done(sessions: Sessions) -> None:
    chat = opened(sessions, max_tokens=2)
    finish(chat.send("a"))
    assert (last(chat).text, last(chat).state) == ("one two", State.STOPPED)
    assert last(chat).details["figures"]["reason"] == "length"


def test_an_answer_that_fills_the_context_is_not_gone_on_with_and_stays_as_it_is(sessions: Sessions) -> None:
    chat = opened(sessions, Recorder(["y " * 200], context=150), max_tokens=130)
    finish(chat.send("a question"))
    cut = last(chat)
    with pytest.raises(PromptTooLong, match=r"has 158 tokens with the conversation before it, 149 fit"):
        finish(chat.resume(cut.id))
    assert last(chat) == cut
    assert sessions.turns(chat.info.id)[-1].state is State.STOPPED


@pytest.mark.parametrize("words", [2, 4, 5])
def test_thoughts_that_were_stopped_go_on_as_thoughts(sessions: Sessions, words: int) -> None:
    model = Recorder(["<think> hm ho ha </think> yes it is", " and so </think> done"], seconds_per_token=SLOW)
    chat = opened(sessions, model)
    stop_after(chat.send("a"), chat, words)
    stopped = last(chat)
    assert stopped.reasoning.split()[:2] == ["hm", "ho"][: len(stopped.reasoning.split())]
    finish(chat.resume(stopped.id))
    if stopped.text:  # the thoughts were over
        assert last(chat).reasoning == "hm ho ha"
        assert last(chat).text == f"{stopped.text} and so </think> done"
    else:
        assert last(chat).reasoning.startswith(stopped.reasoning)
        assert last(chat).reasoning.endswith("and so")
        assert last(chat).text.strip() == "done"
    assert model.asked[1][0][-len(stopped.tokens) :] == list(stopped.tokens)


def test_an_answer_stopped_behind_its_thoughts_goes_on_as_an_answer(sessions: Sessions) -> None:
    model = Recorder(["<think>hm</think> yes", "no"])
    chat = opened(sessions, model, max_tokens=1)
    finish(chat.send("a"))
    assert (last(chat).reasoning, last(chat).text) == ("hm", "")
    finish(chat.resume(last(chat).id))
    assert (last(chat).reasoning, last(chat).text) == ("hm", "no")


def test_a_mark_that_a_stop_cut_in_two_becomes_whole(sessions: Sessions) -> None:
    model = Recorder(["<think>hm </th", "ink>yes"])
    chat = opened(sessions, model)
    finish(chat.send("a"))
    assert (last(chat).reasoning, last(chat).text) == ("hm </th", "")
    finish(chat.resume(last(chat).id))
    assert (last(chat).reasoning, last(chat).text) == ("hm", "yes")


# While it streams


def test_what_streams_is_stored_at_least_every_half_second(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    with Sessions(path) as sessions, Sessions(path) as reader:
        chat = opened(sessions, Recorder(["word " * 200], seconds_per_token=0.03))
        shown: list[tuple[float, int]] = []
        for event in chat.send("a"):
            if isinstance(event, Grown):
                shown.append((time.monotonic(), len(event.text)))
                stored = len(reader.turns(chat.info.id)[1].text)
                due = [
                    length for at, length in shown if at < time.monotonic() - 0.8
                ]  # 0.4 s of them for a busy machine
                assert stored >= max(due, default=0)
            if shown and shown[-1][0] - shown[0][0] > 2:
                chat.stop()
    assert len(shown) > 10


def test_an_answer_is_stored_while_nobody_takes_its_events(sessions: Sessions) -> None:
    chat = opened(sessions, Recorder(ANSWERS))
    events: Any = chat.send("a")
    next(event for event in events if isinstance(event, Grown))
    deadline = time.monotonic() + 10
    while sessions.turns(chat.info.id)[1].text != "one" and time.monotonic() < deadline:
        time.sleep(0.02)
    stored = sessions.turns(chat.info.id)[1]
    assert (stored.text, stored.tokens, stored.state) == ("one", (0,), State.STREAMING)
    events.close()


def test_a_long_prefill_is_not_taken_for_a_dead_writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "_STALE_SECONDS", 1.2)
    monkeypatch.setattr(answer, "_SAVE_SECONDS", 0.1)
    monkeypatch.setattr(answer, "_ALIVE_SECONDS", 0.3)
    path, seen = tmp_path / "c.sqlite", []
    with Sessions(path) as sessions, Sessions(path) as other:

        def look() -> None:
            end = time.monotonic() + 2
            while time.monotonic() < end:
                time.sleep(0.1)
                seen.append(other.recover(chat.info.id))

        chat = opened(sessions, Waiting(ANSWERS, look))
        finish(chat.send("a"))
        assert (last(chat).text, last(chat).state) == (ANSWERS[0], State.DONE)
    assert len(seen) > 5
    assert not any(seen)


def test_the_answers_thread_ends_with_it(sessions: Sessions) -> None:
    chat = opened(sessions, Recorder(ANSWERS, die_after=1))
    with pytest.raises(ModelStopped):
        finish(chat.send("a"))
    finish(chat.send("a"))
    close_after(chat.send("a"), 1)
    assert not [thread for thread in threading.enumerate() if thread.name == "edgemm-answer"]


def full(sessions: Sessions) -> None:
    pages = sessions._db.execute("PRAGMA page_count").fetchone()[0]
    sessions._db.execute(f"PRAGMA max_page_count = {pages}")


def test_a_disk_that_is_full_for_a_while_ends_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answer, "_SAVE_SECONDS", 0.05)
    with Sessions(tmp_path / "c.sqlite") as sessions:
        chat = opened(sessions, Recorder([" ".join(["w" * 3000] * 30)], seconds_per_token=0.03))
        notes = []
        for event in chat.send("a"):
            if isinstance(event, Begun):
                full(sessions)
            if isinstance(event, Note):
                notes.append(event.text)
                sessions._db.execute("PRAGMA max_page_count = 1000000")
        assert ["not saved at present" in note for note in notes] == [True]
        assert (len(last(chat).text), last(chat).state) == (30 * 3001 - 1, State.DONE)


def test_a_disk_that_stays_full_is_reported_and_the_chat_can_be_opened(tmp_path: Path) -> None:
    with Sessions(tmp_path / "c.sqlite") as sessions:
        chat = opened(sessions, Recorder([" ".join(["w" * 3000] * 30)]))
        with pytest.raises(DiskFull):
            react(chat.send("a"), Begun, lambda: full(sessions))
        assert texts(chat) == ["a", ""]
        assert texts(reopened(sessions, chat.info.id)) == ["a", ""]


def test_a_chat_that_is_deleted_while_its_answer_streams_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answer, "_SAVE_SECONDS", 0.05)
    with Sessions(tmp_path / "c.sqlite") as sessions, Sessions(tmp_path / "c.sqlite") as other:
        chat = opened(sessions, Recorder(["word " * 200], seconds_per_token=0.03))
        began = time.monotonic()
        with pytest.raises(UsageError, match="deleted"):
            react(chat.send("a"), Begun, lambda: other.delete(chat.info.id))
        assert time.monotonic() - began < 5


def test_an_answer_whose_writer_was_killed_is_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    with Sessions(path) as sessions:
        chat = opened(sessions, Recorder(ANSWERS), top_logprobs=2)
        question = sessions.add(chat.info.id, None, "user", "a")
        details = {"model": {"model": "fake", "sha256": "00ff"}, "tokens": [[0, "one", -1.0, [["one", -1.0, 0]]]]}
        left = sessions.add(chat.info.id, question.id, "assistant", "", state=State.STREAMING, details=details)
        sessions.update(left.id, "one two", "", (0, 1))
    with closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE message SET updated = updated - 60")
        db.commit()
    with Sessions(path) as sessions:
        model = Recorder(["and"])
        again = reopened(sessions, chat.info.id, model)
        assert (last(again).text, last(again).state) == ("one two", State.STOPPED)
        finish(again.resume(left.id))
        assert last(again).text == "one twoand"
        assert model.asked[0][0][-2:] == [0, 1]
        assert answer.token_rows(last(again)) == []  # rows that do not cover every token would be wrong
