"""Blocks to rows of a given width: wrapping with hanging indents, tables in columns, and the text of a selection.

Widths are terminal cells, two for a wide character. It knows neither Markdown nor widgets.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, takewhile

from textual.content import Content
from textual.selection import Selection

from edgemm.tui.flat import BAR, Block, Kind

NARROWEST = 8  # cells that a text keeps, whatever stands before it
_COLUMN, _BETWEEN = 5, " │ "
_INDENT = "  "  # before code, which also has a background where there are colours


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the screen. The first `margin` characters are not copied; `continues`: the line goes on below."""

    content: Content
    margin: int = 0
    continues: bool = False
    code: bool = False


def lay_out(blocks: Iterable[Block], width: int, above: Block | None = None) -> list[Row]:
    """The rows of `blocks`, none wider than `width` cells (at least `NARROWEST`), where they stand below `above`."""
    rows: list[Row] = []
    for block in blocks:
        if block.gap and above:
            bars = min(_bars(above.rest), _bars(block.first), key=len)
            rows.append(Row(Content.styled(bars, "dim"), len(bars)))
        rows += _rows(block, max(width, NARROWEST))
        above = block
    return rows


def selected(rows: Sequence[Row], selection: Selection) -> str:
    """The text that `selection` covers, without margins and without the breaks that wrapping made."""
    found = []
    for y, row in enumerate(rows):
        span = selection.get_span(y)
        if span is None:
            continue
        start, end = span
        line = row.content.plain
        text = line[max(start, row.margin) : len(line) if end == -1 else end]
        found.append(text + (" " if row.continues else "\n"))
    return "".join(found).removesuffix("\n").rstrip(" ")


def _rows(block: Block, width: int) -> Iterator[Row]:
    first, rest = block.first, block.rest
    if width - len(rest) < NARROWEST:
        first, rest = first[: width - NARROWEST], rest[: width - NARROWEST]
    inner = width - len(rest)
    for number, row in enumerate(_BODIES[block.kind](block, inner)):
        before = rest if number else first
        if not before:
            yield row
            continue
        # A bullet belongs to the text; the bar of a quote and the blanks below a bullet do not.
        margin = row.margin + len(before if number else _bars(before))
        yield Row(Content.styled(before, "dim") + row.content, margin, row.continues, row.code)


def _bars(before: str) -> str:
    """The quote bars at the beginning of what stands before a row."""
    return BAR * sum(1 for _ in takewhile(lambda at: before.startswith(BAR, at), range(0, len(before), len(BAR))))


def _text(block: Block, width: int) -> Iterator[Row]:
    for line in block.content.split(allow_blank=True):
        *wrapped, last = line.wrap(width) or [Content()]
        yield from (Row(part, continues=True) for part in wrapped)
        yield Row(last)


def _code(block: Block, width: int) -> Iterator[Row]:
    room = width - len(_INDENT)
    for line in block.content.split(allow_blank=True):
        for part in [line] if line.cell_length <= room else line.fold(room):
            yield Row(_INDENT + part, margin=len(_INDENT), code=True)


def _rule(_block: Block, width: int) -> Iterator[Row]:
    yield Row(Content.styled("─" * width, "dim"))


def _table(block: Block, width: int) -> Iterator[Row]:
    columns = len(block.align)
    rows = [(*row, *[Content()] * (columns - len(row)))[:columns] for row in block.cells]
    widths = _fit([max(row[c].cell_length for row in rows) for c in range(columns)], width)
    if not widths:
        yield from _records(rows, width)
        return
    for number, row in enumerate(rows):
        cells = [cell.stylize("bold") for cell in row] if number == 0 else row
        yield from _table_row(cells, widths, block.align)
        if number == 0:
            yield Row(Content.styled("─┼─".join("─" * w for w in widths), "dim"))


def _fit(natural: list[int], width: int) -> list[int]:
    """Widths of the columns: the wide ones give way until all fit. Empty where even narrow ones do not."""
    room = width - len(_BETWEEN) * (len(natural) - 1)
    if room < _COLUMN * len(natural):
        return []
    share, columns = room, sorted(natural)
    for number, column in enumerate(columns):
        share = room // (len(columns) - number)
        if column > share:
            break
        room -= column
    return [min(column, max(share, _COLUMN)) for column in natural]


def _table_row(cells: Sequence[Content], widths: Sequence[int], align: Sequence[str]) -> Iterator[Row]:
    wrapped = [_wrapped(cell, width) for cell, width in zip(cells, widths, strict=True)]
    bar = Content.styled(_BETWEEN, "dim")
    for y in range(max(map(len, wrapped))):
        parts = [
            _padded(lines[y] if y < len(lines) else Content(), width, side)
            for lines, width, side in zip(wrapped, widths, align, strict=True)
        ]
        yield Row(bar.join(parts).rstrip())


def _wrapped(cell: Content, width: int) -> list[Content]:
    return list(chain.from_iterable(line.wrap(width) for line in cell.split(allow_blank=True))) or [Content()]


def _padded(cell: Content, width: int, align: str) -> Content:
    spare = max(0, width - cell.cell_length)
    left = {"right": spare, "center": spare // 2}.get(align, 0)
    return cell.pad(left, spare - left)


def _records(rows: Sequence[Sequence[Content]], width: int) -> Iterator[Row]:
    """A table with too many columns: each row as lines of "header: cell"."""
    header, *body = rows
    for number, row in enumerate(body or [header]):
        if number:
            yield Row(Content())
        for title, cell in zip(header, row, strict=True):
            line = title.stylize("bold") + ": " + cell if body else title.stylize("bold")
            yield from (Row(part) for part in _wrapped(line, width))


_BODIES = {Kind.TEXT: _text, Kind.CODE: _code, Kind.RULE: _rule, Kind.TABLE: _table}
