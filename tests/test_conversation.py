"""A chat of the store and its model: nothing said is lost, and every way on makes a branch."""

import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgemm import context
from edgemm.answer import TOKENS, Begun, Ended, Events, Grown
from edgemm.attachments import Attachment, Kind
from edgemm.backends import Prompt, Sampling
from edgemm.backends.fake import FakeGenerator
from edgemm.chat_settings import ChatSettings, Policy
from edgemm.conversation import Conversation, Facts
from edgemm.errors import ModelStopped, PromptTooLong, UsageError
from edgemm.events import Done, Note, Progress, Token
from edgemm.kv import KvStore
from edgemm.prompt import Message
from edgemm.sessions import Sessions, State

ANSWERS = ["one two three four", "alpha beta", "final"]


class Recorder(FakeGenerator):
    """A scripted model that remembers what it was asked."""

    prompts: list[list[Message]]

    def __init__(self, answers: Sequence[str], **options: Any) -> None:
        super().__init__(answers, **options)
        self.prompts, self.asked = [], []

    def prompt(self, messages: Sequence[Message]) -> Prompt:
        self.prompts.append(list(messages))
        return super().prompt(messages)

    def generate(self, tokens: Sequence[int], sampling: Sampling) -> Iterator[Progress | Token | Done]:
        self.asked.append((list(tokens), sampling))
        return super().generate(tokens, sampling)


@pytest.fixture
def sessions() -> Sessions:
    return Sessions()


def opened(sessions: Sessions, model: FakeGenerator | None = None, **settings: Any) -> Conversation:
    chat = sessions.create("fake", settings=ChatSettings(**settings).to_json())
    return Conversation(sessions, chat.id, model or Recorder(ANSWERS), Facts("fake", "00ff"))


def texts(chat: Conversation) -> list[str]:
    return [turn.text for turn in chat.branch()]


def finish(events: Events) -> list[Any]:
    return list(events)


def stop_after(events: Iterable[Any], chat: Conversation, count: int) -> None:
    for event in events:
        if isinstance(event, Grown) and len(event.text.split()) >= count:
            chat.stop()


def test_question_and_answer_are_stored_with_what_made_them(sessions: Sessions) -> None:
    chat = opened(sessions, temperature=0.5, max_tokens=99)
    events = finish(chat.send("hello there"))
    assert [type(e) for e in events] == [Begun, Progress, Grown, Grown, Ended]
    assert events[-2] == Grown("one two three four", "")
    question, answer = sessions.turns(chat.info.id)
    assert (question.text, question.state) == ("hello there", State.DONE)
    assert (answer.text, answer.state, answer.tokens) == ("one two three four", State.DONE, (0, 1, 2, 3))
    assert answer.details["sampling"]["temperature"] == 0.5
    assert isinstance(answer.details["sampling"]["seed"], int)
    assert answer.details["model"] == {"model": "fake", "sha256": "00ff", "template": "", "backend": ""}
    assert answer.details["figures"]["generated_tokens"] == 4
    assert chat.info.title == "hello there"


def test_the_next_question_carries_what_was_said(sessions: Sessions) -> None:
    model = Recorder(ANSWERS)
    chat = opened(sessions, model, system="be kind")
    finish(chat.send("a"))
    finish(chat.send("b"))
    assert [m["content"] for m in model.prompts[-1]] == ["be kind", "a", "one two three four", "b"]


def test_a_stopped_answer_keeps_its_text_and_can_go_on(sessions: Sessions) -> None:
    model = Recorder(["one two three four five six", "and more"], seconds_per_token=0.06)
    chat = opened(sessions, model)
    stop_after(chat.send("a"), chat, 3)
    answer = chat.branch()[-1]
    assert answer.state is State.STOPPED
    assert answer.text.startswith("one two three")
    stopped, tokens = answer.text, answer.tokens
    finish(chat.resume(answer.id))
    [grown] = [turn for turn in chat.turns if turn.role == "assistant"]
    assert grown.text == f"{stopped}and more"
    assert grown.state is State.DONE
    assert model.asked[-1][0][-len(tokens) :] == list(tokens)  # the very tokens, and not their text split again


def test_an_abandoned_answer_is_kept(sessions: Sessions) -> None:
    chat = opened(sessions)
    events = chat.send("a")
    for event in events:
        if isinstance(event, Grown):
            break
    events.close()  # type: ignore[attr-defined]
    [_, answer] = sessions.turns(chat.info.id)
    assert (answer.text, answer.state) == ("one", State.STOPPED)


