"""A walk over the protobuf bytes of an ONNX file: well-formed, complete, and without loops.

Field numbers are those of onnx.proto3. Raw tensor data is skipped by its length, so that 100 MB take milliseconds.
Weights may lie in a file beside it, because protobuf ends at 2 GB: a plain file of the same folder, and within it.
Whether the graph makes sense is onnxruntime's business, which answers with an exception.
"""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from edgemm.errors import BadFile, disk_errors

_FIX = "convert or pull the model again"
_MAX_BYTES, _MAX_FIELDS, _MAX_DEPTH = 1 << 31, 1 << 20, 8
_GRAPH, _FUNCTIONS = 7, 25  # of ModelProto
_OP_TYPE, _EXTERNAL_DATA, _DATA_LOCATION = 4, 13, 14  # NodeProto.op_type, TensorProto.external_data/.data_location
# message -> field number -> message: every way from a graph to a tensor or to a graph inside
_PARTS = {
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
_CONTROL_FLOW = {b"If", b"Loop", b"Scan"}  # no model here needs one, and a graph with them may never end
_MAX_TEXT, _MAX_DIGITS = 256, 20
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def check_onnx(path: Path) -> None:
    """Raise `BadFile` when `path` is not one ONNX model of at most 2 GB, with its weights in it or right beside it."""
    with disk_errors(path), open(path, "rb") as file:
        size = file.seek(0, 2)
        walk = _Walk(path, file)
        if size > _MAX_BYTES:
            raise walk.bad(f"{size} bytes, more than {_MAX_BYTES}")
        graphs = []
        for number, start, end in walk.fields(0, size):
            if number == _FUNCTIONS:
                raise walk.bad("it defines functions of its own")
            if number == _GRAPH:
                graphs.append((start, end))
        if len(graphs) != 1:
            raise walk.bad(f"{len(graphs)} graphs instead of one")
        walk.check("graph", *graphs[0])


class _Walk:
    """Reads fields in place, and no more of them than a real model has."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path, self.file, self.left = path, file, _MAX_FIELDS

    def bad(self, why: str) -> BadFile:
        return BadFile(self.path, f"not a valid ONNX file ({why})", _FIX)

    def check(self, kind: str, start: int, end: int, depth: int = 0) -> None:
        if depth > 4 * _MAX_DEPTH:
            raise self.bad(f"graphs nested deeper than {_MAX_DEPTH}")
        for number, first, last in self.fields(start, end):
            if part := _PARTS[kind].get(number):
                self.check(part, first, last, depth + 1)
            elif kind == "node" and number == _OP_TYPE:
                self._check_operator(first, last)
        if kind == "tensor":
            self._check_data(start, end)

    def _check_operator(self, first: int, last: int) -> None:
        self.file.seek(first)
        if (name := self.file.read(min(last - first, 64))) in _CONTROL_FLOW:
            raise self.bad(f"it has a {name.decode()} node, which may never end")

    def _check_data(self, start: int, end: int) -> None:
        """Where a tensor says that its bytes lie: in this file, or within a plain file beside it."""
        entries = [self._entry(f, e) for n, f, e in self.fields(start, end) if n == _EXTERNAL_DATA]
        where = [self._varint(f, e)[0] for n, f, e in self.fields(start, end) if n == _DATA_LOCATION]
        if not entries and not any(where):  # 0, the default, which some exporters write
            return
        facts = dict(entries)
        name = facts.get("location", "")
        beside = self.path.parent / name
        if not name or "/" in name or "\\" in name or name.startswith("."):
            raise self.bad(f"it keeps weights in {name[:80]!r}, outside of its folder")
        status = os.lstat(beside) if os.path.lexists(beside) else None
        if status is None or not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
            raise self.bad(f"its weights are in {name[:80]!r}, which is missing, or a link")
        offset, length = (self._number(facts.get(key, "0")) for key in ("offset", "length"))
        if offset + length > status.st_size:
            raise self.bad(f"a weight needs {offset + length} bytes of {name[:80]!r}, which has {status.st_size}")

    def _entry(self, start: int, end: int) -> tuple[str, str]:
        """A StringStringEntryProto: key and value."""
        found = {1: "", 2: ""}
        for number, first, last in self.fields(start, end):
            self.file.seek(first)
            found[number] = self.file.read(min(last - first, _MAX_TEXT)).decode("utf-8", "replace")
        return found[1], found[2]

    def _number(self, text: str) -> int:
        if not (text.isascii() and text.isdecimal() and len(text) < _MAX_DIGITS):
            raise self.bad(f"{text[:40]!r} is no place in a file")
        return int(text)

    def fields(self, start: int, end: int) -> Iterator[tuple[int, int, int]]:
        """(field number, first byte, last byte + 1) of each field of the message in start..end."""
        at = start
        while at < end:
            self.left -= 1
            if self.left < 0:
                raise self.bad(f"more than {_MAX_FIELDS} fields")
            tag, at = self._varint(at, end)
            number, wire = tag >> 3, tag & 7
            if wire == _VARINT:
                first, (_, at) = at, self._varint(at, end)
            elif wire == _BYTES:
                length, first = self._varint(at, end)
                at = first + length
            elif wire in (_FIXED64, _FIXED32):
                first, at = at, at + (8 if wire == _FIXED64 else 4)
            else:
                raise self.bad(f"wire type {wire} at byte {at}")
            if at > end or not number:
                raise self.bad(f"truncated: a field needs {at} bytes, there are {end}")
            yield number, first, at

    def _varint(self, at: int, end: int) -> tuple[int, int]:
        self.file.seek(at)
        value = shift = 0
        for byte in self.file.read(min(10, end - at)):
            value |= (byte & 0x7F) << shift
            shift += 7
            at += 1
            if byte < 0x80:
                return value, at
        raise self.bad(f"truncated at byte {at}")
