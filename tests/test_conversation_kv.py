"""The KV cache of a chat, kept from one opening to the next: of use where it fits, and never in the way."""

import time
from pathlib import Path

import pytest
from scripted import ANSWERS, Recorder, Saving, close_after, finish, last

from edgemm.conversation import Conversation, Facts
from edgemm.errors import BadFile, DiskFull, ModelStopped
from edgemm.events import Done
from edgemm.kv import KvStore
from edgemm.sessions import Sessions, State


@pytest.fixture
def sessions() -> Sessions:
    return Sessions()


def kept(sessions: Sessions, kv: KvStore, model: Saving, chat: int | None = None) -> Conversation:
    number = sessions.create("fake").id if chat is None else chat
    return Conversation(sessions, number, model, Facts("fake"), kv)


def test_a_restored_kv_cache_is_used_by_the_next_question(sessions: Sessions, tmp_path: Path) -> None:
    kv = KvStore(tmp_path / "kv")
    chat = kept(sessions, kv, Saving(ANSWERS))
    assert list(chat.restore()) == []
    assert chat.park() == 0  # nothing to keep
    finish(chat.send("a"))
    assert chat.park() > 0
    assert chat.park() == 0  # nothing new
    again = kept(sessions, kv, Saving(ANSWERS), chat.info.id)
    [note] = again.restore()
    assert note.text.startswith("resumed ")
    assert again.park() == 0
    finish(again.send("b"))
    assert last(again).details["figures"]["reused_tokens"] > len("user: a\nassistant: one")


def test_what_was_read_for_an_answer_that_did_not_end_is_parked_too(sessions: Sessions, tmp_path: Path) -> None:
    model = Saving(ANSWERS)
    chat = kept(sessions, KvStore(tmp_path / "kv"), model)
    finish(chat.send("a"))
    assert chat.park() > 0
    finish(chat.regenerate(last(chat).id))
    finish(chat.regenerate(last(chat).id))
    close_after(chat.send("b"), 1)
    assert chat.park() > 0
    assert model.saves == 2


def test_a_model_without_a_saved_cache_parks_nothing(sessions: Sessions, tmp_path: Path) -> None:
    chat = Conversation(
        sessions, sessions.create("fake").id, Recorder(ANSWERS), Facts("fake"), KvStore(tmp_path / "kv")
    )
    finish(chat.send("a"))
    assert chat.park() == 0
    assert list(chat.restore()) == []
    assert not (tmp_path / "kv").exists()


@pytest.mark.parametrize("error", [DiskFull("kv", "full", "free some"), BadFile("kv", "bad", "move it")])
def test_a_cache_that_cannot_be_saved_hinders_nothing(sessions: Sessions, tmp_path: Path, error: Exception) -> None:
    class Broken(Saving):
        def save_state(self, path: Path) -> int:
            raise error

    chat = kept(sessions, KvStore(tmp_path / "kv"), Broken(ANSWERS))
    finish(chat.send("a"))
    assert chat.park() == 0
    finish(chat.send("b"))
    assert last(chat).state is State.DONE


def test_a_saved_cache_that_kills_the_model_is_told_and_the_chat_goes_on(sessions: Sessions, tmp_path: Path) -> None:
    class Dying(Saving):
        def restore_state(self, path: Path) -> int:
            raise ModelStopped("fake", "model stopped", "ask again")

    chat = kept(sessions, KvStore(tmp_path / "kv"), Dying(ANSWERS))
    finish(chat.send("a"))
    [note] = chat.restore()
    assert "reads it again" in note.text
    [*_, ended] = chat.send("b")
    assert isinstance(ended.done, Done)


def test_a_cache_that_is_saved_while_its_chat_is_deleted_leaves_no_file(sessions: Sessions, tmp_path: Path) -> None:
    class Slow(Saving):
        def save_state(self, path: Path) -> int:
            sessions.delete(chat.info.id)
            kv.forget(chat.info.id)
            return super().save_state(path)

    kv = KvStore(tmp_path / "kv")
    chat = kept(sessions, kv, Slow(ANSWERS))
    finish(chat.send("a"))
    assert chat.park() == 0
    assert kv.size() == 0


def test_parking_sweeps_the_folder(sessions: Sessions, tmp_path: Path) -> None:
    kv = KvStore(tmp_path / "kv", limit=1)
    for _ in range(3):
        chat = kept(sessions, kv, Saving(ANSWERS))
        finish(chat.send("a"))
        chat.park()
        time.sleep(0.02)
    assert [path.name for path in (tmp_path / "kv").iterdir()] == [kv.path(chat.info.id).name]