def test_a_model_that_dies_leaves_what_it_said_and_the_chat_goes_on(sessions: Sessions) -> None:
    chat = opened(sessions, Recorder(ANSWERS, die_after=2))
    with pytest.raises(ModelStopped):
        finish(chat.send("a"))
    [_, answer] = sessions.turns(chat.info.id)
    assert (answer.text, answer.state) == ("one two", State.FAILED)
    again = Conversation(sessions, chat.info.id, Recorder(ANSWERS), Facts("fake"))
    finish(again.regenerate(answer.id))
    assert texts(again)[-1] == "one two three four"


def test_to_answer_again_and_to_edit_make_versions_and_lose_nothing(sessions: Sessions) -> None:
    chat = opened(sessions)
    finish(chat.send("a"))
    question, answer = chat.branch()
    finish(chat.regenerate(answer.id))
    assert texts(chat) == ["a", "alpha beta"]
    assert [turn.text for turn in chat.siblings(answer.id)] == ["one two three four", "alpha beta"]
    finish(chat.edit(question.id, "b"))
    assert texts(chat) == ["b", "final"]
    chat.choose(question.id)
    assert texts(chat) == ["a", "alpha beta"]
    chat.choose(answer.id)
    assert texts(chat) == ["a", "one two three four"]
    assert len(chat.turns) == 5


def test_an_answer_can_be_rewritten_and_gone_on_with(sessions: Sessions) -> None:
    model = Recorder(ANSWERS)
    chat = opened(sessions, model)
    finish(chat.send("a"))
    mine = chat.rewrite(chat.branch()[-1].id, "My own beginning")
    finish(chat.resume(mine.id))
    assert texts(chat) == ["a", "My own beginningalpha beta"]
    assert bytes(model.asked[-1][0]).decode().endswith("assistant: My own beginning")


def test_a_branch_begins_at_another_token(sessions: Sessions) -> None:
    model = Recorder(ANSWERS)
    chat = opened(sessions, model, top_logprobs=3)
    finish(chat.send("a"))
    answer = chat.branch()[-1]
    rows = answer.details[TOKENS]
    assert [row[1] for row in rows] == ["one", " two", " three", " four"]
    other = rows[1][3][1]
    finish(chat.fork(answer.id, 1, other[2]))
    assert texts(chat)[-1] == f"one{other[0]}alpha beta"
    assert model.asked[-1][0][-2:] == [rows[0][0], other[2]]
    assert len(chat.siblings(answer.id)) == 2
    with pytest.raises(UsageError, match="no such alternative"):
        finish(chat.fork(answer.id, 99, 1))


def test_reasoning_is_kept_apart_and_not_sent_again(sessions: Sessions) -> None:
    model = Recorder(["<think> hm hm </think> done", "ok"])
    chat = opened(sessions, model)
    finish(chat.send("a"))
    answer = chat.branch()[-1]
    assert (answer.reasoning, answer.text.strip()) == ("hm hm", "done")
    finish(chat.send("b"))
    assert "hm" not in str(model.prompts[-1])


def test_what_does_not_fit_is_refused_with_both_numbers_and_nothing_is_stored(sessions: Sessions) -> None:
    chat = opened(sessions, Recorder(ANSWERS, context=400))
    with pytest.raises(PromptTooLong, match=r"has 1,\d\d\d tokens .* 300 fit"):
        finish(chat.send("x" * 1000))
    assert sessions.turns(chat.info.id) == []


def test_dropped_turns_stay_dropped_so_that_the_prefix_is_the_same(sessions: Sessions) -> None:
    model = Recorder(["y" * 60], context=400)
    chat = opened(sessions, model, policy=Policy.DROP)
    notes = []
    for i in range(6):
        notes += [e.text for e in finish(chat.send(f"{i} " + "x" * 40)) if isinstance(e, Note)]
    assert any("left out" in note for note in notes)
    firsts = [prompts[0]["content"][:2] for prompts in model.prompts if len(prompts) > 1]
    assert len(set(firsts[-2:])) == 1
    assert len(chat.branch()) == 12  # all of it is still in the store


