"""Writes a blueprint as a GGUF file: each tensor is read, transformed, quantized and stored, a slab of rows at a time.

There is no intermediate file and no whole model in memory: a few slabs are on their way at once, one for each thread,
and their bytes go to offsets that were known before. A journal beside the file remembers which tensors are complete,
so that the same conversion goes on where it was interrupted. It decides no type: `types` says what each tensor becomes.
"""

import hashlib
import json
import os
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from converters import ggml
from converters.checkpoint import Array
from converters.gguf_file import Entry, Settings, data_bytes, header, offsets, padding
from converters.gguf_model import Tensor
from converters.gguf_source import Stored
from edgemm import device
from edgemm.errors import disk_errors
from edgemm.events import Progress

SLAB = 1 << 22  # weights on their way in one piece: 16 MB as float32
_AHEAD = 2  # slabs on their way for each thread
_JOURNAL_SECONDS = 1.0

Types = Mapping[str, str]
Importance = Mapping[str, Array]


@dataclass(frozen=True)
class Draft:
    """A GGUF file to be written: its settings, its tensors in order, and the type of each."""

    settings: Settings
    tensors: list[Tensor]
    types: Types

    @property
    def entries(self) -> list[Entry]:
        return [Entry(t.name, t.shape, self.types[t.name]) for t in self.tensors]

    @property
    def bytes(self) -> int:
        """The exact size of the file."""
        entries = self.entries
        return len(header(self.settings, entries)) + data_bytes(entries)


def write(
    path: Path,
    draft: Draft,
    importance: Importance,
    sizes: Mapping[str, int],
    threads: int = 0,
    stage: str = "quantize",
) -> Iterator[Progress]:
    """Write `draft` to `path`, or go on with it; `path` appears when it is complete.

    `importance` is by tensor: float32 (columns,). The bytes do not depend on `threads`. Raises `BadFile` for weights
    that are not finite, `DiskFull`. Its unfinished file and its journal lie beside `path`.
    """
    entries = draft.entries
    head = header(draft.settings, entries)
    places = [len(head) + at for at in (*offsets(entries), data_bytes(entries))]
    part = path.with_name(path.name + ".part")
    journal = _Journal(part, head, places, importance)
    total = sum(t.weights for t in draft.tensors)
    done = sum(t.weights for t in draft.tensors[: journal.complete])
    workers = threads or device.cores()
    pieces = (slab for tensor in draft.tensors[journal.complete :] for slab in slabs(tensor, sizes))
    with disk_errors(path), ThreadPoolExecutor(workers) as pool, _open(part, head, journal) as file:
        try:
            file.seek(places[journal.complete])
            for slab, packed in _quantized(pool, _AHEAD * workers, pieces, draft.types, importance):
                file.write(packed.data)
                done += slab.weights
                yield Progress(stage, done, total, "weights")
                if slab.is_last:
                    file.write(padding(entries[journal.complete].bytes))
                    journal.finished(journal.complete + 1, file)
            file.flush()
            os.fsync(file.fileno())
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    with disk_errors(path):
        part.replace(path)
        journal.remove()


def _open(path: Path, head: bytes, journal: "_Journal") -> BinaryIO:
    if not journal.complete:
        file = open(path, "w+b")  # noqa: SIM115 - closed by the caller's `with`
        file.write(head)
        return file
    return open(path, "r+b")


def _quantized(
    pool: ThreadPoolExecutor, most: int, pieces: Iterable["Slab"], types: Types, importance: Importance
) -> Iterator[tuple["Slab", ggml.Bytes]]:
    """Each piece and its bytes, in order. `most` are on their way, so that no thread waits for another's last one."""
    waiting: deque[tuple[Slab, Future[ggml.Bytes]]] = deque()
    for piece in pieces:
        name = piece.tensor.name
        waiting.append((piece, pool.submit(piece.packed, types[name], importance.get(name))))
        if len(waiting) > most:
            first, packed = waiting.popleft()
            yield first, packed.result()
    for first, packed in waiting:
        yield first, packed.result()


