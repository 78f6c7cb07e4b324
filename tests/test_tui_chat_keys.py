"""The keys of the chat screen and the screens behind them: chats, models, settings, palette, Ctrl+C, one's own keys."""

from pathlib import Path

import pytest
import tiny_gguf
from chat_window import ask, begin, chat, line, models, opened, said, slow, stop, told
from textual.pilot import Pilot
from textual.widgets import Input, OptionList
from tui_pilot import shown, until

from edgemm.chat_settings import ChatSettings, Policy
from edgemm.desk import Desk
from edgemm.fetch import local
from edgemm.sessions import Sessions, default_path
from edgemm.tui.screens.ask import AskLine, Confirm
from edgemm.tui.screens.card import CardScreen
from edgemm.tui.screens.chat import ChatScreen
from edgemm.tui.screens.chats import ChatsScreen
from edgemm.tui.screens.models import ModelScreen
from edgemm.tui.screens.settings import SettingsScreen


def stored() -> list[str]:
    """Titles of the chats in the store."""
    with Sessions(default_path()) as sessions:
        return [info.title for info in sessions.chats()]


def package(tmp_path: Path, name: str) -> None:
    local.gguf_package(tiny_gguf.write(tmp_path / f"{name}-q8_0.gguf"), name, "owner/x", "", "mit")


def with_chat(text: str, desk: Desk) -> int:
    """A chat in which `text` was said."""
    number = desk.new_chat("fake").id
    desk.sessions.add(number, None, "user", text)
    desk.sessions.rename(number, text)
    return number


# F2 and Ctrl+N


def test_a_chat_is_found_by_its_words_and_opened_again() -> None:
    desk = Desk(opener=models())
    other = desk.new_chat("fake").id
    desk.sessions.add(other, None, "user", "about penguins")

    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        await ask(screen, pilot, "hello")
        await pilot.press("f2", *"penguins")
        await until(
            pilot, lambda: "about" in shown(pilot.app) and "hello" not in shown(pilot.app).split("penguins", 2)[1]
        )
        await pilot.press("enter")
        await until(pilot, lambda: pilot.app.screen is screen and screen.chat.id == other)
        assert said(screen) == ["about penguins"]

    chat(script, desk)


def test_a_chat_is_renamed_in_the_list_the_open_one_too() -> None:
    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        await ask(screen, pilot, "hello")
        await pilot.press("f2")
        await opened(pilot, ChatsScreen)
        await pilot.press("f2")
        field = (await opened(pilot, AskLine)).query_one(Input)
        field.value = "A better title"
        await pilot.press("enter")
        await opened(pilot, ChatsScreen)
        await pilot.press("escape")
        await until(pilot, lambda: line(screen, "title") == "A better title — fake")

    chat(script)
    assert stored() == ["A better title"]


def test_the_list_while_an_answer_grows_does_not_end_its_growing() -> None:
    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        await begin(screen, pilot)
        await pilot.press("f2")
        await opened(pilot, ChatsScreen)
        await pilot.press("escape")
        await until(pilot, lambda: pilot.app.screen is screen)
        seen = shown(pilot.app).count("word")
        await until(pilot, lambda: shown(pilot.app).count("word") > seen + 10)
        assert screen.busy, "it is seen before its end"
        assert "another window" not in shown(pilot.app)
        await stop(screen, pilot)

    chat(script, Desk(opener=slow()))


@pytest.mark.parametrize("is_open", [True, False])
def test_a_chat_is_deleted_in_the_list_the_open_one_too(is_open: bool) -> None:
    desk = Desk(opener=models())
    number = with_chat("old", desk)

    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        if not is_open:
            await ask(screen, pilot, "new")
        await pilot.press("f2")
        await opened(pilot, ChatsScreen)
        await pilot.press(*([] if is_open else ["down"]), "delete")
        assert "old" in shown(pilot.app)
        await opened(pilot, Confirm)
        await pilot.press("y")
        await opened(pilot, ChatsScreen)
        await pilot.press("escape")
        await until(pilot, lambda: pilot.app.screen is screen and not screen.busy)
        assert said(screen) == ([] if is_open else ["new", "one two three"])
        await ask(screen, pilot, "go on")

    chat(script, desk, number=number if is_open else None)
    assert "old" not in stored()


def test_a_chat_is_exported_from_the_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        await ask(screen, pilot, "hello there")
        for name in ("hello-there.md", "hello-there-1.md"):
            await pilot.press("f2")
            await opened(pilot, ChatsScreen)
            await pilot.press("f4")
            await until(pilot, lambda: f"written to {name}" in shown(pilot.app))  # noqa: B023 - awaited in the loop
            await pilot.press("escape")
            await until(pilot, lambda: pilot.app.screen is screen)

    chat(script)
    assert "one two three" in (tmp_path / "hello-there.md").read_text()


