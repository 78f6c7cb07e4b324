"""A pane to read a text in: laid out for its width, with the place that matters in sight. It knows no document."""

from collections.abc import Callable

from textual import events
from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import Static

from edgemm.tui.finding import Preview

Draw = Callable[[int], Preview]
"""A text for a width in cells."""


class Passage(VerticalScroll):
    DEFAULT_CSS = """
    Passage {
        scrollbar-gutter: stable;
        scrollbar-size-vertical: 1;
        & > Static { height: auto; width: 1fr; }
    }
    """

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id)
        self._draw: Draw | None = None

    def compose(self) -> ComposeResult:
        yield Static(markup=False)

    def show(self, title: Content, draw: Draw) -> None:
        """The text of `draw`, from the row on that it calls the cited one, with one row above."""
        self.border_title, self._draw = title, draw
        self._lay_out()

    def on_resize(self, event: events.Resize) -> None:
        self._lay_out()

    def _lay_out(self) -> None:
        if self._draw is None:
            return
        shown = self._draw(max(1, self.scrollable_content_region.width))
        self.query_one(Static).update(shown.text)
        self.call_after_refresh(self.scroll_to, y=max(0, shown.at - 1), animate=False)
