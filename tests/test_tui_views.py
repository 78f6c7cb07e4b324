"""The views beside the chat itself: settings and help; and how every view looks at two sizes."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from textual import events
from textual.app import App
from textual.binding import Binding
from textual.pilot import Pilot
from textual.screen import Screen
from textual.widget import Widget
from textual.widgets import Input, Select, TextArea
from tui_pilot import PENDING, SIZES, Host, drive, shown, until

from edgemm.chat_settings import LIMITS, ChatSettings, Policy
from edgemm.personas import ROWS, Persona, Personas
from edgemm.sessions import Sessions
from edgemm.tui.screens.ask import AskLine, Confirm
from edgemm.tui.screens.chats import ChatsScreen
from edgemm.tui.screens.compare import CompareScreen
from edgemm.tui.screens.help import HelpScreen, key_rows, spoken
from edgemm.tui.screens.settings import SettingsScreen
from edgemm.tui.screens.tokens import TokenScreen

HOSTILE = "\x1b[31mred [bold]b[/bold] [@click=app.quit]x[/] \x9b2J \u202e 日本語 🌊"
SAFE = "␛[31mred [bold]b[/bold] [@click=app.quit]x[/] �2J �"


SETTINGS = ChatSettings(system="Be brief.", seed=7, top_logprobs=2, draft=0, policy=Policy.DROP)


def form(settings: ChatSettings = SETTINGS, personas: Personas | None = None) -> Host:
    return Host(lambda: SettingsScreen(settings, personas or Personas(ROWS)))


@pytest.mark.parametrize("settings", [SETTINGS, ChatSettings(), ChatSettings(schema='{"type": "object"}', draft=3)])
def test_a_form_that_nobody_touched_gives_the_same_settings(settings: ChatSettings) -> None:
    async def script(app: Host, pilot: Pilot[None]) -> None:
        await pilot.press("ctrl+s")
        await until(pilot, lambda: app.result is not PENDING)
        assert app.result == settings

    drive(form(settings), script)


def test_what_is_typed_and_chosen_comes_out() -> None:
    async def script(app: Host, pilot: Pilot[None]) -> None:
        screen = app.screen
        screen.query_one("#temperature", Input).focus()
        await pilot.press("1", ".", "5", "tab", "tab", "0", ".", "5")
        screen.query_one("#seed", Input).value = ""
        screen.query_one("#policy", Select).value = Policy.SUMMARISE
        screen.query_one("#top_logprobs", Select).value = 0
        screen.query_one("#draft", Select).value = 16
        screen.query_one("#schema", TextArea).text = '{"type": "array"}'
        screen.query_one("#min_p", Input).focus()
        await pilot.press("enter")
        await until(pilot, lambda: app.result is not PENDING)
        expected = {"temperature": 1.5, "top_p": 0.5, "draft": 16, "schema": '{"type": "array"}'}
        assert app.result == ChatSettings(system="Be brief.", policy=Policy.SUMMARISE, **expected)

    drive(form(), script)


def test_every_number_has_a_field() -> None:
    async def script(app: Host, pilot: Pilot[None]) -> None:
        for name in LIMITS:
            app.screen.query_one(f"#{name}")

    drive(form(), script)


def test_a_bad_number_is_marked_while_it_is_typed_and_not_saved() -> None:
    async def script(app: Host, pilot: Pilot[None]) -> None:
        field = app.screen.query_one("#top_p", Input)
        field.value = "9"
        await until(pilot, lambda: "top_p: 9.0 is not a number in 0..1" in shown(app))
        assert field.has_class("bad")
        await pilot.press("ctrl+s")
        await until(pilot, lambda: app.focused is field)
        assert app.result is PENDING
        field.value = "0.9"
        await until(pilot, lambda: "is not a number" not in shown(app) and not field.has_class("bad"))

    drive(form(), script)


def test_a_schema_that_is_no_json_is_not_saved() -> None:
    async def script(app: Host, pilot: Pilot[None]) -> None:
        app.screen.query_one("#schema", TextArea).text = "{"
        await pilot.press("ctrl+s")
        await until(pilot, lambda: "schema: is not a JSON object" in shown(app))
        assert app.result is PENDING

    drive(form(), script)


def test_a_persona_fills_in_its_prompt_and_undo_brings_the_old_one_back() -> None:
    async def script(app: Host, pilot: Pilot[None]) -> None:
        area = app.screen.query_one("#system", TextArea)
        app.screen.query_one("#persona", Select).value = Persona("Pirate", "", "Talk like a pirate.", 1.0)
        await until(pilot, lambda: area.text == "Talk like a pirate.")
        assert app.screen.query_one("#temperature", Input).value == "1.0"
        area.focus()
        await pilot.press("ctrl+z")
        await until(pilot, lambda: area.text == "Be brief.")

    drive(form(personas=Personas((*ROWS, Persona("Pirate", "", "Talk like a pirate.", 1.0)))), script)


def test_leaving_with_changes_asks_and_without_does_not() -> None:
    async def changed(app: Host, pilot: Pilot[None]) -> None:
        await pilot.press("x", "escape")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.press("n")
        await until(pilot, lambda: isinstance(app.screen, SettingsScreen))
        assert app.screen.query_one("#system", TextArea).text == "xBe brief."
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.press("y")
        await until(pilot, lambda: app.result is None)

    async def unchanged(app: Host, pilot: Pilot[None]) -> None:
        await pilot.press("escape")
        await until(pilot, lambda: app.result is None)

    drive(form(), changed)
    drive(form(), unchanged)


def test_damaged_personas_are_reported_until_a_field_is_at_fault() -> None:
    async def script(app: Host, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: "personas.json: is not JSON (and 1 more)" in shown(app))

    drive(form(personas=Personas(ROWS, ("personas.json: is not JSON", "x"))), script)


class HelpHost(App[None]):
    BINDINGS = (
        Binding("ctrl+n", "x", "new chat", id="new"),
        Binding("alt+up,alt+k", "y", "Previous message"),
        Binding("ctrl+t", "z", ""),
    )

    def compose(self) -> Iterator[TextArea]:
        yield TextArea()


def test_help_shows_the_keys_that_are_bound_now_and_the_commands() -> None:
    async def script(app: HelpHost, pilot: Pilot[None]) -> None:
        app.set_keymap({"new": "f9"})
        app.push_screen(HelpScreen([("/clear", "start again"), ("/evil", HOSTILE)]))
        await until(pilot, lambda: isinstance(app.screen, HelpScreen) and "/clear" in shown(app))
        text = shown(app)
        assert [line for line in text.splitlines() if "New chat" in line and "F9" in line]
        assert [line for line in text.splitlines() if "Alt+Up, Alt+K" in line and "Previous message" in line]
        assert "Ctrl+N" not in text
        assert "Ctrl+T" not in text
        assert text.index("Commands") < text.index("Keys in the focused field") < text.index("Cursor up")
        assert SAFE in text
        await pilot.press("escape")
        await until(pilot, lambda: not isinstance(app.screen, HelpScreen))

    drive(HelpHost(), script, size=(120, 60))


def test_keys_with_one_purpose_stand_in_one_row() -> None:
    rows = key_rows([Binding("enter", "a", "send"), Binding("x", "b", ""), Binding("ctrl+j", "c", "Send")])
    assert rows == [("Enter, Ctrl+J", "Send")]


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("ctrl+s", "Ctrl+S"),
        ("question_mark", "?"),
        ("ctrl+slash", "Ctrl+/"),
        ("e", "e"),
        ("f1", "F1"),
        ("escape", "Esc"),
        ("shift+enter", "Shift+Enter"),
        ("alt+up", "Alt+Up"),
        ("ctrl+pagedown", "Ctrl+Page down"),
    ],
)
def test_keys_are_named_as_on_a_keyboard(key: str, name: str) -> None:
    assert spoken(key) == name


def hostile_chats() -> ChatsScreen:
    sessions = Sessions()
    chat = sessions.create(HOSTILE, title=HOSTILE)
    sessions.add(chat.id, None, "user", HOSTILE)
    return ChatsScreen(sessions.chats, sessions.search, sessions.rename, sessions.delete)


def test_a_field_keeps_nothing_that_a_terminal_obeys_though_it_is_pasted() -> None:
    async def script(app: Host, pilot: Pilot[None]) -> None:
        area, line = app.screen.query_one("#system", TextArea), app.screen.query_one("#seed", Input)
        for field in (area, line):
            field.focus()
            await pilot.press("ctrl+a" if field is line else "f7", "delete")
            field.post_message(events.Paste(HOSTILE + "\r\n2"))
            await until(pilot, lambda: "bold" in area.text)
        await until(pilot, lambda: line.value.endswith("🌊"))
        assert area.text.startswith(SAFE)
        assert area.text.endswith("\n2")
        assert SAFE in line.value

    drive(form(), script)


VIEWS: dict[str, Callable[[], Screen[Any]]] = {
    "tokens": lambda: TokenScreen([[1, HOSTILE, -0.1, [[HOSTILE, -0.1, 1]]]]),
    "chats": hostile_chats,
    "settings": lambda: SettingsScreen(
        ChatSettings(system=HOSTILE), Personas((Persona(HOSTILE[:40], HOSTILE, ""),), (HOSTILE,))
    ),
    "compare": lambda: CompareScreen([HOSTILE], lambda name: None, prompt=HOSTILE),  # type: ignore
    "confirm": lambda: Confirm(HOSTILE),
    "line": lambda: AskLine(HOSTILE, HOSTILE),
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("view", VIEWS)
def test_every_view_fits_and_shows_hostile_text_as_text(view: str, size: tuple[int, int]) -> None:
    async def script(app: Host, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: "[bold]b[/bold]" in shown(app))
        text = shown(app)
        assert not {c for c in text if c != "\n" and (ord(c) < 32 or 127 <= ord(c) < 160 or c == "\u202e")}
        keys = app.screen.query_one("#keys")
        assert keys.virtual_region.width >= len(str(keys.render()))
        assert not [
            w for w in app.screen.walk_children(Widget) if w.show_horizontal_scrollbar and not isinstance(w, Input)
        ]

    drive(Host(VIEWS[view]), script, size)
