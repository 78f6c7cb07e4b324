"""An index as Parquet files that other engines read: one row a chunk, with its place and its vector.

It streams, so that memory does not grow with the index, and writes into a folder of its own. It runs no model, and
knows no engine that reads the files.
"""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np

from edgemm.errors import BadFile, MissingExtra, UsageError, disk_errors
from edgemm.events import Note, Progress
from edgemm.index import Medium, Model, Store
from edgemm.index.export import Quantized, Record

PART_ROWS = 100_000
FORMAT = "1"  # grows when a column changes its meaning
_MARK = b"edgemm.format"
_PART = re.compile(r"chunks-\d{5,}\.parquet")
_UNFINISHED = re.compile(rf"{_PART.pattern}\.(\d+)\.tmp")
_GROUP_BYTES, _GROUP_ROWS = 8 << 20, 1000  # of a row group at most; it is held several times while it is written
_TEXT_BYTES = 4096  # of a row without its vector, about
_COLUMNS = {Medium.TEXT: ("vector", "scale", "model"), Medium.PICTURE: ("picture_vector", "picture_scale", "picture")}


class Numbers(StrEnum):
    """How vectors are written: as numbers to use, or as they are stored, int8 and a scale for each vector."""

    FLOAT32 = "float32"
    INT8 = "int8"


@dataclass(frozen=True, slots=True)
class Exported:
    """The files in their order, and how many chunks and vectors they hold."""

    files: tuple[Path, ...]
    chunks: int
    vectors: int


# Columns that are worth a dictionary; int8 is 32 bits wide without one.
_WORDS = ["root", "name", "path", "kind", "title", "heading.list.element", "sheet", "file_hash", "medium"]
_REPEATED = {
    Numbers.FLOAT32: _WORDS,
    Numbers.INT8: [*_WORDS, "vector.list.element", "picture_vector.list.element"],
}

Events = Iterator[Progress | Note | Exported]


def export(store: Store, folder: Path, numbers: Numbers = Numbers.FLOAT32, part_rows: int = PART_ROWS) -> Events:
    """Write the chunks of `store` to `folder`, as chunks-00000.parquet and so on. The last event is the `Exported`.

    An earlier export there is replaced when the first new part is complete. A part gets its name when all of it is on
    disk, so an interrupted export leaves complete parts alone. The columns:

    - chunk_id: 32 hexadecimal digits, the same on every machine for the same part of the same file below a root
      (`edgemm.index.export.key` says how they are made)
    - root, name, path: name is relative to root; what is no valid Unicode is written as \\udcXX, to be read, not opened
    - kind, title, taken, order, text, heading, start, end, file_hash (`Chunk.hash`), medium: as in `edgemm.index.Chunk`
    - page, line, end_line, slide, sheet, cells: where in the file; null where that does not apply
    - vector, of the model for texts, and picture_vector, of the one for pictures: a list of fixed size, null where
      there is none (yet). As int8 it is to be multiplied by the column scale, or picture_scale. A column whose model
      the index does not have is left out.

    Names and fingerprints of the models stand in the metadata of each file. Raises `MissingExtra`, `UsageError` for a
    folder that holds anything else, `DiskFull` or `BadFile`.
    """
    models = [model for medium in Medium if (model := store.ready(medium))]
    schema = _schema(models, numbers)
    total, chunks, vectors = store.count(), 0, 0
    with _Parts(folder, schema, _REPEATED[numbers], part_rows) as parts:
        yield Progress("export", 0, total, "chunks")
        for records in store.each(models, _group_rows(models, numbers)):
            parts.write(_table(store.path, schema, _columns(records, models, numbers)))
            chunks += len(records)
            vectors += sum(record.vector is not None for record in records)
            yield Progress("export", chunks, max(total, chunks), "chunks")
    if chunks != total:
        yield Note(f"{folder}: {total:,} chunks became {chunks:,} while they were read; export again to have all")
    yield Exported(tuple(parts.files), chunks, vectors)


class _Parts:
    """The files of one export. They are complete, or not there."""

    def __init__(self, folder: Path, schema: Any, repeated: list[str], rows: int) -> None:
        self._folder, self._schema, self._repeated, self._rows = folder, schema, repeated, max(1, rows)
        self._earlier = _prepare(folder)
        self._file: Any = None
        self._writer: Any = None
        self._left = 0
        self.files: list[Path] = []

    def write(self, table: Any) -> None:
        while table.num_rows:
            if self._writer is None:
                self._begin()
            some = table.slice(0, self._left)
            with disk_errors(self._path()):
                self._writer.write_table(some)
            table, self._left = table.slice(some.num_rows), self._left - some.num_rows
            if not self._left:
                self._finish()

    def __enter__(self) -> "_Parts":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._end()
        finally:
            self._drop()

    def _end(self) -> None:
        if self._writer is None and not self.files:
            self._begin()  # an empty index gives a file without rows, which other engines can read
        if self._writer is not None:
            self._finish()

    def _begin(self) -> None:
        from pyarrow import parquet  # type: ignore[import-untyped,unused-ignore]

        with disk_errors(self._path()):
            self._file = self._temporary().open("wb")
            self._writer = parquet.ParquetWriter(
                self._file, self._schema, compression="zstd", use_dictionary=self._repeated
            )
        self._left = self._rows

    def _finish(self) -> None:
        temporary, path = self._temporary(), self._path()
        with disk_errors(path):
            self._writer.close()
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            for earlier in self._earlier:
                earlier.unlink(missing_ok=True)
            temporary.replace(path)
        self._writer, self._earlier = None, []
        self.files.append(path)

    def _drop(self) -> None:
        """Forget the part that is being written."""
        for opened in (self._writer, self._file):
            if opened is not None:
                with suppress(Exception):  # it cannot end well: its disk may be full
                    opened.close()
        with suppress(OSError):
            self._temporary().unlink()

    def _path(self) -> Path:
        return self._folder / f"chunks-{len(self.files):05}.parquet"

    def _temporary(self) -> Path:
        path = self._path()
        return path.with_name(f"{path.name}.{os.getpid()}.tmp")


