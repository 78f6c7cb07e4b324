"""The saved chats: listed newest first, found by their words, renamed, and deleted only after a yes."""

import datetime
from collections.abc import Iterator
from typing import Any

import pytest
from textual.app import App
from textual.content import Content
from textual.pilot import Pilot
from textual.widgets import Input, OptionList
from tui_pilot import PENDING, Host, drive, shown, until

from edgemm.errors import BadFile
from edgemm.sessions import Sessions
from edgemm.tui.screens.ask import AskLine, Confirm
from edgemm.tui.screens.chats import ChatsScreen, when


@pytest.fixture
def sessions() -> Iterator[Sessions]:
    """Three chats in memory; the newest is "Moon"."""
    with Sessions() as found:
        for title, text in (("Tides", "Why are there tides?"), ("Bread", "How long does dough rise?"), ("Moon", "Hi")):
            found.add(found.create("small", title=title).id, None, "user", text)
        yield found


class ChatsHost(Host):
    """Keeps which chats are to be exported."""

    def __init__(self, sessions: Sessions) -> None:
        super().__init__(lambda: ChatsScreen(sessions.chats, sessions.search, sessions.rename, sessions.delete))
        self.exported: list[int] = []

    def on_chats_screen_export(self, event: ChatsScreen.Export) -> None:
        self.exported.append(event.chat)


def titles(sessions: Sessions) -> list[str]:
    return [chat.title for chat in sessions.chats()]


def listed(app: App[None]) -> list[str]:
    options = app.screen.query_one(OptionList)
    return [str(options.get_option_at_index(i).prompt).splitlines()[0] for i in range(options.option_count)]


def test_the_newest_chat_is_the_first_and_the_chosen_one_is_opened(sessions: Sessions) -> None:
    app = ChatsHost(sessions)

    async def script(app: ChatsHost, pilot: Pilot[None]) -> None:
        assert listed(app) == ["Moon", "Bread", "Tides"]
        await pilot.press("down", "enter")
        await until(pilot, lambda: app.result is not PENDING)

    drive(app, script)
    assert sessions.chat(app.result).title == "Bread"


def test_typing_finds_messages_and_marks_the_words(sessions: Sessions) -> None:
    app = ChatsHost(sessions)

    async def script(app: ChatsHost, pilot: Pilot[None]) -> None:
        await pilot.press(*"dough")
        await until(pilot, lambda: listed(app) == ["Bread"])
        prompt = app.screen.query_one(OptionList).get_option_at_index(0).prompt
        assert isinstance(prompt, Content)
        assert [prompt.plain[s.start : s.end] for s in prompt.spans if "reverse" in str(s.style)] == ["dough"]
        await pilot.press("enter")
        await until(pilot, lambda: app.result is not PENDING)

    drive(app, script)
    assert sessions.chat(app.result).title == "Bread"


def test_titles_are_found_too_and_escape_clears_the_search_first(sessions: Sessions) -> None:
    async def script(app: ChatsHost, pilot: Pilot[None]) -> None:
        await pilot.press(*"MOO")
        await until(pilot, lambda: listed(app) == ["Moon"])
        await pilot.press("escape")
        await until(pilot, lambda: len(listed(app)) == 3)
        assert app.result is PENDING
        await pilot.press("escape")
        await until(pilot, lambda: app.result is None)

    drive(ChatsHost(sessions), script)


def test_enter_that_comes_before_the_search_opens_no_other_chat(sessions: Sessions) -> None:
    app = ChatsHost(sessions)

    async def script(app: ChatsHost, pilot: Pilot[None]) -> None:
        app.screen._find_soon = lambda query: None  # a search that never comes
        await pilot.press(*"dough", "enter")
        await until(pilot, lambda: listed(app) == ["Bread"])
        assert app.result is PENDING

    drive(app, script)


def test_a_search_without_a_match_says_so(sessions: Sessions) -> None:
    async def script(app: ChatsHost, pilot: Pilot[None]) -> None:
        await pilot.press(*"[b]zebra")
        await until(pilot, lambda: "nothing says “[b]zebra”" in shown(app))
        await pilot.press("enter", "f2", "f4", "delete")
        await pilot.pause(0.1)
        assert (app.result, app.exported) == (PENDING, [])

    drive(ChatsHost(sessions), script)


def test_a_chat_gets_another_title(sessions: Sessions) -> None:
    async def script(app: ChatsHost, pilot: Pilot[None]) -> None:
        await pilot.press("down", "f2")
        await until(pilot, lambda: isinstance(app.screen, AskLine))
        await pilot.press(*"Dough", "enter")
        await until(pilot, lambda: isinstance(app.screen, ChatsScreen) and "Dough" in listed(app))

    drive(ChatsHost(sessions), script)
    assert sorted(titles(sessions)) == ["Dough", "Moon", "Tides"]


def test_a_chat_is_deleted_only_after_a_yes(sessions: Sessions) -> None:
    async def script(app: ChatsHost, pilot: Pilot[None]) -> None:
        for answer in ("enter", "n", "y"):
            await pilot.press("delete")
            await until(pilot, lambda: isinstance(app.screen, Confirm))
            assert "Delete “Moon” and all its messages" in shown(app)
            assert "Moon" in titles(sessions)
            await pilot.press(answer, *(["escape"] if answer == "enter" else []))
            await until(pilot, lambda: isinstance(app.screen, ChatsScreen))
        await until(pilot, lambda: listed(app) == ["Bread", "Tides"])

    drive(ChatsHost(sessions), script)
    assert titles(sessions) == ["Bread", "Tides"]


def test_delete_inside_the_search_deletes_a_letter(sessions: Sessions) -> None:
    async def script(app: ChatsHost, pilot: Pilot[None]) -> None:
        await pilot.press(*"xmoon", "home", "delete")
        await until(pilot, lambda: app.screen.query_one(Input).value == "moon")
        assert isinstance(app.screen, ChatsScreen)

    drive(ChatsHost(sessions), script)


def test_export_is_left_to_the_program(sessions: Sessions) -> None:
    app = ChatsHost(sessions)

    async def script(app: ChatsHost, pilot: Pilot[None]) -> None:
        await pilot.press("f4")
        await pilot.press("tab", "e")
        await until(pilot, lambda: len(app.exported) == 2)
        app.screen.tell("written to chat.md")
        await until(pilot, lambda: "written to chat.md" in shown(app))

    drive(app, script)
    assert {sessions.chat(each).title for each in app.exported} == {"Moon"}


def test_a_store_that_fails_is_reported_and_the_view_stays() -> None:
    def fails(*_: object) -> Any:
        raise BadFile("chats.sqlite", "is damaged", "restore it")

    async def script(app: Host, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: "chats.sqlite: is damaged" in shown(app))
        await pilot.press("x", "escape", "escape")
        await until(pilot, lambda: app.result is None)

    drive(Host(lambda: ChatsScreen(fails, fails, fails, fails)), script)


@pytest.mark.parametrize(
    ("then", "said"),
    [
        ("2024-03-10 09:05", "09:05"),
        ("2024-03-09 23:59", "yesterday 23:59"),
        ("2024-03-04 08:00", "Mon 08:00"),
        ("2024-03-03 12:00", "2024-03-03"),
        ("2024-03-11 12:00", "2024-03-11"),
    ],
)
def test_times_are_said_as_a_person_says_them(then: str, said: str) -> None:
    now = datetime.datetime.fromisoformat("2024-03-10 12:00").timestamp()
    assert when(datetime.datetime.fromisoformat(then).timestamp(), now) == said
