"""The user's documents: passages are found as one types, and read in their surroundings; without a query, the folders
of the index, which can be added, brought up to date and forgotten here.

What takes time happens in threads, and what stands in the way is told in one line. It opens no document.
"""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar, TypeVar

from textual import events, on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from edgemm.errors import EdgemmError
from edgemm.index import RootStatus
from edgemm.search import Hit
from edgemm.tui import finding
from edgemm.tui.download import Failed, Stopped
from edgemm.tui.finding import Preview, Stock
from edgemm.tui.folding import one_line
from edgemm.tui.indexing import Finished, IndexDesk
from edgemm.tui.screens.ask import Confirm
from edgemm.tui.screens.folder import FolderScreen, is_open
from edgemm.tui.widgets.fields import LineField
from edgemm.tui.widgets.passage import Passage
from edgemm.tui.widgets.run_bar import RunBar

_PAUSE = 0.15  # seconds without a key before a search begins
_LOOK = 0.2  # seconds between two looks at a run
_WIDE = 100  # cells, from which on the preview stands beside the list
_KEYS_FOLDERS = "F2 add · F5 update · Del forget · Enter details · Tab next part · Esc close"
_KEYS_FOUND = "Enter read · Ctrl+K ask about it · Alt+C copy place · F4 scores · Esc back"
_KEYS_WHOLE = "↑↓ PgUp PgDn scroll · Ctrl+K ask about it · Alt+C copy place · Esc back"
_NO_FOLDER = "no folder is in the index yet: F2 adds one"
_NOT_FOUND = "nothing is found"
_T = TypeVar("_T")


class _Query(LineField):
    """Leaves Delete to the list when there is nothing to delete."""

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action == "delete_right" and not self.value:
            return False
        return super().check_action(action, parameters)


