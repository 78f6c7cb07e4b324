"""Messages on a screen: growing and settled, reasoning, selections, odd texts and odd terminals."""

import pytest
from textual import events
from textual.geometry import Offset
from textual.pilot import Pilot
from textual.selection import Selection
from transcript_page import TEXT, Page, chat, layouts, on_screen, screen, settled, shows, until

from edgemm.tui import window
from edgemm.tui.widgets.message import MessageView
from edgemm.tui.widgets.transcript import Entry, Transcript


def test_a_settled_answer_looks_as_it_did_while_it_grew() -> None:
    async def body(app: Page, transcript: Transcript, _: "Pilot[None]") -> None:
        transcript.begin(Entry(1, "assistant", ""))
        for character in TEXT + "Last.":
            transcript.feed(character)
        await until(shows(app, "Last."))
        before = screen(app)
        transcript.settle(Entry(1, "assistant", TEXT + "Last.", figures="81 tokens"))
        await until(shows(app, "81 tokens"))
        assert [line for line in screen(app) if line and "81 tokens" not in line] == [line for line in before if line]
        assert len(app.query(MessageView)) == 1

    on_screen(body)


def test_an_answer_that_settles_before_it_is_drawn_is_complete() -> None:
    async def body(app: Page, transcript: Transcript, _: "Pilot[None]") -> None:
        transcript.begin(Entry(1, "assistant", ""))
        transcript.feed("a")
        transcript.feed("b")
        transcript.settle(Entry(1, "assistant", "abc", notes=("stopped",)))
        await until(shows(app, "abc"))
        assert "! stopped" in "\n".join(screen(app))
        transcript.feed("late")
        transcript.settle(Entry(2, "assistant", "unannounced"))
        await until(shows(app, "unannounced"))
        assert "late" not in "\n".join(screen(app))

    on_screen(body)


def test_continuing_an_answer_shows_what_was_there() -> None:
    async def body(app: Page, transcript: Transcript, _: "Pilot[None]") -> None:
        transcript.begin(Entry(1, "assistant", "One *two*"))
        await until(shows(app, "One two"))
        transcript.feed(" three")
        await until(shows(app, "One two three"))

    on_screen(body)


def test_reasoning_unfolds_by_key_and_by_click() -> None:
    async def body(app: Page, transcript: Transcript, pilot: "Pilot[None]") -> None:
        transcript.show([Entry(1, "assistant", "Answer", reasoning="Because I thought")])
        transcript.focus()
        await until(shows(app, "▸ thought for 3 words"))
        assert not shows(app, "Because I thought")()
        await pilot.press("r")
        await until(shows(app, "│ Because I thought"))
        await pilot.press("r")
        await until(shows(app, "▸ thought"))
        await pilot.click(MessageView, offset=(5, 1))
        await until(shows(app, "│ Because I thought"))
        await pilot.click(MessageView, offset=(5, 3))
        await settled(app)
        assert shows(app, "│ Because I thought")()

    on_screen(body)


def test_reasoning_that_arrives_is_counted() -> None:
    async def body(app: Page, transcript: Transcript, _: "Pilot[None]") -> None:
        transcript.begin(Entry(1, "assistant", ""))
        transcript.feed("", reasoning="one two ")
        await until(shows(app, "▸ thinking, 2 words"))
        transcript.feed("", reasoning="three")
        await until(shows(app, "▸ thinking, 3 words"))
        transcript.feed("Answer")
        await until(shows(app, "▸ thought for 3 words"))

    on_screen(body)


def test_a_selection_with_the_mouse_copies_clean_text() -> None:
    async def body(app: Page, transcript: Transcript, pilot: "Pilot[None]") -> None:
        transcript.show([Entry(1, "assistant", "> " + "word " * 30 + "\n\n```\n  code\n```")])
        await until(shows(app, "code"))
        await pilot.mouse_down(MessageView, offset=(4, 1))
        await pilot.hover(MessageView, offset=(60, 4))
        await pilot.mouse_up(MessageView, offset=(60, 4))
        await until(lambda: app.screen.get_selected_text())
        assert app.screen.get_selected_text() == ("word " * 30).strip() + "\n\n  code"

    on_screen(body)


