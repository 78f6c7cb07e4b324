"""Brings an index up to date with its folders: new files are read and found by their words at once, vectors follow.

A file whose size and time are those that are stored is not opened. What is done is stored as it goes, so that an
interrupted run is gone on with. Vectors come from functions that the caller gives; it knows no model.
"""

import errno
import os
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import accumulate
from pathlib import Path

import numpy as np

from edgemm.device import return_large_blocks
from edgemm.documents import Count, Document, Found, Reader, Refused, Skipped, chunks, walk
from edgemm.documents.kinds import Kind
from edgemm.documents.reader import Result
from edgemm.errors import BadFile, EdgemmError
from edgemm.events import Note, Progress, Work
from edgemm.index import FileFacts, FileState, Known, Medium, Model, Passage, Pending, Root, Store
from edgemm.index.pages import Float

PARSER = 1  # grows when files would be read or cut otherwise; then all are read again
CHUNK = 256  # tokens at most
_BATCH = 512  # contents are embedded and stored together: they are sorted by length, and so many are lost by a kill
_SECOND = 1_000_000_000  # nanoseconds
_RECENT = 2 * _SECOND  # a file as young may be written again within the same tick of its clock
_AHEAD = 3600 * _SECOND  # clocks of other machines may be as far ahead; beyond that, a time is merely wrong
_CANNOT_LIST = "cannot be listed"  # how `walk` begins to say so
_NO_FILE = {"symbolic link", "pipe, device or socket"}  # what `walk` skips and knows to be no file
# The system's own words: a file that cannot be opened now may be open to us next time, with the same size and time.
_SYSTEM = {os.strerror(number).lower() for number in errno.errorcode}


@dataclass(frozen=True, slots=True)
class Encoder:
    """What gives vectors for one medium: the model's name and fingerprint, and float32 (n, dimensions) of contents.

    `count` and `window`, the most tokens of a chunk, are those of a text model. `tokens`: embedded so far, in all.
    """

    name: str
    fingerprint: str
    dimensions: int
    medium: Medium
    embed: Callable[[Sequence[Pending]], Float]
    tokens: Callable[[], int] = lambda: 0
    count: Count | None = None
    window: int = CHUNK


@dataclass
class Report:
    """What one run did. `files` are in the folders now; `refused` and `skipped`: why, and how many."""

    files: int = 0
    added: int = 0
    changed: int = 0
    unchanged: int = 0
    removed: int = 0
    chunks: int = 0
    embedded: int = 0
    tokens: int = 0
    failed: int = 0
    seconds: float = 0.0
    refused: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    missing: list[str] = field(default_factory=list)

    def changes(self) -> list[str]:
        """What has changed in the index: "20 new", "3 changed", "2 gone"."""
        numbers = {"new": self.added, "changed": self.changed, "gone": self.removed}
        return [f"{count:,} {what}" for what, count in numbers.items() if count]


Events = Iterator[Progress | Note | Report]


def update(store: Store, roots: Sequence[Root], encoders: Sequence[Encoder], workers: int = 2) -> Events:
    """Read what has changed below `roots`, then embed whatever has no vector. Ends with the `Report`.

    Raises `ResourceError` when another process is at it, `DiskFull`, or what an encoder raises.
    """
    return_large_blocks()
    report, started = Report(), time.perf_counter()
    text = next((each for each in encoders if each.medium == Medium.TEXT), None)
    with store.exclusive(), Reader(workers) as reader:
        models = [(encoder, _model(store, encoder)) for encoder in encoders]
        for root in roots:
            yield from _Folder(store, root, reader, text, report).update()
        for encoder, model in models:
            yield from _embed(store, encoder, model, report)
        store.compact()
    report.seconds = time.perf_counter() - started
    yield report


def _model(store: Store, encoder: Encoder) -> Model:
    """The encoder's model in the index. The first of its medium serves at once, half built as it is."""
    model = store.add_model(encoder.name, encoder.fingerprint, encoder.dimensions, encoder.medium)
    if store.ready(encoder.medium) is None:
        store.model_ready(model.id)
    return model


