"""A screen with nothing but a transcript, and what tests ask of it. They wait for facts, not for time."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from textual.app import App, ComposeResult
from textual.pilot import Pilot

from edgemm.tui.widgets.message import MessageView
from edgemm.tui.widgets.transcript import Entry, Transcript

TEXT = "Some **prose** with `code`.\n\n- one\n- two\n\n```python\nx = 1\n```\n"


class Page(App[None]):
    def __init__(self) -> None:
        super().__init__()
        self.chosen: list[int | None] = []
        self.escapes = 0

    def compose(self) -> ComposeResult:
        yield Transcript()

    def on_transcript_chosen(self, message: Transcript.Chosen) -> None:
        self.chosen.append(message.id)

    def key_escape(self) -> None:
        self.escapes += 1


Body = Callable[[Page, Transcript, "Pilot[None]"], Awaitable[None]]


def on_screen(body: Body, size: tuple[int, int] = (80, 24)) -> None:
    async def run() -> None:
        app = Page()
        async with app.run_test(size=size) as pilot:
            await body(app, app.query_one(Transcript), pilot)

    asyncio.run(run())


async def until(fact: Callable[[], object], seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not fact():
            await asyncio.sleep(0.01)


async def settled(app: Page) -> None:
    """Until two looks at the screen, some frames apart, show the same."""
    before: list[str] = []
    while before != (before := screen(app)):
        await asyncio.sleep(0.1)


def screen(app: Page) -> list[str]:
    """What the screen shows, without the scrollbar."""
    return [strip.text[:-1].rstrip() for strip in app.screen._compositor.render_strips()]


def chat(count: int) -> list[Entry]:
    return [Entry(i, ("user", "assistant")[i % 2], f"Message {i}.\n\n{TEXT}") for i in range(count)]


def layouts(views: Sequence[MessageView]) -> list[int]:
    return [view.layouts for view in views]


def shows(app: Page, text: str) -> Callable[[], bool]:
    return lambda: text in "\n".join(screen(app))
