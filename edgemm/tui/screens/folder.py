"""Which folder is to be indexed: a path is typed, and the folders that fit stand below it. It opens no file."""

from pathlib import Path
from typing import Any, ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.message import Message
from textual.screen import ModalScreen, Screen
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option
from textual.worker import get_current_worker

from edgemm import commands
from edgemm.errors import UsageError
from edgemm.terminal import safe
from edgemm.tui.files import Found, home, listed, place
from edgemm.tui.fuzzy import rank
from edgemm.tui.widgets.fields import LineField

_SHOWN = 50
_KEYS = "Tab takes the chosen one · Enter index it · Esc cancel"


class FolderScreen(ModalScreen[Path | None]):
    """Ends with the path as it was typed, ~ resolved; whether it is a folder is for the asker to find out."""

    DEFAULT_CSS = """
    FolderScreen {
        align: center middle;
        Vertical { width: 76; max-width: 95%; height: 18; max-height: 95%; padding: 0 1; }
        Vertical { border: round $primary; background: $surface; }
        OptionList { height: 1fr; border: none; padding: 0; background: $surface; scrollbar-size-vertical: 1; }
        #state { height: auto; max-height: 3; color: $text-warning; }
        #keys { height: 1; color: $text-muted; }
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss(None)", "Cancel"),
        Binding("tab", "take", "Take the chosen folder", priority=True),
        Binding("up", "move('cursor_up')", "Up", show=False),
        Binding("down", "move('cursor_down')", "Down", show=False),
    ]

    class Listed(Message):
        """The folders that fit `typed`."""

        def __init__(self, typed: str, prefix: str, found: list[Found]) -> None:
            super().__init__()
            self.typed, self.prefix, self.found = typed, prefix, found

    def __init__(self) -> None:
        super().__init__()
        self._choices: list[str] = []
        self._paths: dict[str, str] = {}  # text of the field -> path, where its name cannot be typed

    def compose(self) -> ComposeResult:
        with Vertical() as frame:
            frame.border_title = "Add a folder to the index"
            yield LineField("~/", placeholder="~/Documents", select_on_focus=False)
            yield OptionList(markup=False)
            yield Static(id="state", markup=False)
            yield Static(Content(_KEYS), id="keys")

    def on_mount(self) -> None:
        self.query_one(OptionList).can_focus = False
        self.query_one(Input).focus()
        self._look("~/")

    @on(Input.Changed)
    def _typed(self, event: Input.Changed) -> None:
        self._look(event.value)

    @on(Input.Submitted)
    def _entered(self, event: Input.Submitted) -> None:
        text = event.value.strip()
        try:
            if text:
                self.dismiss(Path(self._paths.get(text) or commands.file(text)))
        except UsageError as error:
            self.query_one("#state", Static).update(Content(safe(str(error))))

    @on(OptionList.OptionSelected)
    def action_take(self) -> None:
        at = self.query_one(OptionList).highlighted
        if at is not None and at < len(self._choices):
            field = self.query_one(Input)
            field.value = self._choices[at]
            field.cursor_position = len(field.value)

    def action_move(self, how: str) -> None:
        getattr(self.query_one(OptionList), f"action_{how}")()

    @work(thread=True, exclusive=True, group="folders", exit_on_error=False)
    def _look(self, text: str) -> None:
        worker = get_current_worker()
        where = place(text, Path.cwd(), home(Path.cwd()))
        found = listed(where, lambda: worker.is_cancelled) if where else []
        folders = [each for each in found if each.is_folder and (not each.late or "." in text)]
        fitting = rank(where.rest, folders, lambda each: each.shown, _SHOWN) if where else []
        if not worker.is_cancelled:
            self.post_message(self.Listed(text, where.typed if where else "", fitting))

    @on(Listed)
    def _offer(self, message: Listed) -> None:
        if not is_open(self) or message.typed != self.query_one(Input).value:
            return
        self._choices = [message.prefix + each.shown for each in message.found]
        self._paths |= {message.prefix + each.shown: each.path for each in message.found}
        options = self.query_one(OptionList)
        options.set_options([Option(Content(choice)) for choice in self._choices])
        options.highlighted = 0 if self._choices else None


def is_open(screen: Screen[Any]) -> bool:
    """Whether it can still be drawn on: what a thread has found may come when the screen, or the app, is ending."""
    return screen.app.is_running and screen in screen.app.screen_stack
