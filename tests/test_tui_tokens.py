"""The probabilities of an answer's tokens: how they are read, laid out, walked through and continued from."""

import math
from typing import Any

import pytest
from rich.cells import cell_len
from textual.pilot import Pilot
from textual.widgets import OptionList
from tui_pilot import PENDING, Host, drive, shown, until

from edgemm.backends import Sampling
from edgemm.backends.fake import FakeGenerator
from edgemm.errors import BadFile
from edgemm.events import Token
from edgemm.tui import shading
from edgemm.tui.screens.tokens import TokenScreen
from edgemm.tui.shading import LEVELS, Alternative, Sampled
from edgemm.tui.widgets.token_view import TokenView


def row(number: int, text: str, probability: float, *others: tuple[str, float, int]) -> list[Any]:
    """A token as it is stored: the token itself is the first of the likeliest ones."""
    top = [[text, math.log(probability), number], *([t, math.log(p), i] for t, p, i in others)]
    return [number, text, math.log(probability), top]


ROWS = [
    row(1, "The", 0.95),
    row(2, " tide", 0.3, (" sea", 0.6, 20), (" moon", 0.05, 21)),
    row(3, " rises", 0.7, (" falls", 0.2, 30)),
    row(4, "\n", 0.99),
    [5, "", None, []],
    row(6, "Twice", 0.1, ("Once", 0.8, 60)),
]
TEXTS = [
    "plain words that break",
    " 日本語のとても長いテキスト",
    "🌊" * 30,
    "x" * 100,
    "a\nb\n\nc",
    "\t",
    "",
    " \n",
    "é" * 9,
]


def tokens(*texts: str) -> list[Sampled]:
    return [Sampled(i, text, 0.5) for i, text in enumerate(texts)]


@pytest.mark.parametrize("width", [1, 2, 7, 20, 80])
def test_every_token_stands_in_lines_that_fit(width: int) -> None:
    lines = shading.lay_out(tokens(*TEXTS), width)
    for line in lines:
        assert sum(part.width for part in line) <= max(width, 2)  # a wide character needs two cells
        assert [part.start for part in line] == [sum(p.width for p in line[:i]) for i in range(len(line))]
        assert all(part.width == cell_len(part.text) for part in line)
    placed = {number: "".join(p.text for line in lines for p in line if p.token == number) for number in range(9)}
    assert placed == {number: shading.shown(text) for number, text in enumerate(TEXTS)}


def test_lines_break_between_words() -> None:
    lines = shading.lay_out(tokens("The", " ti", "de", " rises", " ag", "ain"), 12)
    assert ["".join(part.text for part in line) for line in lines] == ["The tide", " rises again"]


def test_an_end_of_line_is_shown_and_ends_the_line() -> None:
    lines = shading.lay_out(tokens("a", "\n", "b\n\nc"), 12)
    assert ["".join(part.text for part in line) for line in lines] == ["a⏎", "b⏎", "⏎", "c"]


def test_no_tokens_are_no_lines() -> None:
    assert shading.lay_out([], 10) == []


def test_levels_begin_at_their_least_probability() -> None:
    assert [level.name for level in LEVELS] == ["sure", "likely", "unsure", "guess"]
    for level in LEVELS:
        assert shading.level(level.least) is level
    assert shading.level(0.8999) is LEVELS[1]
    assert shading.level(None) is None


def test_the_chosen_token_is_among_the_choices_though_it_was_not_among_the_likeliest() -> None:
    [token] = shading.read([[7, " x", math.log(0.01), [[" a", math.log(0.2), 1], [" b", math.log(0.7), 2]]]])
    assert [(each.id, round(each.probability, 2)) for each in shading.choices(token)] == [(2, 0.7), (1, 0.2), (7, 0.01)]


def test_text_that_was_held_back_is_no_choice() -> None:
    assert shading.choices(Sampled(-1, "rest", None)) == []


def test_perplexity_is_one_for_certainty_and_two_for_a_coin() -> None:
    assert shading.perplexity([Sampled(1, "a", 1.0)]) == 1
    assert shading.perplexity([*tokens("a", "b"), Sampled(3, "c", None)]) == pytest.approx(2)
    assert shading.perplexity([Sampled(3, "c", None)]) is None


def test_what_a_model_streams_is_read_as_it_is_stored() -> None:
    events = FakeGenerator(["one two"]).generate([1], Sampling(top_logprobs=3))
    stored = [[e.id, e.text, e.logprob, [list(each) for each in e.top]] for e in events if isinstance(e, Token)]
    first, second = shading.read(stored)
    assert (first.text, second.text) == ("one", " two")
    assert first.top[0] == Alternative(0, "one", pytest.approx(0.5))


