"""The prompt on a screen: what keys do to it, what it sends, and that nothing from outside drives the terminal."""

import asyncio
import time
from pathlib import Path

import pytest
from prompt_shell import on_screen, pasted, rows, shell, until
from textual.events import Key

PASTE = "".join(f"line {n}\n" for n in range(23))


@on_screen
async def test_enter_sends_and_empties_the_prompt(tmp_path: Path) -> None:
    async with shell(tmp_path) as (app, prompt, pilot):
        await pilot.press(*"hello", "enter")
        await until(lambda: bool(app.sent))
        assert app.sent == [("hello", ())]
        assert prompt.text == ""


@on_screen
async def test_an_empty_prompt_is_not_sent(tmp_path: Path) -> None:
    async with shell(tmp_path) as (app, _, pilot):
        await pilot.press("enter", "space", "enter", "ctrl+j", "enter")
        assert app.sent == []


@pytest.mark.parametrize("key", ["shift+enter", "alt+enter", "ctrl+j"])
@on_screen
async def test_a_line_break_has_three_keys(key: str, tmp_path: Path) -> None:
    async with shell(tmp_path) as (app, _, pilot):
        await pilot.press("a", key, "b", "enter")
        await until(lambda: bool(app.sent))
        assert app.sent == [("a\nb", ())]


@pytest.mark.parametrize("spelling", ["\x1b\r", "\x1b[13;2u", "\x1b[13;3u", "\x1b[27;2;13~", "\x1b[27;3;13~", "\n"])
@on_screen
async def test_every_terminals_spelling_of_a_line_break_is_known(spelling: str, tmp_path: Path) -> None:
    from textual._xterm_parser import XTermParser

    keys = [event for event in XTermParser().feed(f"a{spelling}b") if isinstance(event, Key)]
    async with shell(tmp_path) as (app, prompt, _):
        for key in keys:
            prompt.post_message(key)
        await until(lambda: prompt.text == "a\nb")
        await asyncio.sleep(0.1)
        assert prompt.text == "a\nb"
        assert app.sent == []


@on_screen
async def test_keys_that_come_in_one_batch_keep_their_order(tmp_path: Path) -> None:
    async with shell(tmp_path) as (app, prompt, _):
        for key in ("t", "e", "backspace", "h", "left", "X", "end", "enter", "n"):
            app.post_message(Key(key, key if len(key) == 1 else None))
        await until(lambda: prompt.text == "n")
        assert app.sent == [("tXh", ())]


@on_screen
async def test_it_grows_to_ten_rows_and_no_further(tmp_path: Path) -> None:
    async with shell(tmp_path) as (_, prompt, pilot):
        assert prompt.content_size.height == 1
        await pilot.press("a", "ctrl+j", "b")
        await until(lambda: prompt.content_size.height == 2)
        await pilot.press(*["ctrl+j"] * 14)
        await until(lambda: prompt.content_size.height == 10)
        assert prompt.document.line_count == 16


@on_screen
async def test_up_and_down_walk_the_history_and_bring_the_draft_back(tmp_path: Path) -> None:
    async with shell(tmp_path) as (_, prompt, pilot):
        await pilot.press(*"draft")
        seen = []
        for key in ("up", "up", "up", "up", "down", "down", "down", "down"):
            await pilot.press(key)
            seen.append(prompt.text)
        two = "second\nof two lines"
        assert seen == ["third", two, "first", "first", two, "third", "draft", "draft"]


@on_screen
async def test_inside_a_long_draft_up_moves_the_cursor(tmp_path: Path) -> None:
    async with shell(tmp_path, size=(30, 20)) as (_, prompt, pilot):
        prompt.put("word " * 12)
        await until(lambda: prompt.content_size.height > 2)
        await pilot.press("up")
        assert prompt.text == "word " * 12
        await pilot.press(*["up"] * 5)
        assert prompt.text != "word " * 12


@on_screen
async def test_a_sent_prompt_is_the_newest_of_the_history(tmp_path: Path) -> None:
    async with shell(tmp_path) as (_, prompt, pilot):
        await pilot.press(*"new", "enter", "up")
        assert prompt.text == "new"


@on_screen
async def test_a_recalled_command_does_not_open_the_list(tmp_path: Path) -> None:
    async with shell(tmp_path) as (_, prompt, pilot):
        prompt.set_history(["older", "/help"])
        await pilot.press("up")
        assert (prompt.text, rows(prompt)) == ("/help", [])
        await pilot.press("up")
        assert prompt.text == "older"


@on_screen
async def test_a_large_paste_is_folded_and_sent_whole(tmp_path: Path) -> None:
    async with shell(tmp_path) as (app, prompt, pilot):
        await pilot.press(*"see ")
        await pasted(prompt, PASTE.replace("\n", "\r"))
        assert prompt.text == "see [Pasted text #1 +23 lines]"
        assert prompt.expanded() == "see " + PASTE
        await pilot.press("enter")
        await until(lambda: bool(app.sent))
        assert app.sent == [(("see " + PASTE).rstrip(), ())]


@on_screen
async def test_a_small_paste_stays_in_sight(tmp_path: Path) -> None:
    async with shell(tmp_path) as (_, prompt, _pilot):
        await pasted(prompt, "two\r\nlines")
        assert prompt.text == "two\nlines"


