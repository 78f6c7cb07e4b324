"""The tokens of an answer, shaded by how sure the model was, with a cursor that moves from token to token.

It draws and tells where the cursor is; what can be done with a token is for the screen around it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.geometry import Region, Size
from textual.message import Message
from textual.reactive import reactive
from textual.scroll_view import ScrollView
from textual.strip import Strip

from edgemm.tui import shading
from edgemm.tui.shading import LEVELS, Level, Line, Sampled

_UNSURE = 0.5  # where the keys for unsure tokens stop


class TokenView(ScrollView, can_focus=True):
    """`cursor`: index of the token under the cursor. The levels differ in text style too when colours are off."""

    DEFAULT_CSS = """
    TokenView {
        background: $surface;
        overflow-x: hidden;
        scrollbar-gutter: stable;
        scrollbar-size-vertical: 1;
        .token-view--likely { background: $warning 20%; }
        .token-view--unsure { background: $warning 55%; }
        .token-view--guess { background: $error 65%; text-style: bold; }
        .token-view--cursor { text-style: reverse bold; }
        &:nocolor .token-view--likely { text-style: italic; background: $surface; }
        &:nocolor .token-view--unsure { text-style: underline; background: $surface; }
        &:nocolor .token-view--guess { text-style: bold underline; background: $surface; }
        &:ansi .token-view--likely { text-style: italic; }
        &:ansi .token-view--unsure { text-style: underline; }
        &:ansi .token-view--guess { text-style: bold underline; }
    }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "token-view--cursor",
        *(f"token-view--{level.name}" for level in LEVELS[1:]),
    }
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left", "step(-1)", "Previous token", show=False),
        Binding("right", "step(1)", "Next token", show=False),
        Binding("up", "row(-1)", "Line above", show=False),
        Binding("down", "row(1)", "Line below", show=False),
        Binding("pageup", "page(-1)", "Page above", show=False),
        Binding("pagedown", "page(1)", "Page below", show=False),
        Binding("home", "go(0)", "First token", show=False),
        Binding("end", "go(-1)", "Last token", show=False),
        Binding("n", "unsure(1)", "Next unsure token"),
        Binding("p", "unsure(-1)", "Previous unsure token"),
    ]

    cursor: reactive[int] = reactive(0)

    @dataclass
    class Moved(Message):
        """The cursor stands on token `index`."""

        index: int

    def __init__(self, tokens: Sequence[Sampled], *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._tokens = tokens
        self._lines: list[Line] = []
        self._row_of: dict[int, int] = {}

    def on_resize(self) -> None:
        width = self.scrollable_content_region.width
        self._lines = shading.lay_out(self._tokens, width)
        self._row_of = {part.token: row for row, line in reversed([*enumerate(self._lines)]) for part in line}
        self.virtual_size = Size(width, len(self._lines))
        self.refresh()
        self.call_after_refresh(self._show_cursor)

    def render_line(self, y: int) -> Strip:
        row = y + self.scroll_offset.y
        width = self.size.width
        if row >= len(self._lines):
            return Strip.blank(width, self.rich_style)
        line = self._lines[row]
        strip = Strip([Segment(part.text, self._style(part.token)) for part in line])
        return strip.adjust_cell_length(width, self.rich_style)

    def watch_cursor(self) -> None:
        self.refresh()
        self._show_cursor()
        self.post_message(self.Moved(self.cursor))

    def validate_cursor(self, index: int) -> int:
        return max(0, min(index, len(self._tokens) - 1))

    def on_click(self, event: events.Click) -> None:
        offset = event.get_content_offset(self)
        row = offset.y + self.scroll_offset.y if offset else len(self._lines)
        if offset and row < len(self._lines) and self._lines[row]:
            self.cursor = shading.nearest(self._lines[row], offset.x)

    def action_step(self, by: int) -> None:
        self.cursor += by

    def action_go(self, index: int) -> None:
        self.cursor = index if index >= 0 else len(self._tokens) - 1

    def action_row(self, by: int) -> None:
        """To the token above or below."""
        if not self._lines:
            return
        row = self._row_of[self.cursor]
        column = next(part.start for part in self._lines[row] if part.token == self.cursor)
        self.cursor = shading.nearest(self._lines[max(0, min(row + by, len(self._lines) - 1))], column)

    def action_page(self, by: int) -> None:
        self.action_row(by * max(1, self.size.height - 1))

    def action_unsure(self, by: int) -> None:
        """To the next token, in the direction `by`, that was less likely than not."""
        stop = len(self._tokens) if by > 0 else -1
        for index in range(self.cursor + by, stop, by):
            probability = self._tokens[index].probability
            if probability is not None and probability < _UNSURE:
                self.cursor = index
                return

    def legend(self) -> Content:
        """The names of the levels, each as its tokens are drawn."""
        parts = [
            Content.styled(f" {level.name} ", self.get_visual_style(*_classes(level)) if _classes(level) else "")
            + Content(f" ≥ {level.least:.0%}  " if level.least else " below")
            for level in LEVELS
        ]
        return Content("").join(parts)

    def _style(self, token: int) -> Style:
        names = _classes(shading.level(self._tokens[token].probability))
        names += ["token-view--cursor"] if token == self.cursor else []
        return self.get_component_rich_style(*names) if names else self.rich_style

    def _show_cursor(self) -> None:
        if self.is_mounted and self.cursor in self._row_of:
            self.scroll_to_region(Region(0, self._row_of[self.cursor], 1, 1), animate=False, force=True)


def _classes(level: Level | None) -> list[str]:
    """Tokens of the highest level, and those of which nothing is known, are plain text."""
    return [f"token-view--{level.name}"] if level and level is not LEVELS[0] else []
