"""The chat screen as a user drives it, on a scripted model and a real store."""

import json
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot
from tui_pilot import SIZES, drive, shown, until

from edgemm import paths
from edgemm.backends import Generator
from edgemm.backends.fake import FakeGenerator
from edgemm.chat_settings import ChatSettings, Policy
from edgemm.desk import Desk
from edgemm.errors import UnknownModel
from edgemm.sessions import Sessions, State, default_path
from edgemm.tui.app import ChatApp
from edgemm.tui.screens.chat import ChatScreen
from edgemm.tui.screens.fit import FitScreen

ANSWERS = ["one two three", "alpha beta", "final answer"]
Script = Callable[[ChatScreen, Pilot[None]], Awaitable[None]]


def models(answers: Sequence[str] = ANSWERS, **options: Any) -> Callable[[str], Generator]:
    def opener(name: str) -> Generator:
        if name == "missing":
            raise UnknownModel(name, "is not on this machine", "pull it")
        return FakeGenerator(answers, **options)

    return opener


def chat(script: Script, desk: Desk, size: tuple[int, int] = SIZES[0], number: int | None = None) -> None:
    """Run `script` on the chat screen of a new window."""

    async def run(app: Any, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: isinstance(app.screen, ChatScreen) and not app.screen.busy)
        await script(app.screen, pilot)

    try:
        drive(ChatApp(desk, "fake", number), run, size)
    finally:
        desk.close()


async def send(screen: ChatScreen, pilot: Pilot[None], text: str) -> None:
    screen.prompt.put(text)
    await pilot.press("enter")


async def ask(screen: ChatScreen, pilot: Pilot[None], text: str) -> None:
    """Send, and wait for the end of the answer."""
    before = len(screen.turns)
    await send(screen, pilot, text)
    await until(pilot, lambda: len(screen.turns) > before and not screen.busy)


def said(screen: ChatScreen) -> list[str]:
    return [turn.text for turn in screen.branch()]


@pytest.mark.parametrize("size", [*SIZES, (20, 5)])
def test_a_question_is_answered_stored_and_counted(size: tuple[int, int]) -> None:
    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        await ask(screen, pilot, "hello")
        assert said(screen) == ["hello", "one two three"]
        if size != (20, 5):
            await until(pilot, lambda: "/4,096 tokens" in shown(pilot.app))
            assert "one two three" in shown(pilot.app)
            assert "hello — fake" in shown(pilot.app).splitlines()[0]

    chat(script, Desk(opener=models()), size)
    with Sessions(default_path()) as sessions:
        assert [info.title for info in sessions.chats()] == ["hello"]


def test_escape_stops_an_answer_and_f6_goes_on_with_it() -> None:
    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        await send(screen, pilot, "hello")
        await until(pilot, lambda: "word word" in shown(pilot.app))
        await pilot.press("escape")
        await until(pilot, lambda: not screen.busy)
        stopped = screen.turns[-1]
        assert stopped.state is State.STOPPED
        assert "F6 goes on" in shown(pilot.app)
        await pilot.press("f6")
        await until(pilot, lambda: screen.busy)
        await pilot.press("escape")
        await until(pilot, lambda: not screen.busy)
        assert len(screen.turns) == 2
        assert len(screen.turns[-1].text) > len(stopped.text)

    chat(script, Desk(opener=models(["word " * 500], seconds_per_token=0.02)))


def test_messages_wait_for_the_answer_and_come_back_when_it_is_stopped() -> None:
    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        await send(screen, pilot, "first")
        await send(screen, pilot, "second")
        await until(pilot, lambda: len(screen.queue) == 1)
        await until(pilot, lambda: said(screen)[2:3] == ["second"], 20)
        await send(screen, pilot, "third")
        await until(pilot, lambda: len(screen.queue) == 1)
        await pilot.press("escape")
        await until(pilot, lambda: not screen.busy)
        assert screen.prompt.expanded() == "third"
        assert "third" not in said(screen)

    chat(script, Desk(opener=models(["w " * 40], seconds_per_token=0.02)))


def test_versions_are_made_and_walked_through() -> None:
    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        await ask(screen, pilot, "hello")
        await pilot.press("f5")
        await until(pilot, lambda: len(screen.turns) == 3 and not screen.busy)
        assert said(screen) == ["hello", "alpha beta"]
        assert "‹ 2/2 ›" in shown(pilot.app)
        await pilot.press("alt+left")
        await until(pilot, lambda: said(screen) == ["hello", "one two three"])
        await pilot.press("alt+e")
        assert screen.prompt.expanded() == "hello"
        await send(screen, pilot, "hello again")
        await until(pilot, lambda: len(screen.turns) == 5 and not screen.busy)
        assert said(screen) == ["hello again", "final answer"]

    chat(script, Desk(opener=models()))


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


def test_a_new_chat_that_was_never_used_leaves_nothing() -> None:
    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        for _ in range(3):
            await pilot.press("ctrl+n")
            await until(pilot, lambda: not screen.busy)
        await pilot.press("ctrl+q")

    chat(script, Desk(opener=models()))
    with Sessions(default_path()) as sessions:
        assert sessions.chats() == []


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


