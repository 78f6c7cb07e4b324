"""Queries with known answers in one text: a docstring and its code, a heading and its section.

What is asked never stands in its answer: docstrings are cut out of the code around them, headings out of sections.
Code is parsed and never executed. It knows no folder and no sample.
"""

import ast
import re
import warnings
from collections.abc import Iterator
from typing import NamedTuple

from edgemm.documents import Section

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
_Span = tuple[int, int]

_PARAGRAPH = re.compile(r"\n\s*\n")
_WORD = re.compile(r"\w+")
_LETTER = re.compile(r"[^\W\d_]")
_RULE = re.compile(r"\s*([=\-~^\"'`#*+.:_])\1*\s*")  # below, and in reStructuredText above, a heading
_LONGEST_QUERY = 300  # characters
_LONGEST_PASSAGE = 1000  # characters: about the 256 tokens of a chunk, so that every system reads the same
_LEAST_QUERY, _LEAST_CODE, _LEAST_SECTION = 3, 10, 20  # words


class Pair(NamedTuple):
    """`line` of its file, from 1, where the passage begins. `query` is "" where there is none that is worth asking."""

    line: int
    query: str
    passage: str


def of_python(source: str) -> Iterator[Pair]:
    """Each function or class with a docstring: its first paragraph, and the source without any docstring.

    What has a docstring of its own is cut out of what stands around it, so that no text is in two passages. Names
    stay: whoever searches code has them to go by. Raises `ValueError` for what is no Python.
    """
    raw, tree = source.encode(), _parsed(source)
    starts = _line_starts(raw)
    documented = [node for node in ast.walk(tree) if isinstance(node, Definition) and _docstring(node)]
    documented.sort(key=lambda node: (node.lineno, node.col_offset))
    for node in documented:
        inner = [other for other in ast.walk(node) if other is not node and isinstance(other, Definition)]
        cuts = [_span(node.body[0], starts), *(_whole(other, starts) for other in inner if _docstring(other))]
        passage = _cut(_without(raw, _whole(node, starts), cuts))
        if _words(passage) >= _LEAST_CODE:
            summary = " ".join(_PARAGRAPH.split(_docstring(node), 1)[0].split())
            query = _shortened(summary) if _words(summary) >= _LEAST_QUERY else ""
            yield Pair(node.lineno, query, passage)


def of_section(section: Section) -> Pair | None:
    """A heading and what stands below it up to the next one; None for a section without one, or with little text."""
    if not section.heading:
        return None
    passage = _cut(_without_heading(section.text))
    if _words(passage) < _LEAST_SECTION:
        return None
    query = " ".join(section.heading[-1].split())
    return Pair(section.place.line, query if _LETTER.search(query) else "", passage)


def gives_away(passage: str, query: str) -> bool:
    """Whether the query stands in its own passage, so that any search for words would find it."""
    return _flat(query).rstrip(".:;!?") in _flat(passage)


def _parsed(source: str) -> ast.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the source, such as a wrong escape
            return ast.parse(source)
    except (SyntaxError, RecursionError, MemoryError) as error:
        raise ValueError(str(error)) from error


def _docstring(node: Definition) -> str:
    return (ast.get_docstring(node) or "").strip()


def _line_starts(raw: bytes) -> list[int]:
    return [0, *(match.end() for match in re.finditer(rb"\n", raw))]


def _span(node: ast.AST, starts: list[int]) -> _Span:
    """Its bytes; the syntax tree counts columns in bytes of UTF-8."""
    line, column, end_line, end_column = (
        getattr(node, name) for name in ("lineno", "col_offset", "end_lineno", "end_col_offset")
    )
    return starts[line - 1] + column, starts[end_line - 1] + end_column


def _whole(node: Definition, starts: list[int]) -> _Span:
    """With its decorators and indentation."""
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    return starts[first - 1], _span(node, starts)[1]


def _without(raw: bytes, span: _Span, cuts: list[_Span]) -> str:
    parts, at = [], span[0]
    for start, end in sorted(cuts):
        parts.append(raw[at : max(at, start)])
        at = max(at, end)
    parts.append(raw[at : span[1]])
    lines = b"".join(parts).decode("utf-8", "replace").split("\n")
    return "\n".join(line.rstrip() for line in lines if line.strip())


def _without_heading(text: str) -> str:
    """Without its own line, and the ruled ones around it."""
    lines = text.split("\n")
    while lines and (not lines[0].strip() or _RULE.fullmatch(lines[0])):
        lines.pop(0)
    rest = lines[1:]
    if rest and _RULE.fullmatch(rest[0]):
        rest = rest[1:]
    return "\n".join(rest).strip()


def _cut(passage: str) -> str:
    """To its longest length, at a line end where there is one."""
    if len(passage) <= _LONGEST_PASSAGE:
        return passage
    head = passage[:_LONGEST_PASSAGE]
    return head[: max(head.rfind("\n"), head.rfind(" ") if "\n" not in head else -1, 1)].rstrip()


def _shortened(query: str) -> str:
    return query if len(query) <= _LONGEST_QUERY else query[:_LONGEST_QUERY].rsplit(" ", 1)[0]


def _words(text: str) -> int:
    return len(_WORD.findall(text))


def _flat(text: str) -> str:
    return " ".join(text.casefold().split())
