"""Asking in the chat screen: what is sent, stopped, queued, answered again, edited, and how full the context is."""

import itertools

import pytest
from chat_window import ANSWERS, ask, begin, chat, line, models, opened, said, send, slow, stop, told
from textual.pilot import Pilot
from tui_pilot import SIZES, shown, until

from edgemm.chat_settings import ChatSettings
from edgemm.desk import Desk
from edgemm.sessions import Sessions, State, default_path
from edgemm.tui.screens.chat import ChatScreen
from edgemm.tui.screens.tokens import TokenScreen


@pytest.mark.parametrize("size", [*SIZES, (20, 5)])
def test_a_question_is_answered_stored_and_counted(size: tuple[int, int]) -> None:
    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        await ask(screen, pilot, "hello")
        assert said(screen) == ["hello", "one two three"]
        if size != (20, 5):
            await told(pilot, "/4,096 tokens")
            assert "one two three" in shown(pilot.app)
            assert "hello — fake" in shown(pilot.app).splitlines()[0]

    chat(script, size=size)
    with Sessions(default_path()) as sessions:
        assert [info.title for info in sessions.chats()] == ["hello"]


def test_on_the_smallest_terminal_the_answer_and_the_editor_are_left() -> None:
    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        await ask(screen, pilot, "hi")
        await told(pilot, "cached")
        await pilot.press("pageup")
        await told(pilot, "one two three")
        assert screen.prompt.region.bottom <= 5
        assert screen.prompt.region.height >= 1
        await pilot.press("f1")
        await until(pilot, lambda: pilot.app.screen is not screen)
        await pilot.press("escape")
        await until(pilot, lambda: pilot.app.screen is screen)

    chat(script, size=(20, 5))


def test_an_answer_can_be_read_while_it_grows() -> None:
    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        await begin(screen, pilot)
        seen = shown(pilot.app).count("word")
        await until(pilot, lambda: shown(pilot.app).count("word") > seen + 5)
        assert line(screen, "status") == "answering — Esc stops"
        await stop(screen, pilot)
        await until(pilot, lambda: "/4,096 tokens" in line(screen, "status"))

    chat(script, Desk(opener=slow()))


def test_two_quick_enters_ask_once() -> None:
    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        screen.prompt.put("hello")
        await pilot.press("enter", "enter")
        await until(pilot, lambda: len(screen.turns) == 2 and not screen.busy)
        await pilot.pause(0.2)
        assert said(screen) == ["hello", "one two three"]
        assert not screen.queue

    chat(script)


def test_messages_typed_ahead_are_asked_in_order() -> None:
    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        await pilot.press("a", "enter", "b", "enter", "c", "enter")
        await until(pilot, lambda: len(screen.turns) == 6 and not screen.busy)
        assert said(screen)[::2] == ["a", "b", "c"]

    chat(script)


def test_escape_stops_an_answer_and_f6_goes_on_with_it() -> None:
    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        await begin(screen, pilot)
        await stop(screen, pilot)
        stopped = screen.turns[-1]
        assert stopped.state is State.STOPPED
        assert "F6 goes on" in shown(pilot.app)
        await pilot.press("f6")
        await until(pilot, lambda: screen.busy)
        await stop(screen, pilot)
        assert len(screen.turns) == 2
        assert len(screen.turns[-1].text) > len(stopped.text)

    chat(script, Desk(opener=slow()))


def test_messages_wait_for_the_answer_and_come_back_when_it_is_stopped() -> None:
    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        await send(screen, pilot, "first")
        await send(screen, pilot, "second")
        await until(pilot, lambda: len(screen.queue) == 1)
        await until(pilot, lambda: line(screen, "status") == "answering — Esc stops · 1 waiting")
        await until(pilot, lambda: said(screen)[2:3] == ["second"], 20)
        await send(screen, pilot, "third")
        await until(pilot, lambda: len(screen.queue) == 1)
        await stop(screen, pilot)
        assert screen.prompt.expanded() == "third"
        assert "third" not in said(screen)

    chat(script, Desk(opener=models(["w " * 40], seconds_per_token=0.02)))


def test_a_message_that_comes_back_leaves_what_is_being_typed() -> None:
    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        await begin(screen, pilot)
        await send(screen, pilot, "second")
        await pilot.press(*"draft")
        await stop(screen, pilot)
        assert screen.prompt.expanded().split() == ["second", "draft"]

    chat(script, Desk(opener=slow()))


def test_an_edit_that_waits_stays_an_edit() -> None:
    """Also when another message waits before it."""

    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        await begin(screen, pilot)
        await send(screen, pilot, "plain")
        await pilot.press("alt+e")
        await send(screen, pilot, "hello again")
        await until(pilot, lambda: len(screen.queue) == 2)
        assert screen.conversation is not None
        screen.conversation.stop()  # the end of the answer, and no stop by the user
        await until(pilot, lambda: len(screen.turns) > 2 and screen.branch()[2].text == "plain")
        screen.conversation.stop()
        await until(pilot, lambda: said(screen)[0] == "hello again")
        await stop(screen, pilot)

    chat(script, Desk(opener=slow()))


