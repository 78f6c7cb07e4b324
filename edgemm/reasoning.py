"""A model's thoughts kept apart from its answer, while both still grow.

Reasoning models write `<think>`, their thoughts and `</think>` before the answer; some templates have opened the block
already, so that only its end is seen. The marks may be split over any number of tokens. It knows no model.
"""

from dataclasses import dataclass

OPEN, CLOSE = "<think>", "</think>"


@dataclass
class Splitter:
    """`feed` it the text as it comes; `answer` and `reasoning` are what was said so far, without the marks."""

    answer: str = ""
    reasoning: str = ""
    _held: str = ""  # the beginning of what may become a mark
    _inside: bool = False

    def feed(self, text: str) -> None:
        self._held += text
        while self._held:
            mark = CLOSE if self._inside or not self._opens() else OPEN
            before, found, after = self._held.partition(mark)
            if found:
                self._add(before)
                self._cross(mark)
                self._held = after
                continue
            keep = _partial(self._held, mark)
            self._add(self._held[: len(self._held) - keep])
            self._held = self._held[len(self._held) - keep :]
            return

    def finish(self) -> None:
        """The end of the text: what looked like the beginning of a mark was none."""
        self._add(self._held)
        self._held = ""

    def _opens(self) -> bool:
        """Whether a block may begin here: only thoughts at the very beginning are thoughts."""
        if self.reasoning or self.answer.strip():
            return False
        return OPEN.startswith(self._held.lstrip()[: len(OPEN)])

    def _cross(self, mark: str) -> None:
        if mark == OPEN:
            self.answer, self._inside = "", True
            return
        if not self._inside:  # the template has opened the block
            self.reasoning, self.answer = self.answer, ""
        self.reasoning, self._inside = self.reasoning.strip(), False

    def _add(self, text: str) -> None:
        if self._inside:
            self.reasoning += text
        else:
            self.answer += text if self.answer or not self.reasoning else text.lstrip("\n")


def _partial(text: str, mark: str) -> int:
    """How many characters at the end of `text` may be the beginning of `mark`."""
    return next((n for n in range(min(len(mark) - 1, len(text)), 0, -1) if mark.startswith(text[-n:])), 0)