def _prepare(folder: Path) -> list[Path]:
    """Make the folder, clear away what a killed export was writing, and give the parts of an earlier one."""
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        entries = sorted(folder.iterdir())
        for path in entries:
            _check_ours(path)
        for path in entries:
            if _UNFINISHED.fullmatch(path.name):
                path.unlink()
    return [path for path in entries if _PART.fullmatch(path.name)]


def _check_ours(path: Path) -> None:
    import psutil

    if unfinished := _UNFINISHED.fullmatch(path.name):
        owner = int(unfinished[1])
        if owner != os.getpid() and psutil.pid_exists(owner):
            why = f"process {owner} is writing {path.name} there"
            raise UsageError(path.parent, why, "wait for it, or choose another folder")
    elif not _PART.fullmatch(path.name) or path.is_symlink() or not _is_ours(path):
        raise UsageError(path.parent, f"holds {path.name}, which is no part of an export", "choose an empty folder")


def _is_ours(path: Path) -> bool:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        return _MARK in (parquet.read_schema(path).metadata or {})
    except (pa.ArrowException, OSError):
        return False


def _group_rows(models: Sequence[Model], numbers: Numbers) -> int:
    width = 4 if numbers == Numbers.FLOAT32 else 1
    vector = max((model.dimensions for model in models), default=0) * width
    return max(1, min(_GROUP_ROWS, _GROUP_BYTES // (_TEXT_BYTES + vector)))


def _schema(models: Sequence[Model], numbers: Numbers) -> Any:
    try:
        import pyarrow as pa
    except ImportError as error:
        raise MissingExtra("parquet", "pyarrow is not installed", "pip install 'edgemm[parquet]'") from error
    text, whole = pa.string(), pa.int64()
    fields = dict.fromkeys(("chunk_id", "root", "name", "path", "kind", "title", "taken"), text)
    fields |= {"order": whole, "text": text, "heading": pa.list_(text)}
    fields |= dict.fromkeys(("page", "line", "end_line", "slide"), whole)
    fields |= {"sheet": text, "cells": text, "start": whole, "end": whole, "file_hash": text, "medium": text}
    facts = {_MARK: FORMAT, "edgemm.vectors": str(numbers)}
    for model in models:
        vector, scale, name = _COLUMNS[model.medium]
        is_int8 = numbers == Numbers.INT8
        fields[vector] = pa.list_(pa.int8() if is_int8 else pa.float32(), model.dimensions)
        if is_int8:
            fields[scale] = pa.float32()
        facts |= {f"edgemm.{name}": _shown(model.name), f"edgemm.{name}.fingerprint": _shown(model.fingerprint)}
    return pa.schema(fields, facts)


def _table(path: Path, schema: Any, columns: dict[str, Any]) -> Any:
    import pyarrow as pa

    try:
        return pa.Table.from_pydict(columns, schema)
    except (pa.ArrowException, TypeError, OverflowError) as error:
        raise BadFile(path, f"is damaged ({error})", "run `edgemm index verify --rebuild`") from error


def _columns(records: Sequence[Record], models: Sequence[Model], numbers: Numbers) -> dict[str, Any]:
    chunks = [record.chunk for record in records]
    columns: dict[str, Any] = {
        "chunk_id": [record.key for record in records],
        "root": [_shown(str(chunk.root)) for chunk in chunks],
        "name": [_shown(chunk.name) for chunk in chunks],
        "path": [_shown(str(chunk.path)) for chunk in chunks],
        "kind": [chunk.kind for chunk in chunks],
        "title": [chunk.title for chunk in chunks],
        "taken": [chunk.taken or None for chunk in chunks],
        "order": [chunk.order for chunk in chunks],
        "text": [chunk.text for chunk in chunks],
        "heading": [[_shown(heading) for heading in chunk.heading] for chunk in chunks],
        "start": [chunk.start for chunk in chunks],
        "end": [chunk.end for chunk in chunks],
        "file_hash": [chunk.hash for chunk in chunks],
        "medium": [str(chunk.medium) for chunk in chunks],
    }
    for name in ("page", "line", "end_line", "slide"):
        columns[name] = [chunk.place.get(name) for chunk in chunks]
    for name in ("sheet", "cells"):
        columns[name] = [_shown(str(chunk.place[name])) if name in chunk.place else None for chunk in chunks]
    for model in models:
        vector, scale, _ = _COLUMNS[model.medium]
        found = [record.vector if record.chunk.medium == model.medium else None for record in records]
        columns[vector] = _vectors(found, model.dimensions, numbers)
        if numbers == Numbers.INT8:
            columns[scale] = [one.scale if one else None for one in found]
    return columns


def _vectors(found: Sequence[Quantized | None], dimensions: int, numbers: Numbers) -> Any:
    """A column of lists of fixed size; null for None."""
    import pyarrow as pa

    table = np.zeros((len(found), dimensions), np.int8 if numbers == Numbers.INT8 else np.float32)
    for row, one in zip(table, found, strict=True):
        if one is not None:
            row[:] = one.data if numbers == Numbers.INT8 else one.data * np.float32(one.scale)
    missing = pa.array([one is None for one in found], pa.bool_())
    return pa.FixedSizeListArray.from_arrays(pa.array(table.reshape(-1)), dimensions, mask=missing)


def _shown(text: str) -> str:
    r"""Parquet holds valid Unicode only: a lone surrogate is written as \udcXX."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
