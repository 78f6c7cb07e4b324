"""The desk: one model in memory, chats that are stored or kept in memory."""

from pathlib import Path

import pytest

from edgemm.backends import Generator
from edgemm.backends.fake import FakeGenerator
from edgemm.desk import Desk
from edgemm.errors import UnknownModel, UsageError
from edgemm.sessions import default_path


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
