"""What comes from outside is shown as text, and leaving at any moment ends well."""

from collections.abc import Callable
from pathlib import Path

import pytest
from chat_window import ask, begin, chat, line, models, send, slow, stop
from textual.pilot import Pilot
from textual.widgets import OptionList
from tui_pilot import shown, until

from edgemm.desk import Desk
from edgemm.errors import UsageError
from edgemm.events import Note
from edgemm.sessions import Sessions, State, default_path
from edgemm.tui.screens.chat import ChatScreen

EVIL = "[@click=app.quit]x[/] \x1b]52;c;YQ==\a \x9b31m \u202e [/b]"


def _evil_title(screen: ChatScreen) -> None:
    screen.desk.sessions.rename(screen.chat.id, EVIL + "\n" + EVIL)
    screen.refresh_chat()


def _evil_model(screen: ChatScreen) -> None:
    screen.change_model(EVIL)


@pytest.mark.parametrize("do", [_evil_title, _evil_model, lambda s: s.tell(EVIL), lambda s: s.status(EVIL)])
def test_nothing_from_outside_is_markup_or_a_control_sequence(do: Callable[[ChatScreen], None]) -> None:
    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        await ask(screen, pilot, EVIL)
        do(screen)
        await until(pilot, lambda: not screen.busy)
        await pilot.pause(0.1)
        text = shown(pilot.app)
        assert text.count("[@click=app.quit]x[/]") >= 3, "question, answer, and that text"
        assert not set(text) & set("\x1b\a\x9b\u202e")
        for key in ("f2", "f3"):
            await pilot.press(key)
            await until(pilot, lambda: pilot.app.screen is not screen)
            await until(pilot, lambda: pilot.app.screen.query_one(OptionList).option_count)
            assert not set(shown(pilot.app)) & set("\x1b\a\x9b\u202e")
            await pilot.press("escape")
            await until(pilot, lambda: pilot.app.screen is screen)

    chat(script, Desk(opener=models([EVIL])))


def test_a_hostile_file_name_is_shown_safely(tmp_path: Path) -> None:
    path = tmp_path / "a\x1b]0;x\a[b]\u202e.txt"
    path.write_text("x")

    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        screen.prompt.put("look ", [path])
        await pilot.press("enter")
        await until(pilot, lambda: len(screen.turns) == 2 and not screen.busy)
        screen.prompt.put("gone ", [tmp_path / "g\x1b]0;x\aone"])
        await pilot.press("enter")
        await until(pilot, lambda: line(screen, "notice"))
        assert not set(shown(pilot.app)) & set("\x1b\a\x9b\u202e")

    chat(script)


def test_leaving_at_any_moment_ends_well() -> None:
    for pause in range(8):

        async def script(screen: ChatScreen, pilot: Pilot[None], pause: float = pause / 100) -> None:
            await send(screen, pilot, "hello")
            await pilot.pause(pause)
            await pilot.press("ctrl+q")
            await until(pilot, lambda: not pilot.app.is_running)

        chat(script, Desk(opener=slow(seconds=0.005)))
    with Sessions(default_path()) as sessions:
        assert all(t.state is not State.STREAMING for info in sessions.chats() for t in sessions.turns(info.id))


def test_a_stopped_prefill_leaves_an_answer_that_can_go_on() -> None:
    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        await begin(screen, pilot)
        await stop(screen, pilot)
        await pilot.press("f5", "escape")
        await until(pilot, lambda: not screen.busy and len(screen.turns) == 3)
        assert screen.turns[-1].state is State.STOPPED

    chat(script, Desk(opener=slow()))


def test_news_that_come_after_the_end_are_dropped() -> None:
    """A thread posts its last ones while the screen goes."""
    ended: list[ChatScreen] = []

    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        await ask(screen, pilot, "hello")
        ended.append(screen)
        await pilot.press("ctrl+q")
        await until(pilot, lambda: not pilot.app.is_running)

    chat(script)
    [screen] = ended
    screen.desk = Desk(opener=models())
    for event in (None, Note("late"), UsageError("a", "b", "c")):
        screen._worked(ChatScreen.Worked(event))
    screen._ready(ChatScreen.Ready(screen.chat.id, None, [Note("late")]))
    screen.desk.close()
