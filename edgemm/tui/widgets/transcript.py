"""The messages of a chat, of which only those near the place of reading are mounted, and the answer that arrives.

It follows the end while the reader is there and keeps the place of reading otherwise. It knows no model and no store:
entries come in, and what the user chooses goes out as a message.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, takewhile
from typing import ClassVar

from textual.actions import SkipAction
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.layout import WidgetPlacement
from textual.message import Message
from textual.scrollbar import ScrollBar
from textual.timer import Timer
from textual.widget import Widget

from edgemm.tui import window
from edgemm.tui.entry import Entry
from edgemm.tui.growing import Growing
from edgemm.tui.pace import Pace
from edgemm.tui.widgets.message import MessageView
from edgemm.tui.window import Window

__all__ = ("Entry", "Transcript")
_NEAR = 2  # rows from the end at which the reader counts as being there


@dataclass(slots=True)
class _Live:
    """The answer that arrives: its text, its reasoning, and what of them is not drawn yet."""

    growing: Growing
    reasoning: list[str]
    thinks: bool = False


class Transcript(VerticalScroll):
    """Messages, the last one perhaps growing: `begin`, `feed` as often as tokens come, `settle`.

    `flushes` counts the drawings of growing answers, `mounted` the messages that are widgets now.
    """

    DEFAULT_CSS = """
    Transcript {
        overflow-y: scroll;
        scrollbar-size-vertical: 1;
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("alt+up", "previous", "Previous message", id="transcript.previous", show=False),
        Binding("alt+down", "next", "Next message", id="transcript.next", show=False),
        Binding("escape", "unselect", "Choose no message", id="transcript.unselect", show=False),
        Binding("r", "reasoning", "Unfold the reasoning", id="transcript.reasoning", show=False),
    ]

    @dataclass
    class Chosen(Message):
        """The user chose a message, or none."""

        transcript: "Transcript"
        id: int | None

        @property
        def control(self) -> "Transcript":
            return self.transcript

    def __init__(self, *, name: str | None = None, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(name=name, id=id, classes=classes)
        self.flushes = 0
        self._entries: list[Entry] = []
        self._window = Window()
        self._views: list[MessageView] = []  # of the window, in order
        self._chosen: int | None = None  # an index
        self._live: _Live | None = None
        self._pace = Pace()
        self._timer: Timer | None = None
        self._placed = False  # whether messages were mounted or removed since the last layout: places are out of date
        self._follows = True  # the end of the chat, as it moves
        self._pin: tuple[MessageView, int] | None = (
            None  # otherwise: which message stays how far below the top edge, in rows
        )

    @property
    def mounted(self) -> int:
        return len(self._views)

    @property
    def selected(self) -> int | None:
        """The id of the chosen message."""
        return None if self._chosen is None else self._entries[self._chosen].id

    def text_of(self, id: int) -> str:
        """The whole text of a message as it came. Raises `KeyError` for an unknown id."""
        for index in reversed(range(len(self._entries))):
            if self._entries[index].id == id:
                return self._live.growing.text if self._live and self._is_live(index) else self._entries[index].text
        raise KeyError(id)

    def show(self, entries: Sequence[Entry]) -> None:
        """Replace all messages. Those at the beginning that are equal keep their widgets.

        The chosen place stays chosen where the messages before it are the same, as after a change of branch.
        """
        self._stop()
        same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(self._entries, entries, strict=False)))
        stays = same > self._window.first and not self._follows
        chosen, self._chosen = self._chosen, None
        self._entries = list(entries)
        if stays:
            self._place(window.beginning(self._sizes(), self._window.first, max(window.OPENED, len(self._window))))
        else:
            self._place(window.ending(self._sizes(), len(self._entries)))
            self.to_end()
        if chosen is not None:
            self._choose(chosen if same and chosen <= same and chosen < len(entries) else None)

    def append(self, entry: Entry) -> None:
        """Add a message at the end."""
        at_end = self._window.last == len(self._entries)
        self._entries.append(entry)
        if at_end:
            last = len(self._entries)
            first = max(self._window.first, last - self._most()) if self._follows else self._window.first
            self._place(Window(first, last))

    def begin(self, entry: Entry) -> None:
        """Add a message that will grow. Its text is the beginning, if there is one."""
        self._stop()
        self._live = _Live(Growing(entry.text), [entry.reasoning])
        self._pace = Pace()
        self.append(entry)

    def feed(self, text: str, reasoning: str = "") -> None:
        """Add to the message that grows. Cheap; it is drawn soon, and the last of it always is."""
        if self._live is None:
            return
        self._live.growing.feed(text)
        if reasoning:
            self._live.reasoning.append(reasoning)
            self._live.thinks = True
        if self._timer is None:
            wait = self._pace.wait(time.monotonic())
            if wait:
                self._timer = self.set_timer(wait, self._flush)
            else:
                self._flush()

    def settle(self, entry: Entry) -> None:
        """The message that grew is complete, and is now `entry`."""
        if self._live is None:
            self.append(entry)
            return
        index = len(self._entries) - 1
        self._stop()
        self._entries[index] = entry
        if index in self._window:
            self._views[-1].settle(entry)

    def to_end(self) -> None:
        """Go to the last message, and follow."""
        if self._window.last != len(self._entries):
            self._place(window.ending(self._sizes(), len(self._entries)))
        self.scroll_end(animate=False, immediate=True, x_axis=False)
        self._follows, self._pin = True, None

    def to_start(self) -> None:
        """Go to the first message."""
        if self._window.first:
            self._place(window.beginning(self._sizes(), 0))
        self.scroll_home(animate=False, immediate=True)
        self._follows, self._pin = False, None

    def select(self, id: int | None) -> None:
        """Choose a message, and bring it into sight."""
        found = [index for index, entry in enumerate(self._entries) if entry.id == id]
        self._choose(found[-1] if found else None)

    def action_previous(self) -> None:
        if self._entries:
            self._choose(max(0, (len(self._entries) if self._chosen is None else self._chosen) - 1))

    def action_next(self) -> None:
        if self._chosen is None:
            return
        following = self._chosen + 1
        self._choose(following if following < len(self._entries) else None)

    def action_unselect(self) -> None:
        if self._chosen is None:
            raise SkipAction
        self._choose(None)

    def action_reasoning(self) -> None:
        """Unfold or fold the reasoning of the chosen message, or of the last one that has any."""
        views = [v for v in self._views if v.reasoning and self._chosen in (None, v.index)]
        if views:
            views[-1].toggle_reasoning()

    def action_scroll_home(self) -> None:
        self.to_start()

    def action_scroll_end(self) -> None:
        self.to_end()

    def action_page_up(self) -> None:
        self.scroll_page_up(animate=False)

    def action_page_down(self) -> None:
        self.scroll_page_down(animate=False)

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        self._follows = self._window.last == len(self._entries) and self.max_scroll_y - new_value < _NEAR
        self._pin = None if self._follows else self._in_sight()
        self.call_next(self._look_around)

    def process_layout(self, placements: list[WidgetPlacement]) -> list[WidgetPlacement]:
        """Keep to the end, or to the place of reading when what stands above it becomes longer or shorter."""
        self._placed = False
        if placements:
            bottom = max(placement.region.bottom + placement.margin.bottom for placement in placements)
            end = max(0, bottom - self.scrollable_content_region.height)
            tops = {placement.widget: placement.region.y for placement in placements}
            if self._follows:
                self._scroll_silently(end)
            elif self._pin and self._pin[0] in tops:
                self._scroll_silently(min(end, max(0, tops[self._pin[0]] - self._pin[1])))
        self.call_after_refresh(self._look_around)
        return placements

    def _is_live(self, index: int) -> bool:
        return self._live is not None and index == len(self._entries) - 1

    def _sizes(self) -> list[int]:
        return [len(entry.text) for entry in self._entries]

    def _most(self) -> int:
        """Messages that stay mounted. A message has two rows or more: those out of sight are a page or more away."""
        return max(window.MOST, 2 * self.size.height)

    def _flush(self) -> None:
        self._timer = None
        live = self._live
        if live is None:
            return
        began = time.thread_time()
        self.flushes += 1
        self._pace.spent(time.monotonic(), 0.0)
        if len(self._entries) - 1 in self._window:
            if live.thinks:
                self._views[-1].think("".join(live.reasoning))
                live.thinks = False
            self._views[-1].grow()
        self.call_after_refresh(self._drawn, began)

    def _drawn(self, began: float) -> None:
        self._pace.spent(time.monotonic(), time.thread_time() - began)

    def _stop(self) -> None:
        """No message grows any more."""
        self._live = None
        if self._timer is not None:
            self._timer.stop()
            self._timer = None

    def _choose(self, index: int | None) -> None:
        self._chosen = index
        for view in self._views:
            view.set_class(view.index == index, "-chosen")
        if index is not None:
            self._reach(index)
        self.post_message(self.Chosen(self, self.selected))

    def _reach(self, index: int) -> None:
        """Bring a message into sight: at the top if it must be mounted, else with as little scrolling as can be."""
        new, sizes = self._window, self._sizes()
        while index < new.first:
            new = window.older(new, sizes, self._most())
        while index >= new.last:
            new = window.newer(new, sizes, self._most())
        if new != self._window:
            self._place(new)
        view = self._views[index - new.first]
        if view.virtual_region.height and not self._placed:
            self.scroll_to_widget(view, animate=False, top=view.size.height >= self.size.height)
        else:
            self._follows, self._pin = False, (view, 0)

    def _look_around(self) -> None:
        """Mount what the reader will see next."""
        margin = self.size.height
        if self._placed or not margin or not self._views:
            return
        if self.scroll_y < margin and self._window.first:
            self._place(window.older(self._window, self._sizes(), self._most()))
        elif self.max_scroll_y - self.scroll_y < margin and self._window.last < len(self._entries):
            self._place(window.newer(self._window, self._sizes(), self._most()))

    def _place(self, new: Window) -> None:
        """Mount and remove until the widgets are those of `new`; those that are there already stay."""
        kept = {v.index: v for v in self._views if v.index in new and v.entry == self._entries[v.index]}
        gone = [view for view in self._views if kept.get(view.index) is not view]
        self._window = new
        self._views = [kept.get(index) or self._view(index) for index in range(new.first, new.last)]
        for is_new, run in groupby(self._views, lambda view: view.index not in kept):
            if is_new:
                views = list(run)
                following = kept.get(views[-1].index + 1)
                self.mount(*views, before=following)
        self.remove_children(gone)
        self._follows = self._follows and new.last == len(self._entries)
        self._placed = True

    def _view(self, index: int) -> MessageView:
        live = self._live if self._is_live(index) else None
        view = MessageView(index, self._entries[index], live.growing if live else None)
        if live:
            view.think("".join(live.reasoning))
        view.set_class(index == self._chosen, "-chosen")
        return view

    def _in_sight(self) -> tuple[MessageView, int] | None:
        """The first message in sight, and how far below the top edge it begins."""
        top = round(self.scroll_y)
        for view in self._views:
            region = view.virtual_region
            if region.height and region.bottom > top:
                return view, region.y - top
        return None

    def _scroll_silently(self, y: int) -> None:
        """Scroll in the middle of a layout, which is why nothing may be asked to draw itself."""
        self.set_reactive(Widget.scroll_y, float(y))
        self.set_reactive(Widget.scroll_target_y, float(y))
        self.vertical_scrollbar.set_reactive(ScrollBar.position, float(y))
