"""The editor of the next message: grows with it, remembers earlier ones, folds large pastes, completes paths.

It posts `Submitted` and knows no model, no chat and no meaning of a slash command. It looks at the disk only for names:
of what `@` may complete, and of files that were dragged in; what is in them is read by others.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, cast

from rich.text import Text
from textual import events, work
from textual._ansi_sequences import ANSI_SEQUENCES_KEYS
from textual.actions import SkipAction
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.keys import Keys
from textual.message import Message
from textual.widget import Widget
from textual.widgets import TextArea
from textual.widgets.text_area import EditResult, Location, Selection
from textual.worker import get_current_worker

from edgemm.tui import suggest
from edgemm.tui.files import Found, Place, dropped, home, listed, place
from edgemm.tui.folding import Blocks, clean, is_large, widened
from edgemm.tui.recall import Recall
from edgemm.tui.suggest import Choice, Command, Kind, Query
from edgemm.tui.widgets.completion import Completion

# Two spellings of Alt+Enter and Shift+Enter that Textual gives without their modifier, or without a name.
_ANSI = cast("dict[str, tuple[Keys, ...]]", ANSI_SEQUENCES_KEYS)
_ANSI.setdefault("\x1b\r", (Keys.ControlJ,))
_NEWLINE_KEYS = frozenset(("\r", "shift+\r", "alt+\r", "shift+alt+\r"))

_MAX_RECALLED = 10_000  # characters of an earlier prompt that are shown unfolded; the editor slows down above it


class Prompt(TextArea):
    """A text area that sends. It stands in a vertical container, where it puts its completion list before itself."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "send", "Send", show=False, id="prompt.send"),
        Binding("shift+enter,alt+enter,ctrl+j", "newline", "New line", show=False, id="prompt.newline"),
        Binding("tab", "take", "Take the completion", show=False, id="prompt.take"),
        Binding("escape", "dismiss", "Close the completions", show=False, id="prompt.dismiss"),
        Binding("ctrl+r", "search", "Search earlier prompts", show=False, id="prompt.search"),
    ]
    COMPONENT_CLASSES: ClassVar[set[str]] = {"prompt--label"}
    DEFAULT_CSS = """
    Prompt {
        height: auto;
        max-height: 12;
        & .prompt--label { color: $text-accent; text-style: bold; }
        &:ansi .prompt--label { text-style: bold underline; }
    }
    """

    @dataclass
    class Submitted(Message):
        """The user sends `text`, pasted blocks unfolded, with these files."""

        text: str
        attachments: tuple[Path, ...]

    @dataclass
    class Listed(Message):
        """A search for files has ended."""

        where: Place
        entries: list[Found]

    def __init__(
        self, *, cwd: Path | None = None, placeholder: str = "", id: str | None = None, classes: str | None = None
    ) -> None:
        self._blocks = Blocks()  # before the text area begins, for it places its cursor at once
        super().__init__(placeholder=placeholder, id=id, classes=classes, highlight_cursor_line=False)
        self.completion = Completion(self)
        self._cwd = cwd or Path.cwd()
        self._recall = Recall()
        self._commands: list[Command] = []
        self._listings: dict[tuple[Path, bool], list[Found]] = {}  # (folder, with what lies below)
        self._looking: tuple[Path, bool] | None = None
        self._offered: Query | None = None  # what the list was made for
        self._searched: str | None = None  # the draft that waits while earlier prompts are searched
        self._dismissed: tuple[int, int] | None = None  # row and column of a word that the user wants no list for

    def set_history(self, prompts: Sequence[str]) -> None:
        """Earlier prompts, newest last."""
        self._recall = Recall(prompts)

    def set_commands(self, commands: Sequence[Command]) -> None:
        """(name, help) of the slash commands to complete; a leading slash of a name may be left out."""
        self._commands = [(name.removeprefix("/"), text) for name, text in commands]

    def expanded(self) -> str:
        """The text as it would be sent: pasted blocks unfolded, attached files as "[name]"."""
        return self._blocks.expand(self.text)

    @property
    def attachments(self) -> tuple[Path, ...]:
        """The files whose labels stand in the text."""
        return self._blocks.attached(self.text)

    def put(self, text: str, attachments: Sequence[Path] = ()) -> None:
        """Replace the draft, as for editing a message again; the cursor stands at its end."""
        self.clear_draft()
        self._recall.rest()
        labels = [self._blocks.attach(path) for path in attachments]
        self._show(text)
        missing = [label for label in labels if label not in self.text]
        if missing:
            gap = " " if self.text else ""
            self.insert(f"{gap}{' '.join(missing)} ", self.document.end)
        self.move_cursor(self.document.end)

    def clear_draft(self) -> None:
        """An empty prompt, without labels and without anything to undo."""
        self._end_search()
        self._blocks.clear()
        self.text = ""
        self._close()

    def paste(self, text: str) -> None:
        """Insert text from outside: files that it names become attachments, a large one is folded."""
        files = dropped(text)
        if files:
            text = "".join(f"{self._blocks.attach(file)} " for file in files)
        else:
            text = clean(text)
            text = self._blocks.fold(text) if is_large(text) else text
        self.move_cursor(self.replace(text, *self.selection, maintain_selection_offset=False).end_location)

    # What Textual asks for.

    def get_line(self, line_index: int) -> Text:
        line = super().get_line(line_index)
        for start, end in self._blocks.spans(line.plain):
            line.stylize(self.get_component_rich_style("prompt--label", partial=True), start, end)
        return line

    def validate_selection(self, selection: Selection) -> Selection:
        """The cursor jumps over a label, in the direction in which it moves."""
        return Selection(self._outside(selection.start), self._outside(selection.end))

    def replace(
        self, insert: str, start: Location, end: Location, *, maintain_selection_offset: bool = True
    ) -> EditResult:
        """As in a text area, but a label that is touched goes as a whole."""
        top, bottom = self._whole(start, end)
        return super().replace(insert, top, bottom, maintain_selection_offset=maintain_selection_offset)

    def delete(self, start: Location, end: Location, *, maintain_selection_offset: bool = True) -> EditResult:
        """As in a text area, but a label that is touched goes as a whole."""
        top, bottom = self._whole(start, end)
        return super().delete(top, bottom, maintain_selection_offset=maintain_selection_offset)

    def on_mount(self) -> None:
        if isinstance(self.parent, Widget):
            self.parent.mount(self.completion, before=self)

    async def _on_key(self, event: events.Key) -> None:
        """Run own bindings here, in the order in which the keys came.

        A key that is left to Textual bubbles up to the app before its binding runs, and letters that came after it
        in the same batch (a busy screen, a slow line) are inserted before it.
        """
        if not event.is_printable and await self._ran(event.key):
            event.stop()
            event.prevent_default()

    async def _ran(self, key: str) -> bool:
        if key in _NEWLINE_KEYS:
            self.action_newline()
            return True
        bound = self.screen.active_bindings.get(key)
        own = bound is not None and bound.node is self and bound.enabled
        return bool(own and bound and await self.app.run_action(bound.binding.action, self))

    async def _on_paste(self, event: events.Paste) -> None:
        event.stop()
        event.prevent_default()
        self.paste(event.text)

    def update_suggestion(self) -> None:
        """Called by the text area after every edit, before the next key: the list is never behind the text."""
        self._suggest()

    def on_text_area_selection_changed(self) -> None:
        if self.completion.is_open and self._searched is None and self._query() != self._offered:
            self._suggest()

    def on_completion_clicked(self, event: Completion.Clicked) -> None:
        self._take(event.choice)
        self.focus()

    def on_prompt_listed(self, event: Listed) -> None:
        event.stop()
        self._looking = None
        self._listings[event.where.folder, event.where.deep] = event.entries
        if self.has_focus:
            self._suggest()

    def on_blur(self) -> None:
        self._close()

    # Actions.

    def action_send(self) -> None:
        if self.completion.is_open and not self._is_typed_out():
            self.action_take()
            return
        text, attachments = self.expanded().strip("\n").rstrip(), self.attachments
        if text or attachments:
            self._recall.add(text)
            self.clear_draft()
            self.post_message(self.Submitted(text, attachments))

    def action_newline(self) -> None:
        self.replace("\n", *self.selection, maintain_selection_offset=False)

    def action_take(self) -> None:
        if not self.completion.is_open:
            raise SkipAction
        if self.completion.chosen:
            self._take(self.completion.chosen)

    def action_dismiss(self) -> None:
        if not self.completion.is_open:
            raise SkipAction
        if self._searched is not None:
            self._show(self._end_search())
        self._leave_alone()

    def action_search(self) -> None:
        """Search earlier prompts for what is typed from now on; pressed again, go to the next one found."""
        if self._searched is not None:
            self.completion.move(1)
            return
        self._searched = self.text
        self.border_title = Content("search earlier prompts")
        if "\n" in self.text:
            self.text = ""
        self._suggest()

    def action_cursor_up(self, select: bool = False) -> None:
        at_edge = not select and self.navigator.is_first_wrapped_line(self.cursor_location)
        if self.completion.is_open:
            self.completion.move(-1)
        elif at_edge and (earlier := self._recall.back(self.text)) is not None:
            self._show(earlier)
            self.move_cursor(self.navigator.get_location_end((0, 0)))  # where the same key goes on walking
        else:
            super().action_cursor_up(select)

    def action_cursor_down(self, select: bool = False) -> None:
        at_edge = not select and self.navigator.is_last_wrapped_line(self.cursor_location)
        if self.completion.is_open:
            self.completion.move(1)
        elif at_edge and (later := self._recall.forward(self.text)) is not None:
            self._show(later)
        else:
            super().action_cursor_down(select)

    def action_paste(self) -> None:
        self.paste(self.app.clipboard)

    # The list.

    def _suggest(self) -> None:
        if self._searched is not None:
            self.completion.offer(suggest.prompts(self._recall.search(self.text)))
            return
        query = self._offered = self._query()
        if query is None:
            self._dismissed = None
            self._close()
        elif self._dismissed != (self.cursor_location[0], query.column):
            self._offer(self._choices(query))

    def _offer(self, choices: list[Choice]) -> None:
        if choices:
            self.completion.offer(choices)
        else:
            self.completion.close()

    def _query(self) -> Query | None:
        row, column = self.cursor_location
        return suggest.query_at(row, self.document.get_line(row)[:column]) if self.selection.is_empty else None

    def _choices(self, query: Query) -> list[Choice]:
        if query.kind is Kind.COMMAND:
            return suggest.commands(query.text, self._commands)
        where = place(query.text, self._cwd, home(self._cwd))
        if where is None:
            return []
        entries = self._listings.get((where.folder, where.deep))
        if entries is None and self._looking != (where.folder, where.deep):
            self._looking = (where.folder, where.deep)
            self._look(where)
        return suggest.paths(where, entries or [])

    @work(thread=True, exclusive=True, group="files", exit_on_error=False)
    def _look(self, where: Place) -> None:
        worker = get_current_worker()
        entries = listed(where, lambda: worker.is_cancelled)
        if not worker.is_cancelled:
            self.post_message(self.Listed(where, entries))

    def _take(self, choice: Choice) -> None:
        query = self._query()
        if self._searched is not None:
            self._end_search()
            self._show(choice.insert)
        elif query:
            row, column = self.cursor_location
            text = f"{self._blocks.attach(choice.path)} " if choice.path else choice.insert
            self.replace(text, (row, query.column), (row, column), maintain_selection_offset=False)

    def _is_typed_out(self) -> bool:
        """A slash command that is complete, so that the key that takes it sends it."""
        query, chosen = self._query(), self.completion.chosen
        return bool(query and chosen and query.kind is Kind.COMMAND and chosen.insert.strip() == f"/{query.text}")

    def _leave_alone(self) -> None:
        """No list for the word at the cursor, until the cursor has left it."""
        query = self._query()
        self._dismissed = (self.cursor_location[0], query.column) if query else None
        self._close()

    def _end_search(self) -> str:
        draft, self._searched = self._searched or "", None
        self.border_title = None
        return draft

    def _close(self) -> None:
        self.completion.close()
        self._listings.clear()
        self._looking = None

    # The text.

    def _show(self, text: str) -> None:
        """Replace the whole text by one that was sent or stored before; nothing is suggested for it."""
        text = clean(text)
        self.text = self._blocks.fold(text) if len(text) > _MAX_RECALLED else text
        self.move_cursor(self.document.end)
        self._leave_alone()

    def _spans(self, row: int) -> list[tuple[int, int]]:
        return self._blocks.spans(self.document.get_line(row)) if row < self.document.line_count else []

    def _whole(self, start: Location, end: Location) -> tuple[Location, Location]:
        """The range in order, wide enough to hold every label that it touches."""
        top, bottom = sorted((start, end))
        first = widened(self._spans(top[0]), top[1])[0]
        last = widened(self._spans(bottom[0]), bottom[1])[1]
        return (top[0], first), (bottom[0], last)

    def _outside(self, location: Location) -> Location:
        row, column = location
        start, end = widened(self._spans(row), column)
        return (row, end if location > self.selection.end else start)
