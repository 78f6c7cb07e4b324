"""The list of completions above the prompt: at most eight rows over whatever lies there, one of them chosen.

It draws what it is given and says which row was clicked; it never has the focus, and knows no file and no command.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from textual import events
from textual.content import Content
from textual.message import Message
from textual.message_pump import MessagePump
from textual.widget import Widget

from edgemm.tui.suggest import Choice

ROWS = 8
_HELP_GAP = 2
_NOTHING = "nothing found"


class Completion(Widget):
    """Shown by `offer`, hidden by `close`. `serves` is the widget that gets `Clicked`; it is no ancestor."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"completion--chosen", "completion--help"}
    DEFAULT_CSS = """
    Completion {
        display: none;
        overlay: screen;
        constrain: none inside;
        height: auto;
        width: 1fr;
        padding: 0 1;
        background: $panel;
        color: $foreground;
        &.-open { display: block; }
        & .completion--chosen {
            background: $block-cursor-background;
            color: $block-cursor-foreground;
            text-style: bold;
        }
        & .completion--help { color: $text-muted; }
        &:ansi {
            & .completion--chosen { text-style: bold reverse; }
            & .completion--help { text-style: dim; }
        }
    }
    """

    @dataclass
    class Clicked(Message):
        """The user clicked the row of `choice`."""

        choice: Choice

    def __init__(self, serves: MessagePump) -> None:
        super().__init__()
        self._serves = serves
        self._choices: tuple[Choice, ...] = ()
        self._chosen = 0
        self._first = 0

    @property
    def is_open(self) -> bool:
        return self.has_class("-open")

    @property
    def chosen(self) -> Choice | None:
        """The highlighted choice; None: there is none to take."""
        return self._choices[self._chosen] if self._choices else None

    def offer(self, choices: Sequence[Choice]) -> None:
        """Show `choices`, the first one chosen; none at all shows that nothing was found."""
        self._choices, self._chosen, self._first = tuple(choices), 0, 0
        self.add_class("-open")
        self.styles.offset = (0, -self._rows())
        self.refresh(layout=True)

    def close(self) -> None:
        self._choices = ()
        self.remove_class("-open")

    def move(self, rows: int) -> None:
        """Choose another row; the list is a ring."""
        if self._choices:
            self._chosen = (self._chosen + rows) % len(self._choices)
            self._first = min(max(self._first, self._chosen - ROWS + 1), self._chosen)
            self.refresh()

    def get_content_height(self, container: object, viewport: object, width: int) -> int:
        return self._rows()

    def render(self) -> Content:
        if not self._choices:
            return Content(_NOTHING)
        visible = self._choices[self._first : self._first + ROWS]
        longest = max(Content(choice.shown).cell_length for choice in visible)
        names = min(longest + _HELP_GAP, self.size.width)
        return Content("\n").join(self._row(self._first + i, choice, names) for i, choice in enumerate(visible))

    def on_click(self, event: events.Click) -> None:
        event.stop()
        index = self._first + event.y
        if index < len(self._choices):
            self._serves.post_message(self.Clicked(self._choices[index]))

    def _rows(self) -> int:
        return min(ROWS, max(1, len(self._choices)))

    def _row(self, index: int, choice: Choice, names: int) -> Content:
        name = Content(choice.shown).truncate(names, ellipsis=True, pad=True)
        text = Content.styled(choice.help, self.get_visual_style("completion--help", partial=True))
        row = (name + text).truncate(self.size.width, ellipsis=True, pad=True)
        return row.stylize(self.get_visual_style("completion--chosen")) if index == self._chosen else row
