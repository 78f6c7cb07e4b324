"""The index of folders: one SQLite file with their texts, words and vectors. What a method has stored when it returns
survives a kill of the process.

One connection writes and another reads, each behind a lock: a `Store` may be used from any thread, a search never
waits for a writer, and several processes may share the file. It knows no parser and no model.
"""

import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import islice
from pathlib import Path

import numpy as np

from edgemm import paths, sqlite
from edgemm.errors import BadFile, UsageError
from edgemm.index import check, contents, database, export, files, keywords, lookup, models, pages
from edgemm.index.cache import Memory
from edgemm.index.export import Record
from edgemm.index.pages import Float, Mask
from edgemm.index.records import (
    Chunk,
    FileFacts,
    Known,
    Medium,
    Model,
    ModelState,
    Passage,
    Pending,
    Root,
    Scope,
    Status,
)
from edgemm.index.scan import Scanner
from edgemm.settings import Settings

Found = list[tuple[int, float]]  # chunk and score, the best first

_AT_ONCE = 100  # files that are taken out in one transaction
_FREE = 0.2  # of the file: then it is worth being written anew without what is free


def default_path() -> Path:
    """Of the user's own index."""
    return Settings.from_environment().index or paths.data() / "index.sqlite"


class Store:
    """Every method raises `UsageError` for a folder or model that is not there (any more), `DiskFull`, `BadFile` for a
    damaged file, and `ResourceError` when another program holds the file for 10 s. A failed method changes nothing,
    except where it says that it works in steps.
    """

    def __init__(self, path: Path | None = None) -> None:
        """None: `default_path()`. Raises `BadFile` (damaged, of a newer version, not writable) or `DiskFull`."""
        self.path = (path or default_path()).absolute()
        self._writing, self._reading, self._scanning = threading.RLock(), threading.RLock(), threading.RLock()
        self._writer = database.connect(self.path)
        try:
            self._reader = database.connect(self.path)
        except BaseException:
            self._writer.close()
            raise
        self._scanner: Scanner | None = None
        self._memory = Memory()

    # Folders and files

    def roots(self) -> list[Root]:
        with self._read() as db:
            return files.roots(db)

    def add_root(self, path: Path) -> Root:
        """The root at `path`, which is made absolute; it may be there already."""
        with self._write() as db:
            return files.add_root(db, path.absolute())

    def remove_root(self, root: int) -> None:
        """Forget a folder with all its files, in steps: after a kill, call it again."""
        self.forget(root, self.known(root))
        with self._write() as db:
            files.remove_root(db, root)

    def known(self, root: int) -> dict[str, Known]:
        """What is stored of each file, refused ones included: a file that is still the same need not be read."""
        with self._read() as db:
            return files.known(db, root)

    def put(self, root: int, facts: FileFacts, passages: Iterable[Passage] = ()) -> int:
        """Replace what is stored of a file, and say how many chunks it has. Its words are found at once.

        Passages that were there before, in any file, keep their vectors; so put what is new before you `forget` what
        is gone, and a file that was moved embeds nothing.
        """
        with self._write() as db:
            return files.put(db, root, facts, (files.encode(facts, passage) for passage in passages))

    def touch(self, root: int, name: str, size: int, mtime_ns: int) -> None:
        """The file was written, but its content is the same."""
        with self._write() as db:
            files.touch(db, root, name, size, mtime_ns)

    def forget(self, root: int, names: Iterable[str]) -> None:
        """Take files out, a hundred at a time. Their vectors are kept until `compact`, in case they come back."""
        left = iter(names)
        while some := list(islice(left, _AT_ONCE)):
            with self._write() as db:
                files.check_root(db, root)
                files.forget(db, root, some)

    # Models and vectors

    def models(self) -> list[Model]:
        with self._read() as db:
            return models.models(db)

    def add_model(self, name: str, fingerprint: str, dimensions: int, medium: Medium = Medium.TEXT) -> Model:
        """The model, which may be there already. For a new one, everything of its medium is pending."""
        with self._write() as db:
            return models.add(db, name, fingerprint, dimensions, medium)

    def ready(self, medium: Medium = Medium.TEXT) -> Model | None:
        """The model that searches use."""
        found = [model for model in self.models() if model.medium == medium and model.state == ModelState.READY]
        return found[-1] if found else None

    def model_ready(self, model: int) -> None:
        """Let searches use `model`, and drop the vectors of every other one of its medium, in one transaction."""
        with self._write() as db:
            models.make_ready(db, model)

    def pending(self, model: int, limit: int, after: int = 0) -> list[Pending]:
        """What has no vector of `model` yet, in the order in which it came, beyond the content `after`."""
        with self._read() as db:
            models.find(db, model)
            return contents.pending(db, model, limit, after)

    def pending_size(self, model: int) -> tuple[int, int]:
        """How many contents have no vector of `model`, and of how many characters."""
        with self._read() as db:
            return contents.pending_size(db, model)

    def add_vectors(self, model: int, hashes: Sequence[bytes], vectors: Float) -> int:
        """Store float32 (n, dimensions), rounded to int8, for what `pending` named, and say how many were stored.

        What has a vector already, or is no longer there, is passed over.
        """
        rows = np.asarray(vectors, np.float32)
        with self._write() as db:
            _check_shape(models.find(db, model), rows, len(hashes))
            wanted = contents.missing(db, model, hashes)
            ids = np.fromiter(wanted.values(), np.int64)
            slots = pages.append(db, model, pages.quantize(ids, rows[list(wanted)]))
            places = [(*slot, model, id) for slot, id in zip(slots, ids.tolist(), strict=True)]
            db.executemany("UPDATE vector SET page = ?, slot = ? WHERE model = ? AND content = ?", places)
        return len(slots)

    # Searching

    def chunk(self, id: int) -> Chunk:
        if found := self.chunks([id]):
            return found[0]
        raise UsageError(f"chunk {id}", "is not in the index, or was replaced", "search again")

    def chunks(self, ids: Iterable[int]) -> list[Chunk]:
        """In the order of `ids`, without those that are gone."""
        with self._read() as db:
            return lookup.chunks(db, ids)

    def mask(self, scope: Scope) -> Mask:
        """bool, indexed by chunk: what `words` and `nearest` may find."""
        with self._read() as db:
            return lookup.mask(db, scope)

    def count(self) -> int:
        """How many chunks there are."""
        with self._read() as db:
            return lookup.count(db)

    def each(self, using: Iterable[Model] = (), batch: int = 1000) -> Iterator[list[Record]]:
        """Every chunk that is there when it begins, by id, with its vector of the model among `using` for its medium.

        `batch` chunks at a time are of one moment, and between them nothing is held. A file that is replaced meanwhile
        has new ids: its chunks that were not reached yet are left out, and the new ones do not come.
        """
        chosen, after = tuple(using), 0
        with self._read() as db:
            until = export.last(db)
        while after < until:
            with self._read() as db, sqlite.snapshot(db):
                found = export.read(db, chosen, after, until, batch)
            if not found:
                return
            after = found[-1].chunk.id
            yield found

    def words(self, query: str, allowed: Mask | None = None, limit: int = 50) -> Found:
        """Chunks that hold words of `query`, and scores from 0 to 1; the rarer words decide. Any text is a query."""
        with self._read() as db:
            return keywords.search(db, query, _flags(allowed), limit)

    def nearest(self, model: int, query: Float, k: int, allowed: Mask | None = None) -> Found:
        """The `k` chunks with the largest dot product of their vector with `query`, float32 (dimensions,).

        The scan is exact. `allowed` applies before the best are chosen.
        """
        return self.nearest_each(model, np.asarray(query, np.float32)[None], k, allowed)[0]

    def nearest_each(self, model: int, queries: Float, k: int, allowed: Mask | None = None) -> list[Found]:
        """`nearest` for each row of float32 (q, dimensions), in less time than one by one."""
        rows, flags = np.asarray(queries, np.float32), _flags(allowed)
        with self._scanning:  # it takes every core, so two at once would gain nothing
            with self._read() as db, sqlite.snapshot(db):
                _check_shape(models.find(db, model), rows, len(rows))
                vectors, wanted = self._memory.vectors(db, model, rows.shape[1]), self._memory.contents(db, flags)
            if k <= 0 or not len(vectors):
                return [[] for _ in rows]
            self._scanner = self._scanner or Scanner()
            found = self._scanner.nearest(vectors, rows, k, wanted)
            with self._read() as db:
                return [_of_contents(db, scored, k, flags) for scored in found]

    # Upkeep

    def status(self) -> Status:
        with self._read() as db, sqlite.snapshot(db):
            return check.status(db)

    def verify(self) -> list[str]:
        """What is wrong with the file, in words; empty when all is well. Reads all of it."""
        try:
            with self._read() as db, sqlite.snapshot(db):
                found = check.problems(db)
            with self._write() as db:
                return found + check.wrong_words(db)
        except BadFile as error:
            return [error.why]

    def compact(self) -> int:
        """Drop dead vectors where a fifth of a page is dead, give free space back, and say how many bytes that were.

        It works in steps, each of which leaves every search the same.
        """
        before = self._size()
        with self._locked() as db:
            for model, page, dimensions in pages.too_dead(db):
                with sqlite.transaction(db):
                    pages.compact(db, model, page, dimensions)
            with sqlite.transaction(db):
                contents.forget_buried(db)
            if sqlite.pragma(db, "freelist_count") > _FREE * sqlite.pragma(db, "page_count"):
                db.execute("VACUUM")
        return before - self._size()

    def exclusive(self, wait: float = 0.0) -> AbstractContextManager[None]:
        """Held by whoever brings the index up to date, so that two do not do the same work; gone when they die.

        Raises `ResourceError` when it is still held by another after `wait` seconds.
        """
        lock = self.path.with_name(f"{self.path.name}.lock")
        return sqlite.exclusive(lock, wait, "another edgemm is bringing the index up to date")

    def close(self) -> None:
        with self._scanning, self._writing, self._reading, database.faults(self.path):
            self._reader.close()
            self._writer.close()
            if self._scanner:
                self._scanner.close()

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _read(self) -> Iterator[sqlite3.Connection]:
        with self._reading, self._faults():
            yield self._reader

    @contextmanager
    def _locked(self) -> Iterator[sqlite3.Connection]:
        with self._writing, self._faults():
            yield self._writer

    @contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        with self._locked() as db, sqlite.transaction(db):
            yield db

    @contextmanager
    def _faults(self) -> Iterator[None]:
        """Besides SQLite's own errors: what it reads without complaint can be damaged as well."""
        try:
            with database.faults(self.path):
                yield
        except (ValueError, TypeError, IndexError, RecursionError) as error:
            raise BadFile(self.path, f"is damaged ({error})", database.REPAIR) from error

    def _size(self) -> int:
        with self._read() as db:
            return sqlite.pragma(db, "page_count") * sqlite.pragma(db, "page_size")


def rebuild(path: Path | None = None) -> Store:
    """Move a damaged index to `<name>.damaged`, and begin a new one with its folders, as far as they can be read."""
    place = path or default_path()
    found = check.move_away(place)
    index = Store(place)
    for root in found:
        index.add_root(root)
    return index


def _of_contents(db: sqlite3.Connection, scored: Found, k: int, allowed: Mask | None) -> Found:
    """The chunks of contents: copies of a text have the same score."""
    found: Found = []
    for content, score in scored:
        found += [(chunk, score) for chunk in lookup.of_content(db, content, allowed)]
        if len(found) >= k:
            break
    return found[:k]


def _check_shape(model: Model, vectors: Float, count: int) -> None:
    if vectors.shape != (count, model.dimensions):
        why = f"have the shape {vectors.shape}, not {(count, model.dimensions)}"
        raise UsageError(f"vectors of {model.name}", why, "embed with that model, to its dimensions")
    if not np.isfinite(vectors).all():
        raise UsageError(f"vectors of {model.name}", "hold what is no number", "embed them again")


def _flags(allowed: Mask | None) -> Mask | None:
    return None if allowed is None else np.asarray(allowed, bool)
