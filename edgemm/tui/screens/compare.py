"""Two models answer one prompt, greedily, one after the other; the screen shows where they part and what each costs.

Models are opened by the function that it is given and closed when they have answered. It keeps nothing.
"""

import threading
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.events import Resize
from textual.message import Message as ScreenMessage
from textual.screen import ModalScreen
from textual.widgets import Input, Select, Static

from edgemm.backends import Generator, Sampling
from edgemm.errors import EdgemmError
from edgemm.events import Progress, Token
from edgemm.prompt import Message
from edgemm.terminal import describe, human_bytes, safe
from edgemm.tui import comparison
from edgemm.tui.comparison import Answered, Opened, Opener
from edgemm.tui.shading import shown
from edgemm.tui.widgets.fields import LineField

_FLUSH_SECONDS = 0.15  # the model and the screen share the cores
_NARROW = 72  # below so many columns the answers stand one above the other
_SIDES = ("left", "right")
_KEYS = "Enter compare · Tab next field · Esc stop, then close"


class CompareScreen(ModalScreen[None]):
    """`models`: at least one name for `opener`, which is called from a thread; close a model of your own before.

    `system` and `sampling` are those of the chat; temperature and seed are set to 0.
    """

    DEFAULT_CSS = """
    CompareScreen {
        align: center middle;
        #frame { width: 100%; height: 100%; border: round $primary; background: $surface; padding: 0 1; }
        #names { height: 3; }
        #names Select { width: 1fr; }
        #answers { height: 1fr; }
        #answers.narrow { layout: vertical; }
        .answer { width: 1fr; height: 1fr; border: round $foreground 40%; padding: 0 1; scrollbar-size-vertical: 1; }
        .answer { border-title-color: $foreground; }
        .state { color: $text-muted; margin-bottom: 1; }
        #verdict { height: auto; max-height: 3; }
        #keys { height: 1; color: $text-muted; }
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "back", "Stop, then close")]

    @dataclass
    class Shown(ScreenMessage):
        """What is known of one side; `text` None: the text so far stays."""

        side: int
        text: str | None
        state: str
        answered: Answered | None = None

    class Ended(ScreenMessage):
        """Both models are closed."""

    def __init__(
        self,
        models: Sequence[str],
        opener: Opener,
        *,
        left: str = "",
        right: str = "",
        prompt: str = "",
        system: str = "",
        sampling: Sampling | None = None,
    ) -> None:
        super().__init__()
        self._models, self._opener = list(models), opener
        self._first = [name if name in self._models else self._models[i] for name, i in ((left, 0), (right, -1))]
        self._prompt, self._system = prompt, system
        self._sampling = comparison.greedy(sampling or Sampling())
        self._busy = False  # until the thread has closed its model: a cancelled worker counts as finished too soon
        self._stopped = threading.Event()
        self._generator: Generator | None = None
        self._answers: dict[int, Answered] = {}

    def compose(self) -> ComposeResult:
        options = [(Content(safe(name)), name) for name in self._models]
        with Vertical(id="frame") as frame:
            frame.border_title = "Compare two models"
            with Horizontal(id="names"):
                for side, name in zip(_SIDES, self._first, strict=True):
                    yield Select(options, value=name, allow_blank=False, id=f"name-{side}")
            yield LineField(self._prompt, placeholder="the prompt for both", id="prompt")
            with Horizontal(id="answers"):
                for side in _SIDES:
                    with VerticalScroll(classes="answer", id=side):
                        yield Static(id=f"state-{side}", classes="state")
                        yield Static(id=f"text-{side}")
            yield Static(id="verdict")
            yield Static(Content(_KEYS), id="keys")

    def on_mount(self) -> None:
        self.query_one("#prompt").focus()

    def on_resize(self, event: Resize) -> None:
        self.query_one("#answers").set_class(event.size.width < _NARROW, "narrow")

    def on_unmount(self) -> None:
        self._stop()

    @on(Input.Submitted)
    def compare(self) -> None:
        """Ask both models, unless there is nothing to ask or they are answering."""
        text = self.query_one(Input).value.strip()
        if not text or self._busy:
            return
        self._busy, self._answers = True, {}
        self._stopped.clear()
        self._verdict("")
        for side, name in enumerate(self._names()):
            self.query_one(f"#{_SIDES[side]}").border_title = Content(safe(name))
            self.post_message(self.Shown(side, "", "waits"))
        system: list[Message] = [{"role": "system", "content": self._system}] if self._system else []
        self._ask_both(self._names(), [*system, {"role": "user", "content": text}])

    def action_back(self) -> None:
        """The first time it stops what runs, and closes the screen when nothing does."""
        if self._busy:
            self._stop()
        else:
            self.dismiss(None)

    @work(thread=True, group="compare")
    def _ask_both(self, names: Sequence[str], messages: Sequence[Message]) -> None:
        for side, name in enumerate(names):
            if self._stopped.is_set():
                break
            try:
                self._ask(side, name, messages)
            except EdgemmError as error:
                self.post_message(self.Shown(side, None, str(error)))
            finally:
                self._generator = None
        self.post_message(self.Ended())

    def _ask(self, side: int, name: str, messages: Sequence[Message]) -> None:
        """One model, in the thread. A stopped run ends with what has arrived."""
        text, flushed = "", 0.0
        self.post_message(self.Shown(side, "", "loads"))
        with closing(comparison.answer(self._opener, name, messages, self._sampling)) as events:
            for event in events:
                state = describe(event) if isinstance(event, Progress) else "answers"
                match event:
                    case Opened(generator):
                        self._generator = generator
                    case Token():
                        text += event.text
                    case Answered():
                        self.post_message(self.Shown(side, text, _figures(event), event))
                        return
                if self._stopped.is_set() and self._generator:
                    self._generator.cancel()
                if time.monotonic() - flushed > _FLUSH_SECONDS:
                    flushed = time.monotonic()
                    self.post_message(self.Shown(side, text, state))

    @on(Ended)
    def _end(self) -> None:
        self._busy = False

    @on(Shown)
    def _show(self, event: Shown) -> None:
        side = _SIDES[event.side]
        if event.text is not None:
            self.query_one(f"#text-{side}", Static).update(Content(safe(event.text)))
        self.query_one(f"#state-{side}", Static).update(Content(safe(event.state)))
        if event.answered:
            self._answers[event.side] = event.answered
        if len(self._answers) == len(_SIDES):
            self._show_divergence()

    def _show_divergence(self) -> None:
        left, right = (self._answers[side].tokens for side in range(len(_SIDES)))
        found = comparison.divergence(left, right)
        if found is None:
            self._verdict(f"the same answer, {_counted(len(left))}")
            return
        for side, tokens, index in zip(_SIDES, (left, right), (found.left, found.right), strict=True):
            self.query_one(f"#text-{side}", Static).update(_marked("".join(tokens), found.characters, tokens, index))
        ours, theirs = _token(left, found.left), _token(right, found.right)
        self._verdict(f"the same for {_counted(found.left)}, then {ours} against {theirs}")

    def _verdict(self, text: str) -> None:
        self.query_one("#verdict", Static).update(Content(text))

    def _names(self) -> list[str]:
        return [str(self.query_one(f"#name-{side}", Select).value) for side in _SIDES]

    def _stop(self) -> None:
        self._stopped.set()
        if self._generator:
            self._generator.cancel()


def _figures(answered: Answered) -> str:
    """Such as "42 tokens, 31.5/s, prompt 0.42 s, 210.0 MB"."""
    done = answered.done
    memory = f", {human_bytes(answered.memory)} RAM" if answered.memory else ""
    figures = f"{_counted(done.generated_tokens)}, {done.tokens_per_second:.1f}/s, prompt {done.prefill_seconds:.2f} s"
    return f"{figures}{memory}" + (", stopped" if done.reason == "cancelled" else "")


def _counted(tokens: int) -> str:
    return f"{tokens} token" if tokens == 1 else f"{tokens} tokens"


def _token(tokens: Sequence[str], index: int) -> str:
    return f"“{shown(tokens[index])}”" if index < len(tokens) else "the end"


def _marked(text: str, same: int, tokens: Sequence[str], index: int) -> Content:
    """An answer with what both say dimmed, and the token that differs marked."""
    start = sum(map(len, tokens[:index]))
    end = start + sum(map(len, tokens[index : index + 1]))
    return Content(safe(text)).stylize("dim", 0, min(same, start)).stylize("bold reverse", start, end)
