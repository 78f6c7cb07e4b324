"""How the main screens look, at two sizes, against pictures that were looked at: tests/snapshots/*.svg.

EDGEMM_UPDATE_SNAPSHOTS=1 writes them anew. The README shows two of them.
"""

import difflib
import os
import re
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_gguf
from textual.pilot import Pilot
from textual.screen import Screen
from textual.widgets import OptionList
from tui_pilot import SIZES, drive, until

from edgemm import catalog, paths, personas
from edgemm.backends.fake import FakeGenerator
from edgemm.catalog import Hub, Row
from edgemm.chat_settings import ChatSettings
from edgemm.desk import Desk
from edgemm.fetch import local
from edgemm.sessions import default_path
from edgemm.tui.app import ChatApp
from edgemm.tui.entry import Entry
from edgemm.tui.screens.chat import ChatScreen
from edgemm.tui.screens.fit import FitScreen
from edgemm.tui.screens.models import ModelScreen
from edgemm.tui.screens.settings import SettingsScreen

FOLDER = Path(__file__).parent / "snapshots"
UPDATE = bool(os.environ.get("EDGEMM_UPDATE_SNAPSHOTS"))
MODEL = "smollm2-135m-instruct"
QUESTION = "What is a KV cache, and what does it cost?"
ANSWER = """A *KV cache* holds the keys and values of tokens that were read, so that they are not computed again.

1. **Prefill** reads the prompt and fills it.
2. **Decoding** adds one token at a time.

```python
def attend(query, keys, values):
    scores = softmax(query @ keys.T / sqrt(size))
    return scores @ values
```

| model | context | KV cache |
| --- | ---: | ---: |
| SmolLM2 135M | 4,096 | 94 MB |
| Qwen3 0.6B | 4,096 | 470 MB |
"""
NOON = 1_600_000_000.0 - 1_600_000_000.0 % 86400 + 43200  # the same day in most time zones
CATALOG = {
    name: Row(name, "chat", "", 10**8, licence, size, 2 * size, Hub(f"owner/{name}", f"{name}-q4_k_m.gguf"))
    for name, size, licence in [("small-600m", 397_000_000, "apache-2.0"), ("large-8b", 4_900_000_000, "mit")]
}
Show = Callable[[ChatScreen, Pilot[None]], Awaitable[None]]


def normal(svg: str) -> str:
    """Without the random names of styles and the fonts of elsewhere, and a line for each element."""
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
    return re.sub(r"terminal-\d+", "terminal", svg).replace("><", ">\n<")


def compare(name: str, svg: str) -> None:
    path = FOLDER / f"{name}.svg"
    if UPDATE:
        path.write_text(normal(svg), "utf-8")
        return
    expected = path.read_text("utf-8").splitlines()
    changes = list(difflib.unified_diff(expected, normal(svg).splitlines(), "looked at", "now", lineterm="", n=0))
    assert not changes, "\n".join(changes[:40])


async def chat(screen: ChatScreen, pilot: Pilot[None]) -> None:
    screen.prompt.put(QUESTION)
    await pilot.press("enter")
    await until(pilot, lambda: len(screen.turns) == 2 and not screen.busy)
    await pilot.press("f5")
    await until(pilot, lambda: len(screen.turns) == 3 and not screen.busy)
    await until(pilot, lambda: "/4,096" in str(screen.query_one("#status").render()))


async def tokens(screen: ChatScreen, pilot: Pilot[None]) -> None:
    assert screen.conversation is not None
    screen.conversation.configure(ChatSettings(top_logprobs=4))
    await chat(screen, pilot)
    await pilot.press("f7")
    await _other(screen, pilot)
    await pilot.press("right", "right")


async def help(screen: ChatScreen, pilot: Pilot[None]) -> None:
    await pilot.press("f1")
    await _other(screen, pilot)


async def settings(screen: ChatScreen, pilot: Pilot[None]) -> None:
    await _push(SettingsScreen(ChatSettings(system="Be brief."), personas.load()), screen, pilot)


async def fit(screen: ChatScreen, pilot: Pilot[None]) -> None:
    await chat(screen, pilot)
    assert screen.conversation is not None
    plan = screen.conversation.plan("x" * 3600)
    assert plan.dropped
    await _push(FitScreen(plan), screen, pilot)


async def chats(screen: ChatScreen, pilot: Pilot[None]) -> None:
    for day, (title, count) in enumerate([("What is a KV cache?", 4), ("数学の宿題", 2), ("A recipe for soup", 12)]):
        number = screen.desk.new_chat(MODEL).id
        screen.desk.sessions.rename(number, title)
        for _ in range(count):
            screen.desk.sessions.add(number, None, "user", "text")
        with sqlite3.connect(default_path()) as database:  # a date, for another day tells another time
            database.execute("UPDATE chat SET updated = ? WHERE id = ?", (NOON - 86400 * day, number))
        database.close()
    await pilot.press("f2")
    await _other(screen, pilot)


async def models(screen: ChatScreen, pilot: Pilot[None]) -> None:
    file = tiny_gguf.write(paths.store().parent / "x-q8_0.gguf")
    local.gguf_package(file, MODEL, "owner/x", "", "apache-2.0")
    await _push(ModelScreen(MODEL, free=lambda: 2 << 30), screen, pilot)
    await until(pilot, lambda: not any("…" in str(o.prompt) for o in pilot.app.screen.query_one(OptionList).options))


async def growing(screen: ChatScreen, pilot: Pilot[None]) -> None:
    """The first part of an answer; the next message waits."""
    await until(pilot, lambda: "/4,096" in str(screen.query_one("#status").render()))
    screen.transcript.begin(Entry(1, "assistant", "", name=MODEL))
    screen.transcript.feed(ANSWER[: ANSWER.index("return")], "The user wants to know two things.")
    screen.status("answering — Esc stops · 1 waiting")


async def _push(shown: Screen[Any], screen: ChatScreen, pilot: Pilot[None]) -> None:
    pilot.app.push_screen(shown)
    await _other(screen, pilot)


async def _other(screen: ChatScreen, pilot: Pilot[None]) -> None:
    """Wait for a screen above the chat, and for it to be drawn."""
    await until(pilot, lambda: pilot.app.screen is not screen)
    await pilot.pause(0.3)


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize(
    "show", [chat, growing, tokens, help, chats, models, settings, fit], ids=lambda show: show.__name__
)
def test_it_looks_as_it_did(show: Show, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "ROWS", CATALOG)
    desk = Desk(opener=lambda _: FakeGenerator([ANSWER]))

    async def script(app: Any, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: isinstance(app.screen, ChatScreen) and not app.screen.busy)
        app.screen.prompt.cursor_blink = False
        await show(app.screen, pilot)
        await pilot.pause(0.3)
        compare(f"{show.__name__}-{size[0]}x{size[1]}", app.export_screenshot())

    try:
        drive(ChatApp(desk, MODEL), script, size)
    finally:
        desk.close()