def test_a_summary_stands_for_what_is_left_out(sessions: Sessions) -> None:
    model = Recorder(["y" * 150, "y" * 150, "y" * 150, "they talked about x", "z"], context=1200)
    chat = opened(sessions, model, policy=Policy.SUMMARISE)
    for i in range(4):
        finish(chat.send(f"{i} " + "x" * 120))
    cut = chat.branch()[-2].details[context.KEY]
    assert cut["summary"] == "they talked about x"
    assert model.prompts[-1][0] == {"role": "system", "content": "Earlier in this conversation: they talked about x"}


def test_one_question_may_have_another_policy(sessions: Sessions) -> None:
    chat = opened(sessions, Recorder(["y" * 60], context=400))
    for i in range(2):
        finish(chat.send(f"{i} " + "x" * 40))
    plan = chat.plan("x" * 80)
    assert plan.dropped
    assert not plan.fits
    with pytest.raises(PromptTooLong, match="oldest messages"):
        finish(chat.send("x" * 80))
    finish(chat.send("x" * 80, policy=Policy.DROP))
    assert chat.settings.policy is Policy.REFUSE


def test_files_go_with_a_question_and_pictures_are_refused(sessions: Sessions) -> None:
    model = Recorder(ANSWERS)
    chat = opened(sessions, model)
    finish(chat.send("what?", [Attachment("n.txt", Kind.TEXT, "body", 4, "ab")]))
    assert "File n.txt:\n```\nbody\n```\n\nwhat?" in model.prompts[-1][0]["content"]
    assert chat.branch()[0].text == "what?"
    with pytest.raises(UsageError, match="picture"):
        finish(chat.send("and?", [Attachment("p.png", Kind.IMAGE, "", 4, "ab")]))


def test_two_windows_on_one_chat_make_two_branches(tmp_path: Path) -> None:
    with Sessions(tmp_path / "c.sqlite") as one, Sessions(tmp_path / "c.sqlite") as two:
        first = opened(one)
        finish(first.send("a"))
        second = Conversation(two, first.info.id, Recorder(ANSWERS), Facts("fake"))
        finish(second.send("from two"))
        notes = [e.text for e in finish(first.send("from one")) if isinstance(e, Note)]
        assert any("another window" in note for note in notes)
        assert texts(first)[-2] == "from one"
        assert {turn.text for turn in one.turns(first.info.id)} >= {"from one", "from two"}
        second.changed_elsewhere()
        assert texts(second)[-2] == "from two"


def test_damaged_settings_do_not_close_a_chat(sessions: Sessions) -> None:
    chat = sessions.create("fake", settings={"temperature": "hot", "what": 1})
    opened = Conversation(sessions, chat.id, Recorder(ANSWERS), Facts("fake"))
    assert opened.settings == ChatSettings()
    assert "settings" in opened.problem


def test_what_streams_is_stored_while_it_does(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    with Sessions(path) as sessions, Sessions(path) as reader:
        chat = opened(sessions, Recorder(["word " * 60], seconds_per_token=0.03))
        worker = threading.Thread(target=lambda: finish(chat.send("a")))
        worker.start()
        deadline, seen = time.monotonic() + 10, ""
        while not seen and time.monotonic() < deadline:
            time.sleep(0.05)
            seen = next((t.text for t in reader.turns(chat.info.id) if t.role == "assistant"), "")
        assert 0 < len(seen) < 300
        chat.stop()
        worker.join()


class Saving(Recorder):
    """A scripted model with a KV cache that can be saved."""

    def __init__(self, answers: Sequence[str]) -> None:
        super().__init__(answers)
        self.info = replace(self.info, can_save=True)

    def save_state(self, path: Path) -> int:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.write_bytes(bytes(100))

    def restore_state(self, path: Path) -> int:
        return path.stat().st_size if path.is_file() else 0


def test_the_kv_cache_is_kept_when_it_has_grown_and_taken_up_again(sessions: Sessions, tmp_path: Path) -> None:
    kv = KvStore(tmp_path / "kv")
    chat = opened(sessions)
    chat = Conversation(sessions, chat.info.id, Saving(ANSWERS), Facts("fake"), kv)
    assert list(chat.restore()) == []
    assert chat.park() == 0  # nothing to keep
    finish(chat.send("a"))
    assert chat.park() == 100
    assert chat.park() == 0  # nothing new
    again = Conversation(sessions, chat.info.id, Saving(ANSWERS), Facts("fake"), kv)
    [note] = again.restore()
    assert note.text.startswith("resumed 100 tokens in ")
    assert again.park() == 0
