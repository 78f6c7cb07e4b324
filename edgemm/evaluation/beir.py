"""Reads a folder in the layout of BEIR (Thakur et al. 2021): corpus.jsonl, queries.jsonl and qrels/<split>.tsv.

Passages are streamed, so that memory does not grow with their texts. It knows no system and no figure.
"""

import json
import math
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgemm.errors import BadFile, UsageError, disk_errors
from edgemm.evaluation.records import Collection, Text, drawn
from edgemm.words import clean

CORPUS, QUERIES, QRELS = "corpus.jsonl", "queries.jsonl", "qrels"
MOST_QUERIES = 10_000  # are asked, so that memory is bounded: the largest test set of BEIR has as many
_MAX_LINE = 1 << 26  # bytes
_COLUMNS = 3

Judged = dict[str, dict[str, float]]


def is_beir(folder: Path) -> bool:
    return (folder / CORPUS).is_file()


def read(folder: Path, split: str = "test", queries: int = 0) -> Collection:
    """All of its passages, and its judged queries, or as many of them as `queries` says (0: all, at most 10,000).

    Raises `BadFile` with file and line for what is damaged or missing, and `UsageError` for a split without a query.
    """
    path = _qrels(folder, split)
    judged = _judged(path)
    known = {key: Text(key, text, title) for key, text, title in _texts(folder / QUERIES) if key in judged}
    if not known:
        raise UsageError(path, f"judges no query of {QUERIES}", "check that both belong together")
    askable = [text for key, text in known.items() if any(gain > 0 for gain in judged[key].values())]
    if not askable:
        raise UsageError(path, "names no relevant passage for any query", "check its third column")
    chosen = drawn(askable, min(queries or MOST_QUERIES, MOST_QUERIES))
    wanted = {text.key: judged[text.key] for text in chosen}
    notes = _notes(path.name, len(judged) - len(known), len(known) - len(askable), len(chosen), len(askable))
    return Collection(str(folder), _passages(folder / CORPUS), chosen, wanted, tuple(notes))


def _notes(name: str, unknown: int, unanswered: int, chosen: int, askable: int) -> Iterator[str]:
    if unknown:
        yield f"{name}: {unknown:,} judged queries are not in {QUERIES}, and are left out"
    if unanswered:
        yield f"{name}: {unanswered:,} queries have no relevant passage, and are left out"
    if chosen < askable:
        yield f"{chosen:,} of {askable:,} queries, drawn by lot: the figures are not those of all"


def _passages(path: Path) -> Iterator[Text]:
    seen: set[str] = set()
    for number, (key, text, title) in enumerate(_texts(path), 1):
        if key in seen:
            raise BadFile(path, f"the _id {key[:80]!r} of text {number:,} was there before", "give each text its own")
        seen.add(key)
        yield Text(key, text, title)


def _qrels(folder: Path, split: str) -> Path:
    path = folder / QRELS / f"{split}.tsv"
    if path.name == f"{split}.tsv" and path.is_file():
        return path
    there = sorted(each.stem for each in (folder / QRELS).glob("*.tsv"))
    fix = f"choose with --split: {', '.join(there)}" if there else f"put the judgements into {QRELS}/{split}.tsv"
    raise BadFile(path, "there is no such file", fix)


def _judged(path: Path) -> Judged:
    """Query -> passage -> gain. The first line may be a header."""
    found: Judged = defaultdict(dict)
    for number, raw in _lines(path):
        cells = _decoded(path, number, raw).split("\t")
        if number == 1 and _gain(cells[-1]) is None:
            continue
        gain = _gain(cells[-1]) if len(cells) == _COLUMNS else None
        if gain is None:
            raise _damaged(path, number, "is not query, passage and a number, with tabs between them")
        found[clean(cells[0])][clean(cells[1])] = gain
    return dict(found)


def _gain(cell: str) -> float | None:
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _texts(path: Path) -> Iterator[tuple[str, str, str]]:
    """Key, text and title of each line."""
    for number, raw in _lines(path):
        try:
            value = json.loads(_decoded(path, number, raw))
        except (ValueError, RecursionError) as error:
            raise _damaged(path, number, "is not JSON") from error
        yield _text(path, number, value)


def _text(path: Path, number: int, value: Any) -> tuple[str, str, str]:
    if not isinstance(value, dict):
        raise _damaged(path, number, "is no JSON object")
    key, text, title = value.get("_id"), value.get("text", ""), value.get("title") or ""
    if not isinstance(key, str | int) or isinstance(key, bool):
        raise _damaged(path, number, "has no _id")
    if not isinstance(text, str) or not isinstance(title, str):
        raise _damaged(path, number, "has a text or title that is no text")
    return clean(str(key)), clean(text).replace("\0", " "), clean(title).replace("\0", " ")


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Number from 1, and bytes, of the lines that are not blank."""
    if not path.is_file():
        raise BadFile(path, "there is no such file", "give a folder with corpus, queries and qrels")
    with disk_errors(path), open(path, "rb") as file:
        number = 0
        while raw := file.readline(_MAX_LINE + 1):
            number += 1
            if len(raw) > _MAX_LINE:
                raise _damaged(path, number, f"is longer than {_MAX_LINE:,} bytes")
            if raw.strip():
                yield number, raw


def _decoded(path: Path, number: int, raw: bytes) -> str:
    try:
        return raw.decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise _damaged(path, number, "is not UTF-8") from error


def _damaged(path: Path, number: int, why: str) -> BadFile:
    return BadFile(f"{path}, line {number}", why, "mend or remove that line")