def test_a_folder_that_cannot_be_written_is_told_in_the_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")

    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        await ask(screen, pilot, "hello")
        (tmp_path / "gone").rmdir()
        await pilot.press("f2")
        await opened(pilot, ChatsScreen)
        await pilot.press("f4")
        await told(pilot, "hello.md")

    chat(script)


def test_a_new_chat_that_was_never_used_leaves_nothing() -> None:
    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        for _ in range(3):
            await pilot.press("ctrl+n")
            await until(pilot, lambda: not screen.busy)
        await pilot.press("ctrl+q")

    chat(script)
    assert stored() == []


def test_a_new_chat_waits_for_the_answer() -> None:
    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        await begin(screen, pilot)
        number = screen.chat.id
        await pilot.press("ctrl+n")
        await told(pilot, "the model is at work")
        assert screen.chat.id == number
        await stop(screen, pilot)
        await pilot.press("ctrl+n")
        await until(pilot, lambda: not screen.busy and screen.turns == [])

    chat(script, Desk(opener=slow()))


# F3


def test_another_model_goes_on_with_the_chat(tmp_path: Path) -> None:
    package(tmp_path, "other")

    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        await ask(screen, pilot, "hello")
        await choose(screen, pilot, "other")
        await until(pilot, lambda: line(screen, "title") == "hello — other")
        await ask(screen, pilot, "go on")
        assert screen.turns[-1].details["model"]["model"] == "other"
        await pilot.press("ctrl+n")
        await until(pilot, lambda: line(screen, "title") == "new chat — other")

    chat(script)


async def choose(screen: ChatScreen, pilot: Pilot[None], name: str) -> None:
    await pilot.press("f3")
    models = await opened(pilot, ModelScreen)
    await until(pilot, lambda: name in shown(pilot.app))
    await pilot.press(*name)
    rows = models.query_one(OptionList)
    await until(pilot, lambda: rows.highlighted is not None and name in str(rows.get_option_at_index(1).prompt))
    await pilot.press("enter")
    await until(pilot, lambda: pilot.app.screen is screen and not screen.busy)


def test_a_model_that_does_not_open_leaves_a_chat_that_can_be_read(tmp_path: Path) -> None:
    for name in ("missing", "other"):
        package(tmp_path, name)

    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        await ask(screen, pilot, "hello")
        await choose(screen, pilot, "missing")
        assert line(screen, "notice") == "missing: is not on this machine — pull it"
        assert line(screen, "title") == "hello — missing (not loaded)"
        assert "one two three" in shown(pilot.app)
        for key in ("f4", "f5", "f6", "f7", "alt+left"):
            await pilot.press(key)
            await told(pilot, "choose one with F3")
        await choose(screen, pilot, "other")
        await until(pilot, lambda: line(screen, "title") == "hello — other")
        assert not screen.query_one("#notice").has_class("-shown")
        await ask(screen, pilot, "go on")
        assert len(screen.turns) == 4

    chat(script)


def test_a_report_card_is_read_over_the_chat(tmp_path: Path) -> None:
    package(tmp_path, "other")

    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        await pilot.press("f3")
        await opened(pilot, ModelScreen)
        await until(pilot, lambda: "fits" in shown(pilot.app))
        await pilot.press("v")
        await opened(pilot, CardScreen)
        await pilot.press("escape", "escape")
        await until(pilot, lambda: pilot.app.screen is screen)

    chat(script)


# F4


def test_settings_are_saved_with_the_chat() -> None:
    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        await ask(screen, pilot, "hello")
        await pilot.press("f4")
        form = await opened(pilot, SettingsScreen)
        form.query_one("#temperature", Input).value = "0,9"
        form.query_one("#system").text = "Be brief."
        form.query_one("#policy").value = Policy.DROP
        await pilot.press("ctrl+s")
        await told(pilot, "settings of this chat are saved")
        assert screen.settings == ChatSettings(system="Be brief.", temperature=0.9, policy=Policy.DROP)
        await pilot.press("f4")
        form = await opened(pilot, SettingsScreen)
        assert form.query_one("#temperature", Input).value == "0.9"
        await pilot.press("escape")
        await until(pilot, lambda: pilot.app.screen is screen)

    chat(script)
    with Sessions(default_path()) as sessions:
        assert ChatSettings.from_json(sessions.chats()[0].settings).system == "Be brief."


def test_the_saved_system_prompt_reaches_the_model() -> None:
    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        assert screen.conversation is not None
        empty = screen.conversation.plan("x").tokens
        await pilot.press("f4")
        (await opened(pilot, SettingsScreen)).query_one("#system").text = "Be brief."
        await pilot.press("ctrl+s")
        await told(pilot, "are saved")
        assert screen.conversation.plan("x").tokens == empty + len("system: Be brief.\n")

    chat(script)


# Ctrl+C, copying
