"""Texts and pictures from files or lines, and vectors to .npy or .jsonl: what `edgemm embed` reads and writes.

Both ends stream, so that memory does not grow with the input. It knows no model.
"""

import json
import os
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import IO, Any, TextIO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from edgemm import models
from edgemm.batches import BatchOptions
from edgemm.embed import Embedder, Kind
from edgemm.errors import BadFile, UsageError, disk_errors
from edgemm.image import is_image
from edgemm.vision import VisionModel

Engine = Embedder | VisionModel
Content = str | Path
_MAX_FILE = 64 << 20


@dataclass(frozen=True, slots=True)
class Batch:
    """Names of the inputs (a path, or a line number) and their vectors, float32 (len(names), dimensions)."""

    names: list[str]
    vectors: NDArray[np.float32]


class Files:
    """Whole UTF-8 files, one text each, and pictures, told by their suffix."""

    unit = "files"

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = files
        self.total = len(files)
        for path in files:  # before any model is loaded
            if path.is_dir():
                raise BadFile(path, "is a folder", f"name the files: {path}/*.txt")
            if not path.is_file():
                raise BadFile(path, "there is no such file", "check the path")

    def __iter__(self) -> Iterator[tuple[str, Content]]:
        for path in self._files:
            yield str(path), path if is_image(path) else read_text(path)


class Lines:
    """The lines of a stream, one text each, without those that are empty."""

    unit = "lines"
    total = 0

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[tuple[str, str]]:
        for number, line in enumerate(self._stream, 1):
            if line.strip():
                yield str(number), line.rstrip("\n")


def read_text(path: Path) -> str:
    """The text of a UTF-8 file. Raises `BadFile` for a binary, unreadable or very large one."""
    with disk_errors(path):
        if path.stat().st_size > _MAX_FILE:
            raise BadFile(path, f"has {path.stat().st_size} bytes, more than {_MAX_FILE}", "split the file")
        raw = path.read_bytes()
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadFile(path, f"is not UTF-8 text (byte {error.start})", "convert it to UTF-8 text first") from error


def open_engine(name: str, options: BatchOptions, dimensions: int = 0) -> Engine:
    """Whatever gives vectors: of texts, of pictures, or of both in one space. `dimensions` as in `Embedder`."""
    if models.task_of(name) in ("image-embed", "image-text"):
        if dimensions:
            raise UsageError("--dimensions", "is for embedding models of texts", "leave it out")
        return models.open_vision(name, options)
    return models.open_embedder(name, options, dimensions)


def embed_all(engine: Engine, source: Iterable[tuple[str, Content]], kind: Kind) -> Iterator[Batch]:
    """Embed a stream of (name, text or path of a picture) in its order, a batch at a time."""
    for kind_of, neighbours in groupby(source, lambda item: type(item[1])):
        names: deque[str] = deque()
        for vectors in _stream(engine, kind_of is not str, _noted(neighbours, names), kind):
            yield Batch([names.popleft() for _ in vectors], vectors)


def _noted(source: Iterable[tuple[str, Content]], names: deque[str]) -> Iterator[Any]:
    for name, content in source:
        names.append(name)
        yield content


def _stream(engine: Engine, pictures: bool, contents: Iterator[Any], kind: Kind) -> Iterator[NDArray[np.float32]]:
    if isinstance(engine, VisionModel):
        return engine.stream_images(contents) if pictures else engine.stream_texts(contents)
    if pictures:
        raise UsageError(next(contents), "is a picture, and this model is for texts", "choose a vision model with -m")
    return engine.stream(contents, kind)


def open_sink(out: Path | None) -> "Sink":
    """Where vectors go, by the suffix of `out`; None: JSONL on stdout."""
    if out is None:
        return JsonlSink(None)
    sinks: dict[str, type[Sink]] = {".npy": NpySink, ".jsonl": JsonlSink}
    if out.suffix not in sinks:
        raise UsageError(out, f"unknown suffix {out.suffix!r}", "use .npy or .jsonl")
    return sinks[out.suffix](out)


class Sink:
    """Writes batches to a temporary file that replaces `out` when all of them have arrived."""

    def __init__(self, out: Path | None) -> None:
        self._out = out
        self._file: IO[bytes] = sys.stdout.buffer
        self.count = 0

    def write(self, batch: Batch) -> None:
        with disk_errors(self._out or "stdout"):
            self._append(batch)
        self.count += len(batch.names)

    def __enter__(self) -> "Sink":
        if self._out is not None:
            with disk_errors(self._out):
                self._file = open(self._temporary(self._out), "wb+")
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, _: TracebackType | None) -> None:
        if self._out is None:
            return self._file.flush()
        temporary = self._temporary(self._out)
        try:
            if kind is None:
                with disk_errors(self._out):
                    self._finish()
                    self._file.flush()
                    os.fsync(self._file.fileno())
                    self._file.close()
                    temporary.replace(self._out)
        finally:
            self._file.close()
            temporary.unlink(missing_ok=True)

    def _append(self, batch: Batch) -> None:
        raise NotImplementedError

    def _finish(self) -> None:
        """Called once, after the last batch."""

    @staticmethod
    def _temporary(out: Path) -> Path:
        return out.with_name(f"{out.name}.{os.getpid()}.tmp")


class JsonlSink(Sink):
    """One object a line: {"name": ..., "embedding": [...]}."""

    def _append(self, batch: Batch) -> None:
        for name, vector in zip(batch.names, batch.vectors, strict=True):
            values = [round(float(v), 7) for v in vector]  # float32 holds no more digits below 1
            line = json.dumps({"name": name, "embedding": values}, ensure_ascii=False)
            self._file.write(line.encode("utf-8", "surrogateescape") + b"\n")


class NpySink(Sink):
    """A float32 array (count, dimensions). The header is written first and again when the count is known."""

    _dimensions = 0

    def _append(self, batch: Batch) -> None:
        if not self.count:
            self._dimensions = batch.vectors.shape[1]
            self._header()
        self._file.write(np.ascontiguousarray(batch.vectors, "<f4").tobytes())

    def _finish(self) -> None:
        self._file.seek(0)
        self._header()  # of the same length: numpy leaves room for the first axis to grow

    def _header(self) -> None:
        shape = (self.count, self._dimensions)
        npy.write_array_header_1_0(self._file, {"descr": "<f4", "fortran_order": False, "shape": shape})
