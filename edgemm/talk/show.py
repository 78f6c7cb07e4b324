"""What a chat tells while it works: the answer on stdout as it grows, quiet lines on stderr, figures at the end.

Everything that comes from a model, a chat or a file is made safe here. It decides nothing and asks nothing.
"""

import sys
import time
from collections.abc import Callable, Iterable

from edgemm import terminal
from edgemm.answer import Ended, Grown
from edgemm.events import Progress
from edgemm.sessions import Turn
from edgemm.talk import typed

_READING_SECONDS = 3.0  # between two lines about a prompt that is read
_THINKING_SECONDS = 10.0  # between two lines about a model that thinks
_ENDS = {"stop": "", "length": ", cut here: /continue goes on", "cancelled": ", stopped: /continue goes on"}
Clock = Callable[[], float]


class Answer:
    """An answer that grows on stdout, behind the text `before` of it that was shown already."""

    def __init__(self, before: str = "", clock: Clock = time.monotonic) -> None:
        self._shown, self._clock = before, clock
        self._is_open = False  # its last line is not ended
        self._thinking: float | None = None  # when that was last told

    def grow(self, event: Grown) -> None:
        if not event.text.startswith(self._shown):
            if self._shown.strip():
                self.end()
                terminal.note("(that was the model thinking; its answer follows)")
            self._shown = ""
        new, self._shown = event.text[len(self._shown) :], event.text
        if not self._is_open:
            new = new.lstrip("\n")  # they stand between the thoughts and the answer
        if new:
            self._write(new)
        elif event.reasoning:
            self._think(event.reasoning)

    def end(self) -> None:
        """End the line, if one was begun."""
        if self._is_open:
            sys.stdout.write("\n")
            sys.stdout.flush()
        self._is_open = False

    def _write(self, text: str) -> None:
        who = "Assistant: " if typed.is_prompted() and not self._is_open else ""
        sys.stdout.write(who + terminal.safe(text))
        sys.stdout.flush()
        self._is_open = True

    def _think(self, reasoning: str) -> None:
        now = self._clock()
        if self._thinking is None:
            terminal.note("thinking")
        elif now - self._thinking < _THINKING_SECONDS:
            return
        else:
            terminal.note(f"thinking: {len(reasoning.split()):,} words so far")
        self._thinking = now


class Reading:
    """Quiet lines while a long prompt is read, with the time that is left."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._since = self._told = 0.0
        self._before: int | None = None

    def show(self, event: Progress) -> None:
        now = self._clock()
        if self._before is None or event.done < self._before:
            self._before, self._since, self._told = event.done, now, now
        elif now - self._told > _READING_SECONDS and event.done > self._before:
            left = (now - self._since) * (event.total - event.done) / (event.done - self._before)
            terminal.note(f"reading the prompt: {event.done:,} of {event.total:,} tokens, {left:.0f} s left")
            self._told = now


def figures(ended: Ended, context: int) -> str:
    """What an answer cost, in a context of so many tokens, and how it can be had again."""
    done = ended.done
    tokens = f"{done.generated_tokens} token{'s' * (done.generated_tokens != 1)}"
    drafts = f", {done.accepted} of {done.drafted} drafts right" if done.drafted else ""
    seed = ended.answer.details.get("sampling", {}).get("seed")
    return (
        f"[{tokens}, {done.tokens_per_second:.1f}/s, first token {done.prefill_seconds:.1f} s,"
        f" prompt {done.prompt_tokens} ({done.reused_tokens} reused){drafts},"
        f" context {done.prompt_tokens + done.generated_tokens}/{context}, seed {seed}"
        f"{_ENDS.get(done.reason, f', {done.reason}')}]"
    )


def history(turns: Iterable[Turn]) -> list[str]:
    """A message each, as it was said."""
    return [f"{turn.role}: {turn.text}" for turn in turns]


def lines(found: Iterable[str], otherwise: str = "") -> None:
    """Data on stdout, a line each; that there is none, on stderr."""
    shown = [terminal.safe(line) for line in found]
    if any(shown):
        sys.stdout.write("\n".join(shown) + "\n")
        sys.stdout.flush()
    elif otherwise:
        terminal.note(otherwise)
