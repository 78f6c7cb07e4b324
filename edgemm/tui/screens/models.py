"""The models to chat with: how big, whether they fit, how fast they were here, and those that can be downloaded.

It ends with the name of a model that is here, or with None. Opening the model is the caller's affair, and what is
known about a row comes from shelf.py; the download runs in a thread and is the only thing here that takes time.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

from textual import events, on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.message import Message
from textual.screen import ModalScreen
from textual.widgets import Input, OptionList, ProgressBar, Static
from textual.widgets.option_list import Option
from textual.worker import get_current_worker

from edgemm import device
from edgemm.errors import EdgemmError
from edgemm.events import Note, Progress
from edgemm.package import Package
from edgemm.speeds import Speeds
from edgemm.terminal import safe
from edgemm.tui import columns, shelf
from edgemm.tui.download import Arrived, Download, Failed, News, Pull, Rate, Stopped
from edgemm.tui.screens.card import CardScreen
from edgemm.tui.shelf import Row, State

_MARKS = {State.READY: "  ", State.DAMAGED: "! ", State.REMOTE: "↓ "}
_CURRENT = "● "
_HEADINGS = {State.READY: "on this machine", State.DAMAGED: "damaged", State.REMOTE: "to download"}
_KEYS = "Enter open or download · type to filter · v report card · Esc close"
_KEYS_LOADING = "Esc stop the download · type to filter · v report card"
_BUSY = "one download at a time — Esc stops this one"
_STOP_SECONDS = 1.0  # that the end of the screen waits for a download


class ModelScreen(ModalScreen[str | None]):
    """Ends with the name of the chosen model. `current` is the one that is open, and holds `held` bytes of memory.

    `pull` is `edgemm.fetch.pull` or stands for it; `free` gives the bytes of memory that are to be had.
    """

    DEFAULT_CSS = """
    ModelScreen {
        align: center middle;
        #frame { width: 94%; min-width: 78; max-width: 100%; height: 94%; }
        #frame { border: round $primary; background: $surface; padding: 0 1; }
        #filter { height: 1; border: none; padding: 0; background: $surface; }
        #head { height: 1; color: $text-muted; margin-top: 1; }
        #rows { height: 1fr; border: none; padding: 0; background: $surface; scrollbar-gutter: stable; }
        #rows > .option-list--option { padding: 0; }
        #detail { height: auto; max-height: 5; margin-top: 1; color: $text-muted; }
        #status { height: auto; max-height: 3; display: none; }
        #progress { height: 1; display: none; }
        #progress Bar { width: 1fr; }
        #keys { height: 1; color: $text-muted; }
        &.-loading #progress { display: block; }
        &.-news #status { display: block; }
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "back", "Close, or stop the download", id="models.back"),
        Binding("v", "card", "Report card", id="models.card"),
    ]

    class Stocked(Message):
        """The rows are known, and their verdicts follow; or the store cannot be read, and `problem` says why."""

        def __init__(self, rows: list[Row], problem: str = "") -> None:
            super().__init__()
            self.rows, self.problem = rows, problem

    class Weighed(Message):
        """A row has its verdict."""

        def __init__(self, row: Row) -> None:
            super().__init__()
            self.row = row

    class Loading(Message):
        """News of a download."""

        def __init__(self, news: News) -> None:
            super().__init__()
            self.news = news

    def __init__(
        self,
        current: str = "",
        *,
        held: int = 0,
        speeds: Speeds | None = None,
        pull: Pull | None = None,
        free: Callable[[], int] = device.free_memory,
    ) -> None:
        super().__init__()
        self._current, self._held, self._free = current, held, free
        self._speeds, self._pull = speeds or Speeds(), pull or _pull
        self._rows: list[Row] = []
        self._shown: list[Row | None] = []  # in the order of the options; None is a heading
        self._wanted = current  # the name to highlight when the rows come
        self._download: Download | None = None
        self._rate = Rate()

    def compose(self) -> ComposeResult:
        with Vertical(id="frame") as frame:
            frame.border_title = "Models"
            yield Input(placeholder="type to filter", id="filter", compact=True, select_on_focus=False)
            yield Static(id="head", markup=False)
            yield OptionList(id="rows", markup=False)
            yield Static(id="detail", markup=False)
            yield Static(id="status", markup=False)
            yield ProgressBar(id="progress", show_eta=False)
            yield Static(Content(_KEYS), id="keys")

    def on_mount(self) -> None:
        self.query_one(OptionList).focus()
        self._take_stock()

    async def on_unmount(self) -> None:
        if self._download is not None:
            self._download.stop()
            await asyncio.to_thread(self._download.wait, _STOP_SECONDS)

    @work(thread=True, exclusive=True, group="stock")
    def _take_stock(self) -> None:
        """Manifests first, so that the list is there at once; then the headers of the model files, one by one."""
        worker = get_current_worker()
        try:
            rows = shelf.stock(self._speeds.medians())
        except (EdgemmError, OSError) as error:
            self.post_message(self.Stocked([], str(error)))
            return
        self.post_message(self.Stocked(rows))
        free = self._free() + self._held
        for row in rows:
            weighed = shelf.weighed(row, free)
            if worker.is_cancelled:  # by a later stock, which must not get this row
                return
            self.post_message(self.Weighed(weighed))

    @on(Stocked)
    def _fill_in(self, event: Stocked) -> None:
        self._rows = event.rows
        if event.problem:
            self._say(event.problem)
        self._fill()

    @on(Weighed)
    def _judge(self, event: Weighed) -> None:
        self._rows = [event.row if row.name == event.row.name else row for row in self._rows]
        index = next((i for i, row in enumerate(self._shown) if row and row.name == event.row.name), None)
        if index is None:
            return
        before, self._shown[index] = self._shown[index], event.row
        if before is not None and before.state is not event.row.state:
            self._fill()
            return
        rows = self.query_one(OptionList)
        rows.replace_option_prompt_at_index(index, self._line(event.row))
        if rows.highlighted == index:
            self._explain()

    @on(events.Resize)
    def _resized(self) -> None:
        self.call_after_refresh(self._fill)

    @on(Input.Changed)
    def _filtered(self) -> None:
        self._fill()

    def _fill(self) -> None:
        """Draw the list anew; the highlighted row stays highlighted where it is still there."""
        rows = self.query_one(OptionList)
        chosen = self._row()
        wanted = self._wanted or (chosen.name if chosen else "")
        self._shown = list(_with_headings(shelf.matching(self._rows, self.query_one(Input).value)))
        options = [self._option(i) for i in range(len(self._shown))]
        rows.set_options(options or [Option(Content("no model has these words"), disabled=True)])
        self.query_one("#head", Static).update(Content("  " + columns.head(self._width)))
        index = next((i for i, row in enumerate(self._shown) if row and row.name == wanted), None)
        first = next((i for i, row in enumerate(self._shown) if row), None)
        rows.highlighted = first if index is None else index
        self._wanted = "" if self._rows else self._wanted
        self._explain()

    def _option(self, index: int) -> Option:
        row = self._shown[index]
        if row is None:
            following = self._shown[index + 1]
            return Option(Content(_HEADINGS[following.state] if following else ""), disabled=True)
        return Option(self._line(row))

    def _line(self, row: Row) -> Content:
        mark = _CURRENT if row.name == self._current and row.state is State.READY else _MARKS[row.state]
        return Content(mark + columns.line(row, self._width))

    @property
    def _width(self) -> int:
        return max(20, self.query_one(OptionList).scrollable_content_region.width - 2)

    def _row(self) -> Row | None:
        index = self.query_one(OptionList).highlighted
        return self._shown[index] if index is not None and index < len(self._shown) else None

    @on(OptionList.OptionHighlighted)
    def _explain(self) -> None:
        """The highlighted model in full, since the columns may have cut it."""
        row = self._row()
        lines = [row.name, shelf.sentence(row), " · ".join(filter(None, (row.licence, row.source)))] if row else []
        self.query_one("#detail", Static).update(Content(safe("\n".join(filter(None, lines)))))

    def on_key(self, event: events.Key) -> None:
        """Letters go into the filter, and arrows from there into the list, so that nobody has to look for focus."""
        field, rows = self.query_one(Input), self.query_one(OptionList)
        if self.focused is field and event.key in ("up", "down", "pageup", "pagedown"):
            event.stop()
            rows.focus()
            (rows.action_cursor_up if event.key in ("up", "pageup") else rows.action_cursor_down)()
        elif self.focused is rows and event.character and event.is_printable and event.key != "v":
            event.stop()
            event.prevent_default()
            field.focus()
            field.insert_text_at_cursor(event.character)

    @on(OptionList.OptionSelected)
    @on(Input.Submitted)
    def _choose(self) -> None:
        row = self._row()
        if row is None:
            return
        if self._download is not None:
            self._say(_BUSY)
        elif row.state is State.READY:
            self.dismiss(row.name)
        elif shelf.can_fetch(row):
            self._fetch(row.name)
        else:
            self._say(f"{row.name} cannot be opened: {row.reason}")

    def action_back(self) -> None:
        """Stop the download, else clear the filter, else close."""
        field = self.query_one(Input)
        if self._download is not None:
            self._download.stop()
            self._say(f"{self._download.name}: stopping")
        elif field.value:
            field.value = ""
            self.query_one(OptionList).focus()
        else:
            self.dismiss(None)

    def action_card(self) -> None:
        if (row := self._row()) is not None:
            self.app.push_screen(CardScreen(row.name, shelf.card(row)))

    def _fetch(self, name: str) -> None:
        self._rate = Rate()
        self._download = Download(name, self._pull, lambda news: self._post(self.Loading(news)))
        self.query_one(ProgressBar).update(total=None, progress=0)
        self.add_class("-loading")
        self.query_one("#keys", Static).update(Content(_KEYS_LOADING))
        self._say(f"{name}: asking for the file")
        self._download.start()

    def _post(self, message: Message) -> None:
        """From the download's thread, which may outlive the screen."""
        with suppress(RuntimeError):  # the app has ended
            self.post_message(message)

    @on(Loading)
    def _show(self, event: Loading) -> None:
        download = self._download
        if download is None:
            return
        match event.news:
            case Progress() as progress:
                self._rate.add(progress)
                self.query_one(ProgressBar).update(total=progress.total or None, progress=progress.done)
                self._say(f"{download.name}: {self._rate.describe(progress)}")
            case Note(text):
                self._say(text)
            case Arrived():
                self._end(f"{download.name} is ready: Enter opens it", download.name)
            case Stopped():
                self._end(f"{download.name}: stopped; Enter goes on with what has arrived")
            case Failed(why):
                self._end(why)

    def _end(self, text: str, arrived: str = "") -> None:
        self._download = None
        self.remove_class("-loading")
        self.query_one("#keys", Static).update(Content(_KEYS))
        self._say(text)
        self._wanted = arrived
        self._take_stock()

    def _say(self, text: str) -> None:
        """A line below the list, which takes its row from the list."""
        self.add_class("-news")
        self.query_one("#status", Static).update(Content(safe(text)))
        self.call_after_refresh(self.query_one(OptionList).scroll_to_highlight)


def _with_headings(rows: list[Row]) -> list[Row | None]:
    """None before the first row of each state."""
    found: list[Row | None] = []
    for index, row in enumerate(rows):
        if index == 0 or rows[index - 1].state is not row.state:
            found.append(None)
        found.append(row)
    return found


def _pull(name: str) -> Iterator[Progress | Note | Package | Path]:
    from edgemm import fetch  # late: it loads the network libraries

    return fetch.pull(name)
