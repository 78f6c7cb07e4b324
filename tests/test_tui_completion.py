"""The completion list above the prompt: commands, files and earlier prompts, and which keys are whose."""

from pathlib import Path

import pytest
from prompt_shell import COMMANDS, on_screen, rows, shell, until
from textual.events import Key

from edgemm.tui.widgets.completion import ROWS


@on_screen
async def test_the_history_is_searched_by_its_words(tmp_path: Path) -> None:
    async with shell(tmp_path) as (app, prompt, pilot):
        await pilot.press("ctrl+r")
        assert rows(prompt) == ["third", "second␊of two lines", "first"]
        await pilot.press(*"lines")
        assert rows(prompt) == ["second␊of two lines"]
        await pilot.press("enter")
        assert (prompt.text, rows(prompt), app.sent) == ("second\nof two lines", [], [])


@on_screen
async def test_a_search_that_is_left_brings_the_draft_back(tmp_path: Path) -> None:
    async with shell(tmp_path) as (app, prompt, pilot):
        await pilot.press(*"zz", "ctrl+r", "z")
        assert rows(prompt) == ["nothing found"]
        await pilot.press("enter")
        assert app.sent == []
        await pilot.press("escape")
        assert (prompt.text, rows(prompt), app.escaped) == ("zz", [], 0)


@on_screen
async def test_the_search_key_again_takes_the_next_one(tmp_path: Path) -> None:
    async with shell(tmp_path) as (_, prompt, pilot):
        await pilot.press("ctrl+r", "ctrl+r", "ctrl+r", "enter")
        assert prompt.text == "first"


@on_screen
async def test_a_slash_completes_commands_and_enter_sends_a_whole_one(tmp_path: Path) -> None:
    async with shell(tmp_path) as (app, prompt, pilot):
        await pilot.press("slash")
        assert [row.split()[0] for row in rows(prompt)] == ["/help", "/model", "/clear"]
        await pilot.press("c", "tab")
        assert (prompt.text, rows(prompt)) == ("/clear ", [])
        await pilot.press("enter", *"/help", "enter")
        await until(lambda: len(app.sent) == 2)
        assert [text for text, _ in app.sent] == ["/clear", "/help"]


@on_screen
async def test_enter_takes_the_chosen_completion(tmp_path: Path) -> None:
    async with shell(tmp_path) as (app, prompt, pilot):
        await pilot.press("slash", "down", "down", "up", "enter")
        assert (prompt.text, app.sent) == ("/model ", [])


@on_screen
async def test_a_choice_made_in_the_same_batch_as_the_letters_holds(tmp_path: Path) -> None:
    async with shell(tmp_path) as (app, prompt, pilot):
        for key in ("slash", "down", "down"):
            app.post_message(Key(key, "/" if key == "slash" else None))
        await until(lambda: len(rows(prompt)) == len(COMMANDS))
        await pilot.pause(0.1)
        await pilot.press("tab")
        assert prompt.text == "/clear "


@on_screen
async def test_moving_the_cursor_off_the_word_closes_the_list(tmp_path: Path) -> None:
    async with shell(tmp_path) as (_, prompt, pilot):
        await pilot.press(*"/he", "home")
        await until(lambda: rows(prompt) == [])
        await pilot.press("end")
        assert prompt.text == "/he"


@on_screen
async def test_escape_closes_the_list_once_and_is_then_the_apps(tmp_path: Path) -> None:
    async with shell(tmp_path) as (app, prompt, pilot):
        await pilot.press("slash", "h", "escape")
        assert (rows(prompt), app.escaped) == ([], 0)
        await pilot.press("e")
        assert rows(prompt) == []
        await pilot.press("escape")
        await until(lambda: app.escaped == 1)


@on_screen
async def test_without_a_list_tab_moves_the_focus(tmp_path: Path) -> None:
    async with shell(tmp_path) as (_, prompt, pilot):
        await pilot.press("a", "tab")
        await until(lambda: not prompt.has_focus)


@on_screen
async def test_at_completes_folders_and_attaches_files(tmp_path: Path) -> None:
    (tmp_path / "my docs").mkdir()
    (tmp_path / "my docs" / "plan.md").write_text("x")
    async with shell(tmp_path) as (_, prompt, pilot):
        await pilot.press(*"see @my")
        await until(lambda: rows(prompt) == ["my docs/", "my docs/plan.md"])
        await pilot.press("tab")
        assert prompt.text == 'see @"my docs/'
        await until(lambda: rows(prompt) == ["my docs/plan.md"])
        await pilot.press("tab")
        assert (prompt.text, rows(prompt)) == ("see [plan.md] ", [])
        assert prompt.attachments == (tmp_path / "my docs" / "plan.md",)


@on_screen
async def test_the_list_lies_above_the_prompt_and_has_eight_rows(tmp_path: Path) -> None:
    for n in range(30):
        (tmp_path / f"file{n:02}.txt").write_text("x")
    async with shell(tmp_path) as (_, prompt, pilot):
        prompt_at = prompt.region
        await pilot.press("@")
        await until(lambda: len(rows(prompt)) == ROWS)
        await until(lambda: prompt.completion.region.bottom == prompt.region.y)
        assert (prompt.completion.region.height, prompt.region) == (ROWS, prompt_at)
        await pilot.press("up")
        assert rows(prompt)[-1] == "file29.txt"
        await pilot.press("down", *["down"] * ROWS)
        assert rows(prompt)[-1] == "file08.txt"


@on_screen
async def test_a_click_takes_a_row(tmp_path: Path) -> None:
    async with shell(tmp_path) as (_, prompt, pilot):
        await pilot.press("slash")
        await until(lambda: prompt.completion.region.height == len(COMMANDS))
        await pilot.click(prompt.completion, offset=(5, 1))
        await until(lambda: prompt.text == "/model ")
        assert prompt.has_focus


@on_screen
async def test_a_hostile_file_name_is_drawn_as_text(tmp_path: Path) -> None:
    try:
        (tmp_path / "a[b]\x1b[2J.txt").write_text("x")
    except OSError:
        pytest.skip("this file system refuses such names")
    async with shell(tmp_path) as (app, prompt, pilot):
        await pilot.press("@")
        await until(lambda: rows(prompt) == ["a[b]␛[2J.txt"])
        app.export_screenshot()
        await pilot.press("tab")
        assert prompt.text == "[a(b)␛(2J.txt] "
        assert prompt.attachments[0].read_text() == "x"
