"""What stands in for a large paste or an attached file in the prompt: a label that is one unit, and what it means.

Pure text: a label such as "[Pasted text #1 +23 lines]" never holds a line break. It knows no widget and opens no file.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from edgemm.terminal import safe

FOLD_LINES = 8
FOLD_CHARACTERS = 1000
_MAX_LABEL = 40
_LINE_ENDS = re.compile("\r\n|[\r\u2028\u2029]")
_SURROGATES = re.compile("[\ud800-\udfff]")  # what is left of bytes that were no UTF-8


@dataclass(frozen=True, slots=True)
class Block:
    """What a label means: a pasted text, or (`path` is set) an attached file."""

    text: str
    path: Path | None = None


class Blocks:
    """The labels of one prompt. They are kept until `clear`, so that undoing a deletion brings back what was meant."""

    def __init__(self) -> None:
        self._blocks: dict[str, Block] = {}
        self._pattern: re.Pattern[str] | None = None

    def fold(self, text: str) -> str:
        """A new label that stands for `text`."""
        number = 1 + sum(block.path is None for block in self._blocks.values())
        lines = _lines(text)
        amount = f"+{lines:,} lines" if lines > 1 else f"{len(text):,} characters"
        while (label := f"[Pasted text #{number} {amount}]") in self._blocks:  # a file may have this name
            number += 1
        return self._keep(label, Block(text))

    def attach(self, path: Path) -> str:
        """The label of the file `path`; the same one if it is attached already."""
        for label, block in self._blocks.items():
            if block.path == path:
                return label
        name = _short(one_line(path.name).replace("[", "(").replace("]", ")"))
        number, label = 1, f"[{name}]"
        while label in self._blocks:
            number, label = number + 1, f"[{name} #{number + 1}]"
        return self._keep(label, Block("", path))

    def spans(self, line: str) -> list[tuple[int, int]]:
        """(first column, column after the last) of each label in one line."""
        return [match.span() for match in self._pattern.finditer(line)] if self._pattern else []

    def expand(self, text: str) -> str:
        """`text` with every pasted block in the place of its label; labels inside a pasted block stay as they are."""
        return self._pattern.sub(self._meaning, text) if self._pattern else text

    def attached(self, text: str) -> tuple[Path, ...]:
        """The files whose labels stand in `text`, in their order, each once."""
        labels = self._pattern.findall(text) if self._pattern else []
        paths = (self._blocks[label].path for label in labels)
        return tuple(dict.fromkeys(path for path in paths if path))

    def clear(self) -> None:
        self._blocks.clear()
        self._pattern = None

    def _keep(self, label: str, block: Block) -> str:
        self._blocks[label] = block
        self._pattern = re.compile("|".join(map(re.escape, self._blocks)))
        return label

    def _meaning(self, match: "re.Match[str]") -> str:
        block = self._blocks[match[0]]
        return match[0] if block.path else block.text


def clean(text: str) -> str:
    """Text from a paste or a file name as the prompt can hold it: "\\n" line ends, no NUL, no control character."""
    return safe(_SURROGATES.sub("�", _LINE_ENDS.sub("\n", text).replace("\0", "")))


def one_line(text: str) -> str:
    """`clean`, with line breaks and tabs as their control pictures."""
    return clean(text).replace("\n", "␊").replace("\t", "␉")


def is_large(text: str) -> bool:
    return len(text) >= FOLD_CHARACTERS or _lines(text) >= FOLD_LINES


def widened(spans: list[tuple[int, int]], column: int) -> tuple[int, int]:
    """The label around `column`, or (`column`, `column`) where the column lies inside none."""
    return next(((start, end) for start, end in spans if start < column < end), (column, column))


def _lines(text: str) -> int:
    return text.count("\n") + (not text.endswith("\n"))


def _short(name: str) -> str:
    half = _MAX_LABEL // 2
    return name if len(name) <= _MAX_LABEL else f"{name[:half]}…{name[-half:]}"