@pytest.mark.parametrize("keys", [["backspace"], ["left", "delete"], ["ctrl+w"], ["shift+left", "x", "backspace"]])
@on_screen
async def test_a_folded_paste_goes_as_a_unit(keys: list[str], tmp_path: Path) -> None:
    async with shell(tmp_path) as (_, prompt, pilot):
        await pilot.press("a")
        await pasted(prompt, PASTE)
        await pilot.press(*keys)
        assert prompt.text == "a"


@on_screen
async def test_a_deleted_paste_comes_back_with_undo(tmp_path: Path) -> None:
    async with shell(tmp_path) as (_, prompt, pilot):
        await pasted(prompt, PASTE)
        await pilot.press("backspace")
        assert prompt.expanded() == ""
        await pilot.press("ctrl+z")
        assert prompt.expanded() == PASTE


@on_screen
async def test_the_cursor_jumps_over_a_folded_paste(tmp_path: Path) -> None:
    async with shell(tmp_path) as (_, prompt, pilot):
        await pasted(prompt, PASTE)
        await pilot.press("left")
        assert prompt.cursor_location == (0, 0)
        await pilot.press("right", "b", "home", "a")
        assert prompt.text == "a[Pasted text #1 +23 lines]b"


@on_screen
async def test_nothing_pasted_can_drive_the_terminal(tmp_path: Path) -> None:
    async with shell(tmp_path) as (app, prompt, pilot):
        await pasted(prompt, "\x1b]0;title\x07 [b]bold[/b] [@click=app.quit]x[/] \x00\u202e\ud800" + "y" * 5)
        await pilot.pause()
        strips = "".join(prompt.render_line(y).text for y in range(prompt.size.height))
        assert "[b]bold[/b] [@click=app.quit]" in strips
        assert not set("\x1b\x07\x00\u202e\ud800") & set(strips)
        app.export_screenshot()
        await pilot.press("enter")
        await until(lambda: bool(app.sent))
        assert app.sent[0][0].startswith("␛]0;title␇ [b]bold")


@on_screen
async def test_a_paste_of_a_megabyte_stays_quick(tmp_path: Path) -> None:
    async with shell(tmp_path) as (app, prompt, pilot):
        text = "a line of thirty characters..\n" * 33_000
        start = time.process_time()
        await pasted(prompt, text)
        await pilot.press("enter")
        await until(lambda: bool(app.sent))
        assert time.process_time() - start < 3
        assert len(app.sent[0][0]) == len(text) - 1


@on_screen
async def test_a_huge_earlier_prompt_is_recalled_folded(tmp_path: Path) -> None:
    async with shell(tmp_path) as (_, prompt, pilot):
        prompt.set_history(["x" * 1_000_000])
        await pilot.press("up")
        assert prompt.text == "[Pasted text #1 1,000,000 characters]"
        assert prompt.expanded() == "x" * 1_000_000
        await pilot.press("down", "up")
        assert prompt.expanded() == "x" * 1_000_000


@on_screen
async def test_a_dragged_file_is_attached(tmp_path: Path) -> None:
    notes, photo = tmp_path / "my notes.txt", tmp_path / "photo.png"
    notes.write_text("x")
    photo.write_bytes(b"\x89PNG")
    async with shell(tmp_path) as (app, prompt, pilot):
        await pasted(prompt, f"'{notes}'")
        await pasted(prompt, photo.as_uri())
        assert prompt.text == "[my notes.txt] [photo.png] "
        assert prompt.attachments == (notes, photo)
        await pilot.press("backspace", "backspace", "enter")
        await until(lambda: bool(app.sent))
        assert app.sent == [("[my notes.txt]", (notes,))]


@on_screen
async def test_put_shows_an_earlier_message_with_its_files(tmp_path: Path) -> None:
    async with shell(tmp_path) as (_, prompt, _pilot):
        prompt.put("read [a.md]", [tmp_path / "a.md", tmp_path / "b.md"])
        assert prompt.text == "read [a.md] [b.md] "
        assert prompt.attachments == (tmp_path / "a.md", tmp_path / "b.md")
        prompt.put("", [tmp_path / "c.md"])
        assert prompt.text == "[c.md] "
        prompt.put("long " * 4000 + "[d.md]", [tmp_path / "d.md"])
        assert prompt.attachments == (tmp_path / "d.md",)
        prompt.put("plain")
        assert (prompt.text, prompt.attachments) == ("plain", ())


@on_screen
async def test_wide_and_joined_characters_keep_the_cursor_on_its_row(tmp_path: Path) -> None:
    async with shell(tmp_path, size=(20, 24)) as (_, prompt, pilot):
        await pasted(prompt, "漢字 👩‍👩‍👧 שלום " * 4)
        await pilot.press("end", "x", "left", "backspace", "enter")
        assert prompt.text == ""


@on_screen
async def test_typing_relays_the_screen_only_when_a_row_is_added(tmp_path: Path) -> None:
    async with shell(tmp_path) as (app, _, pilot):
        await pilot.press("a")
        await pilot.pause(0.2)
        layouts = 0
        original = app.screen._refresh_layout

        def counted(*args: object, **kwargs: object) -> None:
            nonlocal layouts
            layouts += 1
            original(*args, **kwargs)  # type: ignore[arg-type]

        app.screen._refresh_layout = counted  # type: ignore[method-assign]
        await pilot.press(*"bcdefghij")
        await pilot.pause(0.2)
        assert layouts == 0
        await pilot.press("ctrl+j")
        await until(lambda: layouts > 0)