@pytest.mark.parametrize(
    "damaged",
    [
        None,
        5,
        [1, "x"],
        [1, "x", "y", []],
        ["a", "x", None, []],
        [1, "x", None, None],
        [1, "x", None, [["y", 0.0]]],
        [1, "x", math.nan, []],
        [math.inf, "x", None, []],
    ],
)
def test_a_damaged_token_is_refused_with_its_number(damaged: Any) -> None:
    with pytest.raises(BadFile, match="token 1 of the stored answer"):
        shading.read([ROWS[0], damaged])


def test_going_on_from_an_alternative_gives_its_place_and_its_token() -> None:
    app = Host(lambda: TokenScreen(ROWS))

    async def script(app: Host, pilot: Pilot[None]) -> None:
        await pilot.press("right")
        await until(pilot, lambda: "token 2 of 6: “ tide”  30.0%, all others 5.0%" in shown(app))
        await pilot.press("enter", "up", "enter")
        await until(pilot, lambda: app.result is not PENDING)

    drive(app, script)
    assert app.result == (1, 20)


def test_escape_goes_back_to_the_text_and_then_out() -> None:
    app = Host(lambda: TokenScreen(ROWS))

    async def script(app: Host, pilot: Pilot[None]) -> None:
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.focused, OptionList))
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.focused, TokenView))
        assert app.result is PENDING
        await pilot.press("escape")
        await until(pilot, lambda: app.result is None)

    drive(app, script)


def test_keys_move_by_token_by_line_and_to_unsure_tokens() -> None:
    async def script(app: Host, pilot: Pilot[None]) -> None:
        view = app.screen.query_one(TokenView)
        stops = {"n": 1, "right": 2, "end": 5, "up": 0, "down": 4, "p": 1, "home": 0, "left": 0, "pagedown": 4}
        for key, expected in stops.items():
            await pilot.press(key)
            await until(pilot, lambda place=expected: view.cursor == place)
        await pilot.press("n", "n")
        await until(pilot, lambda: view.cursor == 5)

    drive(Host(lambda: TokenScreen(ROWS)), script)


def test_a_click_puts_the_cursor_on_a_token() -> None:
    async def script(app: Host, pilot: Pilot[None]) -> None:
        view = app.screen.query_one(TokenView)
        await pilot.click(TokenView, offset=(10, 0))
        await until(pilot, lambda: view.cursor == 2)

    drive(Host(lambda: TokenScreen(ROWS)), script)


def test_a_token_without_probability_offers_nothing() -> None:
    async def script(app: Host, pilot: Pilot[None]) -> None:
        await pilot.press("end", "left")
        await until(pilot, lambda: "token 5 of 6: “·”  probability not known" in shown(app))
        await pilot.press("enter")
        await pilot.pause()
        assert isinstance(app.focused, TokenView)

    drive(Host(lambda: TokenScreen(ROWS)), script)


def test_an_answer_without_tokens_opens_and_closes() -> None:
    app = Host(lambda: TokenScreen([]))

    async def script(app: Host, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: "this answer has no tokens" in shown(app))
        await pilot.press("right", "down", "n", "enter", "escape")
        await until(pilot, lambda: app.result is None)

    drive(app, script)


def test_the_levels_differ_without_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")

    async def script(app: Host, pilot: Pilot[None]) -> None:
        view = app.screen.query_one(TokenView)
        styles = [view.get_component_rich_style(f"token-view--{level.name}") for level in LEVELS[1:]]
        marks = {(bool(s.bold), bool(s.italic), bool(s.underline)) for s in styles}
        assert len(marks | {(False, False, False)}) == len(LEVELS)
        assert view.get_component_rich_style("token-view--cursor").reverse

    drive(Host(lambda: TokenScreen(ROWS)), script)


def test_moving_the_cursor_through_a_long_answer_lays_out_nothing_again(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    real = shading.lay_out
    monkeypatch.setattr(shading, "lay_out", lambda *args: calls.append(1) or real(*args))

    async def script(app: Host, pilot: Pilot[None]) -> None:
        view = app.screen.query_one(TokenView)
        before = len(calls)
        await pilot.press("end", "pageup", "up", "left", "n", "home")
        await until(pilot, lambda: view.cursor == 0)
        assert len(calls) == before
        await pilot.press("end")
        await until(pilot, lambda: view.scroll_offset.y > 0)
        await pilot.resize_terminal(120, 40)
        await until(pilot, lambda: len(calls) > before)

    drive(Host(lambda: TokenScreen([row(i, f" word{i % 7}", 0.6) for i in range(4000)])), script)
