"""One message of the transcript, settled or still growing, as one widget that draws only the rows in sight.

It lays its blocks out when its width changes, and knows neither its neighbours nor where messages come from.
"""

from collections.abc import Sequence
from typing import ClassVar

from textual.content import Content
from textual.events import Click
from textual.geometry import Region, Size
from textual.selection import Selection
from textual.strip import Strip
from textual.style import Style
from textual.visual import Visual
from textual.widget import Widget

from edgemm.tui import entry as parts
from edgemm.tui.entry import Entry
from edgemm.tui.flat import Block
from edgemm.tui.growing import Growing
from edgemm.tui.rows import Row, lay_out, selected


class MessageView(Widget):
    """`entry` in rows. With `growing` its text comes from there, and `grow` brings the rows up to it."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"message--code"}
    DEFAULT_CSS = """
    MessageView {
        width: 1fr;
        height: auto;
        margin: 0 0 1 0;
        padding: 0 1;
        border-left: blank;
        text-wrap: nowrap;
        & > .message--code { background: $surface; color: $foreground; }
        &.-chosen { border-left: outer $accent; }
    }
    """

    def __init__(self, index: int, entry: Entry, growing: Growing | None = None) -> None:
        super().__init__()
        self.index, self.entry, self.growing = index, entry, growing
        self.folds = True
        self._reasoning = entry.reasoning
        self.layouts = 0  # how often all rows were laid out
        self._body: list[Block] | None = None  # parsed when it is first laid out
        self._rows: list[Row] = []
        self._width = 0  # of the rows; 0: they are out of date
        self._fold_row, self._thinks = -1, False  # the row that unfolds the reasoning, and whether it says "thinking"
        self._fixed, self._finished = 0, 0  # rows that no `grow` changes, and blocks in them

    def grow(self) -> None:
        """Show what has arrived in `growing`. Costs as much as the open block, however long the text is."""
        assert self.growing is not None
        self.growing.grow()
        if not self._width:
            return
        if self._thinks != self._thinking():
            self._out_of_date()
            return
        before = len(self._rows)
        self._add_growing(self._width)
        if len(self._rows) != before:
            self.refresh(layout=True)
        else:
            self.refresh(Region(0, self._fixed, self._width, before - self._fixed))

    @property
    def reasoning(self) -> str:
        return self._reasoning

    def think(self, reasoning: str) -> None:
        """Replace the reasoning of a growing message."""
        self._reasoning = reasoning
        self._out_of_date()

    def settle(self, entry: Entry) -> None:
        """The message is complete."""
        complete = self.growing if self.growing and self.growing.text == entry.text else None
        self.entry, self.growing = entry, None
        self._reasoning = entry.reasoning
        self._body = complete.settled() if complete and len(entry.text) <= parts.MARKDOWN else None
        self._out_of_date()

    def toggle_reasoning(self) -> None:
        """Unfold the reasoning, or fold it again."""
        if self._reasoning:
            self.folds = not self.folds
            self._out_of_date()

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        self._lay_out(width)
        return len(self._rows)

    def render_line(self, y: int) -> Strip:
        width = self.content_size.width
        self._lay_out(width)
        if y >= len(self._rows) or not width:
            return Strip.blank(width, self.rich_style)
        row = self._rows[y]
        style = self.get_visual_style("message--code") if row.code else self.visual_style
        content = row.content
        if self.text_selection and (span := self.text_selection.get_span(y)):
            marked = Style.from_styles(self.screen.get_component_styles("screen--selection"))
            content = content.stylize(marked, span[0], len(content) if span[1] == -1 else span[1])
        strip, *_ = Visual.to_strips(self, content, width, 1, style, apply_selection=False, pad=True)
        return strip.apply_offsets(0, y)

    def get_selection(self, selection: Selection) -> tuple[str, str]:
        return selected(self._rows, selection), "\n"

    def selection_updated(self, selection: Selection | None) -> None:
        self.refresh()

    def on_click(self, event: Click) -> None:
        offset = event.get_content_offset(self)
        if offset and offset.y == self._fold_row:
            event.stop()
            self.toggle_reasoning()

    def _out_of_date(self) -> None:
        self._width = 0
        self.refresh(layout=True)

    def _lay_out(self, width: int) -> None:
        if not width or width == self._width:
            return
        self.layouts += 1
        self._width = width
        self._rows = self._lay_out_head(width)
        self._fixed, self._finished = len(self._rows), 0
        if self.growing:
            self.growing.grow()
            self._add_growing(width)
        else:
            if self._body is None:
                self._body = parts.body(self.entry)
            self._rows += lay_out([*self._body, *parts.after(self.entry)], width)

    def _lay_out_head(self, width: int) -> list[Row]:
        rows = lay_out(parts.label(self.entry), width)
        self._fold_row = len(rows) if self._reasoning else -1
        rows += lay_out(self._thoughts(), width)
        if self._reasoning and not self.folds:
            rows.append(Row(Content()))
        return rows

    def _thinking(self) -> bool:
        return bool(self._reasoning and self.growing and not self.growing.begun)

    def _thoughts(self) -> Sequence[Block]:
        if not self._reasoning:
            return []
        self._thinks = self._thinking()
        tense = "thinking," if self._thinks else "thought for"
        line = parts.thought(self._reasoning, "▸" if self.folds else "▾", tense)
        text = self._reasoning[-parts.THOUGHTS :] if self.growing else self._reasoning
        return [line] if self.folds else [line, parts.thoughts(text)]

    def _add_growing(self, width: int) -> None:
        growing = self.growing
        assert growing is not None
        del self._rows[self._fixed :]
        above = growing.finished[self._finished - 1] if self._finished else None
        self._rows += lay_out(growing.finished[self._finished :], width, above)
        self._fixed, self._finished = len(self._rows), len(growing.finished)
        arriving = growing.open or ([] if growing.begun or self._reasoning else [parts.waiting()])
        self._rows += lay_out(arriving, width, growing.finished[-1] if growing.finished else None)
