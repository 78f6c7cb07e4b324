"""Bytes of tokens to text that can be shown while it grows.

A character is never split, and a text that may begin a stop text is held back. It knows no model.
"""

import codecs
from collections.abc import Iterator, Sequence

from edgemm.events import Token


class StreamText:
    """Bytes of tokens to text: a character is never split, and a text that may begin a stop text is held back."""

    def __init__(self, stop: Sequence[str]) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._stop = tuple(s for s in stop if s)
        self._held = ""
        self.stopped = False

    def add(self, piece: bytes) -> str:
        if not self._stop:
            return self._decoder.decode(piece)
        self._held += self._decoder.decode(piece)
        ends = [at for s in self._stop if (at := self._held.find(s)) >= 0]
        if ends:
            self.stopped = True
            return self._held[: min(ends)]
        keep = max((_overlap(self._held, s) for s in self._stop), default=0)
        ready, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return ready

    def rest(self) -> Iterator[Token]:
        """What was held back, when the answer ends in another way; its tokens were counted before."""
        text = self._held + self._decoder.decode(b"", final=True)
        if text:
            yield Token(-1, text)


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of `text` begin `stop`."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)
