"""The documents screen as a user drives it, on a real index of a few files with a model that knows words alone."""

from collections.abc import Awaitable, Callable
from pathlib import Path

from textual.content import Content
from textual.pilot import Pilot
from textual.widgets import OptionList, Static
from tui_pilot import SIZES, Host, drive, until

from edgemm.library import Index
from edgemm.tui.indexing import IndexDesk
from edgemm.tui.screens.documents import DocumentsScreen
from edgemm.tui.widgets.passage import Passage
from edgemm.tui.widgets.run_bar import RunBar

LEASE = """# Lease

## Duration

It begins in May.

## Cancelling

Either side may cancel the contract in writing.

## Keys

All keys are given back.
"""


def written(docs: Path) -> Path:
    """Documents: three sections of a lease, a note without any of its words, and a file that cannot be read."""
    (docs / "flat").mkdir(parents=True)
    (docs / "flat" / "lease.md").write_text(LEASE)
    (docs / "note.txt").write_text("You can terminate it at any time.")
    (docs / "broken.pdf").write_bytes(b"%PDF-1.4")
    return docs


Body = Callable[[Pilot[None], DocumentsScreen], Awaitable[None]]


def use(index: Index | Callable[[], Index], body: Body, size: tuple[int, int] = SIZES[0]) -> Host:
    """Run `body` on the screen, once it has looked at the index."""
    desk = IndexDesk(index if callable(index) else lambda: index)
    host = Host(lambda: DocumentsScreen(desk))

    async def script(app: Host, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: rows(app.screen_stack[1]) or state(app.screen_stack[1]))
        await body(pilot, app.screen_stack[1])  # type: ignore[arg-type]

    try:
        drive(host, script, size)
    finally:
        desk.stop(10)
    return host


def rows(screen: object) -> list[str]:
    options = screen.query_one("#rows", OptionList)  # type: ignore[attr-defined]
    return [text for option in options.options if (text := str(option.prompt))]


def state(screen: object) -> str:
    return str(screen.query_one("#state", Static).visual)  # type: ignore[attr-defined]


def preview(screen: DocumentsScreen) -> Content:
    content = screen.query_one(Passage).query_one(Static).content
    assert isinstance(content, Content)
    return content


def run_line(screen: DocumentsScreen) -> str:
    bar = screen.query_one(RunBar)
    return str(bar.query_one(Static).visual) if bar.display else ""
