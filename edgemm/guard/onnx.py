"""A walk over the protobuf bytes of an ONNX file: well-formed, self-contained, and without loops.

Field numbers are those of onnx.proto3. Raw tensor data is skipped by its length, so that 100 MB take milliseconds.
Whether the graph makes sense is onnxruntime's business, which answers with an exception.
"""

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
_CONTROL_FLOW = {b"Loop", b"Scan"}  # an encoder needs none, and a graph with them may never end
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def check_onnx(path: Path) -> None:
    """Raise `BadFile` when `path` is not one self-contained ONNX model of at most 2 GB."""
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
            elif kind == "tensor" and self._is_outside(number, first, last):
                raise self.bad("it keeps weights outside of the file")

    def _check_operator(self, first: int, last: int) -> None:
        self.file.seek(first)
        if (name := self.file.read(min(last - first, 64))) in _CONTROL_FLOW:
            raise self.bad(f"it has a {name.decode()} node, which may never end")

    def _is_outside(self, number: int, first: int, last: int) -> bool:
        """`external_data` is given, or `data_location` is not 0 (the default, which some exporters write)."""
        return number == _EXTERNAL_DATA or (number == _DATA_LOCATION and self._varint(first, last)[0] != 0)

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