def test_versions_are_made_and_walked_through() -> None:
    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        await ask(screen, pilot, "hello")
        await pilot.press("f5")
        await until(pilot, lambda: len(screen.turns) == 3 and not screen.busy)
        assert said(screen) == ["hello", "alpha beta"]
        assert "‹ 2/2 ›" in shown(pilot.app)
        await pilot.press("alt+left")
        await until(pilot, lambda: said(screen) == ["hello", "one two three"])
        assert "‹ 1/2 ›" in shown(pilot.app)
        for expected in ("alpha beta", "one two three"):
            await pilot.press("alt+right")
            await until(pilot, lambda: said(screen) == ["hello", expected])  # noqa: B023 - awaited in the loop
        await pilot.press("alt+e")
        assert screen.prompt.expanded() == "hello"
        await send(screen, pilot, "hello again")
        await until(pilot, lambda: len(screen.turns) == 5 and not screen.busy)
        assert said(screen) == ["hello again", "final answer"]
        await pilot.press("alt+up", "alt+up", "alt+left")  # the other question, with its newest answer
        await until(pilot, lambda: said(screen) == ["hello", "alpha beta"])
        await pilot.press("escape")
        assert screen.transcript.selected is None

    chat(script)


def test_a_message_without_another_version_says_so() -> None:
    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        await pilot.press("alt+left")
        await told(pilot, "no such message is there")
        await pilot.press("f5")
        await told(pilot, "no such message is there")
        await pilot.press("f6")
        await told(pilot, "no assistant message is there")
        await ask(screen, pilot, "hello")
        await pilot.press("alt+right")
        await told(pilot, "has one version")

    chat(script)


def test_an_earlier_question_is_edited_and_a_given_up_edit_changes_nothing() -> None:
    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        await ask(screen, pilot, "first")
        await ask(screen, pilot, "second")
        await pilot.press("alt+up", "alt+up", "alt+up", "alt+up", "alt+e")
        assert screen.prompt.expanded() == "first"
        await pilot.press("escape")  # chooses no message
        await pilot.press("escape")  # gives the edit up
        assert (screen.editing, screen.prompt.expanded()) == (None, "")
        await ask(screen, pilot, "third")
        assert said(screen)[::2] == ["first", "second", "third"]

    chat(script)


def test_an_edit_is_refused_in_one_line_while_a_message_is_not_sent() -> None:
    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        await ask(screen, pilot, "first")
        screen.prompt.put("my draft")
        await pilot.press("alt+e")
        await told(pilot, "the editor: holds a message that was not sent — send it or delete it first")
        assert (screen.editing, screen.prompt.expanded()) == (None, "my draft")

    chat(script)


def test_an_answer_is_edited_and_the_model_goes_on_with_it() -> None:
    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        await ask(screen, pilot, "hello")
        await pilot.press("alt+up", "alt+e")
        assert screen.prompt.expanded() == "one two three"
        await send(screen, pilot, "my own")
        await until(pilot, lambda: len(screen.turns) == 3 and not screen.busy)
        assert said(screen)[-1].startswith("my own")
        assert "alpha beta" in said(screen)[-1]
        assert "edited" in shown(pilot.app)

    chat(script)


def test_an_edit_that_does_not_fit_is_still_an_edit() -> None:
    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        await ask(screen, pilot, "hello")
        await pilot.press("alt+e")
        await send(screen, pilot, "x" * 1000)
        await told(pilot, "fit beside an answer")
        await send(screen, pilot, "shorter")
        await until(pilot, lambda: len(screen.turns) == 4 and not screen.busy)
        assert said(screen) == ["shorter", "alpha beta"]

    chat(script, Desk(opener=models(context=480)))


def test_another_token_makes_a_branch() -> None:
    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        await ask(screen, pilot, "hello")
        await pilot.press("f7")
        await opened(pilot, TokenScreen)
        await pilot.press("right", "enter", "down", "enter")
        await until(pilot, lambda: len(screen.turns) == 3 and not screen.busy)
        assert said(screen)[-1].startswith("one two1")
        await pilot.press("alt+left")
        await until(pilot, lambda: said(screen)[-1] == "one two three")

    chat(script, Desk(settings=ChatSettings(top_logprobs=3), opener=models()))


def test_without_probabilities_the_token_screen_says_how_to_get_them() -> None:
    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        await ask(screen, pilot, "hello")
        await pilot.press("f7")
        await told(pilot, "switch them on with F4")
        assert pilot.app.screen is screen

    chat(script)


def test_the_meter_tells_exact_tokens() -> None:
    """The scripted model takes one token for a byte, so what it must say can be counted here."""

    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        def tokens(*texts: str) -> int:
            roles = itertools.cycle(("user", "assistant"))
            return len("".join(f"{role}: {text}\n" for role, text in zip(roles, texts, strict=False)) + "assistant: ")

        await until(pilot, lambda: f"{tokens(''):,}/4,096 tokens" in line(screen, "status"))
        await pilot.press(*"draft")
        await until(pilot, lambda: f"{tokens('draft')}/4,096 tokens · 5 typed" in line(screen, "status"))
        await ask(screen, pilot, "hello")
        await until(pilot, lambda: f"{tokens('hello', ANSWERS[0], '')}/4,096 tokens" in line(screen, "status"))

    chat(script)
