"""Two models on one prompt: where their answers part, and that one at a time is open and each is closed."""

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Input, Static
from tui_pilot import Host, drive, shown, until

from edgemm.backends import Sampling
from edgemm.backends.fake import FakeGenerator
from edgemm.errors import BadFile
from edgemm.events import Done, Progress, Token
from edgemm.tui import comparison
from edgemm.tui.comparison import Answered, Divergence
from edgemm.tui.screens.compare import CompareScreen

LEFT = "The tide rises because the Moon pulls on the ocean."
RIGHT = "The tide rises because the Moon pulls on the sea."
ANSWERS = {
    "small": LEFT,
    "large": RIGHT,
    "twin": LEFT,
    "other": "The sea.",
    "evil": "\x1b[31mred [bold]b[/bold] \u202e",
}


class Watched(FakeGenerator):
    """Writes down when it is opened, what it is asked and when it is closed; some need long, and know their memory."""

    def __init__(self, name: str, log: list[Any], seconds: float = 0) -> None:
        super().__init__([ANSWERS[name]], seconds_per_token=seconds)
        self._name, self._log = name, log
        log.append(f"open {name}")

    def generate(self, tokens: Sequence[int], sampling: Sampling) -> Iterator[Progress | Token | Done]:
        self._log.append((bytes(tokens).decode(), sampling))
        yield from super().generate(tokens, sampling)

    def memory(self) -> int:
        return 212_000_000

    def close(self) -> None:
        self._log.append(f"close {self._name}")


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        (["a", " b"], ["a", " b"], None),
        (["a", " b"], ["a b"], None),
        ([], [], None),
        (["a", " b", " c"], ["a", " b", " d"], Divergence(4, 2, 2)),
        (["a", " bc"], ["a b", "x"], Divergence(3, 1, 1)),
        (["a"], ["a", " b"], Divergence(1, 1, 1)),
        (["", "🌊", "x"], ["", "🌊", "y"], Divergence(1, 2, 2)),
        (["x"], ["y"], Divergence(0, 0, 0)),
    ],
)
def test_answers_part_at_the_first_character_that_differs(left: list[str], right: list[str], expected: Any) -> None:
    assert comparison.divergence(left, right) == expected


def test_a_comparison_leaves_nothing_to_chance() -> None:
    assert comparison.greedy(Sampling(temperature=1, seed=None, max_tokens=9)) == Sampling(9, temperature=0, seed=0)


def test_a_model_is_closed_when_its_answer_is_there_and_when_nobody_waits_for_it() -> None:
    log: list[Any] = []
    messages = [{"role": "user", "content": "Why?"}]
    *_, last = comparison.answer(lambda name: Watched(name, log), "small", messages, Sampling())
    assert isinstance(last, Answered)
    assert ("".join(last.tokens), last.memory, last.done.reason) == (LEFT, 212_000_000, "stop")
    events = comparison.answer(lambda name: Watched(name, log), "large", messages, Sampling())
    next(events)
    events.close()
    assert [entry for entry in log if isinstance(entry, str)] == [
        "open small",
        "close small",
        "open large",
        "close large",
    ]


def screen(log: list[Any], left: str, right: str, seconds: float = 0) -> CompareScreen:
    def opener(name: str) -> Watched:
        if name == "broken":
            raise BadFile("broken.gguf", "is cut off", "download it again")
        return Watched(name, log, seconds)

    names = [*ANSWERS, "broken"]
    return CompareScreen(names, opener, left=left, right=right, prompt="Why are there tides?", system="Be brief.")


def test_both_models_answer_one_after_the_other_and_the_first_difference_is_named() -> None:
    log: list[Any] = []

    async def script(app: Host, pilot: Pilot[None]) -> None:
        await pilot.press("enter")
        await until(pilot, lambda: "the same for 9 tokens, then “ ocean.” against “ sea.”" in shown(app))
        assert "212.0 MB RAM" in shown(app)
        assert "10 tokens, " in shown(app)
        assert "/s, prompt " in shown(app)
        await pilot.press("escape")
        await until(pilot, lambda: app.result is None)

    drive(Host(lambda: screen(log, "small", "large")), script)
    assert [entry for entry in log if isinstance(entry, str)] == [
        "open small",
        "close small",
        "open large",
        "close large",
    ]
    asked = [entry for entry in log if isinstance(entry, tuple)]
    assert asked[0] == asked[1]
    prompt, sampling = asked[0]
    assert "Be brief." in prompt
    assert "Why are there tides?" in prompt
    assert (sampling.temperature, sampling.seed) == (0, 0)


def test_equal_answers_are_said_to_be_equal() -> None:
    async def script(app: Host, pilot: Pilot[None]) -> None:
        await pilot.press("enter")
        await until(pilot, lambda: "the same answer, 10 tokens" in shown(app))

    drive(Host(lambda: screen([], "small", "twin")), script)


