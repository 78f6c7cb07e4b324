"""Drives one screen of the terminal chat as a user does: keys in, and out comes what the terminal would show."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from textual.app import App
from textual.pilot import Pilot
from textual.screen import Screen

SIZES = [(80, 24), (120, 40)]
PENDING = object()


class Host(App[None]):
    """Shows one screen, and keeps what it ended with."""

    def __init__(self, make: Callable[[], Screen[Any]]) -> None:
        super().__init__()
        self._make = make
        self.result: Any = PENDING

    def on_mount(self) -> None:
        self.push_screen(self._make(), self._ended)

    def _ended(self, result: Any) -> None:
        self.result = result


Script = Callable[[Any, Pilot[None]], Awaitable[None]]


def drive(app: App[None], script: Script, size: tuple[int, int] = (80, 24)) -> None:
    """Run `script(app, pilot)` while `app` runs without a terminal."""

    async def run() -> None:
        async with app.run_test(size=size) as pilot:
            await pilot.pause()
            await script(app, pilot)

    asyncio.run(run())


async def until(pilot: Pilot[None], condition: Callable[[], object], seconds: float = 10) -> None:
    """Wait until `condition()` holds; the machine may be slow."""
    for _ in range(int(seconds / 0.02)):
        if condition():
            return
        await pilot.pause(0.02)
    raise AssertionError(f"still not so after {seconds} s; the terminal shows:\n{shown(pilot.app)}")


def shown(app: App[None]) -> str:
    """The characters of the whole terminal, a line each."""
    return "\n".join(strip.text for strip in app.screen._compositor.render_strips())
