"""What the chat screen does for each token and each key, counted: widgets, layouts, drawings; never milliseconds."""

from collections.abc import Callable
from typing import Any

import pytest
from chat_window import ask, begin, chat, line, models, opened, send, slow, stop, told
from textual.pilot import Pilot
from tui_pilot import shown, until

from edgemm.chat_settings import ChatSettings
from edgemm.desk import Desk
from edgemm.sessions import State
from edgemm.tui import window
from edgemm.tui.screens.chat import ChatScreen
from edgemm.tui.screens.help import HelpScreen
from edgemm.tui.widgets.message import MessageView

LONG = 300  # messages
LARGE = 1 << 20  # tokens of context


def long_chat(desk: Desk) -> int:
    number, leaf = desk.new_chat("fake").id, None
    for i in range(LONG):
        leaf = desk.sessions.add(number, leaf, "assistant" if i % 2 else "user", f"message {i} " * 20).id
    return number


def widgets(screen: ChatScreen) -> int:
    return len(screen.query("*"))


def layouts(screen: ChatScreen) -> list[int]:
    """How often the rows of each message were laid out."""
    return [view.layouts for view in screen.query(MessageView)]


@pytest.fixture
def reflows(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How often the whole screen was laid out so far."""
    from textual._compositor import Compositor

    count, reflow = 0, Compositor.reflow

    def counted(self: Any, *arguments: Any) -> Any:
        nonlocal count
        count += 1
        return reflow(self, *arguments)

    monkeypatch.setattr(Compositor, "reflow", counted)
    return lambda: count


def test_a_long_chat_mounts_few_messages_and_lays_each_out_once() -> None:
    desk = Desk(opener=models())

    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        await told(pilot, f"message {LONG - 1}")
        assert screen.transcript.mounted == window.OPENED
        assert layouts(screen) == [1] * window.OPENED

    chat(script, desk, number=long_chat(desk))


def test_tokens_mount_nothing_and_lay_out_no_other_message(reflows: Callable[[], int]) -> None:
    desk = Desk(opener=slow(3000, 0.004, context=LARGE))

    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        await begin(screen, pilot)
        await pilot.pause(0.2)
        count, before, drawn, start = widgets(screen), layouts(screen)[:-1], screen.transcript.flushes, reflows()
        rows = screen.query(MessageView).last().size.height
        await until(pilot, lambda: screen.transcript.flushes >= drawn + 4)
        assert widgets(screen) == count
        assert layouts(screen)[:-1] == before
        more_rows = screen.query(MessageView).last().size.height - rows
        assert reflows() - start <= 2 * more_rows + 2, "a row more takes two layouts, and nothing else takes any"
        await stop(screen, pilot)

    chat(script, desk, number=long_chat(desk))


def test_an_answer_that_comes_at_once_is_drawn_a_few_times() -> None:
    answer = "\n".join(f"line {n}" for n in range(5000))
    desk = Desk(settings=ChatSettings(max_tokens=10_000), opener=models([answer], context=LARGE))

    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        await ask(screen, pilot, "hello")
        assert screen.turns[-1].text == answer
        assert screen.transcript.flushes < 40

    chat(script, desk)


def test_the_end_of_an_answer_keeps_the_widgets_of_those_before() -> None:
    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        await ask(screen, pilot, "one")
        await ask(screen, pilot, "two")
        before = list(screen.query(MessageView))
        await ask(screen, pilot, "three")
        await until(pilot, lambda: len(screen.query(MessageView)) == 6)
        assert list(screen.query(MessageView))[:4] == before[:4]
        assert layouts(screen)[:4] == [1] * 4

    chat(script)


def test_typing_lays_out_no_message_and_counts_after_a_pause(reflows: Callable[[], int]) -> None:
    desk = Desk(opener=models())

    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: "/4,096 tokens" in line(screen, "status"))
        await pilot.pause(0.2)
        before, start = layouts(screen), reflows()
        await pilot.press(*"abcdefghij")
        assert "typed" not in line(screen, "status")
        await until(pilot, lambda: "10 typed" in line(screen, "status"))
        assert layouts(screen) == before
        assert reflows() - start <= 1, "a line of text that stays one line"

    chat(script, desk, number=long_chat(desk))


def test_another_width_lays_out_what_is_mounted_once() -> None:
    desk = Desk(opener=models())

    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        await told(pilot, f"message {LONG - 1}")
        await pilot.resize_terminal(60, 24)
        await until(pilot, lambda: min(layouts(screen)) == 2)
        await pilot.pause(0.2)
        assert max(layouts(screen)) == 2
        assert len(layouts(screen)) <= window.MOST

    chat(script, desk, number=long_chat(desk))


def test_a_screen_over_the_chat_lays_out_no_message() -> None:
    desk = Desk(opener=models())

    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        await told(pilot, f"message {LONG - 1}")
        before = layouts(screen)
        await pilot.press("f1")
        await opened(pilot, HelpScreen)
        await pilot.press("escape")
        await until(pilot, lambda: pilot.app.screen is screen)
        assert layouts(screen) == before

    chat(script, desk, number=long_chat(desk))


def test_the_model_is_not_slowed_by_a_reader_far_above() -> None:
    """An answer that is out of sight is not drawn, and is there when one comes back."""
    desk = Desk(opener=slow(200, 0.004, context=LARGE))

    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        await begin(screen, pilot)
        screen.transcript.to_start()
        await told(pilot, "message 0 ")
        await until(pilot, lambda: not screen.busy)
        assert "message 0 " in shown(pilot.app), "the end of the answer does not move the reader"
        assert screen.turns[-1].state is State.DONE
        await send(screen, pilot, "next")
        await until(pilot, lambda: "next" in shown(pilot.app) and "word word" in shown(pilot.app))

    chat(script, desk, number=long_chat(desk))
