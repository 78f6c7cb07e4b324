"""A screen with a prompt on it, for tests that press keys, and a way to wait for what they do."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import wraps
from pathlib import Path

from textual.app import App, ComposeResult
from textual.containers import VerticalScroll
from textual.events import Paste
from textual.pilot import Pilot

from edgemm.tui.widgets.prompt import Prompt

COMMANDS = [("help", "keys and commands"), ("model", "choose a model"), ("/clear", "a new chat")]


def on_screen(test: Callable[..., Coroutine[None, None, None]]) -> Callable[..., None]:
    @wraps(test)
    def run(*args: object, **kwargs: object) -> None:
        asyncio.run(test(*args, **kwargs))

    return run


class Shell(App[None]):
    """A transcript's place, and the prompt below it."""

    def __init__(self, cwd: Path) -> None:
        super().__init__()
        self.prompt = Prompt(cwd=cwd, placeholder="Ask anything")
        self.sent: list[tuple[str, tuple[Path, ...]]] = []
        self.escaped = 0

    def compose(self) -> ComposeResult:
        yield VerticalScroll(can_focus=True)
        yield self.prompt

    def on_mount(self) -> None:
        self.prompt.set_commands(COMMANDS)
        self.prompt.set_history(["first", "second\nof two lines", "third"])
        self.prompt.focus()

    def on_prompt_submitted(self, event: Prompt.Submitted) -> None:
        self.sent.append((event.text, event.attachments))

    def key_escape(self) -> None:
        self.escaped += 1


@asynccontextmanager
async def shell(cwd: Path, size: tuple[int, int] = (80, 24)) -> AsyncIterator[tuple[Shell, Prompt, Pilot[None]]]:
    app = Shell(cwd)
    async with app.run_test(size=size) as pilot:
        await until(lambda: app.prompt.has_focus and app.prompt.completion.is_mounted)
        yield app, app.prompt, pilot


async def until(true: Callable[[], bool], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never came true"
        await asyncio.sleep(0.01)


async def pasted(prompt: Prompt, text: str) -> None:
    before = prompt.text
    prompt.post_message(Paste(text))
    await until(lambda: prompt.text != before)


def rows(prompt: Prompt) -> list[str]:
    """What the completion list shows."""
    completion = prompt.completion
    return [row.strip() for row in completion.render().plain.split("\n")] if completion.is_open else []
