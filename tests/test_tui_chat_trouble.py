"""What goes wrong under the chat screen: models that die, damage, full disks, other windows, hostile texts."""

import asyncio
import json
import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest
from chat_window import ask, chat, line, models, opened, said, send, told
from scripted import Saving
from textual.pilot import Pilot
from textual.screen import ModalScreen
from tui_pilot import drive, shown, until

from edgemm.backends import Generator
from edgemm.desk import Desk
from edgemm.errors import DiskFull, NotEnoughMemory
from edgemm.kv import KvStore
from edgemm.sessions import Sessions, State, default_path
from edgemm.tui.app import ChatApp
from edgemm.tui.screens.chat import ChatScreen
from edgemm.tui.screens.chats import ChatsScreen
from edgemm.tui.screens.tokens import TokenScreen

EVIL = "[@click=app.quit]x[/] \x1b]52;c;YQ==\a \x9b31m \u202e [/b]"


def harm(statement: str, *values: Any) -> None:
    """Change the store behind the program's back."""
    with sqlite3.connect(default_path()) as database:
        database.execute(statement, values)
    database.close()


# Models


def test_a_chat_whose_model_is_gone_can_be_read_and_given_another() -> None:
    desk = Desk(opener=models())
    number = desk.new_chat("missing").id
    desk.sessions.add(number, None, "user", "what I asked")

    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        assert "what I asked" in shown(pilot.app)
        assert "is not on this machine — pull it" in shown(pilot.app)
        await send(screen, pilot, "waits")
        assert screen.queue
        screen.change_model("fake")
        await until(pilot, lambda: said(screen) == ["what I asked", "waits", "one two three"])

    chat(script, desk, number=number)


def test_what_waits_for_a_model_goes_into_no_other_chat() -> None:
    desk = Desk(opener=models())
    number = desk.new_chat("missing").id
    desk.sessions.add(number, None, "user", "what I asked")

    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        await send(screen, pilot, "waits")
        await send(screen, pilot, "waits too")
        await pilot.press("ctrl+n")
        await until(pilot, lambda: not screen.busy and screen.chat.id != number)
        await pilot.pause(0.2)
        assert (screen.turns, screen.queue) == ([], [])
        assert screen.prompt.expanded().split("\n\n") == ["waits", "waits too"]

    chat(script, desk, number=number)


def test_ctrl_c_leaves_while_no_model_is_there() -> None:
    desk = Desk(opener=models())

    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        await pilot.press("ctrl+c", "ctrl+c")
        await until(pilot, lambda: not pilot.app.is_running)

    chat(script, desk, number=desk.new_chat("missing").id)


def test_one_who_leaves_while_a_model_loads_is_told_what_for_he_waits() -> None:
    loads, goes_on = threading.Event(), threading.Event()

    def opener(name: str) -> Generator:
        loads.set()
        assert goes_on.wait(30)
        return models()(name)

    async def script(app: Any, pilot: Pilot[None]) -> None:
        await until(pilot, loads.is_set)
        app.run_worker(app.action_quit())
        await told(pilot, "waiting for the model to stop loading")
        assert app.is_running
        goes_on.set()
        await until(pilot, lambda: not app.is_running)

    desk = Desk(opener=opener)
    drive(ChatApp(desk, "fake"), script)
    desk.close()


@pytest.mark.parametrize("key", ["f1", "f2", "f4"])
def test_one_can_leave_while_another_screen_is_open(key: str) -> None:
    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        await ask(screen, pilot, "hello")
        await pilot.press(key)
        await opened(pilot, ModalScreen)
        leaving = asyncio.ensure_future(pilot.app.action_quit())
        await until(pilot, lambda: not pilot.app.is_running)
        await leaving

    chat(script)


def test_a_model_that_dies_is_told_and_answers_again() -> None:
    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        await ask(screen, pilot, "hello")
        assert screen.turns[-1].state is State.FAILED
        assert said(screen)[-1] == "one two"
        assert "F5 answers again" in shown(pilot.app)
        assert "as the script says" in shown(pilot.app)
        assert screen.prompt.expanded() == "", "the question is stored and comes not back"
        await pilot.press("f5")
        await until(pilot, lambda: said(screen)[-1] == "alpha beta")

    chat(script, Desk(opener=models(die_after=2)))