@dataclass(frozen=True, slots=True)
class Slab:
    """Some rows of a tensor: `load` gives them as float32 (rows, columns)."""

    tensor: Tensor
    start: int
    stop: int
    whole: Array | None
    sizes: Mapping[str, int]

    @property
    def weights(self) -> int:
        return (self.stop - self.start) * self.tensor.shape[-1]

    @property
    def is_last(self) -> bool:
        """Whether it ends its tensor."""
        return self.stop == (self.tensor.shape[0] if len(self.tensor.shape) > 1 else 1)

    def load(self) -> Array:
        columns = self.tensor.shape[-1]
        if self.whole is not None:
            return self.whole[self.start : self.stop]
        if len(self.tensor.shape) == 1:
            return transformed(self.tensor, self.sizes).reshape(1, columns)
        rows = self.tensor.source.read(self.start, self.stop)
        return self.tensor.operation.apply(rows, dict(self.sizes)).reshape(-1, columns)

    def packed(self, kind: str, importance: Array | None) -> ggml.Bytes:
        """The rows stored as `kind`: uint8 (rows, bytes of a row)."""
        source, values = self.tensor.source, self.load()  # read in any case: values that are not finite are refused
        if isinstance(source, Stored) and source.dtype == kind:
            return source.raw(self.start, self.stop)
        return ggml.quantize(values, kind, importance)


def slabs(tensor: Tensor, sizes: Mapping[str, int]) -> Iterator[Slab]:
    """The tensor in pieces of at most `SLAB` weights. One whose operation moves rows is held as a whole meanwhile."""
    rows = tensor.shape[0] if len(tensor.shape) > 1 else 1
    step = max(1, SLAB // tensor.shape[-1])
    whole = None if rows == 1 or tensor.operation.by_rows else transformed(tensor, sizes)
    for start in range(0, rows, step):
        yield Slab(tensor, start, min(rows, start + step), whole, sizes)


def transformed(tensor: Tensor, sizes: Mapping[str, int]) -> Array:
    """The whole tensor as the file will hold it, before quantization: float32."""
    return tensor.operation.apply(tensor.source.read(0, tensor.source.rows), dict(sizes))


class _Journal:
    """How many tensors of the unfinished file `part` are complete; bound to what would be written by a hash."""

    def __init__(self, part: Path, head: bytes, ends: Sequence[int], importance: Importance) -> None:
        """`ends`: where each tensor begins, and the last one ends."""
        self._path = part.with_name(part.name + ".journal")
        self._key = _fingerprint(head, importance)
        self._saved_at = time.monotonic()
        self.complete = self._read(part, ends)

    def finished(self, tensors: int, file: BinaryIO) -> None:
        """Remember it, at most once a second: what was written before is on the disk by then."""
        self.complete = tensors
        if time.monotonic() - self._saved_at < _JOURNAL_SECONDS:
            return
        file.flush()
        os.fsync(file.fileno())
        temporary = self._path.with_suffix(".tmp")
        temporary.write_text(json.dumps({"key": self._key, "complete": tensors}), "utf-8")
        temporary.replace(self._path)
        self._saved_at = time.monotonic()

    def remove(self) -> None:
        self._path.unlink(missing_ok=True)

    def _read(self, part: Path, ends: Sequence[int]) -> int:
        """0 unless the journal belongs to this file, and the disk has kept what it promises."""
        try:
            saved = json.loads(self._path.read_bytes())
            complete = int(saved["complete"])
            kept = saved["key"] == self._key and 0 < complete < len(ends) and part.stat().st_size >= ends[complete]
        except (OSError, ValueError, KeyError, TypeError, RecursionError, OverflowError):
            return 0
        return complete if kept else 0


def _fingerprint(head: bytes, importance: Importance) -> str:
    digest = hashlib.sha256(head)
    for name in sorted(importance):
        digest.update(name.encode() + np.ascontiguousarray(importance[name], np.float32).tobytes())
    return digest.hexdigest()
