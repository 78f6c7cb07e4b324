"""How sure the model was of each token of an answer, what else it could have said, and from where to go on.

It shows what was stored with the answer. Going on from another token is the caller's affair: the screen ends with
the place and the token, or with None.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from edgemm.tui import shading
from edgemm.tui.shading import Alternative, Sampled
from edgemm.tui.widgets.token_view import TokenView

_BAR = 24  # cells of a bar that means certainty
_KEYS = "arrows move · n/p unsure token · Enter go on from here · Esc close"


class TokenScreen(ModalScreen[tuple[int, int] | None]):
    """Takes tokens as stored, (id, text, logprob, [(text, logprob, id), ...]). Raises `BadFile` for damaged ones.

    Ends with (index of a token, id of the token to put in its place).
    """

    DEFAULT_CSS = """
    TokenScreen {
        align: center middle;
        #frame { width: 94%; height: 94%; border: round $primary; background: $surface; padding: 0 1; }
        #legend { height: 1; color: $text-muted; }
        #view { height: 1fr; margin: 1 0; }
        #place { height: 1; text-style: bold; }
        #choices { height: 7; border: none; padding: 0; background: $surface; }
        #keys { height: 1; color: $text-muted; }
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "back", "Close"),
        Binding("enter", "choose", "Alternatives", show=False),
    ]

    def __init__(self, rows: Sequence[Any]) -> None:
        super().__init__()
        self._tokens = shading.read(rows)
        self._choices: list[Alternative] = []

    def compose(self) -> ComposeResult:
        with Vertical(id="frame"):
            yield Static(id="legend")
            yield TokenView(self._tokens, id="view")
            yield Static(id="place")
            yield OptionList(id="choices")
            yield Static(Content(_KEYS), id="keys")

    def on_mount(self) -> None:
        view = self.query_one(TokenView)
        view.focus()
        wavered = shading.perplexity(self._tokens)
        figure = f"perplexity {wavered:.2f}" if wavered is not None else "none were kept with this answer"
        self.query_one("#frame").border_title = f"Probabilities · {figure}"
        self.query_one("#legend", Static).update(view.legend())
        if self._tokens:
            self._show(0)
        else:
            self.query_one("#place", Static).update(Content("this answer has no tokens"))

    @on(TokenView.Moved)
    def _moved(self, event: TokenView.Moved) -> None:
        if self._tokens:
            self._show(event.index)

    @on(OptionList.OptionSelected)
    def _continue(self, event: OptionList.OptionSelected) -> None:
        self.dismiss((self.query_one(TokenView).cursor, self._choices[event.option_index].id))

    def action_choose(self) -> None:
        """From the text to its alternatives."""
        if self._choices:
            self.query_one(OptionList).focus()

    def action_back(self) -> None:
        """From the alternatives to the text, and from there out."""
        if self.focused is self.query_one(OptionList):
            self.query_one(TokenView).focus()
        else:
            self.dismiss(None)

    def _show(self, index: int) -> None:
        token = self._tokens[index]
        self._choices = shading.choices(token)
        self.query_one("#place", Static).update(Content(_place(index, len(self._tokens), token, self._choices)))
        options = self.query_one(OptionList)
        options.clear_options()
        options.add_options([Option(Content(_row(each, token))) for each in self._choices])
        options.highlighted = next((i for i, each in enumerate(self._choices) if each.id == token.id), None)


def _place(index: int, count: int, token: Sampled, choices: Sequence[Alternative]) -> str:
    """One line about a token, such as "token 3 of 40: “ sea”  12.0 %, others 4.1 %"."""
    head = f"token {index + 1} of {count}: “{shading.shown(token.text)}”"
    if token.probability is None:
        return f"{head}  probability not known"
    rest = max(0.0, 1 - sum(each.probability for each in choices))
    return f"{head}  {token.probability:.1%}" + (f", all others {rest:.1%}" if choices else "")


def _row(each: Alternative, token: Sampled) -> str:
    mark = "●" if each.id == token.id else " "
    bar = "━" * round(_BAR * each.probability)
    return f"{mark} {each.probability:6.1%}  {bar:<{_BAR}}  “{shading.shown(each.text)}”"
