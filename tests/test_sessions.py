"""Chats in SQLite: what is kept, the tree of messages, several windows and threads."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgemm.errors import UsageError
from edgemm.sessions import Sessions, State, Turn, branch, default_path, leaf_below, siblings


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "chats.sqlite"


@pytest.fixture
def sessions(path: Path) -> Iterator[Sessions]:
    with Sessions(path) as opened:
        yield opened


def question_and_answer(sessions: Sessions, chat: int, text: str = "What is a KV cache?") -> tuple[Turn, Turn]:
    question = sessions.add(chat, None, "user", text)
    answer = sessions.add(chat, question.id, "assistant", "", state=State.STREAMING)
    return question, answer


def test_a_chat_is_there_after_a_restart(path: Path) -> None:
    with Sessions(path) as sessions:
        chat = sessions.create("smollm2", title="caches", settings={"temperature": 0.5, "system": "Ä"})
        question, answer = question_and_answer(sessions, chat.id)
        details = {"seed": 7, "speed": 12.5, "top": [["a", float("-inf"), 3]]}
        sessions.finish(answer.id, State.DONE, "It keeps keys and values.", "hm", [1, 2, 70000], details)
    with Sessions(path) as sessions:
        [found] = sessions.chats()
        assert (found.title, found.model, found.settings) == ("caches", "smollm2", {"temperature": 0.5, "system": "Ä"})
        assert (found.leaf, found.messages) == (answer.id, 2)
        assert found.updated > found.created
        assert sessions.turns(chat.id)[0] == question
        last = sessions.turn(answer.id)
        assert (last.text, last.reasoning, last.tokens) == ("It keeps keys and values.", "hm", (1, 2, 70000))
        assert last.details == {"seed": 7, "speed": 12.5, "top": [["a", None, 3]]}
        assert (last.state, last.parent) == (State.DONE, question.id)


def test_the_default_file_lies_in_the_data_folder(home: Path) -> None:
    assert default_path() == home / ".data" / "chats.sqlite"


def test_chats_come_newest_first_and_only_messages_make_them_newer(sessions: Sessions) -> None:
    first, second = sessions.create("a"), sessions.create("b")
    assert [chat.id for chat in sessions.chats()] == [second.id, first.id]
    sessions.rename(first.id, "renamed")
    sessions.set_model(first.id, "c")
    sessions.set_settings(first.id, {"top_k": 1})
    assert [chat.id for chat in sessions.chats()] == [second.id, first.id]
    sessions.add(first.id, None, "user", "hello")
    assert [chat.id for chat in sessions.chats(limit=1)] == [first.id]
    found = sessions.chat(first.id)
    assert (found.title, found.model, found.settings) == ("renamed", "c", {"top_k": 1})


def test_an_edited_question_is_a_branch(sessions: Sessions) -> None:
    chat = sessions.create("m").id
    q1 = sessions.add(chat, None, "user", "one")
    a1 = sessions.add(chat, q1.id, "assistant", "first")
    q2 = sessions.add(chat, a1.id, "user", "two")
    a2 = sessions.add(chat, q2.id, "assistant", "second")
    q2b = sessions.add(chat, a1.id, "user", "two, edited")
    turns = sessions.turns(chat)
    assert sessions.chat(chat).leaf == q2b.id
    assert branch(turns, q2b.id) == [q1, a1, q2b]
    assert branch(turns, None) == []
    assert siblings(turns, q2.id) == siblings(turns, q2b.id) == [q2, q2b]
    assert siblings(turns, q1.id) == [q1]
    assert leaf_below(turns, q2.id) == a2.id
    assert leaf_below(turns, q1.id) == q2b.id
    assert leaf_below(turns, q2b.id) == q2b.id
    sessions.set_leaf(chat, a2.id)
    assert branch(turns, sessions.chat(chat).leaf) == [q1, a1, q2, a2]


def test_a_message_that_is_not_there_is_named(sessions: Sessions) -> None:
    turns = sessions.turns(sessions.create("m").id)
    for look in (branch, siblings, leaf_below):
        with pytest.raises(UsageError, match="message 9"):
            look(turns, 9)


def test_a_parent_or_leaf_of_another_chat_is_refused(sessions: Sessions) -> None:
    mine, other = sessions.create("m").id, sessions.create("m").id
    stranger = sessions.add(other, None, "user", "hello")
    with pytest.raises(UsageError):
        sessions.add(mine, stranger.id, "assistant", "hi")
    with pytest.raises(UsageError):
        sessions.set_leaf(mine, stranger.id)
    with pytest.raises(UsageError):
        sessions.add(mine, None, "system", "no such role")
    assert sessions.turns(mine) == []
    assert sessions.chat(mine).leaf is None


def test_what_does_not_exist_is_named(sessions: Sessions) -> None:
    for call in (
        lambda: sessions.chat(9),
        lambda: sessions.rename(9, "x"),
        lambda: sessions.set_leaf(9, None),
        lambda: sessions.delete(9),
        lambda: sessions.turn(9),
        lambda: sessions.update(9, "x"),
        lambda: sessions.finish(9, State.DONE, "x"),
        lambda: sessions.add(9, None, "user", "x"),
    ):
        with pytest.raises(UsageError):
            call()


def test_a_stopped_answer_is_kept(sessions: Sessions) -> None:
    _, answer = question_and_answer(sessions, sessions.create("m").id)
    sessions.update(answer.id, "It ke", "because", [5, 6])
    partial = sessions.turn(answer.id)
    assert (partial.text, partial.reasoning, partial.tokens) == ("It ke", "because", (5, 6))
    assert partial.state is State.STREAMING
    sessions.finish(answer.id, State.STOPPED, "It kee")
    sessions.update(answer.id, "a save that comes too late")
    assert (sessions.turn(answer.id).text, sessions.turn(answer.id).state) == ("It kee", State.STOPPED)


def test_finishing_without_details_keeps_those_of_the_beginning(sessions: Sessions) -> None:
    chat = sessions.create("m").id
    message = sessions.add(chat, None, "user", "x", details={"attachments": ["a.txt"]})
    sessions.finish(message.id, State.DONE, "y")
    assert sessions.turn(message.id).details == {"attachments": ["a.txt"]}
    sessions.finish(message.id, State.DONE, "y", details={})
    assert sessions.turn(message.id).details == {}


def test_an_answer_without_a_writer_is_recovered(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Sessions(path) as sessions:
        chat = sessions.create("m").id
        _, answer = question_and_answer(sessions, chat)
        sessions.update(answer.id, "as far as it camelot")
        assert sessions.recover(chat) == 0  # its writer may well be alive
        now = time.time()
        for clock in (now + 11, now - 11):
            monkeypatch.setattr(time, "time", lambda clock=clock: clock)
            assert sessions.recover(chat) == (clock > now)
        assert sessions.turn(answer.id).state is State.STOPPED
        assert [hit.message for hit in sessions.search("camelot")] == [answer.id]


def test_a_deleted_chat_leaves_no_trace_in_the_file(path: Path) -> None:
    with Sessions(path) as sessions:
        kept = sessions.create("m").id
        sessions.add(kept, None, "user", "keepsake")
        gone = sessions.create("m", title="ephemeral").id
        for i in range(50):
            turn = sessions.add(gone, None, "user", f"ephemeral thought number {i} " + "x" * 3000)
        sessions.delete(gone)
        assert sessions.turns(gone) == []
        assert sessions.search("ephemeral") == []
        assert b"ephemeral" not in b"".join(p.read_bytes() for p in path.parent.iterdir())
        assert len(sessions.search("keepsake")) == 1
        assert sessions.create("m").id > gone  # an id is never given twice
        assert sessions.add(kept, None, "user", "x").id > turn.id


def test_prompts_are_what_the_user_typed_newest_last_without_repeats(sessions: Sessions) -> None:
    chat = sessions.create("m").id
    for text in ("a", "b", "a", "c"):
        parent = sessions.add(chat, None, "user", text)
        sessions.add(chat, parent.id, "assistant", "an answer")
    assert sessions.prompts() == ["b", "a", "c"]
    assert sessions.prompts(limit=2) == ["a", "c"]


@pytest.mark.parametrize("text", ["", "\0", "a\0b", "\ud800", "\x1b[2J", "\U0001f469\u200d\U0001f680", "x" * 2_000_000])
def test_any_text_can_be_kept(sessions: Sessions, text: str) -> None:
    chat = sessions.create(text, title=text, settings={"system": text}).id
    message = sessions.add(chat, None, "user", text, details={text: text})
    sessions.finish(message.id, State.DONE, text, text)
    kept = text.replace("\ud800", "?")
    assert sessions.turn(message.id).text == sessions.turn(message.id).reasoning == kept
    assert sessions.chat(chat).title == kept
    assert sessions.turn(message.id).details == {text: text}
    sessions.delete(chat)


def test_a_copy_of_a_chat_gets_ids_of_its_own(sessions: Sessions) -> None:
    with Sessions() as memory:
        chat = memory.create("m", title="in memory")
        memory.create("another")
        question, answer = question_and_answer(memory, chat.id)
        memory.add(chat.id, question.id, "assistant", "quokka", details={"seed": 1})
        memory.set_leaf(chat.id, answer.id)
        sessions.add(sessions.create("m").id, None, "user", "an id that is taken")
        copy = sessions.insert(memory.chat(chat.id), memory.turns(chat.id))
    turns = sessions.turns(copy.id)
    assert (copy.title, copy.messages, copy.created) == ("in memory", 3, chat.created)
    assert [turn.parent for turn in turns] == [None, turns[0].id, turns[0].id]
    assert copy.leaf == turns[1].id != answer.id
    assert turns[1].state is State.STOPPED
    assert turns[2].details == {"seed": 1}
    assert [hit.chat for hit in sessions.search("quokka")] == [copy.id]


def test_a_copy_with_a_missing_parent_stores_nothing(sessions: Sessions) -> None:
    with Sessions() as memory:
        chat = memory.create("m")
        _, answer = question_and_answer(memory, chat.id)
        with pytest.raises(UsageError):
            sessions.insert(chat, [answer])
    assert sessions.chats() == []


def test_a_revision_changes_when_another_window_writes(path: Path, sessions: Sessions) -> None:
    before = sessions.revision()
    chat = sessions.create("m").id
    assert sessions.revision() == before
    with Sessions(path) as other:
        other.rename(chat, "elsewhere")
        assert sessions.revision() != before
        assert sessions.chat(chat).title == "elsewhere"


def test_threads_share_one_object(sessions: Sessions) -> None:
    chat = sessions.create("m").id
    failures: list[Exception] = []

    def work(name: int) -> None:
        try:
            for i in range(40):
                message = sessions.add(chat, None, "user", f"thread{name} {i}")
                sessions.finish(message.id, State.DONE, f"thread{name} {i} done")
                assert sessions.search(f"thread{name} {i} done")
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures
    assert sessions.chat(chat).messages == 160


def test_a_closed_store_says_so(path: Path) -> None:
    sessions = Sessions(path)
    sessions.close()
    sessions.close()
    with pytest.raises(UsageError, match="closed"):
        sessions.create("m")