def test_what_waits_is_asked_after_a_model_died() -> None:
    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        await pilot.press("a", "enter", "b", "enter")
        await until(pilot, lambda: len(screen.turns) == 4 and not screen.busy)
        assert said(screen) == ["a", "one two", "b", "alpha beta"]

    chat(script, Desk(opener=models(die_after=2)))


def test_a_model_that_is_too_big_for_the_memory_is_told() -> None:
    def opener(name: str) -> Any:
        raise NotEnoughMemory(name, "needs 9 GB, 2 GB are free", "choose a smaller one")

    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        assert line(screen, "notice") == "fake: needs 9 GB, 2 GB are free — choose a smaller one"
        assert line(screen, "title") == "new chat — fake (not loaded)"

    chat(script, Desk(opener=opener))


# Damage


@pytest.mark.parametrize("settings", ['{"temperature": "hot"}', '{"colour": 1}', '{"policy": 7}'])
def test_damaged_settings_are_told_and_the_defaults_hold(settings: str) -> None:
    desk = Desk(opener=models())
    number = desk.new_chat("fake").id
    desk.sessions.set_settings(number, json.loads(settings))

    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        assert "the settings of this chat are damaged" in line(screen, "notice")
        await ask(screen, pilot, "hello")
        assert said(screen) == ["hello", "one two three"]

    chat(script, desk, number=number)


def _chat(desk: Desk, text: str) -> int:
    number = desk.new_chat("fake").id
    desk.sessions.add(number, None, "user", text)
    return number


@pytest.mark.parametrize("column", ["details", "tokens"])
@pytest.mark.parametrize("at_start", [True, False])
def test_a_damaged_chat_is_told_and_the_others_work(column: str, at_start: bool) -> None:
    desk = Desk(opener=models())
    damaged, good = _chat(desk, "damaged"), _chat(desk, "good")
    harm(f"UPDATE message SET {column} = 'x' WHERE chat = ?", damaged)

    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        if not at_start:
            await send(screen, pilot, f"/open {damaged}")
        await told(pilot, "is damaged")
        assert screen.chat.id != damaged
        await send(screen, pilot, f"/open {good}")
        await until(pilot, lambda: said(screen) == ["good"] and not screen.busy)

    chat(script, desk, number=damaged if at_start else good)


def test_a_chat_that_is_gone_is_told_and_a_new_one_opens() -> None:
    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        await told(pilot, "chat 99: does not exist")
        await ask(screen, pilot, "hello")
        assert said(screen) == ["hello", "one two three"]

    chat(script, number=99)


def test_damaged_details_of_messages_are_shown_without_them() -> None:
    desk = Desk(opener=models())
    number = _chat(desk, "question")
    leaf = desk.sessions.chat(number).leaf
    details = {"figures": 7, "attachments": [7, {"name": 1}], "tokens": [[1]], "model": [], "context": "x"}
    desk.sessions.add(number, leaf, "assistant", "answer", details=details)

    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        await told(pilot, "answer")
        await pilot.press("f7")
        await until(pilot, lambda: line(screen, "notice"))
        assert not isinstance(pilot.app.screen, TokenScreen)
        await ask(screen, pilot, "more")
        assert said(screen) == ["question", "answer", "more", "one two three"]

    chat(script, desk, number=number)


# Disks


def test_a_store_that_cannot_be_read_is_told_and_the_chat_works(tmp_path: Path) -> None:
    broken = tmp_path / "broken.sqlite"
    broken.write_bytes(b"no database" * 100)

    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        assert "chats are not saved" in shown(pilot.app)
        await ask(screen, pilot, "hello")
        assert said(screen) == ["hello", "one two three"]

    chat(script, Desk(opener=models(), path=broken))
    assert broken.read_bytes() == b"no database" * 100


def fill(desk: Desk) -> None:
    """No page more can be written."""
    database = desk.sessions._db
    pages = database.execute("PRAGMA page_count").fetchone()[0]
    database.execute(f"PRAGMA max_page_count = {pages}")


def test_a_disk_that_is_full_at_the_start_is_told_and_the_chat_is_kept_in_memory() -> None:
    desk = Desk(opener=models())
    while not desk.problem:
        fill(desk)
        desk.new_chat("fake" * 500)

    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        assert "chats are not saved" in shown(pilot.app)
        await ask(screen, pilot, "hello")
        assert said(screen) == ["hello", "one two three"]

    chat(script, desk)


