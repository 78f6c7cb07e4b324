"""The desk: one model in memory, chats that are stored or kept in memory."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from scripted import Saving, finish

from edgemm.backends import Generator
from edgemm.backends.fake import FakeGenerator
from edgemm.desk import Desk
from edgemm.errors import UnknownModel, UsageError
from edgemm.sessions import Sessions, default_path


class Shelf:
    """Opens scripted models, and remembers which are open."""

    def __init__(self) -> None:
        self.open: list[str] = []

    def __call__(self, name: str) -> Generator:
        if name == "missing":
            raise UnknownModel(name, "is not there", "pull it")
        shelf = self

        class Model(FakeGenerator):
            def close(self) -> None:
                shelf.open.remove(name)

        self.open.append(name)
        return Model(["yes"])


def test_a_model_stays_until_a_chat_needs_another_one() -> None:
    shelf = Shelf()
    desk = Desk(opener=shelf)
    chats = [desk.new_chat(model).id for model in ("a", "a", "b")]
    first = desk.open_chat(chats[0])
    assert desk.open_chat(chats[1]).generator is first.generator
    desk.open_chat(chats[2])
    assert shelf.open == ["b"]
    assert desk.model == "b"
    desk.close()
    assert shelf.open == []


def test_a_model_that_does_not_open_leaves_none_in_memory() -> None:
    shelf = Shelf()
    desk = Desk(opener=shelf)
    desk.open_chat(desk.new_chat("a").id)
    with pytest.raises(UnknownModel):
        desk.open_chat(desk.new_chat("missing").id)
    assert shelf.open == []
    desk.close()


def test_unused_chats_leave_no_trace_and_used_ones_are_listed() -> None:
    desk = Desk(opener=Shelf())
    empty, used = desk.new_chat("a").id, desk.new_chat("a").id
    desk.sessions.add(used, None, "user", "hello")
    assert [chat.id for chat in desk.chats()] == [used]
    assert desk.last_chat() == used
    for chat in (empty, used, 99):
        desk.forget_if_empty(chat)
    assert [chat.id for chat in desk.sessions.chats()] == [used]
    desk.delete(used)
    assert desk.last_chat() is None
    with pytest.raises(UsageError):
        desk.open_chat(used)
    desk.close()


def test_chats_that_cannot_be_stored_are_kept_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    path.write_bytes(b"x" * 5000)
    desk = Desk(opener=Shelf(), path=path)
    assert desk.problem.startswith("chats are not saved: ")
    desk.sessions.add(desk.new_chat("a").id, None, "user", "hello")
    assert len(desk.chats()) == 1
    desk.close()


def test_chats_lie_in_the_users_data_folder() -> None:
    desk = Desk(opener=Shelf())
    desk.new_chat("a")
    desk.close()
    assert default_path().is_file()


def test_a_full_disk_keeps_new_chats_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    desk = Desk(opener=Shelf(), path=path)
    database = desk.sessions._db
    while not desk.problem:
        database.execute(f"PRAGMA max_page_count = {database.execute('PRAGMA page_count').fetchone()[0]}")
        number = desk.new_chat("a" * 5000).id
    assert "full" in desk.problem
    desk.sessions.add(number, None, "user", "hello")
    desk.open_chat(number)
    desk.close()
    with Sessions(path) as sessions:
        assert "hello" not in sessions.prompts()


def test_the_kv_cache_of_the_chat_before_is_kept() -> None:
    desk = Desk(opener=lambda _: Saving(["yes"]))
    first, second = desk.new_chat("a").id, desk.new_chat("a").id
    conversation = desk.open_chat(first)
    finish(conversation.send("hello"))
    desk.open_chat(second, conversation)
    assert desk.kv.path(first).is_file()
    desk.delete(first)
    assert not desk.kv.path(first).exists()
    desk.close()


def test_one_model_is_loaded_at_a_time() -> None:
    """Two windows' worth of threads ask for models; never are two in memory."""
    shelf, most = Shelf(), 0
    desk = Desk(opener=shelf)
    chats = [desk.new_chat(f"model {n}").id for n in range(6)]

    def load(chat: int) -> None:
        nonlocal most
        desk.open_chat(chat)
        most = max(most, len(shelf.open))

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(load, chats * 5))
    assert most == 1
    desk.close()
