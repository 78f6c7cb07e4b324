"""A chat whose context is full, files that go with a question, and other sizes of the terminal."""

from pathlib import Path
from typing import Any

import pytest
from chat_window import ask, begin, chat, line, models, opened, send, slow, stop, told
from textual.pilot import Pilot
from textual.widgets import OptionList
from tui_pilot import SIZES, shown, until

from edgemm.chat_settings import ChatSettings, Policy
from edgemm.desk import Desk
from edgemm.sessions import Sessions, State, default_path
from edgemm.tui.screens.chat import ChatScreen
from edgemm.tui.screens.fit import FitScreen


@pytest.mark.parametrize(("keys", "count"), [(("enter",), 8), (("down", "down", "enter"), 6), (("escape",), 6)])
def test_what_does_not_fit_is_asked_about(keys: tuple[str, ...], count: int) -> None:
    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        await fill(screen, pilot)
        assert "would have to go" in shown(pilot.app)
        await pilot.press(*keys)
        await until(pilot, lambda: pilot.app.screen is screen and not screen.busy and len(screen.turns) == count)
        assert (screen.prompt.expanded() == "y" * 60) == (count == 6)

    chat(script, Desk(opener=models(["z" * 50], context=480)))


async def fill(screen: ChatScreen, pilot: Pilot[None]) -> None:
    """Ask until the context asks back."""
    for i in range(3):
        await ask(screen, pilot, f"{i} " + "x" * 40)
    await send(screen, pilot, "y" * 60)
    await opened(pilot, FitScreen)


def test_a_summary_stands_for_what_does_not_fit() -> None:
    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        for i in range(3):
            await ask(screen, pilot, f"{i} " + "x" * 100)
        await send(screen, pilot, "y" * 200)
        await opened(pilot, FitScreen)
        await pilot.press("down", "enter")
        await until(pilot, lambda: len(screen.turns) == 8 and not screen.busy)
        assert screen.turns[6].details["context"]["summary"] == "they met"
        await until(pilot, lambda: "a summary stands for them: they met" in " ".join(shown(pilot.app).split()))

    chat(script, Desk(opener=models(["z" * 50, "z" * 50, "z" * 50, "they met", "yes"], context=960)))


@pytest.mark.parametrize("policy", [Policy.DROP, Policy.SUMMARISE])
def test_the_question_of_what_goes_begins_with_the_chats_own_choice(policy: Policy) -> None:
    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        await fill(screen, pilot)
        highlighted = pilot.app.screen.query_one(OptionList).highlighted
        assert highlighted == [Policy.DROP, Policy.SUMMARISE].index(policy)
        await pilot.press("escape")
        await told(pilot, "not sent")

    chat(script, Desk(settings=ChatSettings(policy=policy), opener=models(["z" * 50], context=480)))


def test_the_meter_warns_of_what_will_not_fit() -> None:
    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        for i in range(3):
            await ask(screen, pilot, f"{i} " + "x" * 40)
        screen.prompt.put("y" * 60)
        await until(pilot, lambda: "oldest messages will not fit" in line(screen, "status"))

    chat(script, Desk(opener=models(["z" * 50], context=480)), SIZES[1])


def test_the_model_is_told_a_file_as_it_is_when_it_is_sent(tmp_path: Path) -> None:
    path = tmp_path / "n.txt"

    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        for number, text in enumerate(("the secret is 7", "the secret is 8")):
            path.write_text(text)
            screen.prompt.put("what is it? ", [path])
            await pilot.pause(0.4)  # the meter reads it
            await pilot.press("enter")
            await until(pilot, lambda: len(screen.turns) == 2 * number + 2 and not screen.busy)  # noqa: B023
            assert screen.turns[2 * number].details["attachments"][0]["text"] == text
        assert "[n.txt]" in shown(pilot.app)

    chat(script)


