"""What the chat screen is made of: title, transcript, a notice, the editor, a status line. It knows no chat."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.events import Resize
from textual.geometry import Offset
from textual.screen import Screen
from textual.widget import Widget
from textual.widgets import Static

from edgemm.errors import EdgemmError
from edgemm.terminal import safe
from edgemm.tui.widgets.prompt import Prompt
from edgemm.tui.widgets.transcript import Transcript

_KEYS = "F1 help  F2 chats  F3 models  F4 settings  F5 again  F6 go on  Ctrl+P all"
_WELCOME = "Enter sends · / shows commands · @ attaches a file · F1 helps"
_LOW = 12  # rows; on a lower terminal only the transcript and the editor are left


class Frame(Screen[None]):
    """The parts and what is written on them; every text is made safe here."""

    DEFAULT_CSS = """
    Frame {
        &:inline { height: 20; max-height: 90vh; }
        #title { height: 1; background: $panel; padding: 0 1; text-overflow: ellipsis; text-wrap: nowrap; }
        #notice { height: auto; max-height: 3; padding: 0 1; color: $text-warning; display: none; }
        #notice.-shown { display: block; }
        #editor { height: auto; }
        #status { height: 1; padding: 0 1; color: $text-muted; text-overflow: ellipsis; text-wrap: nowrap; }
        #keys { height: 1; padding: 0 1; color: $text-muted; text-overflow: ellipsis; text-wrap: nowrap; }
        &.-low #title, &.-low #keys, &.-low #status { display: none; }
        &.-low Prompt { border: none; padding: 0; }
    }
    """

    def compose(self) -> ComposeResult:
        yield Static(id="title", markup=False)
        transcript = Transcript(id="transcript")
        transcript.can_focus = False  # or a click would take the keys from the editor
        yield transcript
        yield Static(id="notice", markup=False)
        with Vertical(id="editor"):
            yield Prompt(placeholder=_WELCOME)
        yield Static(id="status", markup=False)
        yield Static(Content(_KEYS), id="keys")

    @property
    def transcript(self) -> Transcript:
        return self.query_one(Transcript)

    @property
    def prompt(self) -> Prompt:
        return self.query_one(Prompt)

    def tell(self, text: str) -> None:
        """One notice above the editor; empty: none."""
        notice = self.query_one("#notice", Static)
        notice.update(Content(safe(text)))
        notice.set_class(bool(text), "-shown")

    def status(self, *parts: str) -> None:
        text = "  ·  ".join(part for part in parts if part)
        self.query_one("#status", Static).update(Content(safe(text)), layout=False)

    def entitle(self, text: str) -> None:
        self.query_one("#title", Static).update(Content(safe(text.replace("\n", " "))), layout=False)

    def get_widget_and_offset_at(self, x: int, y: int) -> tuple[Widget | None, Offset | None]:
        """As in Textual 8.2, which fails where a message was clicked that has just been taken away."""
        widget, offset = super().get_widget_and_offset_at(x, y)
        return (widget, offset) if widget is not None and widget.is_attached else (None, None)

    def on_resize(self, event: Resize) -> None:
        self.set_class(event.size.height < _LOW, "-low")


def told(handler: Callable[..., None]) -> Callable[..., None]:
    """A handler of a screen, with what stands in its way told there: a full disk must not end the screen.

    It does nothing once the screen has ended: the last events of a thread come that late.
    """

    @wraps(handler)
    def run(screen: Frame, *arguments: Any) -> None:
        if not screen.is_attached:
            return
        try:
            handler(screen, *arguments)
        except EdgemmError as error:
            screen.tell(str(error))

    return run
