"""What the completion list offers for the word at the cursor: slash commands, paths, or earlier prompts.

Pure: what lies on the disk is given (files.py finds it), and the prompt does what the user takes.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path

from edgemm.tui.files import Found, Place
from edgemm.tui.folding import one_line
from edgemm.tui.fuzzy import rank

LIMIT = 50
_COMMAND = re.compile(r"/([\w-]*)")
_PATH = re.compile(r'(?:^|(?<=[\s(]))@(?:"([^"]*)|([^\s"]*))$')
_SHOWN = 200  # characters of an earlier prompt


class Kind(Enum):
    COMMAND = auto()
    PATH = auto()
    PROMPT = auto()


@dataclass(frozen=True, slots=True)
class Query:
    """The word at the cursor: `text` without its mark, and the column where its mark stands."""

    kind: Kind
    text: str
    column: int


@dataclass(frozen=True, slots=True)
class Choice:
    """One row of the list. `insert` takes the place of the word; `path` is set where taking it attaches a file."""

    shown: str
    insert: str
    help: str = ""
    path: Path | None = None


Command = tuple[str, str]
"""The name of a slash command, without the slash, and one line about it."""


def query_at(row: int, before: str) -> Query | None:
    """The query in `before`, the text of row `row` up to the cursor: "/" at the very start, or "@" at a word's."""
    if row == 0 and (match := _COMMAND.fullmatch(before)):
        return Query(Kind.COMMAND, match[1], 0)
    if match := _PATH.search(before):
        return Query(Kind.PATH, match[1] if match[1] is not None else match[2], match.start())
    return None


def commands(query: str, known: Sequence[Command]) -> list[Choice]:
    """Commands that fit, those that begin with the query first."""
    fitting = rank(query, known, lambda command: command[0], LIMIT)
    fitting.sort(key=lambda command: not command[0].startswith(query.lower()))
    return [Choice(one_line(f"/{name}"), f"/{name} ", one_line(text)) for name, text in fitting]


def paths(where: Place, entries: Sequence[Found]) -> list[Choice]:
    """Files and folders that fit; hidden and made ones last, unless a dot was typed."""
    asked = where.rest.startswith(".") or "/." in where.rest
    found = rank(where.rest, entries, lambda entry: entry.shown, len(entries))
    if not asked:
        found.sort(key=lambda entry: entry.late)
    return [_path_choice(where, entry) for entry in found[:LIMIT]]


def prompts(found: Sequence[str]) -> list[Choice]:
    return [Choice(one_line(text[:_SHOWN].strip()), text) for text in found]


def _path_choice(where: Place, entry: Found) -> Choice:
    shown = where.typed + entry.shown
    if not entry.is_folder:
        return Choice(shown, "", path=Path(entry.path))
    return Choice(shown, f'@"{shown}' if " " in shown else f"@{shown}")
