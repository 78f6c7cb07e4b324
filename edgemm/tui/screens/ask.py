"""Two small questions over a screen: yes or no, and one line of text. What the answer means is for the asker."""

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from edgemm.terminal import safe
from edgemm.tui.widgets.fields import LineField

_FRAME = """
    {name} {{
        align: center middle;
        Vertical {{ width: 64; max-width: 90%; height: auto; max-height: 80%; padding: 1 2; }}
        Vertical {{ border: round {colour}; background: $surface; }}
        #question {{ height: auto; }}
        #keys {{ color: $text-muted; margin-top: 1; }}
    }}
"""


class Confirm(ModalScreen[bool]):
    """Ends with True for `y`, False for `n` and Escape. Enter is no answer: a question may come up while one types."""

    DEFAULT_CSS = _FRAME.format(name="Confirm", colour="$warning")
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "dismiss(True)", "Yes"),
        Binding("n,escape", "dismiss(False)", "No"),
    ]

    def __init__(self, question: str) -> None:
        super().__init__()
        self._question = question

    def compose(self) -> ComposeResult:
        with Vertical():
            yield Static(Content(safe(self._question)), id="question")
            yield Static(Content("y yes · n no"), id="keys")


class AskLine(ModalScreen[str | None]):
    """Ends with one line of text, stripped and not empty, or with None."""

    DEFAULT_CSS = _FRAME.format(name="AskLine", colour="$primary")
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "dismiss(None)", "Cancel")]

    def __init__(self, question: str, text: str = "") -> None:
        super().__init__()
        self._question, self._text = question, text

    def compose(self) -> ComposeResult:
        with Vertical():
            yield Static(Content(safe(self._question)), id="question")
            yield LineField(self._text)
            yield Static(Content("Enter accept · Esc cancel"), id="keys")

    def on_input_submitted(self, event: Input.Submitted) -> None:
        self.dismiss(event.value.strip() or None)
