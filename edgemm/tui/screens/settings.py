"""The settings of one chat as a form: every field is checked while it is typed, and nothing is taken until all fit.

What a valid value is says `ChatSettings`; the screen ends with one, or with None.
"""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Grid, Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Input, Select, Static, TextArea

from edgemm.backends import Sampling
from edgemm.chat_settings import LIMITS, ChatSettings, Policy, parse
from edgemm.errors import UsageError
from edgemm.personas import Persona, Personas
from edgemm.terminal import safe
from edgemm.tui.screens.ask import Confirm
from edgemm.tui.widgets.fields import LineField, TextField, clean

_KEYS = "Ctrl+S save · Tab next field · Esc cancel"
_POLICIES = {
    Policy.REFUSE: "refuse the message and say why",
    Policy.DROP: "leave out the oldest messages",
    Policy.SUMMARISE: "summarise the oldest messages",
}


@dataclass(frozen=True, slots=True)
class _Number:
    """A field of the form for a number of `ChatSettings`."""

    name: str
    label: str


_NUMBERS = (
    _Number("max_tokens", "Longest answer, tokens"),
    _Number("temperature", "Temperature"),
    _Number("top_k", "Top-k, 0 is all"),
    _Number("top_p", "Top-p"),
    _Number("min_p", "Min-p"),
    _Number("repetition_penalty", "Repetition penalty"),
    _Number("seed", "Seed, empty is new"),
)


@dataclass(frozen=True, slots=True)
class _Switch:
    """A number that the form turns off, to 0, and on: to what it was, or else to `on`. `does` says it with {}."""

    name: str
    label: str
    does: str
    on: int


_SWITCHES = (
    _Switch("top_logprobs", "Probabilities", "keep those of the {} likeliest tokens", int(LIMITS["top_logprobs"].high)),
    _Switch("draft", "Speculative decoding", "guess up to {} tokens ahead", Sampling().draft),
)


