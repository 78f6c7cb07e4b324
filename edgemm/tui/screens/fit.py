"""A question that no longer fits beside the conversation: what would have to go, and how the user wants it."""

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from edgemm.chat_settings import Policy
from edgemm.context import Plan
from edgemm.terminal import safe

_SHOWN = 6  # of the messages that would go
_WIDTH = 68


class FitScreen(ModalScreen[Policy | None]):
    """Ends with what to do this time; None: the question is not sent."""

    DEFAULT_CSS = """
    FitScreen {
        align: center middle;
        Vertical { width: 76; max-width: 95%; height: auto; max-height: 95%; padding: 1 2; }
        Vertical { border: round $warning; background: $surface; }
        #what { height: auto; max-height: 10; }
        OptionList { height: auto; border: none; padding: 0; margin-top: 1; background: $surface; }
        OptionList:focus { border: none; }
        #keys { color: $text-muted; margin-top: 1; }
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "dismiss", "Do not send", show=False)]

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self._plan = plan

    def compose(self) -> ComposeResult:
        with Vertical() as frame:
            frame.border_title = "The context is full"
            yield Static(self._what(), id="what")
            yield OptionList(
                Option("Leave them out from here on", id=Policy.DROP),
                Option("Replace them by a summary, which the model writes first", id=Policy.SUMMARISE),
                Option("Do not send: back to the editor", id=Policy.REFUSE),
            )
            yield Static(Content("Enter choose · Esc do not send · F4 decides for the whole chat"), id="keys")

    def on_mount(self) -> None:
        options = self.query_one(OptionList)
        options.highlighted = {Policy.DROP: 0, Policy.SUMMARISE: 1}.get(self._plan.policy, 0)
        options.focus()

    @on(OptionList.OptionSelected)
    def _chosen(self, message: OptionList.OptionSelected) -> None:
        policy = Policy(str(message.option.id))
        self.dismiss(None if policy is Policy.REFUSE else policy)

    def _what(self) -> Content:
        dropped = self._plan.dropped
        lines = [f"{self._plan.room:,} tokens fit beside an answer. These {len(dropped)} messages would have to go:"]
        for turn in dropped[:_SHOWN]:
            text = f"{'You' if turn.role == 'user' else 'Model'}: {' '.join(turn.text.split())}"
            lines.append(f"  {text if len(text) <= _WIDTH else text[: _WIDTH - 1] + '…'}")
        if len(dropped) > _SHOWN:
            lines.append(f"  and {len(dropped) - _SHOWN} more")
        return Content(safe("\n".join(lines)))
