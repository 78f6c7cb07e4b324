"""What a chat copies, offers and remembers: the clipboard, the palette, help, the user's own keys and theme."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest
import tiny_gguf
from chat_window import ask, begin, chat, models, opened, said, send, slow, told
from textual.command import CommandPalette
from textual.events import MouseDown, MouseUp
from textual.geometry import Offset
from textual.pilot import Pilot
from textual.selection import Selection
from textual.widgets import Input
from tui_pilot import shown, until

from edgemm import paths
from edgemm.desk import Desk
from edgemm.fetch import local
from edgemm.tui import actions
from edgemm.tui.screens.chat import ChatScreen
from edgemm.tui.screens.compare import CompareScreen
from edgemm.tui.screens.help import HelpScreen
from edgemm.tui.widgets.message import MessageView


def package(tmp_path: Path, name: str) -> None:
    local.gguf_package(tiny_gguf.write(tmp_path / f"{name}-q8_0.gguf"), name, "owner/x", "", "mit")


async def copied(pilot: Pilot[None], text: str) -> None:
    await until(pilot, lambda: pilot.app.clipboard == text)
    await told(pilot, f"copied {len(text)} characters")


def test_a_message_is_copied_as_it_came() -> None:
    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        await ask(screen, pilot, "hello")
        await pilot.press("alt+c")
        await copied(pilot, "**bold** and `code`")
        await pilot.press("alt+up", "alt+up", "alt+c")
        await copied(pilot, "hello")

    chat(script, Desk(opener=models(["**bold** and `code`"])))


def test_ctrl_c_copies_what_is_selected_and_does_not_leave() -> None:
    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        await ask(screen, pilot, "hello")
        view = list(screen.query(MessageView))[-1]
        screen.selections = {view: Selection(Offset(0, 1), Offset(7, 1))}
        await pilot.press("ctrl+c")
        await copied(pilot, "one two")
        assert not screen.get_selected_text()
        screen.prompt.put("typed text")
        screen.prompt.select_all()
        await pilot.press("ctrl+c", "ctrl+c")
        await until(pilot, lambda: pilot.app.clipboard == "typed text")
        assert pilot.app.is_running

    chat(script)


def test_a_click_on_a_message_takes_no_key_from_the_editor() -> None:
    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        await ask(screen, pilot, "hello")
        await pilot.click(MessageView)
        await pilot.press("a")
        await until(pilot, lambda: screen.prompt.text == "a")

    chat(script)


def test_a_click_on_a_message_that_was_just_taken_away_does_nothing() -> None:
    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        await ask(screen, pilot, "hello")
        view = screen.query(MessageView).last()
        x, y = view.region.x + 2, view.region.y + 1
        gone = view.remove()
        while view.is_attached:
            await asyncio.sleep(0)
        screen._forward_event(MouseDown(screen, x, y, 0, 0, 1, False, False, False, x, y))
        screen._forward_event(MouseUp(screen, x, y, 0, 0, 1, False, False, False, x, y))
        await gone
        await pilot.press("a")
        await until(pilot, lambda: screen.prompt.text == "a")

    chat(script)


def test_ctrl_c_stops_the_answer() -> None:
    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        await begin(screen, pilot)
        await pilot.press("ctrl+c")
        await until(pilot, lambda: not screen.busy)
        await told(pilot, "stopped here")
        assert pilot.app.is_running

    chat(script, Desk(opener=slow()))


def test_ctrl_c_pressed_twice_leaves() -> None:
    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        await pilot.press("ctrl+c")
        await told(pilot, "press Ctrl+C again")
        screen.warned -= 10  # the first press was long ago
        await pilot.press("ctrl+c")
        await pilot.pause(0.2)
        assert pilot.app.is_running
        await pilot.press("ctrl+c")
        await until(pilot, lambda: not pilot.app.is_running)

    chat(script)


# Palette, help, and keys of one's own


def test_the_palette_offers_every_action_and_does_them() -> None:
    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        await ask(screen, pilot, "hello")
        offered = {command.title for command in pilot.app.get_system_commands(screen)}
        assert {row.help for row in actions.ROWS} <= offered
        await pilot.press("ctrl+p")
        await opened(pilot, CommandPalette)
        await pilot.press(*"answer again")
        await told(pilot, "key f5")
        await pilot.press("enter")
        await pilot.pause(0.2)
        if pilot.app.screen is not screen:
            await pilot.press("enter")
        await until(pilot, lambda: said(screen) == ["hello", "alpha beta"])

    chat(script)


def test_help_shows_each_key_of_the_chat_and_each_command() -> None:
    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        await pilot.press("f1")
        page: Any = await opened(pilot, HelpScreen)
        text = " ".join(str(each.visual) for each in page.query("Static"))
        for row in actions.ROWS:
            assert row.help in text or row.name == "interrupt"  # where the editor's own Ctrl+C stands
        for word in ("Ctrl+G", "/regenerate", "Alt+Left"):
            assert word in text

    preferences({"keys": {"chat.settings": "ctrl+g"}})
    chat(script)


def test_every_binding_of_the_chat_can_be_given_another_key() -> None:
    ids = [binding.id for binding in actions.BINDINGS]
    assert len(set(ids)) == len(actions.ROWS) == len({row.key for row in actions.ROWS})
    assert all(str(id).startswith("chat.") for id in ids)


def preferences(values: Any) -> Path:
    path = paths.data() / "screen.json"
    path.parent.mkdir(parents=True)
    path.write_text(values if isinstance(values, str) else json.dumps(values))
    return path


def test_theme_and_keys_are_the_users_own() -> None:
    path = preferences({"theme": "nord", "keys": {"chat.regenerate": "ctrl+g"}})

    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        assert pilot.app.theme == "nord"
        await ask(screen, pilot, "hello")
        await pilot.press("ctrl+g")
        await until(pilot, lambda: said(screen) == ["hello", "alpha beta"])
        await pilot.press("f5")
        await pilot.pause(0.1)
        assert len(screen.turns) == 3, "its old key does nothing"
        pilot.app.theme = "gruvbox"
        await until(pilot, lambda: json.loads(path.read_text())["theme"] == "gruvbox")
        assert json.loads(path.read_text())["keys"] == {"chat.regenerate": "ctrl+g"}

    chat(script)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"theme": 7, "keys": [1]}',
        '{"theme": ["nord"], "keys": {"chat.new": null, "no.such": "x"}}',
        '{"theme": {}, "keys": {"chat.new": "", "chat.help": ",,", "chat.chats": "no such key"}}',
        '{"theme": "none"}',
        "\x00",
        "[" * 100_000,
    ],
)
def test_damaged_preferences_are_ignored(text: str) -> None:
    preferences(text)

    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        await ask(screen, pilot, "hello")
        await pilot.press("f5")
        await until(pilot, lambda: len(screen.turns) == 3 and not screen.busy)

    chat(script)


# F8


def test_two_models_are_compared_and_the_chat_goes_on(tmp_path: Path) -> None:
    package(tmp_path, "other")

    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        await ask(screen, pilot, "hello")
        await pilot.press("f8")
        page = await opened(pilot, CompareScreen)
        assert page.query_one("#prompt", Input).value == "hello"
        assert screen.desk.model == "", "one model at a time in memory"
        await pilot.press("escape")
        await until(pilot, lambda: pilot.app.screen is screen and not screen.busy)
        await ask(screen, pilot, "go on")
        assert len(screen.turns) == 4

    chat(script)


def test_with_no_model_to_compare_the_chat_stays() -> None:
    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        await pilot.press("f8")
        await told(pilot, "no chat model is on this machine")
        assert screen.conversation is not None
        await send(screen, pilot, "/compare nobody")
        await told(pilot, "no chat model is on this machine")

    chat(script)


def test_help_begins_with_the_keys_that_one_needs_first() -> None:
    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        await pilot.press("f1")
        await opened(pilot, HelpScreen)
        await told(pilot, "scroll · Esc close")
        found = re.findall(r"(?:Esc|(?:Ctrl|Alt)\+\w+|F\d)(?=   )", shown(pilot.app))
        functions = [f"F{number}" for number in range(1, 10)]
        assert found[:15] == ["Esc", "Ctrl+C", *functions, "Ctrl+N", "Ctrl+Q", "Ctrl+P", "Alt+Up"]

    chat(script, size=(120, 40))
