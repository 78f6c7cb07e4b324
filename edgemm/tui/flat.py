"""Markdown to flat blocks of styled text: what a message looks like before it knows how wide it is.

No text makes it fail, and nothing in a text becomes a control sequence, a link that acts, a picture or HTML. It knows
no widget, no width and no theme: styles are names, which are resolved where they are drawn.
"""

import math
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from enum import Enum
from functools import cache
from itertools import takewhile

from markdown_it import MarkdownIt
from markdown_it.rules_core import StateCore
from markdown_it.token import Token
from textual.content import Content, Span

from edgemm.terminal import safe
from edgemm.tui import highlight

MOST_INLINE = 8 << 10  # characters; emphasis and brackets cost more than linear time: longer paragraphs stay as typed
COLOURS = 0.25  # seconds for the colours of all code in a message; what comes after that has none
_TAB = 4
BAR = "│ "
_SPACES = re.compile(r"[ \t]+")
_HEADINGS = {"h1": "bold underline $text-primary", "h2": "bold $text-primary"}
_CODE = "$text-warning"
_STYLES = {"em": "italic", "strong": "bold", "s": "strike", "link": "underline"}


class Kind(Enum):
    TEXT = "text"  # breaks between words
    CODE = "code"  # keeps its spaces, breaks anywhere
    RULE = "rule"  # a line as wide as the page
    TABLE = "table"


@dataclass(frozen=True, slots=True)
class Block:
    """A paragraph, a heading, a piece of code or a table, without its width.

    `first` and `rest` stand before its first and its other rows (bullets, quote bars). `gap`: an empty row before it.
    `cells`, row by row with the header first, and `align` ("left", "center", "right" a column) belong to tables.
    """

    kind: Kind
    content: Content
    first: str = ""
    rest: str = ""
    gap: bool = True
    cells: tuple[tuple[Content, ...], ...] = ()
    align: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Parsed:
    """The beginning of a text in blocks. What is in `last` begins at line `line`, and more text may change it.

    `fence` is the opening mark where that is one code fence, and empty otherwise.
    """

    before: list[Block]
    last: list[Block]
    line: int = 0
    fence: str = ""


def blocks(text: str) -> list[Block]:
    """`text` as Markdown. Never raises: what cannot be parsed is shown as typed."""
    try:
        return _Walk().run(_parser().parse(text))
    except Exception:  # a bug of the parser or of a lexer: no text of a model may end a session
        return plain(text)


def plain(text: str) -> list[Block]:
    """`text` as it was typed, line by line."""
    typed = safe(text.replace("\r\n", "\n").strip("\n").replace("\t", " " * _TAB))
    return [Block(Kind.TEXT, Content(typed))] if typed else []


def code(text: str, language: str = "", deadline: float = math.inf) -> Block:
    """Code, with colours where the language is known, the source not too long, and `deadline` not over."""
    source = safe(text.rstrip("\n")).expandtabs(_TAB)
    return Block(Kind.CODE, Content(source, highlight.spans(source, language, deadline)))


def parse(text: str) -> Parsed:
    """`blocks` of a text with more to come (lines end in "\\n"). Never raises."""
    try:
        return _divide(_parser().parse(text), text.split("\n"))
    except Exception:  # as above
        return Parsed([], plain(text))


def _divide(tokens: list[Token], lines: list[str]) -> Parsed:
    starts = [(i, token.map[0]) for i, token in enumerate(tokens) if token.level == 0 and token.map]
    if not starts:
        return Parsed([], [])
    at, line = next((start for start in reversed(starts) if _stands(start[1], lines)), starts[0])
    fence = tokens[at].markup if tokens[at].type == "fence" and at == starts[-1][0] else ""
    return Parsed(_Walk().run(tokens[:at]), _Walk().run(tokens[at:]), line, fence)


def _stands(line: int, lines: list[str]) -> bool:
    """Whether a block that begins at `line` begins there whatever follows.

    Behind an empty line it does. Otherwise "***" may become bold text of the paragraph above, and what looks like the
    first two lines of a table may not be one; lines after those change nothing.
    """
    return line > 0 and (not lines[line - 1].strip() or line + 2 < len(lines))


@cache
def _parser() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])
    parser.core.ruler.at("inline", _parse_inline)
    return parser


def _parse_inline(state: StateCore) -> None:
    for token in state.tokens:
        if token.type == "inline" and len(token.content) <= MOST_INLINE:
            token.children = []
            state.md.inline.parse(token.content, state.md, state.env, token.children)
        elif token.type == "inline":
            token.children = [Token("text", "", 0, content=token.content)]


