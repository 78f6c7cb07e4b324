"""A report card, or another text about a model, to read and scroll; it opens no file."""

from typing import ClassVar

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

from edgemm.terminal import safe
from edgemm.tui import flat, rows

_KEYS = "↑↓ PgUp PgDn scroll · Esc close"


class CardScreen(ModalScreen[None]):
    """Shows the Markdown `text` under `title`."""

    DEFAULT_CSS = """
    CardScreen {
        align: center middle;
        #frame { width: 94%; min-width: 78; max-width: 100%; height: 94%; }
        #frame { border: round $primary; background: $surface; padding: 0 1; }
        #scroll { height: 1fr; scrollbar-gutter: stable; }
        #keys { height: 1; color: $text-muted; }
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q,v", "close", "Close", id="card.close")]

    def __init__(self, title: str, text: str) -> None:
        super().__init__()
        self._title, self._blocks = title, flat.blocks(safe(text))

    def compose(self) -> ComposeResult:
        with Vertical(id="frame") as frame:
            frame.border_title = Content(safe(self._title))
            with VerticalScroll(id="scroll"):
                yield Static(id="text", markup=False)
            yield Static(Content(_KEYS), id="keys")

    def on_mount(self) -> None:
        self.query_one("#scroll").focus()

    @on(events.Resize)
    def _resized(self) -> None:
        self.call_after_refresh(self._draw)

    def _draw(self) -> None:
        width = self.query_one("#scroll").scrollable_content_region.width
        lines = [row.content for row in rows.lay_out(self._blocks, width)]
        self.query_one("#text", Static).update(Content("\n").join(lines))

    def action_close(self) -> None:
        self.dismiss(None)