def test_a_selection_is_visible() -> None:
    async def body(app: Page, transcript: Transcript, _: "Pilot[None]") -> None:
        transcript.show([Entry(1, "assistant", "Answer")])
        await until(shows(app, "Answer"))
        view = app.query_one(MessageView)
        plain = view.render_line(1)
        app.screen.selections = {view: Selection(Offset(0, 1), Offset(3, 1))}
        marked = view.render_line(1)
        assert plain.text == marked.text
        assert next(segment.text for segment in marked) == "Ans"
        assert next(iter(marked)).style != next(iter(plain)).style

    on_screen(body)


def test_texts_from_outside_neither_act_nor_reach_the_terminal_raw() -> None:
    evil = "\x1b]0;title\x07[@click=app.bell]press[/] [b]bold[/b] &#27;[31m \u202eabc \x9b31m"
    entry = Entry(1, "assistant", evil, evil, evil, (1, 2), (evil,), (evil,), evil)

    async def body(app: Page, transcript: Transcript, _: "Pilot[None]") -> None:
        transcript.show([entry])
        await until(shows(app, "[@click=app.bell]press[/]"))
        app.query_one(MessageView).toggle_reasoning()
        transcript.begin(Entry(2, "user", ""))
        for character in evil:
            transcript.feed(character, reasoning=character)
        await until(shows(app, "abc �31m"))
        await settled(app)
        assert not set("".join(screen(app))) & set("\x1b\x07\x9b\u202e")
        for strip in app.screen._compositor.render_strips():
            assert not any(segment.style and "@click" in segment.style.meta for segment in strip)

    on_screen(body, (100, 60))


@pytest.mark.parametrize(
    "text",
    ["日本語のテキスト " * 40, "👩‍👩‍👧👍🏽🇩🇪 " * 40, "שלום עולם مرحبا " * 40, "é\u0301\u0302" * 200, "\t" * 50 + "x"],
)
def test_wide_and_odd_characters_keep_the_layout(text: str) -> None:
    async def body(app: Page, transcript: Transcript, _: "Pilot[None]") -> None:
        transcript.show([Entry(1, "user", text), Entry(2, "assistant", f"- {text}\n\n```\n{text}\n```\n\nEnd.")])
        await until(shows(app, "End."))
        assert {strip.cell_length for strip in app.screen._compositor.render_strips()} == {60}
        assert all(len(line) <= 60 for line in screen(app)) or "\u0301" in text or "\u200d" in text

    on_screen(body, (60, 24))


def test_a_huge_message_opens() -> None:
    async def body(app: Page, transcript: Transcript, _: "Pilot[None]") -> None:
        text = "A line of a pasted file.\n" * 40_000
        transcript.show([*chat(50), Entry(50, "user", text)])
        await until(shows(app, "characters that are not shown here"), seconds=30)
        assert transcript.text_of(50) == text
        assert transcript.mounted < window.OPENED

    on_screen(body)


def test_losing_the_terminals_focus_lays_nothing_out() -> None:
    async def body(app: Page, transcript: Transcript, pilot: "Pilot[None]") -> None:
        transcript.show(chat(300))
        await until(shows(app, "Message 299."))
        app.post_message(events.AppBlur())
        app.post_message(events.AppFocus())
        await pilot.pause()
        await settled(app)
        assert layouts(list(app.query(MessageView))) == [1] * window.OPENED

    on_screen(body)


@pytest.mark.parametrize("size", [(1, 1), (4, 3), (9, 2), (300, 3)])
def test_odd_terminals_show_what_they_can(size: tuple[int, int]) -> None:
    async def body(app: Page, transcript: Transcript, pilot: "Pilot[None]") -> None:
        transcript.show(chat(10))
        transcript.begin(Entry(99, "assistant", ""))
        transcript.feed(TEXT)
        await until(lambda: transcript.flushes)
        await pilot.resize_terminal(80, 24)
        await until(shows(app, "Some prose with code."))

    on_screen(body, size)


def test_all_is_shown_again_in_another_theme() -> None:
    async def body(app: Page, transcript: Transcript, _: "Pilot[None]") -> None:
        transcript.show([Entry(1, "assistant", "Some `code`")])
        await until(shows(app, "Some code"))
        view = app.query_one(MessageView)
        before = [segment.style for segment in view.render_line(1)]
        app.theme = "textual-light"
        await until(lambda: [segment.style for segment in view.render_line(1)] != before)
        assert view.layouts == 1

    on_screen(body)