class SettingsScreen(ModalScreen[ChatSettings | None]):
    """A form that begins with `settings`; `personas` fill in the system prompt."""

    DEFAULT_CSS = """
    SettingsScreen {
        align: center middle;
        #frame { width: 94%; max-width: 100; height: 94%; max-height: 36; padding: 0 1; }
        #frame { border: round $primary; background: $surface; }
        #form { height: 1fr; scrollbar-size-vertical: 1; padding-right: 1; }
        .label { height: 1; color: $text-muted; }
        .gap { margin-top: 1; }
        #system { height: 5; }
        #schema { height: 3; }
        TextArea { border: none; padding: 0 1; background: $foreground 8%; }
        TextArea:focus { border: none; background: $foreground 14%; }
        #numbers { grid-size: 2; grid-gutter: 0 2; grid-rows: 1; height: auto; }
        .pair { height: 1; }
        .pair .label { width: 25; }
        .pair Input, .pair Select { width: 1fr; }
        .pair Input { background: $foreground 8%; padding: 0 1; }
        .pair Input:focus { background: $foreground 14%; }
        SelectCurrent { background: $foreground 8%; padding: 0 1; }
        Select:focus SelectCurrent { background: $foreground 14%; }
        .pair Input.bad { background: $error 40%; }
        #state { height: auto; max-height: 3; color: $text-error; }
        #keys { height: 1; color: $text-muted; }
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+s", "save", "Save", priority=True),
        Binding("escape", "back", "Cancel"),
    ]

    def __init__(self, settings: ChatSettings, personas: Personas) -> None:
        super().__init__()
        self._settings, self._personas = settings, personas

    def compose(self) -> ComposeResult:
        with Vertical(id="frame") as frame:
            frame.border_title = "Settings of this chat"
            with VerticalScroll(id="form", can_focus=False):
                yield from self._prompt_fields()
                with Grid(id="numbers", classes="gap"):
                    for number in _NUMBERS:
                        with Horizontal(classes="pair"):
                            yield Static(Content(number.label), classes="label")
                            yield LineField(_typed(getattr(self._settings, number.name)), id=number.name, compact=True)
                yield from self._other_fields()
            yield Static(id="state")
            yield Static(Content(_KEYS), id="keys")

    def on_mount(self) -> None:
        self.query_one("#system").focus()
        self._tell("")

    @on(Select.Changed, "#persona")
    def _fill(self, event: Select.Changed) -> None:
        """Put a persona's prompt in the place of what stands there; Ctrl+Z in the field brings it back."""
        if not isinstance(event.value, Persona):
            return
        area = self.query_one("#system", TextArea)
        area.replace(event.value.system, (0, 0), area.document.end)
        if event.value.temperature is not None:
            self.query_one("#temperature", Input).value = _typed(event.value.temperature)

    @on(Input.Changed)
    def _check(self, event: Input.Changed) -> None:
        self._tell(self._fault(event.input))

    @on(Input.Submitted)
    def action_save(self) -> None:
        """End with the settings, or go to the first field that does not fit."""
        for number in _NUMBERS:
            field = self.query_one(f"#{number.name}", Input)
            if fault := self._fault(field):
                field.focus()
                self._tell(fault)
                return
        try:
            self.dismiss(self._read())
        except UsageError as error:
            self.query_one("#schema").focus()
            self._tell(str(error))

    @work
    async def action_back(self) -> None:
        if not self._is_changed() or await self.app.push_screen_wait(Confirm("Leave without saving the changes?")):
            self.dismiss(None)

    def _prompt_fields(self) -> ComposeResult:
        options = [(Content(_about(row)), row) for row in self._personas.rows]
        with Horizontal(classes="pair"):
            yield Static(Content("Persona"), classes="label")
            yield Select(options, prompt="fill in a system prompt", id="persona", compact=True)
        yield Static(Content("System prompt"), classes="label gap")
        yield TextField(self._settings.system, id="system")

    def _other_fields(self) -> ComposeResult:
        with Horizontal(classes="pair gap"):
            yield Static(Content("When the context is full"), classes="label")
            options = [(Content(text), policy) for policy, text in _POLICIES.items()]
            yield Select(options, value=self._settings.policy, allow_blank=False, id="policy", compact=True)
        for switch in _SWITCHES:
            value = getattr(self._settings, switch.name)
            choices = [(Content("off"), 0), (Content(switch.does.format(value or switch.on)), value or switch.on)]
            with Horizontal(classes="pair"):
                yield Static(Content(switch.label), classes="label")
                yield Select(choices, value=value, allow_blank=False, id=switch.name, compact=True)
        yield Static(Content("Answers follow this JSON schema, empty is any text"), classes="label gap")
        yield TextField(self._settings.schema, id="schema")

    def _read(self) -> ChatSettings:
        """What the form says. Raises `UsageError`."""
        numbers = {n.name: parse(n.name, self.query_one(f"#{n.name}", Input).value) for n in _NUMBERS}
        texts = {name: self.query_one(f"#{name}", TextArea).text for name in ("system", "schema")}
        chosen = {name: self.query_one(f"#{name}", Select).value for name in ("policy", *(s.name for s in _SWITCHES))}
        changed: dict[str, Any] = {**numbers, **texts, **chosen}
        return replace(self._settings, **changed)

    def _is_changed(self) -> bool:
        shown = replace(self._settings, system=clean(self._settings.system), schema=clean(self._settings.schema))
        try:
            return self._read() != shown
        except UsageError:
            return True

    def _fault(self, field: Input) -> str:
        """Why the number in `field` does not fit; empty: it does. The field is marked."""
        try:
            parse(field.id or "", field.value)
            fault = ""
        except UsageError as error:
            fault = str(error)
        field.set_class(bool(fault), "bad")
        return fault

    def _tell(self, fault: str) -> None:
        """Show a fault of the form; without one, what is wrong with the user's personas."""
        problems = self._personas.problems
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        notice = f"{problems[0]}{more}" if problems else ""
        self.query_one("#state", Static).update(Content(safe(fault or notice)))


def _typed(number: float | None) -> str:
    return "" if number is None else str(number)


def _about(persona: Persona) -> str:
    return safe(f"{persona.name}: {persona.about}" if persona.about else persona.name).replace("\n", " ")