class _Walk:
    """Tokens to blocks. Of lists and quotes remains what stands before their rows."""

    def __init__(self) -> None:
        self._found: list[Block] = []
        self._margins: list[tuple[str, str]] = []  # before the next row, and before the rows after it
        self._style, self._tight, self._lists, self._opens = "", False, 0, False  # `_opens`: the first row of a list
        self._deadline = time.monotonic() + COLOURS

    def run(self, tokens: Iterable[Token]) -> list[Block]:
        rest = iter(tokens)
        for token in rest:
            if token.type == "table_open":
                self._add(_table(takewhile(lambda t: t.type != "table_close", rest)))
            else:
                self._take(token)
        return self._found

    def _take(self, token: Token) -> None:
        match token.type:
            case "bullet_list_open" | "ordered_list_open":
                self._lists += 1
                self._opens = self._lists == 1
            case "bullet_list_close" | "ordered_list_close":
                self._lists -= 1
            case "list_item_open" | "blockquote_open":
                marker = BAR if token.type == "blockquote_open" else _marker(token, self._lists)
                self._margins.append((marker, BAR if marker == BAR else " " * len(marker)))
            case "list_item_close" | "blockquote_close":
                self._leave()
            case "heading_open":
                self._style = _HEADINGS.get(token.tag, "bold")
            case "heading_close":
                self._style = ""
            case "paragraph_open":
                self._tight = token.hidden and not self._opens
            case _:
                self._leaf(token)

    def _leaf(self, token: Token) -> None:
        match token.type:
            case "inline":
                content = inline(token)
                styled = content.stylize_before(self._style) if self._style else content
                self._add(Block(Kind.TEXT, styled, gap=not self._tight))
                self._tight = False
            case "fence" | "code_block":
                self._add(code(token.content, token.info, self._deadline))
            case "hr":
                self._add(Block(Kind.RULE, Content()))

    def _leave(self) -> None:
        first, rest = self._margins[-1]
        if first != rest:  # an empty item
            self._add(Block(Kind.TEXT, Content(), gap=self._opens))
        self._margins.pop()

    def _add(self, block: Block) -> None:
        first, rest = ("".join(column) for column in zip(*self._margins, strict=True)) if self._margins else ("", "")
        self._margins = [(after, after) for _, after in self._margins]
        self._opens = False
        self._found.append(replace(block, first=first, rest=rest))


def _marker(item: Token, depth: int) -> str:
    return f"{item.info}{item.markup} " if item.info else ("• ", "◦ ", "▪ ")[(depth - 1) % 3]


def _table(tokens: Iterable[Token]) -> Block:
    rows: list[list[Content]] = []
    align: list[str] = []
    for token in tokens:
        if token.type == "tr_open":
            rows.append([])
        elif token.type == "th_open":
            align.append(str(token.attrs.get("style", "")).removeprefix("text-align:") or "left")
        elif token.type == "inline":
            rows[-1].append(inline(token))
    return Block(Kind.TABLE, Content(), cells=tuple(map(tuple, rows)), align=tuple(align))


def inline(token: Token) -> Content:
    """The text of a paragraph with its emphasis. A link is its text and its address; neither can be followed."""
    parts: list[str] = []
    spans: list[Span] = []
    opened: list[tuple[int, str, str]] = []  # where it begins, style, address
    length = 0
    for text, change, style in _pieces(token.children or ()):
        if change == "open":
            opened.append((length, style, text))
            continue
        if change == "close":
            start, style, address = opened.pop()
            spans.append(Span(start, length, style))
            text = "" if not address or address == "".join(parts)[start:] else f" ({address})"
        elif style:
            spans.append(Span(length, length + len(text), style))
        text = safe(text)
        parts.append(text)
        length += len(text)
    return Content("".join(parts), spans)


def _pieces(tokens: Iterable[Token]) -> Iterator[tuple[str, str, str]]:
    """Text, "open" or "close" or "", and style. The text of an "open" is the address to be shown at its "close"."""
    for token in tokens:
        match token.type:
            case "text":
                yield _SPACES.sub(" ", token.content), "", ""
            case "softbreak" | "hardbreak":
                yield "\n", "", ""
            case "code_inline":
                yield token.content, "", _CODE
            case "image":
                yield f"[image: {token.content}] ({token.attrs.get('src', '')})", "", ""
            case _ if token.nesting > 0:
                style = _STYLES.get(token.type.removesuffix("_open"), "")
                yield str(token.attrs.get("href", "")), "open", style
            case _ if token.nesting < 0:
                yield "", "close", ""
