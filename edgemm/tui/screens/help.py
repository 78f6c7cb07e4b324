"""What can be done now: the keys of the screen below, with the user's own bindings, and the slash commands.

It reads the bindings that are active, so that a key is never described that does something else.
"""

from collections.abc import Iterable, Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import ActiveBinding, Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.keys import format_key
from textual.screen import ModalScreen, Screen
from textual.widgets import Static

from edgemm.terminal import safe

_WIDTH = 24  # cells of the column of keys
_NAMES = {
    **{name: name.capitalize() for name in ("up", "down", "left", "right", "enter", "backspace")},
    "pageup": "Page up",
    "pagedown": "Page down",
    "escape": "Esc",
    "delete": "Del",
}
# A field passes these on where it has no use for them, so that they are also those of the screen.
_PASSED = ("escape", "ctrl+c")
_ORDER = (*_PASSED, *(f"f{number}" for number in range(1, 25)), "ctrl+", "alt+")  # the other keys come last
Rows = Sequence[tuple[str, str]]


class HelpScreen(ModalScreen[None]):
    """`commands`: (slash command, what it does), in the order in which they are shown."""

    DEFAULT_CSS = """
    HelpScreen {
        align: center middle;
        #frame { width: 94%; max-width: 90; height: 94%; border: round $primary; background: $surface; padding: 0 1; }
        #text { height: 1fr; scrollbar-size-vertical: 1; }
        #keys { height: 1; color: $text-muted; }
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,f1,q", "dismiss", "Close", show=False)]

    def __init__(self, commands: Rows) -> None:
        super().__init__()
        self._commands = commands

    def compose(self) -> ComposeResult:
        with Vertical(id="frame") as frame:
            frame.border_title = "Help"
            with VerticalScroll(id="text"):
                wide, focused = _keys(self.app.screen_stack[-2])
                sections = {"Keys": wide, "Commands": self._commands, "Keys in the focused field": focused}
                for title, rows in sections.items():
                    if rows:
                        yield Static(_section(title, rows))
            yield Static(Content("↑↓ scroll · Esc close"), id="keys")

    def on_mount(self) -> None:
        self.query_one("#text").focus()


def key_rows(bindings: Iterable[Binding]) -> Rows:
    """(keys, what they do), one row for each action that says what it does."""
    keys: dict[str, list[str]] = {}
    for binding in bindings:
        if binding.description:
            keys.setdefault(binding.description[:1].upper() + binding.description[1:], []).append(
                binding.key_display or spoken(binding.key)
            )
    return [(", ".join(dict.fromkeys(names)), what) for what, names in keys.items()]


def spoken(key: str) -> str:
    """The name of a key as it stands on a keyboard: "ctrl+s" is "Ctrl+S", "question_mark" is "?"."""
    *modifiers, last = key.split("+")
    shown = _NAMES.get(last) or format_key(last)
    if modifiers or len(shown) > 1:
        shown = shown[:1].upper() + shown[1:].replace("_", " ")
    return "+".join([*(each.capitalize() for each in modifiers), shown])


def _keys(screen: Screen[object]) -> tuple[Rows, Rows]:
    """The keys of the application and its screen, and those of what has the focus in it."""
    active = list(screen.active_bindings.values())
    wide = [each.binding for each in active if _is_wide(each, screen)]
    actions = {binding.action for binding in wide}
    own = [each for each in screen.BINDINGS if isinstance(each, Binding) and each.key in _PASSED]
    wide += [binding for binding in own if binding.action not in actions]
    focused = key_rows(each.binding for each in active if not _is_wide(each, screen))
    return key_rows(sorted(wide, key=_rank)), focused


def _rank(binding: Binding) -> int:
    """The place of a key in `_ORDER`; one that ends with "+" stands for all that begin with it."""
    key = binding.key
    places = (place for place, name in enumerate(_ORDER) if key == name or (name[-1] == "+" and key.startswith(name)))
    return next(places, len(_ORDER))


def _is_wide(active: ActiveBinding, screen: Screen[object]) -> bool:
    return active.node is screen or active.node is screen.app


def _section(title: str, rows: Rows) -> Content:
    parts = [Content.styled(title, "bold underline")]
    for left, right in rows:
        parts.append(Content(f"\n  {safe(left):<{_WIDTH}}") + Content.styled(f" {safe(right)}", "dim"))
    return Content("").join([*parts, Content("\n")])