@dataclass
class _Folder:
    """One root, brought up to date."""

    store: Store
    root: Root
    reader: Reader
    text: Encoder | None
    report: Report

    def update(self) -> Work[None]:
        if not is_folder(self.root.path):
            self.report.missing.append(str(self.root.path))
            yield Note(f"{self.root.path}: is not there now; what the index holds of it is kept")
            return
        known = self.store.known(self.root.id)
        todo, gone = yield from self._scan(known)
        yield from self._read(todo, known)
        self.store.forget(self.root.id, gone)  # after what is new, so that a file that was moved keeps its vectors
        self.report.removed += len(gone)

    def _scan(self, known: dict[str, Known]) -> Work[tuple[list[Found], list[str]]]:
        """Files that must be read, and names of those that are gone."""
        todo, seen, closed = [], set(), set()
        for number, each in enumerate(walk(self.root.path)):
            if number % 1000 == 999:
                yield Progress(f"scan {self.root.path.name}", number + 1, 0, "files")
            if isinstance(each, Skipped):
                self.report.skipped[each.why] += 1
                closed |= {each.name.rstrip("/")} if _is_closed(each) else set()
                continue
            seen.add(each.name)
            self.report.files += 1
            if _is_same(each, known.get(each.name)):
                self.report.unchanged += 1
            else:
                todo.append(each)
        return todo, [name for name in known if name not in seen and not _is_below(name, closed)]

    def _read(self, todo: Sequence[Found], known: dict[str, Known]) -> Work[None]:
        total, done = sum(each.size for each in todo), 0
        for result in self.reader.read(todo):
            self._put(result, known.get(result.found.name))
            done += result.found.size
            del result  # a large document is gone before the next one is read
            yield Progress("read", done, total, "B")

    def _put(self, result: Result, known: Known | None) -> None:
        document, name = result.document, result.found.name
        if isinstance(document, Refused):
            self.report.refused[document.why] += 1
            self.store.put(self.root.id, _facts(result, why=document.why))
            return
        if known and (known.hash, known.parser) == (result.hash, PARSER):
            facts = _facts(result)
            self.store.touch(self.root.id, name, facts.size, facts.mtime_ns)
            self.report.unchanged += 1
            return
        passages = self._passages(result.found, document)
        facts = _facts(result, title=document.title, taken=document.taken)
        self.report.chunks += self.store.put(self.root.id, facts, passages)
        self.report.changed += known is not None
        self.report.added += known is None

    def _passages(self, found: Found, document: Document) -> Iterator[Passage]:
        if found.kind is Kind.IMAGE:
            yield Passage("", medium=Medium.PICTURE)
            return
        count = self.text.count if self.text and self.text.count else rough_spans
        window = self.text.window if self.text else CHUNK
        for each in chunks(document, count, window):
            yield Passage(each.text, each.heading, asdict(each.place), each.start, each.end, each.prefix)


def is_folder(path: Path) -> bool:
    """As far as we may look: what lies in a locked folder is none to us."""
    try:
        return path.is_dir()
    except OSError:
        return False


def rough_spans(texts: Sequence[str]) -> list[list[tuple[int, int]]]:
    """Stands for a tokenizer where there is no model yet: four characters a token, which is on the safe side."""
    return [[(at, min(at + 4, len(text))) for at in range(0, len(text), 4)] for text in texts]


def _embed(store: Store, encoder: Encoder, model: Model, report: Report) -> Work[None]:
    """Give a vector to everything that has none; then let `model` serve, and drop the one that it replaces."""
    waiting, characters = store.pending_size(model.id)
    stage, before, done, read, last = f"embed with {encoder.name}", encoder.tokens(), 0, 0, 0
    while some := store.pending(model.id, _BATCH, last):
        good, vectors, failures = _vectors(encoder, some)
        if good:
            report.embedded += store.add_vectors(model.id, [each.hash for each in good], vectors)
        for failure in failures:
            yield Note(f"{failure.what}: {failure.why}")
        report.failed += len(failures)
        last, done = some[-1].id, done + len(some)
        read += sum(len(each.text) for each in some)
        tokens = encoder.tokens() - before
        if tokens:  # how many are left is known when all are read; until then they are as long as those before
            yield Progress(stage, tokens, max(tokens, round(tokens * characters / max(read, 1))), "tokens")
        else:
            yield Progress(stage, done, waiting, "pictures")
    report.tokens += encoder.tokens() - before
    if [each.id for each in store.models() if each.medium == model.medium] != [model.id]:
        store.model_ready(model.id)


def _vectors(encoder: Encoder, some: Sequence[Pending]) -> tuple[list[Pending], Float, list[EdgemmError]]:
    """The vectors of those that have one, and why the others have none: a picture may be damaged, or another one."""
    try:
        vectors = encoder.embed(some)
        if np.isfinite(vectors).all():
            return list(some), vectors, []
        raise BadFile(some[0].path, f"{encoder.name} gives no numbers for a part of it", "embed with another model")
    except BadFile as error:
        if len(some) == 1:
            return [], np.empty((0, encoder.dimensions), np.float32), [BadFile(some[0].path, error.why, error.fix)]
    half = len(some) // 2
    first, second = _vectors(encoder, some[:half]), _vectors(encoder, some[half:])
    return [*first[0], *second[0]], np.concatenate([first[1], second[1]]), [*first[2], *second[2]]


def _is_closed(skipped: Skipped) -> bool:
    """Whether nobody knows what is there now: a folder that cannot be listed, or what the system tells nothing of."""
    if skipped.name.endswith("/") or skipped.name == ".":
        return skipped.why.startswith(_CANNOT_LIST)
    return skipped.why not in _NO_FILE


def _is_below(name: str, closed: Collection[str]) -> bool:
    """Whether a name, or a folder that it is in, is one of `closed`; "." is the root."""
    return "." in closed or any(above in closed for above in accumulate(name.split("/"), "{}/{}".format))


def _is_same(found: Found, known: Known | None) -> bool:
    return known is not None and (known.size, known.mtime_ns, known.parser) == (found.size, found.mtime_ns, PARSER)


def _facts(result: Result, *, why: str = "", title: str = "", taken: str = "") -> FileFacts:
    found = result.found
    state = FileState.REFUSED if why else FileState.READ
    is_settled = why not in _SYSTEM and not -_AHEAD < time.time_ns() - found.mtime_ns < _RECENT
    mtime_ns = found.mtime_ns if is_settled else found.mtime_ns - 1  # not quite: it is read again next time
    return FileFacts(found.name, found.size, mtime_ns, result.hash, found.kind, state, why, title, taken, PARSER)
