"""The chat screen as a user drives it, on scripted models and a real store: opened, spoken to, read."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from textual.pilot import Pilot
from textual.widgets import Static
from tui_pilot import SIZES, drive, shown, until

from edgemm.backends import Generator
from edgemm.backends.fake import FakeGenerator
from edgemm.desk import Desk
from edgemm.errors import UnknownModel
from edgemm.tui.app import ChatApp
from edgemm.tui.screens.chat import ChatScreen

ANSWERS = ["one two three", "alpha beta", "final answer"]
Script = Callable[[ChatScreen, Pilot[None]], Awaitable[None]]


def models(answers: Sequence[str] = ANSWERS, **options: Any) -> Callable[[str], Generator]:
    """Opens every name but "missing"."""

    def opener(name: str) -> Generator:
        if name == "missing":
            raise UnknownModel(name, "is not on this machine", "pull it")
        return FakeGenerator(answers, **options)

    return opener


def slow(words: int = 500, seconds: float = 0.02, **options: Any) -> Callable[[str], Generator]:
    """A model that goes on until it is stopped."""
    return models(["word " * words], seconds_per_token=seconds, **options)


def chat(script: Script, desk: Desk | None = None, size: tuple[int, int] = SIZES[0], number: int | None = None) -> None:
    """Run `script` on the chat screen of a new window."""
    desk = desk or Desk(opener=models())

    async def run(app: Any, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: isinstance(app.screen, ChatScreen) and not app.screen.busy)
        await script(app.screen, pilot)

    try:
        drive(ChatApp(desk, "fake", number), run, size)
    finally:
        desk.close()


async def send(screen: ChatScreen, pilot: Pilot[None], text: str) -> None:
    screen.prompt.put(text)
    await pilot.press("enter")


async def ask(screen: ChatScreen, pilot: Pilot[None], text: str) -> None:
    """Send, and wait for the end of the answer."""
    before = len(screen.turns)
    await send(screen, pilot, text)
    await until(pilot, lambda: len(screen.turns) > before and not screen.busy)


async def begin(screen: ChatScreen, pilot: Pilot[None], text: str = "hello") -> None:
    """Send, and wait until the answer of `slow` grows."""
    await send(screen, pilot, text)
    await until(pilot, lambda: "word word" in shown(pilot.app))


async def stop(screen: ChatScreen, pilot: Pilot[None]) -> None:
    await pilot.press("escape")
    await until(pilot, lambda: not screen.busy)


async def told(pilot: Pilot[None], text: str) -> None:
    """Wait for a text on the terminal."""
    await until(pilot, lambda: text in shown(pilot.app))


async def opened(pilot: Pilot[None], kind: type) -> Any:
    """Wait for a screen of that kind on top."""
    await until(pilot, lambda: isinstance(pilot.app.screen, kind) and pilot.app.screen.is_current)
    await pilot.pause()
    return pilot.app.screen


def said(screen: ChatScreen) -> list[str]:
    """The open branch."""
    return [turn.text for turn in screen.branch()]


def line(screen: ChatScreen, id: str) -> str:
    """What stands on the title, the notice or the status line."""
    return str(screen.query_one(f"#{id}", Static).visual)
