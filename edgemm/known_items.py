"""A test of search for any folder, without judgements: a sentence about a text is asked, and the text is the answer.

Docstrings find the code of their functions and classes, headings find their sections in Markdown and
reStructuredText. It runs no model, executes nothing that it reads, and holds a sample of a folder, not all of it.
"""

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from edgemm.documents import Found, Reader, Refused, walk
from edgemm.documents.decode import text_of
from edgemm.documents.kinds import Kind
from edgemm.documents.records import Unreadable
from edgemm.errors import UsageError
from edgemm.evaluation.pairs import Pair, gives_away, of_python, of_section
from edgemm.evaluation.records import Collection, Text, drawn, lot
from edgemm.events import Progress, Work
from edgemm.words import clean

QUERIES, PASSAGES = 500, 20_000  # are drawn at most
_PYTHON = (".py", ".pyw")
_MAX_SOURCE = 1 << 20  # bytes: a syntax tree needs a hundred times as many
_TOLD = 20  # files between two events


def collect(folder: Path, queries: int = QUERIES, passages: int = PASSAGES) -> Work[Collection]:
    """At most so many queries and passages, drawn by lot: the same ones for the same files, whatever their order.

    Raises `UsageError` for what is no folder, and for one in which nothing can be asked for.
    """
    if not folder.is_dir():
        raise UsageError(folder, "there is no such folder", "name a folder with documents")
    sample = _Sample(passages)
    files = [each for each in walk(folder) if isinstance(each, Found)]
    sources = [each for each in files if each.name.endswith(_PYTHON)]
    documents = [each for each in files if each.kind in (Kind.MARKDOWN, Kind.RST)]
    total = len(sources) + len(documents)
    for done, (name, pairs) in enumerate(_all(sources, documents, sample.skipped), 1):
        for pair in pairs:
            sample.add(name, pair)
        if done % _TOLD == 0 or done == total:
            yield Progress("read", done, total, "files")
    asked = drawn(sample.asked(), queries)
    if not asked:
        why = "holds no docstring and no heading that could be asked for"
        raise UsageError(folder, why, "name one with Python, Markdown or reStructuredText, or in the layout of BEIR")
    judged = {query.key: {sample.answer(query): 1.0} for query in asked}
    return Collection(str(folder), sample.kept(), asked, judged, tuple(sample.notes(total, len(asked))))


def _all(
    sources: Iterable[Found], documents: list[Found], skipped: Counter[str]
) -> Iterator[tuple[str, Iterable[Pair]]]:
    for found in sources:
        yield found.name, _of_source(found, skipped)
    if not documents:
        return
    with Reader(workers=1) as reader:
        for result in reader.read(documents):
            if isinstance(result.document, Refused):
                skipped["unreadable"] += 1
                yield result.found.name, ()
            else:
                yield result.found.name, filter(None, map(of_section, result.document.sections))


def _of_source(found: Found, skipped: Counter[str]) -> list[Pair]:
    try:
        if found.size > _MAX_SOURCE:
            raise ValueError("too large")
        with open(found.path, "rb") as file:
            return list(of_python(text_of(file.read(_MAX_SOURCE))))
    except (OSError, ValueError, Unreadable):
        skipped["unreadable"] += 1
        return []


@dataclass
class _Sample:
    """Passages drawn by lot as they come, each text once, and what can be asked for them."""

    most: int
    skipped: Counter[str] = field(default_factory=Counter)
    _kept: dict[bytes, Text] = field(default_factory=dict)  # by lot
    _highest: list[tuple[int, bytes]] = field(default_factory=list)  # a heap, the highest lot first
    _asked: dict[bytes, tuple[Text, bytes] | None] = field(default_factory=dict)  # None: has several answers

    def add(self, name: str, pair: Pair) -> None:
        key, passage = f"{name}:{pair.line}", clean(pair.passage).replace("\0", " ")
        ticket = lot(passage)
        self._keep(ticket, Text(key, passage))
        if not pair.query:
            self.skipped["short"] += 1
        elif gives_away(passage, pair.query):
            self.skipped["given away"] += 1
        else:
            self._ask(Text(f"? {key}", clean(pair.query).replace("\0", " ")), ticket)

    def asked(self) -> Iterator[Text]:
        return (found[0] for found in self._asked.values() if found and found[1] in self._kept)

    def answer(self, query: Text) -> str:
        found = self._asked[_asked_as(query)]
        assert found
        return self._kept[found[1]].key

    def kept(self) -> list[Text]:
        return sorted(self._kept.values(), key=lambda text: text.key)

    def notes(self, files: int, asked: int) -> Iterator[str]:
        broken = self.skipped["unreadable"]
        yield f"{files - broken:,} files read" + (f", {broken:,} cannot be read" if broken else "")
        reasons = {
            "not unique": sum(found is None for found in self._asked.values()),
            "in their passage as they are": self.skipped["given away"],
            "too short": self.skipped["short"],
        }
        left = ", ".join(f"{count:,} {why}" for why, count in reasons.items() if count)
        yield f"{asked:,} known items among {len(self._kept):,} passages" + (f"; not asked: {left}" if left else "")

    def _keep(self, ticket: bytes, text: Text) -> None:
        if ticket in self._kept:
            return
        self._kept[ticket] = text
        heapq.heappush(self._highest, (-int.from_bytes(ticket), ticket))
        if len(self._kept) > self.most:
            del self._kept[heapq.heappop(self._highest)[1]]

    def _ask(self, query: Text, ticket: bytes) -> None:
        found = self._asked.setdefault(_asked_as(query), (query, ticket))
        if found and found[1] != ticket:
            self._asked[_asked_as(query)] = None


def _asked_as(query: Text) -> bytes:
    return lot(query.text.casefold())