@pytest.mark.parametrize(("name", "content", "why"), [("p.png", b"\x89PNG\r\n\x1a\n", "picture"), ("no.txt", None, "")])
def test_a_file_that_cannot_be_sent_is_told_and_the_draft_stays(
    name: str, content: bytes | None, why: str, tmp_path: Path
) -> None:
    if content:
        (tmp_path / name).write_bytes(content)

    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        screen.prompt.put("and this? ", [tmp_path / name])
        await pilot.press("enter")
        await until(pilot, lambda: name in line(screen, "notice"))
        assert why in line(screen, "notice")
        assert screen.turns == []
        assert screen.prompt.expanded().split() == ["and", "this?", f"[{name}]"]
        assert screen.prompt.attachments == (tmp_path / name,)

    chat(script)


def test_another_size_while_it_answers_changes_nothing() -> None:
    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        await begin(screen, pilot)
        for size in ((120, 40), (20, 5), (41, 13), (80, 24)):
            await pilot.resize_terminal(*size)
            await pilot.pause(0.1)
        await until(pilot, lambda: shown(pilot.app).count("word") > 10)
        await stop(screen, pilot)
        assert len(screen.turns) == 2
        assert set(screen.turns[-1].text.split()) == {"word"}

    chat(script, Desk(opener=slow()))


def test_leaving_while_it_answers_keeps_the_text_and_asks_nothing_more() -> None:
    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        await begin(screen, pilot)
        await send(screen, pilot, "second")
        await pilot.press("ctrl+q", "ctrl+q")
        await until(pilot, lambda: not pilot.app.is_running)

    chat(script, Desk(opener=slow()))
    with Sessions(default_path()) as sessions:
        turns: list[Any] = sessions.turns(sessions.chats()[0].id)
    assert [turn.role for turn in turns] == ["user", "assistant"]
    assert turns[1].state is State.STOPPED
    assert turns[1].text.startswith("word word")


def test_the_page_keys_scroll_the_chat_while_one_types() -> None:
    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        await ask(screen, pilot, "hello")
        screen.prompt.put("draft")
        await told(pilot, "line 59")
        await pilot.press("pageup")
        await until(pilot, lambda: "line 59" not in shown(pilot.app))
        await pilot.press("x", "pagedown")
        await told(pilot, "line 59")
        assert screen.prompt.expanded() == "draftx"

    chat(script, Desk(opener=models(["\n\n".join(f"line {n}" for n in range(60))])))


def test_a_question_that_never_fits_comes_back() -> None:
    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        await ask(screen, pilot, "hello")
        await send(screen, pilot, "y" * 2000)
        await until(pilot, lambda: isinstance(pilot.app.screen, FitScreen) or line(screen, "notice"))
        if isinstance(pilot.app.screen, FitScreen):
            await pilot.press("enter")
        await until(pilot, lambda: "fit beside an answer" in line(screen, "notice"))
        await until(pilot, lambda: not screen.busy)
        assert screen.prompt.expanded() == "y" * 2000
        assert len(screen.turns) == 2

    chat(script, Desk(opener=models(context=480)))


def test_a_summary_that_is_stopped_brings_the_question_back() -> None:
    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        for i in range(3):
            await ask(screen, pilot, f"{i} " + "x" * 100)
        await send(screen, pilot, "y" * 200)
        await opened(pilot, FitScreen)
        await pilot.press("down", "enter")
        await until(pilot, lambda: screen.busy)
        await pilot.press("escape")
        await until(pilot, lambda: not screen.busy)
        assert len(screen.turns) == 6
        assert screen.prompt.expanded() == "y" * 200
        assert "nothing was sent" in line(screen, "notice")

    answers = ["z" * 50, "z" * 50, "z" * 50, "they met " * 100]
    chat(script, Desk(opener=models(answers, context=960, seconds_per_token=0.01)))


def test_a_question_of_what_goes_on_a_small_terminal_can_be_answered() -> None:
    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        await fill(screen, pilot)
        await pilot.press("enter")
        await until(pilot, lambda: len(screen.turns) == 8 and not screen.busy)

    chat(script, Desk(opener=models(["z" * 50], context=480)), (20, 5))
