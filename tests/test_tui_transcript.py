"""The transcript on a screen: what is mounted, what is drawn, where the reader stays, what is chosen."""

import asyncio
from itertools import pairwise

import pytest
from textual.pilot import Pilot
from transcript_page import Page, chat, layouts, on_screen, screen, settled, shows, until

from edgemm.tui import window
from edgemm.tui.widgets.message import MessageView
from edgemm.tui.widgets.transcript import Entry, Transcript


def test_a_long_chat_opens_at_its_end_with_few_messages_mounted() -> None:
    async def body(app: Page, transcript: Transcript, _: "Pilot[None]") -> None:
        transcript.show(chat(300))
        await until(shows(app, "Message 299."))
        assert transcript.mounted == window.OPENED
        assert len(app.query(MessageView)) == window.OPENED
        assert transcript.scroll_y == transcript.max_scroll_y
        assert layouts(list(app.query(MessageView))) == [1] * window.OPENED

    on_screen(body)


def test_paging_up_reaches_the_first_message_and_keeps_the_place() -> None:
    async def body(app: Page, transcript: Transcript, pilot: "Pilot[None]") -> None:
        transcript.show(chat(300))
        await until(shows(app, "Message 299."))
        transcript.focus()
        pages = [screen(app)]
        while transcript.scroll_y:
            await pilot.press("pageup")
            await settled(app)
            pages.insert(0, screen(app))
            assert transcript.mounted <= 2 * 120
        assert "  Message 0." in pages[0]
        rows = [row for page in pages[1:] for row in page]
        found = [(y, row) for y, row in enumerate(rows) if row.startswith("  Message ")]
        assert [row for _, row in found] == [f"  Message {300 - len(found) + i}." for i in range(len(found))]
        heights = {(i % 2, below - above) for i, ((above, _), (below, _)) in enumerate(pairwise(found))}
        assert len(heights) == 2  # of questions and of answers: no row is lost or repeated

    on_screen(body, (80, 120))


def test_home_and_end_jump_without_mounting_what_is_between() -> None:
    async def body(app: Page, transcript: Transcript, pilot: "Pilot[None]") -> None:
        transcript.show(chat(300))
        transcript.focus()
        await until(shows(app, "Message 299."))
        await pilot.press("home")
        await until(shows(app, "Message 0."))
        assert transcript.mounted <= window.OPENED + window.CHUNK
        assert screen(app)[0].strip() == "You"
        await pilot.press("end")
        await until(shows(app, "Message 299."))
        assert transcript.mounted <= window.MOST

    on_screen(body)


def test_scrolling_down_again_reaches_the_end() -> None:
    async def body(app: Page, transcript: Transcript, pilot: "Pilot[None]") -> None:
        transcript.show(chat(300))
        transcript.focus()
        await pilot.press("home")
        await until(shows(app, "Message 0."))
        while "  Message 299." not in screen(app):
            await pilot.press("pagedown")
            await settled(app)
            assert transcript.mounted <= 2 * 120

    on_screen(body, (80, 120))


def test_it_follows_the_end_only_from_there() -> None:
    async def body(app: Page, transcript: Transcript, pilot: "Pilot[None]") -> None:
        transcript.show(chat(20))
        transcript.focus()
        await until(shows(app, "Message 19."))
        transcript.append(Entry(20, "user", "Right at the end"))
        await until(shows(app, "Right at the end"))
        await pilot.press("pageup")
        await settled(app)
        before = screen(app)
        transcript.append(Entry(21, "user", "Out of sight"))
        transcript.begin(Entry(22, "assistant", ""))
        transcript.feed("Growing\n\n" * 50)
        await until(lambda: transcript.flushes)
        await settled(app)
        assert screen(app) == before
        await pilot.press("end")
        await until(shows(app, "Growing"))

    on_screen(body)


def test_a_short_chat_stands_at_the_top() -> None:
    async def body(app: Page, transcript: Transcript, _: "Pilot[None]") -> None:
        transcript.show(chat(1))
        await until(shows(app, "Message 0."))
        assert screen(app)[0].strip() == "You"
        transcript.show([])
        await until(lambda: not any(screen(app)))
        transcript.append(Entry(5, "user", "Again"))
        await until(shows(app, "Again"))
        assert screen(app)[0].strip() == "You"

    on_screen(body)


def test_tokens_are_drawn_in_few_flushes_and_the_last_one_always_is() -> None:
    async def body(app: Page, transcript: Transcript, _: "Pilot[None]") -> None:
        transcript.begin(Entry(1, "assistant", ""))
        await until(shows(app, "…"))
        for i in range(500):
            transcript.feed(f"w{i} ")
        await until(shows(app, "w499"))
        assert transcript.flushes == 2  # the first token at once, and all others together

    on_screen(body)


