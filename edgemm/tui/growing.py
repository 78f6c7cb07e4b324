"""A Markdown text that grows: what is finished is parsed once, and only the block at the end again and again.

So the cost of an addition does not grow with the text. A block that outgrows `MOST` is shown as typed until the text is
complete. It knows no widget and no clock.
"""

from collections.abc import Sequence

from textual.content import Content

from edgemm.terminal import safe
from edgemm.tui import flat
from edgemm.tui.flat import Block, Kind

MOST = 3 << 10  # characters of an open block


class Growing:
    """`finished` only grows; `open` replaces itself with each `grow`."""

    def __init__(self, text: str = "") -> None:
        self.finished: list[Block] = []
        self.open: list[Block] = []
        self.exact = True  # whether nothing is shown as typed
        self._parts: list[str] = []
        self._tail = ""  # what belongs to the open block
        self._new: list[str] = []
        self._fence = ""  # the mark that ends the code which is shown as typed
        self._typed, self._begins = False, True  # whether it is, and whether nothing of the block is finished yet
        self.feed(text)

    def settled(self) -> list[Block]:
        """The blocks of the complete text. Parses it once more only where the way it came could matter."""
        self.grow()
        text = self.text
        # The address of a link may stand far from it, and a line end may have come in two parts.
        return self.finished + self.open if self.exact and "]:" not in text and "\r" not in text else flat.blocks(text)

    @property
    def begun(self) -> bool:
        return bool(self._parts)

    @property
    def text(self) -> str:
        return "".join(self._parts)

    def feed(self, text: str) -> None:
        """Add `text`. Costs nothing until `grow`."""
        if text:
            self._parts.append(text)
            self._new.append(text)

    def grow(self) -> None:
        """Bring the blocks up to the text. Never raises."""
        self._tail += safe("".join(self._new).replace("\r\n", "\n"))
        self._new.clear()
        while True:
            if self._typed and not self._take_typed():
                return
            self._take_markdown()
            if not self._typed:
                return

    def _take_markdown(self) -> None:
        parsed = flat.parse(self._tail)
        lines = self._tail.split("\n")
        self.finished += parsed.before
        self._tail = "\n".join(lines[parsed.line :])
        self.open = parsed.last
        if len(self._tail) > MOST:
            self._typed, self._fence, self._begins, self.exact = True, parsed.fence, True, False
            if self._fence:
                self._tail = self._tail.partition("\n")[2]

    def _take_typed(self) -> bool:
        """Finish the whole lines of the long block. True where it has ended, and Markdown begins again."""
        *lines, rest = self._tail.split("\n")
        end = next((i for i, line in enumerate(lines) if self._ends(line)), -1)
        if end >= 0:
            self._finish(lines[:end])
            self._tail, self.open, self._typed = "\n".join([*lines[end + 1 :], rest]), [], False
            return True
        cut = (rest.rfind(" ") + 1 or len(rest)) if len(rest) > MOST else 0
        self._finish([*lines, rest[:cut]] if cut else lines)
        self._tail = rest[cut:]
        self.open = [self._block([self._tail])] if self._tail else []
        return False

    def _finish(self, lines: Sequence[str]) -> None:
        if lines:
            self.finished.append(self._block(lines))
            self._begins = False

    def _block(self, lines: Sequence[str]) -> Block:
        kind = Kind.CODE if self._fence else Kind.TEXT
        return Block(kind, Content("\n".join(lines).expandtabs(4)), gap=self._begins)

    def _ends(self, line: str) -> bool:
        if not self._fence:
            return not line.strip()
        mark = line.strip()
        return len(mark) >= len(self._fence) and not mark.strip(self._fence[0])