def test_a_model_that_dies_is_told_and_answers_again() -> None:
    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        await ask(screen, pilot, "hello")
        assert screen.turns[-1].state is State.FAILED
        assert "F5 answers again" in shown(pilot.app)
        assert "as the script says" in shown(pilot.app)
        await pilot.press("f5")
        await until(pilot, lambda: said(screen)[-1] == "alpha beta")

    chat(script, Desk(opener=models(die_after=2)))


@pytest.mark.parametrize(("keys", "count"), [(("enter",), 8), (("down", "down", "enter"), 6), (("escape",), 6)])
def test_what_does_not_fit_is_asked_about(keys: tuple[str, ...], count: int) -> None:
    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        for i in range(3):
            await ask(screen, pilot, f"{i} " + "x" * 40)
        await send(screen, pilot, "y" * 60)
        await until(pilot, lambda: isinstance(pilot.app.screen, FitScreen))
        assert "would have to go" in shown(pilot.app)
        await pilot.press(*keys)
        await until(pilot, lambda: pilot.app.screen is screen and not screen.busy and len(screen.turns) == count)
        assert (screen.prompt.expanded() == "y" * 60) == (count == 6)

    chat(script, Desk(opener=models(["z" * 50], context=480)))


def test_settings_hold_for_the_chat() -> None:
    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        await send(screen, pilot, "/set temperature 0.7")
        await send(screen, pilot, "/set policy drop")
        await send(screen, pilot, "/system Be brief.")
        await until(pilot, lambda: screen.settings.system == "Be brief.")
        assert (screen.settings.temperature, screen.settings.policy) == (0.7, Policy.DROP)
        await send(screen, pilot, "/set temperature hot")
        await until(pilot, lambda: "'hot' is not a number in 0..5" in shown(pilot.app))
        await ask(screen, pilot, "hello")

    chat(script, Desk(opener=models()))
    with Sessions(default_path()) as sessions:
        assert ChatSettings.from_json(sessions.chats()[0].settings).system == "Be brief."


def test_the_model_is_told_a_file_and_a_picture_is_refused(tmp_path: Path) -> None:
    (tmp_path / "n.txt").write_text("the secret is 7")
    (tmp_path / "p.png").write_bytes(b"\x89PNG\r\n\x1a\n")

    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        screen.prompt.put("what is it? ", [tmp_path / "n.txt"])
        await pilot.press("enter")
        await until(pilot, lambda: len(screen.turns) == 2 and not screen.busy)
        assert screen.turns[0].details["attachments"][0]["text"] == "the secret is 7"
        screen.prompt.put("and this? ", [tmp_path / "p.png"])
        await pilot.press("enter")
        await until(pilot, lambda: "picture" in shown(pilot.app))
        assert len(screen.turns) == 2

    chat(script, Desk(opener=models()))


def test_a_store_that_cannot_be_written_is_told_and_the_chat_works(tmp_path: Path) -> None:
    broken = tmp_path / "broken.sqlite"
    broken.write_bytes(b"no database" * 100)

    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        assert "chats are not saved" in shown(pilot.app)
        await ask(screen, pilot, "hello")
        assert said(screen) == ["hello", "one two three"]

    chat(script, Desk(opener=models(), path=broken))
    assert broken.read_bytes() == b"no database" * 100


def test_nothing_from_outside_is_markup_or_a_control_sequence() -> None:
    evil = "[@click=app.quit]x[/] \x1b]52;c;YQ==\a \x9b31m \u202e [/b]"
    desk = Desk(opener=models([evil]))

    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        await ask(screen, pilot, evil)
        screen.tell(evil)
        screen.desk.sessions.rename(screen.chat.id, evil)
        screen.refresh_chat()
        await pilot.pause(0.1)
        text = shown(pilot.app)
        assert "[@click=app.quit]x[/]" in text
        assert not set(text) & set("\x1b\a\x9b\u202e")

    chat(script, desk)


def test_theme_and_keys_are_the_users_own() -> None:
    path = paths.data() / "screen.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"theme": "nord", "keys": {"chat.regenerate": "ctrl+g"}}))

    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        assert pilot.app.theme == "nord"
        await ask(screen, pilot, "hello")
        await pilot.press("ctrl+g")
        await until(pilot, lambda: said(screen) == ["hello", "alpha beta"])
        pilot.app.theme = "gruvbox"
        await until(pilot, lambda: json.loads(path.read_text())["theme"] == "gruvbox")

    chat(script, Desk(opener=models()))


@pytest.mark.parametrize("text", ["", "{", "[]", '{"theme": 7, "keys": [1]}', '{"theme": "none"}', "\x00"])
def test_damaged_preferences_are_ignored(text: str) -> None:
    path = paths.data() / "screen.json"
    path.parent.mkdir(parents=True)
    path.write_text(text)

    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        await ask(screen, pilot, "hello")

    chat(script, Desk(opener=models()))


def test_leaving_while_it_answers_keeps_the_text() -> None:
    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        await send(screen, pilot, "hello")
        await until(pilot, lambda: "word word" in shown(pilot.app))
        await pilot.press("ctrl+q")
        await until(pilot, lambda: not pilot.app.is_running)

    chat(script, Desk(opener=models(["word " * 500], seconds_per_token=0.02)))
    with Sessions(default_path()) as sessions:
        [_, answer] = sessions.turns(sessions.chats()[0].id)
        assert answer.state is State.STOPPED
        assert answer.text.startswith("word word")