def test_a_flush_lays_out_no_other_message() -> None:
    async def body(app: Page, transcript: Transcript, _: "Pilot[None]") -> None:
        transcript.show(chat(30))
        await until(shows(app, "Message 29."))
        transcript.begin(Entry(99, "assistant", ""))
        await until(shows(app, "…"))
        views = list(app.query(MessageView))
        before = layouts(views)
        for i in range(5):
            transcript.feed(f"*piece* {i}\n\n")
            await until(shows(app, f"piece {i}"))
        assert layouts(views) == before
        assert transcript.flushes == 5

    on_screen(body)


def test_another_width_lays_out_each_mounted_message_once() -> None:
    async def body(app: Page, transcript: Transcript, pilot: "Pilot[None]") -> None:
        transcript.show(chat(300))
        await until(shows(app, "Message 299."))
        await pilot.resize_terminal(60, 24)
        await until(lambda: app.size.width == 60)
        await settled(app)
        assert layouts(list(app.query(MessageView))) == [2] * window.OPENED
        assert "  Message 299." in screen(app) or transcript.scroll_y == transcript.max_scroll_y

    on_screen(body)


def test_an_answer_goes_on_while_the_reader_is_far_away() -> None:
    async def body(app: Page, transcript: Transcript, _: "Pilot[None]") -> None:
        transcript.show(chat(200))
        await until(shows(app, "Message 199."))
        transcript.begin(Entry(999, "assistant", "Begun. "))
        transcript.to_start()
        await until(shows(app, "Message 0."))
        assert 999 not in [view.entry.id for view in app.query(MessageView)]
        transcript.feed("Arrived.", reasoning="because")
        await until(lambda: transcript.flushes)
        assert transcript.text_of(999) == "Begun. Arrived."
        transcript.to_end()
        await until(shows(app, "Begun. Arrived."))
        assert "thought for 1 word" in "\n".join(screen(app))

    on_screen(body)


def test_another_branch_keeps_the_widgets_that_are_equal() -> None:
    async def body(app: Page, transcript: Transcript, _: "Pilot[None]") -> None:
        transcript.show(chat(6))
        await until(shows(app, "Message 5."))
        before = list(app.query(MessageView))
        transcript.show([*chat(4), Entry(50, "user", "Other branch", branch=(2, 2))])
        await until(shows(app, "Other branch"))
        await until(lambda: len(app.query(MessageView)) == 5)
        assert list(app.query(MessageView))[:4] == before[:4]
        assert "‹ 2/2 ›" in "\n".join(screen(app))
        assert "Message 5." not in "\n".join(screen(app))

    on_screen(body)


def test_opening_another_chat_ends_the_growing_answer() -> None:
    async def body(app: Page, transcript: Transcript, _: "Pilot[None]") -> None:
        transcript.begin(Entry(1, "assistant", ""))
        transcript.feed("first")
        transcript.feed("second")
        transcript.show([Entry(7, "user", "Elsewhere")])
        transcript.feed("third")
        await until(shows(app, "Elsewhere"))
        await asyncio.sleep(0.2)
        assert transcript.text_of(7) == "Elsewhere"
        assert "first" not in "\n".join(screen(app))

    on_screen(body)


def test_messages_are_chosen_by_keys() -> None:
    async def body(app: Page, transcript: Transcript, pilot: "Pilot[None]") -> None:
        transcript.show(chat(100))
        transcript.focus()
        await until(shows(app, "Message 99."))
        await pilot.press(*["alt+up"] * 3, "alt+down")
        await until(lambda: transcript.selected == 98)
        assert [view.entry.id for view in app.query(MessageView) if view.has_class("-chosen")] == [98]
        await pilot.press("escape", "escape")
        await until(lambda: app.escapes == 1)  # the second one is somebody else's
        assert app.chosen == [99, 98, 97, 98, None]
        assert transcript.selected is None

    on_screen(body)


def test_choosing_walks_beyond_what_is_mounted() -> None:
    async def body(app: Page, transcript: Transcript, pilot: "Pilot[None]") -> None:
        transcript.show(chat(100))
        transcript.focus()
        await until(shows(app, "Message 99."))
        await pilot.press(*["alt+up"] * (window.OPENED + 5))
        await until(shows(app, f"Message {100 - window.OPENED - 5}."))
        transcript.select(2)
        await until(shows(app, "Message 2."))
        transcript.select(98)
        await until(shows(app, "Message 98."))
        transcript.select(12345)
        assert transcript.selected is None

    on_screen(body)


def test_an_unknown_message_has_no_text() -> None:
    async def body(_: Page, transcript: Transcript, __: "Pilot[None]") -> None:
        with pytest.raises(KeyError):
            transcript.text_of(1)

    on_screen(body)


def test_short_messages_on_a_tall_screen_come_to_rest() -> None:
    async def body(app: Page, transcript: Transcript, _: "Pilot[None]") -> None:
        transcript.show([Entry(i, "user", "short") for i in range(600)])
        await until(lambda: transcript.scroll_y)
        for back in range(0, 500, 70):
            transcript.scroll_to(y=transcript.max_scroll_y - back, animate=False)
            async with asyncio.timeout(10):
                before: list[MessageView] = []
                while before != (before := list(app.query(MessageView))):
                    await asyncio.sleep(0.3)

    on_screen(body, (80, 120))