class DocumentsScreen(ModalScreen[str | None]):
    """Ends with a passage to ask about, quoted for a question, or with None. A run of `desk` goes on without it."""

    DEFAULT_CSS = """
    DocumentsScreen {
        #frame { width: 100%; height: 100%; border: round $primary; background: $surface; padding: 0 1; }
        #query { height: 1; border: none; padding: 0; background: $surface; }
        #panes { height: 1fr; layout: vertical; }
        #rows, #preview { height: 1fr; width: 1fr; padding: 0; background: $surface; }
        #rows, #preview { border: none; border-top: solid $panel; border-title-color: $text-muted; }
        #rows:focus, #preview:focus { border-top: heavy $accent; border-title-style: bold; }
        #rows:nocolor, #preview:nocolor { border-top: ascii $foreground; }
        #rows:nocolor:focus, #preview:nocolor:focus { border-top: heavy $foreground; }
        #rows { scrollbar-gutter: stable; scrollbar-size-vertical: 1; }
        #state { height: auto; max-height: 3; color: $text-warning; }
        #keys { height: 1; color: $text-muted; text-overflow: ellipsis; text-wrap: nowrap; }
        &.-wide #panes { layout: horizontal; }
        &.-wide #preview { margin-left: 2; }
        &.-whole #rows { display: none; }
        &.-whole #preview { margin-left: 0; }
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "back", "Back: from a passage, a query, a run; else close", id="documents.back"),
        Binding("f9", "dismiss(None)", "Close; a run goes on", id="documents.close"),
        Binding("up", "move('cursor_up')", "Up", show=False),
        Binding("down", "move('cursor_down')", "Down", show=False),
        Binding("pageup", "move('page_up')", "Page up", show=False),
        Binding("pagedown", "move('page_down')", "Page down", show=False),
        Binding("enter", "read", "Read the passage, or the details", show=False),
        Binding("f2", "add", "Add a folder", id="documents.add"),
        Binding("f5", "update", "Bring every folder up to date", id="documents.update"),
        Binding("x", "stop", "Stop the run", id="documents.stop"),
        Binding("delete", "forget", "Forget the folder", id="documents.forget"),
        Binding("f4", "explain", "Show the scores", id="documents.explain"),
        Binding("alt+c,c", "copy", "Copy path and line", id="documents.copy"),
        Binding("ctrl+k", "ask", "Ask about the passage", id="documents.ask", priority=True),
    ]

    def __init__(self, desk: IndexDesk) -> None:
        super().__init__()
        self._desk = desk
        self._query = ""  # that is typed now
        self._found_for = ""  # the query that `_hits` answer
        self._hits: list[Hit] = []
        self._loading = ""
        self._stock: Stock | None = None
        self._shown: Sequence[Hit | RootStatus] = ()  # in the order of the options
        self._explains = False
        self._moved = False  # the user has chosen among the results of this query

    def compose(self) -> ComposeResult:
        with Vertical(id="frame") as frame:
            frame.border_title = "Documents"
            yield _Query(placeholder="search in your documents", id="query", compact=True, select_on_focus=False)
            with Container(id="panes"):
                yield OptionList(id="rows", markup=False)
                yield Passage(id="preview")
            yield Static(id="state", markup=False)
            yield RunBar()
            yield Static(Content(_KEYS_FOLDERS), id="keys")

    def on_mount(self) -> None:
        self.query_one(Input).focus()
        self.set_interval(_LOOK, self._look)
        self._look()
        self._take_stock()

    # The list

    @on(Input.Changed)
    def _typed(self, event: Input.Changed) -> None:
        self._query, self._moved = event.value.strip(), False
        self._say("")
        if self._query:
            self._find(_PAUSE)
        else:
            self.workers.cancel_group(self, "find")
            self._found_for, self._hits, self._loading = "", [], ""
            self._fill()

    @work(exclusive=True, group="find")
    async def _find(self, pause: float) -> None:
        """Show what words find, then what the models find as well; a later query ends this one."""
        await asyncio.sleep(pause)
        query = self._query
        if not self._desk.is_warm:
            first = await self._ask(self._desk.by_words, query)
            if first is None:
                return
            self._show(query, *first)
        hits = await self._ask(self._desk.search, query, lambda: self._query == query)
        if hits is not None:
            self._show(query, hits)
        elif self._loading:
            self._loading = ""
            self._fill()

    def _show(self, query: str, hits: list[Hit], loading: str = "") -> None:
        """`loading`: the model that will find more."""
        self._found_for, self._hits, self._loading = query, hits, loading
        self._tell_news()
        self._fill()

    @work(exclusive=True, group="stock")
    async def _take_stock(self) -> None:
        found = await self._ask(self._desk.stock)
        if found is not None:
            self._stock = found
            if not self._query:
                self._fill()

    def _fill(self) -> None:
        """Draw the list anew. The chosen row stays chosen; of results that nobody has looked at, it is the first."""
        options = self.query_one(OptionList)
        before = self._row()
        roots = list(self._stock.status.roots) if self._stock else []
        shown: Sequence[Hit | RootStatus] = self._hits if self._query else roots
        self._shown = shown
        nothing = (_NOT_FOUND if self._found_for else "") if self._query else _NO_FOLDER if self._stock else ""
        contents = [self._option(row) for row in self._shown]
        options.set_options([Option(each) for each in contents] or [Option(Content(nothing), disabled=True)])
        wanted = _key(before) if before and (self._moved or not self._query) else None
        index = next((i for i, row in enumerate(shown) if _key(row) == wanted), 0)
        options.highlighted = index if self._shown else None
        options.border_title = Content(self._title())
        self._draw_keys()
        self._chosen()

    def _title(self) -> str:
        count = f"{len(self._shown)} {'passage' if self._query else 'folder'}{'s' * (len(self._shown) != 1)}"
        return f"{count} by their words · {one_line(self._loading)} is being loaded" if self._loading else count

    def _option(self, row: Hit | RootStatus) -> Content:
        width = max(20, self.query_one(OptionList).scrollable_content_region.width - 2)
        if isinstance(row, Hit):
            return finding.result(row, width, [finding.scores(row)] if self._explains else [])
        return finding.folder(row, self._is_missing(row), width)

    def _row(self) -> Hit | RootStatus | None:
        at = self.query_one(OptionList).highlighted
        return self._shown[at] if at is not None and at < len(self._shown) else None

    def _is_missing(self, row: RootStatus) -> bool:
        return self._stock is not None and row.root.id in self._stock.missing

    # The preview

    @on(OptionList.OptionHighlighted)
    def _chosen(self) -> None:
        row = self._row()
        if isinstance(row, Hit):
            self._look_around(row)
        else:
            self.workers.cancel_group(self, "preview")
            self._draw_details(row)

    @work(exclusive=True, group="preview")
    async def _look_around(self, hit: Hit) -> None:
        around = await self._ask(self._desk.around, hit.chunk, finding.NEIGHBOURS)
        if around is not None:
            words = finding.marked_words(hit.snippet)
            draw = partial(finding.preview, around, hit.chunk, words)
            self.query_one(Passage).show(finding.title(hit.chunk), draw)

    def _draw_details(self, row: RootStatus | None) -> None:
        parts = [finding.details(row, self._is_missing(row))] if row else []
        if self._stock and not self._query:
            parts.append(finding.summary(self._stock.status))
        text = Preview(Content("\n\n").join(parts), 0)
        self.query_one(Passage).show(Content(one_line(row.root.path.name) if row else ""), lambda _: text)

    @on(events.Resize)
    def _resized(self, event: events.Resize) -> None:
        self.set_class(event.size.width >= _WIDE, "-wide")
        self.call_after_refresh(self._fill)

    # What the keys do

    @on(OptionList.OptionSelected)
    @on(Input.Submitted)
    def action_read(self) -> None:
        """The preview takes the room of the list; Enter that comes sooner than the search begins it at once."""
        if self._query != self._found_for:
            self._find(0)
        elif self._row() is not None:
            self._widen(True)

    def action_back(self) -> None:
        field = self.query_one(Input)
        if self.has_class("-whole"):
            self._widen(False)
        elif field.value:
            field.value = ""
            field.focus()
        elif self._desk.run is not None:
            self.action_stop()
        else:
            self.dismiss(None)

    def _widen(self, whole: bool) -> None:
        self.set_class(whole, "-whole")
        self.query_one("#preview" if whole else Input).focus()
        self._draw_keys()

    def action_move(self, how: str) -> None:
        self._moved = True
        getattr(self.query_one(OptionList), f"action_{how}")()

    def action_explain(self) -> None:
        self._explains = not self._explains
        self._moved = True
        self._fill()

    def action_copy(self) -> None:
        row = self._row()
        if row is not None:
            text = finding.location(row.chunk) if isinstance(row, Hit) else one_line(str(row.root.path))
            self.app.copy_to_clipboard(text)
            self._say(f"copied {text}")

    def action_ask(self) -> None:
        row = self._row()
        if isinstance(row, Hit):
            self.dismiss(finding.quote(row.chunk))

    @work
    async def action_add(self) -> None:
        folder = await self.app.push_screen_wait(FolderScreen())
        if folder is not None:
            self._run(lambda: self._desk.begin(folder))

    def action_update(self) -> None:
        if self._stock and not self._stock.status.roots:
            self._say(_NO_FOLDER)
        else:
            self._run(self._desk.begin)

    @work
    async def action_forget(self) -> None:
        row = self._row()
        if not isinstance(row, RootStatus):
            return
        name = one_line(str(row.root.path))
        if await self.app.push_screen_wait(Confirm(f"Take “{name}” out of the index? No file is touched.")):
            self._say(f"{name}: being forgotten")
            await self._ask(self._desk.forget, row.root.path, end=f"{name}: forgotten")
            self._take_stock()

    # The run

    def _run(self, begin: Callable[[], None]) -> None:
        try:
            begin()
        except EdgemmError as error:
            self._say(str(error))
            return
        self._say("")
        self._look()

    def action_stop(self) -> None:
        if self._desk.run is not None:
            self._desk.run.stop()
            self._look()

    def _look(self) -> None:
        """Show how far the run is."""
        run = self._desk.run
        if run is None or not is_open(self):
            return
        bar = self.query_one(RunBar)
        for note in run.notes():
            self._say(note)
        if run.end is not None:
            bar.end()
            self._desk.run = None
            self._ended(run.end)
            return
        before = bar.progress
        bar.show(run)
        if bar.progress and (before is None or before.stage != bar.progress.stage):
            self._take_stock()

    def _ended(self, end: Finished | Stopped | Failed) -> None:
        match end:
            case Finished(report):
                self._say(finding.outcome(report))
            case Stopped():
                self._say("stopped; F5 goes on with what is left")
            case Failed(why):
                self._say(why)
        self._take_stock()
        if self._query:
            self._find(0)

    # What is told

    async def _ask(self, work: Callable[..., _T], *arguments: Any, end: str = "") -> _T | None:
        """What `work` gives, in a thread, and then tell `end`; None: what stands in the way is told."""
        found, problem = None, end
        try:
            found = await asyncio.to_thread(work, *arguments)
        except EdgemmError as error:
            problem = str(error)
        if not is_open(self):
            raise asyncio.CancelledError  # nothing is left to draw on
        if problem:
            self._say(problem)
        return found

    def _tell_news(self) -> None:
        if news := self._desk.news():
            self._say(" · ".join(news))

    def _say(self, text: str) -> None:
        """A line below the list; empty: none."""
        self.query_one("#state", Static).update(Content(one_line(text)))

    def _draw_keys(self) -> None:
        keys = _KEYS_FOUND if self._query else _KEYS_FOLDERS
        self.query_one("#keys", Static).update(Content(_KEYS_WHOLE if self.has_class("-whole") else keys))


def _key(row: Hit | RootStatus) -> tuple[str, int]:
    return ("passage", row.chunk.id) if isinstance(row, Hit) else ("folder", row.root.id)