def test_one_token_is_said_in_the_singular() -> None:
    async def script(app: Host, pilot: Pilot[None]) -> None:
        await pilot.press("enter")
        await until(pilot, lambda: "the same for 1 token, then “ tide” against “ sea.”" in shown(app))

    drive(Host(lambda: screen([], "small", "other")), script)


def test_the_token_that_differs_is_marked() -> None:
    async def script(app: Host, pilot: Pilot[None]) -> None:
        await pilot.press("enter")
        await until(pilot, lambda: "against" in shown(app))
        spans = app.screen.query_one("#text-right", Static).content.spans
        assert [RIGHT[s.start : s.end] for s in spans if "reverse" in str(s.style)] == [" sea."]

    drive(Host(lambda: screen([], "small", "large")), script)


def test_escape_stops_and_keeps_what_has_arrived() -> None:
    log: list[Any] = []

    async def script(app: Host, pilot: Pilot[None]) -> None:
        await pilot.press("enter")
        await until(pilot, lambda: "The tide" in shown(app))
        await pilot.press("escape")
        await until(pilot, lambda: "stopped" in shown(app))
        await until(pilot, lambda: "close small" in log)
        assert "The tide" in shown(app)
        assert "open large" not in log
        await until(pilot, lambda: not app.screen._busy)
        await pilot.press("escape")
        await until(pilot, lambda: app.result is None)

    drive(Host(lambda: screen(log, "small", "large", seconds=0.2)), script)


def test_enter_while_models_answer_starts_nothing_more() -> None:
    log: list[Any] = []

    async def script(app: Host, pilot: Pilot[None]) -> None:
        await pilot.press("enter")
        await until(pilot, lambda: "open small" in log)
        await pilot.press("enter", "enter")
        await until(pilot, lambda: "against" in shown(app))

    drive(Host(lambda: screen(log, "small", "large", seconds=0.02)), script)
    assert log.count("open small") == 1


def test_leaving_the_program_stops_and_closes_the_model() -> None:
    log: list[Any] = []

    async def script(app: Host, pilot: Pilot[None]) -> None:
        await pilot.press("enter")
        await until(pilot, lambda: "open small" in log)

    drive(Host(lambda: screen(log, "small", "large", seconds=0.3)), script)
    assert [entry for entry in log if isinstance(entry, str)] == ["open small", "close small"]


def test_a_model_that_does_not_open_is_named_and_the_other_one_answers() -> None:
    async def script(app: Host, pilot: Pilot[None]) -> None:
        await pilot.press("enter")
        await until(pilot, lambda: "sea." in shown(app) and "is cut off" in shown(app))
        assert "against" not in shown(app)

    drive(Host(lambda: screen([], "broken", "large")), script)


def test_a_model_that_dies_leaves_what_it_said_and_the_other_one_answers() -> None:
    def opener(name: str) -> FakeGenerator:
        return FakeGenerator([ANSWERS[name]], seconds_per_token=0.05, die_after=8 if name == "small" else None)

    async def script(app: Host, pilot: Pilot[None]) -> None:
        await pilot.press("enter")
        await until(pilot, lambda: "model stopped" in shown(app) and "the sea." in shown(app))
        assert "The tide" in str(app.screen.query_one("#text-left", Static).content)

    drive(Host(lambda: CompareScreen(["small", "large"], opener, prompt="Why?")), script)


def test_an_empty_prompt_asks_nobody() -> None:
    log: list[Any] = []

    async def script(app: Host, pilot: Pilot[None]) -> None:
        app.screen.query_one(Input).value = "  "
        await pilot.press("enter")
        await pilot.pause(0.1)

    drive(Host(lambda: screen(log, "small", "large")), script)
    assert log == []


def test_a_hostile_answer_stays_text() -> None:
    async def script(app: Host, pilot: Pilot[None]) -> None:
        await pilot.press("enter")
        await until(pilot, lambda: "against" in shown(app))
        assert "␛[31mred [bold]b[/bold] �" in shown(app)
        assert "\x1b" not in shown(app)

    drive(Host(lambda: screen([], "evil", "large")), script, size=(120, 40))


def test_a_narrow_terminal_shows_the_answers_one_above_the_other() -> None:
    async def script(app: Host, pilot: Pilot[None]) -> None:
        left, right = app.screen.query_one("#left"), app.screen.query_one("#right")
        await until(pilot, lambda: left.region.x == right.region.x and left.region.bottom <= right.region.y)
        await pilot.resize_terminal(80, 24)
        await until(pilot, lambda: left.region.y == right.region.y and left.region.right <= right.region.x)

    drive(Host(lambda: screen([], "small", "large")), script, size=(60, 24))