def test_a_disk_that_becomes_full_costs_no_message() -> None:
    desk = Desk(opener=models(context=1 << 20))
    long = ("x " * 50_000).strip()

    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        await ask(screen, pilot, "hello")
        fill(desk)
        await send(screen, pilot, long)
        await told(pilot, "is full")
        await until(pilot, lambda: not screen.busy)
        assert said(screen) == ["hello", "one two three"]
        assert screen.prompt.expanded().strip() == long
        desk.sessions._db.execute("PRAGMA max_page_count = 100000")
        await pilot.press("enter")
        await until(pilot, lambda: len(screen.turns) == 4 and not screen.busy)

    chat(script, desk)


# Other windows


def test_a_chat_that_grows_in_another_window_is_branched() -> None:
    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        await ask(screen, pilot, "hello")
        with Sessions(default_path()) as other:
            leaf = other.chat(screen.chat.id).leaf
            other.add(screen.chat.id, leaf, "user", "from elsewhere")
        await ask(screen, pilot, "mine")
        assert said(screen) == ["hello", "one two three", "mine", "alpha beta"]
        assert "‹ 2/2 ›" in shown(pilot.app)
        await pilot.press("alt+up", "alt+up", "alt+left")
        await told(pilot, "from elsewhere")

    chat(script)


def test_a_chat_that_is_deleted_in_another_window_is_told() -> None:
    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        await ask(screen, pilot, "hello")
        with Sessions(default_path()) as other:
            other.delete(screen.chat.id)
        await send(screen, pilot, "mine")
        await told(pilot, "does not exist, or was deleted elsewhere")
        await until(pilot, lambda: not screen.busy)
        assert screen.prompt.expanded() == "mine"
        for key in ("f5", "alt+left", "f2"):
            await pilot.press(key)
            await pilot.pause(0.1)
        await pilot.press("escape", "ctrl+n")
        await until(pilot, lambda: not screen.busy and screen.turns == [])
        await pilot.press("enter")
        await until(pilot, lambda: said(screen) == ["mine", "alpha beta"])

    chat(script)


def test_an_answer_that_grows_in_another_window_is_marked_and_not_touched() -> None:
    desk = Desk(opener=models())
    number = _chat(desk, "question")
    desk.sessions.add(number, desk.sessions.chat(number).leaf, "assistant", "half", state=State.STREAMING)

    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        await told(pilot, "another window")
        await pilot.press("f6")
        await told(pilot, "wait ten seconds")

    chat(script, desk, number=number)


# What is kept of a deleted chat


@pytest.mark.parametrize("how", ["list", "command"])
def test_a_deleted_chat_leaves_no_kv_cache(how: str) -> None:
    desk = Desk(opener=lambda _: Saving(["one two"]))

    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        await ask(screen, pilot, "hello")
        number = screen.chat.id
        if how == "list":
            await pilot.press("f2")
            await opened(pilot, ChatsScreen)
            await pilot.press("delete", "y")
        else:
            await send(screen, pilot, "/delete yes")
        await until(pilot, lambda: screen.chat.id != number and not screen.busy)
        await pilot.pause(0.1)
        assert not KvStore().path(number).exists()

    chat(script, desk)


def test_the_kv_cache_is_kept_when_one_leaves_and_taken_again() -> None:
    async def first(screen: ChatScreen, pilot: Pilot[None]) -> None:
        await ask(screen, pilot, "hello")
        await pilot.press("ctrl+q")
        await until(pilot, lambda: not pilot.app.is_running)

    async def second(screen: ChatScreen, pilot: Pilot[None]) -> None:
        await told(pilot, "resumed")

    chat(first, Desk(opener=lambda _: Saving(["one two"])))
    desk = Desk(opener=lambda _: Saving(["one two"]))
    chat(second, desk, number=desk.last_chat())


def test_a_kv_cache_that_cannot_be_saved_is_no_trouble() -> None:
    class Full(Saving):
        def save_state(self, path: Path) -> int:
            self.saves += 1
            raise DiskFull(path, "the disk is full", "free some space")

    model = Full(["one two"])

    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        await ask(screen, pilot, "hello")
        await until(pilot, lambda: model.saves)
        await ask(screen, pilot, "again")
        await pilot.press("ctrl+q")

    chat(script, Desk(opener=lambda _: model))


# Hostile texts
