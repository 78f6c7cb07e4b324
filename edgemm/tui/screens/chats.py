"""The chats that were saved: choose one, find one by its words, rename, delete or export it.

It asks and changes through the functions that it is given, and knows neither a database nor a file.
"""

import asyncio
import datetime
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.message import Message
from textual.screen import ModalScreen
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from edgemm.errors import EdgemmError
from edgemm.sessions import ChatInfo, Hit
from edgemm.snippets import MARK, UNMARK
from edgemm.terminal import safe
from edgemm.tui.screens.ask import AskLine, Confirm
from edgemm.tui.widgets.fields import LineField

_PAUSE = 0.15  # seconds without a key before a search begins
_KEYS = "Enter open · F2 rename · Del delete · F4 export · Esc close"


@dataclass(frozen=True, slots=True)
class _Row:
    """One line of the list: the chat that it stands for, and how it looks."""

    chat: int
    title: str
    content: Content


class _Search(LineField):
    """Leaves Delete to the list when there is nothing to delete on the right of the cursor."""

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action == "delete_right" and self.cursor_position >= len(self.value) and self.selection.is_empty:
            return False
        return super().check_action(action, parameters)


class ChatsScreen(ModalScreen[int | None]):
    """Ends with the id of a chat. `search` runs in a thread; the other functions in the screen's own.

    `rename(id, title)` and `delete(id)` change the store; export is posted as `Export`.
    """

    DEFAULT_CSS = """
    ChatsScreen {
        align: center middle;
        #frame { width: 94%; max-width: 110; height: 94%; border: round $primary; background: $surface; padding: 0 1; }
        OptionList { height: 1fr; border: none; padding: 0; background: $surface; scrollbar-size-vertical: 1; }
        #state { height: auto; max-height: 3; color: $text-warning; }
        #keys { height: 1; color: $text-muted; }
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "back", "Close"),
        Binding("up", "move('cursor_up')", "Up", show=False),
        Binding("down", "move('cursor_down')", "Down", show=False),
        Binding("pageup", "move('page_up')", "Page up", show=False),
        Binding("pagedown", "move('page_down')", "Page down", show=False),
        Binding("enter", "open", "Open", show=False),
        Binding("f2", "rename", "Rename"),
        Binding("delete", "delete", "Delete"),
        Binding("f4,e", "export", "Export"),
    ]

    @dataclass
    class Export(Message):
        """The user wants the chat with the id `chat` as a file."""

        chat: int

    def __init__(
        self,
        chats: Callable[[], list[ChatInfo]],
        search: Callable[[str], list[Hit]],
        rename: Callable[[int, str], object],
        delete: Callable[[int], object],
    ) -> None:
        super().__init__()
        self._list, self._search, self._rename, self._delete = chats, search, rename, delete
        self._rows: list[_Row] = []
        self._found_for = ""  # the query that `_rows` answer

    def compose(self) -> ComposeResult:
        with Vertical(id="frame") as frame:
            frame.border_title = "Chats"
            yield _Search(placeholder="search in titles and messages")
            yield OptionList()
            yield Static(id="state")
            yield Static(Content(_KEYS), id="keys")

    def on_mount(self) -> None:
        self.query_one(Input).focus()
        self._find("")

    @on(Input.Changed)
    def _typed(self, event: Input.Changed) -> None:
        self._find_soon(event.value)

    @on(OptionList.OptionSelected)
    @on(Input.Submitted)
    def action_open(self) -> None:
        """Open the highlighted chat; Enter that comes sooner than the search shows what was found instead."""
        query = self.query_one(Input).value
        if query != self._found_for:
            self._find(query)
        elif row := self._current():
            self.dismiss(row.chat)

    def action_back(self) -> None:
        """First it clears the search, then it closes."""
        field = self.query_one(Input)
        if field.value:
            field.value = ""
        else:
            self.dismiss(None)

    def action_move(self, how: str) -> None:
        getattr(self.query_one(OptionList), f"action_{how}")()

    @work
    async def action_rename(self) -> None:
        if not (row := self._current()):
            return
        title = await self.app.push_screen_wait(AskLine("New title", row.title))
        if title:
            self._change(lambda: self._rename(row.chat, title))

    @work
    async def action_delete(self) -> None:
        if not (row := self._current()):
            return
        if await self.app.push_screen_wait(Confirm(f"Delete “{row.title}” and all its messages, for good?")):
            self._change(lambda: self._delete(row.chat))

    def action_export(self) -> None:
        if row := self._current():
            self.post_message(self.Export(row.chat))

    def tell(self, text: str) -> None:
        """Show one line below the list, such as where an export went."""
        self.query_one("#state", Static).update(Content(safe(text)))

    def _current(self) -> _Row | None:
        at = self.query_one(OptionList).highlighted
        return self._rows[at] if at is not None and at < len(self._rows) else None

    def _change(self, change: Callable[[], object]) -> None:
        try:
            change()
        except EdgemmError as error:
            self.tell(str(error))
            return
        self._find(self.query_one(Input).value)

    @work(exclusive=True, group="find")
    async def _find_soon(self, query: str) -> None:
        await asyncio.sleep(_PAUSE)
        try:
            hits = await asyncio.to_thread(self._search, query) if query.strip() else []
            self._show(query, hits)
        except EdgemmError as error:
            self.tell(str(error))

    def _find(self, query: str) -> None:
        """All chats, or what `query` finds, at once."""
        try:
            self._show(query, self._search(query) if query.strip() else [])
        except EdgemmError as error:
            self.tell(str(error))

    def _show(self, query: str, hits: Sequence[Hit]) -> None:
        options = self.query_one(OptionList)
        before = (options.highlighted or 0) if query == self._found_for else 0
        self._rows, self._found_for = _found(self._list(), hits, query), query
        options.clear_options()
        options.add_options([Option(row.content) for row in self._rows])
        options.highlighted = min(before, len(self._rows) - 1) if self._rows else None
        self.tell("" if self._rows else f"nothing says “{query}”" if query else "no chats yet")


def when(then: float, now: float) -> str:
    """A time in seconds since 1970 as a person says it at `now`: "14:05", "yesterday 14:05", "Mon 14:05", a date."""
    moment, today = datetime.datetime.fromtimestamp(then), datetime.datetime.fromtimestamp(now)
    days = (today.date() - moment.date()).days
    clock = f"{moment:%H:%M}"
    if days == 0:
        return clock
    if days == 1:
        return f"yesterday {clock}"
    return f"{moment:%a} {clock}" if 1 < days < 7 else f"{moment:%Y-%m-%d}"


def _found(chats: Sequence[ChatInfo], hits: Sequence[Hit], query: str) -> list[_Row]:
    """The chats whose title has the words of `query`, then the messages found; without a query all chats."""
    words = query.casefold().split()
    named = [chat for chat in chats if all(word in chat.title.casefold() for word in words)]
    return [*map(_chat_row, named), *map(_hit_row, hits)]


def _chat_row(chat: ChatInfo) -> _Row:
    plural = "" if chat.messages == 1 else "s"
    about = f"{_line(chat.model)} · {chat.messages} message{plural} · {when(chat.updated, time.time())}"
    return _row(chat.id, chat.title, Content.styled(about, "dim"))


def _hit_row(hit: Hit) -> _Row:
    parts = [Content.styled(f"{_line(hit.role)}: ", "dim")]
    for number, piece in enumerate(hit.snippet.split(MARK)):
        match, mark, rest = piece.rpartition(UNMARK) if number else ("", "", piece)
        parts += [Content.styled(_line(match), "bold reverse")] if mark else []
        parts.append(Content(_line(rest)))
    return _row(hit.chat, hit.title, Content("").join(parts))


def _row(chat: int, title: str, about: Content) -> _Row:
    name = _line(title) or "untitled"
    return _Row(chat, name, Content(f"{name}\n  ") + about)


def _line(text: str) -> str:
    return safe(text.replace("\n", " ").replace("\t", " "))
