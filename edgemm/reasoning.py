"""A model's thoughts kept apart from its answer, while both still grow.

Reasoning models write `<think>`, their thoughts and `</think>` before the answer; some templates have opened the block
already, so that only its end is seen. The marks may be split over any number of tokens. It knows no model.
"""

from dataclasses import dataclass

OPEN, CLOSE = "<think>", "</think>"
_QUOTES = ("`", "'", '"')


@dataclass
class Splitter:
    """`feed` it the text as it comes; `answer` and `reasoning` are what was said so far, without the marks.

    `inside`: the thoughts go on. There is one block of them, at the very beginning; a later mark is text.
    """

    answer: str = ""
    reasoning: str = ""
    inside: bool = False
    _held: str = ""  # the beginning of what may become a mark
    _closed: bool = False

    def feed(self, text: str) -> None:
        self._held += text
        while mark := self._mark():
            before, found, after = self._held.partition(mark)
            if not found:
                ready = len(self._held) - _partial(self._held, mark)
                self._add(self._held[:ready])
                self._held = self._held[ready:]
                return
            if self._is_quoted(before):
                self._add(before + mark)
            else:
                self._add(before)
                self._cross(mark)
            self._held = after
        self.finish()

    def finish(self) -> None:
        """The end of the text: what looked like the beginning of a mark was none."""
        self._add(self._held)
        self._held = ""

    def shown(self) -> tuple[str, str]:
        """Answer and reasoning as `finish` would leave them."""
        copy = Splitter(self.answer, self.reasoning, self.inside, self._held, self._closed)
        copy.finish()
        return copy.answer, copy.reasoning

    def _mark(self) -> str:
        """The mark that may come next; empty when none may, or nothing is left to look at."""
        if not self._held or self._closed or (self.reasoning and not self.inside):
            return ""
        return OPEN if not self.inside and self._opens() else CLOSE

    def _opens(self) -> bool:
        return not self.answer.strip() and OPEN.startswith(self._held.lstrip()[: len(OPEN)])

    def _is_quoted(self, before: str) -> bool:
        """Whether an answer tells of the mark; only a template's block ends without a beginning."""
        return not self.inside and (self.answer + before).endswith(_QUOTES)

    def _cross(self, mark: str) -> None:
        if mark == OPEN:
            self.answer, self.inside = "", True
            return
        if not self.inside:  # the template has opened the block
            self.reasoning, self.answer = self.answer, ""
        self.reasoning, self.inside, self._closed = self.reasoning.strip(), False, True

    def _add(self, text: str) -> None:
        if self.inside:
            self.reasoning += text if self.reasoning else text.lstrip()
        else:
            begins = not self.answer and (self._closed or self.reasoning)
            self.answer += text.lstrip("\n") if begins else text


def going_on(answer: str, reasoning: str, inside: bool) -> Splitter:
    """A splitter that has said this already; a mark that was cut at the end of it may still become whole."""
    text = reasoning if inside else answer
    at = text.rfind("<")
    cut = at if at >= 0 and len(text) - at < len(CLOSE) else len(text)
    found = Splitter("", text[:cut], inside) if inside else Splitter(text[:cut], reasoning)
    found.feed(text[cut:])
    return found


def _partial(text: str, mark: str) -> int:
    """How many characters at the end of `text` may be the beginning of `mark`."""
    return next((n for n in range(min(len(mark) - 1, len(text)), 0, -1) if mark.startswith(text[-n:])), 0)
