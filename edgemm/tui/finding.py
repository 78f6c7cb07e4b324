"""What the documents screen shows, as text: passages that were found, one in its surroundings, the folders.

Pure: an index hands it records, and it counts cells. Texts and names come from anywhere, and are made safe here.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from textual.content import Content, Span

from edgemm import attachments, hits
from edgemm.index import Chunk, Medium, ModelState, RootStatus, Status
from edgemm.ingest import Report
from edgemm.search import Hit
from edgemm.search import place as place_of
from edgemm.snippets import MARK, UNMARK
from edgemm.terminal import human_bytes
from edgemm.tui import columns
from edgemm.tui.folding import clean, one_line

NEIGHBOURS = 1  # passages of the file that are shown before the cited one, and as many behind it
BAR = "▌ "  # before each row of the cited passage
_MARKED = "bold reverse"
_SNIPPET_ROWS = 2
_MOST = 20_000  # characters of a passage that are shown
_MOST_REFUSED = 500
_INDENT = "  "
_TAB = 4


@dataclass(frozen=True, slots=True)
class Stock:
    """`missing`: ids of the folders that are not on the disk now."""

    status: Status
    missing: frozenset[int]


@dataclass(frozen=True, slots=True)
class Preview:
    """`text` is broken into rows; the cited passage begins at row `at`."""

    text: Content
    at: int


# Passages


def result(hit: Hit, width: int, explain: Collection[str] = ()) -> Content:
    """A passage in rows of `width` cells: file and place, the words around the match, and the lines of `explain`."""
    chunk = hit.chunk
    about = ", ".join(filter(None, (place(chunk), f"taken {chunk.taken}" if chunk.taken else "")))
    rows = [_named(hits.short(chunk.path), one_line(about), width)]
    inner = max(1, width - len(_INDENT))
    text = _snippet(hit.snippet) if hit.snippet else Content(one_line(chunk.title or chunk.kind))
    rows += [_INDENT + row for row in text.wrap(inner)[:_SNIPPET_ROWS]]
    if hit.copies:
        rows.append(Content.styled(f"{_INDENT}also in {_count(len(hit.copies), 'other file')}", "dim"))
    rows += [Content.styled(_INDENT + row.plain, "dim") for line in explain for row in Content(line).wrap(inner)]
    return Content("\n").join(rows)


def scores(hit: Hit) -> str:
    """The score, and which ranking put it where."""
    return f"score {hit.score:.4f}: {hits.parts(hit)}"


def place(chunk: Chunk) -> str:
    """ "page 3", "lines 10-24" and so on; "" for a whole file, and for what a damaged index says."""
    with suppress(TypeError):
        return one_line(place_of(chunk).shown())
    return ""


def title(chunk: Chunk) -> Content:
    """Where a passage is: its file, the headings above it, its place."""
    headings = " > ".join(map(str, chunk.heading))
    return Content(" · ".join(one_line(each) for each in (chunk.path.name, headings, place(chunk)) if each))


def location(chunk: Chunk) -> str:
    """Its file and line, as editors take them, or its file and place; a name that a shell would obey is made safe."""
    line = chunk.place.get("line")
    about = place(chunk)
    return one_line(str(chunk.path)) + (f":{line}" if line and isinstance(line, int) else f", {about}" * bool(about))


def quote(chunk: Chunk) -> str:
    """The passage as it stands in a question: where it is from, and its text in a fence that it cannot close."""
    where = ", ".join(filter(None, (attachments.plain_name(chunk.path.name), place(chunk))))
    return f"From {where}:\n{attachments.fenced(clean(chunk.text[:_MOST]).strip())}\n"


def marked_words(snippet: str) -> frozenset[str]:
    """What is marked in a snippet."""
    return frozenset(piece.partition(UNMARK)[0] for piece in snippet.split(MARK)[1:]) - {""}


def preview(around: Sequence[Chunk], cited: Chunk, words: Collection[str], width: int) -> Preview:
    """The cited passage with a bar before it and `words` marked, between its neighbours among `around`, which are dim.

    `around`: passages with ids near that of `cited`; those of other files, and what neighbours repeat, are left out.
    """
    before, after = _surroundings(around, cited)
    rows = [row for chunk in before for row in _neighbour(chunk, cited, width)]
    at = len(rows)
    text = clean(cited.text[:_MOST]) if cited.text.strip() else _without_text(cited)
    rows += [_bar() + row for row in _rows(_stressed(text, words), width - len(BAR))]
    rows += [row for chunk in after for row in _neighbour(chunk, cited, width)]
    return Preview(Content("\n").join(rows), at)


def _surroundings(around: Iterable[Chunk], cited: Chunk) -> tuple[list[Chunk], list[Chunk]]:
    """The passages before and behind, without the text that they share with the one nearer to the cited one."""
    same = [each for each in around if each.path == cited.path and abs(each.order - cited.order) <= NEIGHBOURS]
    before, after, last = list[Chunk](), list[Chunk](), cited
    for chunk in sorted((each for each in same if each.order < cited.order), key=lambda each: -each.order):
        before.insert(0, replace(chunk, text=chunk.text[: len(chunk.text) - _shared(chunk, last)]))
        last = chunk
    last = cited
    for chunk in sorted((each for each in same if each.order > cited.order), key=lambda each: each.order):
        after.append(replace(chunk, text=chunk.text[_shared(last, chunk) :]))
        last = chunk
    return before, after


def _shared(first: Chunk, second: Chunk) -> int:
    """Characters at the end of `first` with which `second` begins again."""
    count = first.end - second.start
    is_overlap = 0 < count <= min(len(first.text), len(second.text)) and first.start < second.start
    return count if is_overlap and first.text.endswith(second.text[:count]) else 0


def _neighbour(chunk: Chunk, cited: Chunk, width: int) -> Iterator[Content]:
    """A passage beside the cited one; where another section begins, its heading and place say so."""
    indent = " " * len(BAR)
    if chunk.heading != cited.heading or _leaf(chunk) != _leaf(cited):
        words = " · ".join(filter(None, (one_line(" > ".join(map(str, chunk.heading))), place(chunk))))
        yield Content.styled(indent + columns.middle(words, max(1, width - len(indent))).rstrip(), "dim underline")
    for row in _rows(Content(clean(chunk.text[:_MOST])), width - len(indent)):
        yield Content.styled(indent + row.plain, "dim")


def _leaf(chunk: Chunk) -> tuple[object, ...]:
    return tuple(chunk.place.get(key) for key in ("page", "slide", "sheet"))


def _without_text(chunk: Chunk) -> str:
    what = "a picture" if chunk.medium == Medium.PICTURE else "no text"
    facts = (chunk.title, f"taken {chunk.taken}" if chunk.taken else "")
    return "\n".join([one_line(str(chunk.path)), what, *(one_line(each) for each in facts if each)])


def _stressed(text: str, words: Collection[str]) -> Content:
    return Content(text, [Span(*match.span(), _MARKED) for match in _pattern(words).finditer(text)] if words else None)


def _pattern(words: Collection[str]) -> re.Pattern[str]:
    """The longest first; a word of a script with spaces is not found within another."""
    found = []
    for word in sorted(words, key=lambda word: (-len(word), word)):
        is_spaced = word.isascii() and word[:1].isalnum() and word[-1:].isalnum()
        found.append(rf"(?<![^\W_]){re.escape(word)}(?![^\W_])" if is_spaced else re.escape(word))
    return re.compile("|".join(found), re.IGNORECASE)


def _rows(text: Content, width: int) -> Iterator[Content]:
    for line in text.rstrip().split(allow_blank=True):
        yield from line.expand_tabs(_TAB).wrap(max(1, width)) or [Content()]


def _bar() -> Content:
    return Content.styled(BAR, "$accent")


def _snippet(snippet: str) -> Content:
    parts = []
    for number, piece in enumerate(snippet.split(MARK)):
        match, mark, rest = piece.rpartition(UNMARK) if number else ("", "", piece)
        parts += [Content.styled(one_line(match), _MARKED)] if mark else []
        parts.append(Content(one_line(rest)))
    return Content("").join(parts)


def _named(path: str, about: str, width: int) -> Content:
    """A path, cut in the middle, and what is said about it, in one row."""
    tail = f", {columns.middle(about, min(len(about) * 2, max(1, width // 2))).rstrip()}" if about else ""
    room = max(1, width - Content(tail).cell_length)
    return Content.styled(columns.middle(one_line(path), room).rstrip(), "bold") + Content.styled(tail, "dim")


# Folders


def folder(root: RootStatus, is_missing: bool, width: int) -> Content:
    """A folder in two rows: its path, and what the index has of it."""
    counts = [_count(root.files, "file"), _count(root.chunks, "passage"), human_bytes(root.size)]
    counts += [f"{root.pending:,} pending"] if root.pending else []
    counts += [f"{len(root.refused):,} refused"] if root.refused else []
    about = (Content.styled("is not there now · ", "bold"),) if is_missing else ()
    line = Content("").join([Content(_INDENT), *about, Content.styled(" · ".join(counts), "dim")])
    name = columns.middle(one_line(hits.short(root.root.path)), max(1, width)).rstrip()
    return Content.styled(name, "bold") + "\n" + line.truncate(max(1, width), ellipsis=True)


def details(root: RootStatus, is_missing: bool) -> Content:
    """A folder in full: its path, how it stands, and each file that was refused, with the reason."""
    lines = [one_line(str(root.root.path)), f"{_count(root.files, 'file')}, {_count(root.chunks, 'passage')}"]
    if is_missing:
        lines.append("is not there now; what the index holds of it is kept")
    if root.pending:
        lines.append(f"{_count(root.pending, 'passage')} without a vector: found by words alone until F5 embeds them")
    parts = [Content("\n".join(lines))]
    if root.refused:
        parts.append(Content.styled(f"\n\n{_count(len(root.refused), 'file')} not read:", "bold"))
    for name, why in root.refused[:_MOST_REFUSED]:
        parts.append(Content(f"\n{one_line(name)}") + Content.styled(f": {one_line(why)}", "dim"))
    if len(root.refused) > _MOST_REFUSED:
        parts.append(Content(f"\nand {len(root.refused) - _MOST_REFUSED:,} more"))
    return Content("").join(parts)


def summary(status: Status) -> Content:
    """The models and the size of the index."""
    lines = []
    for each in status.models:
        notes = [f"{each.pending:,} pending"] if each.pending else []
        notes += ["being built"] if each.model.state == ModelState.BUILDING else []
        count = ", ".join([_count(each.vectors, "vector"), *notes])
        lines.append(f"{one_line(each.model.name)} ({each.model.medium}): {count}")
    if not lines:
        lines.append("no vectors: words alone are searched")
    return Content("\n".join([*lines, f"the index has {human_bytes(status.size)}"]))


def outcome(report: Report) -> str:
    """What a run did, in one line."""
    parts = [_count(report.files, "file"), *(report.changes() or ["nothing has changed"])]
    parts += [f"{_count(report.embedded, 'passage')} embedded"] if report.embedded else []
    refused = report.refused.total()
    parts += [f"{refused:,} refused"] if refused else []
    parts += [f"{report.failed:,} without a vector"] if report.failed else []
    return " · ".join(parts)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"
