"""A walk over the protobuf bytes of an ONNX file: well-formed, self-contained, and without loops.

Field numbers are those of onnx.proto3. Raw tensor data is skipped by its length, so that 100 MB take milliseconds.
Whether the graph makes sense is onnxruntime's business, which answers with an exception.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from edgemm.errors import BadFile, disk_errors

_FIX = "convert or pull the model again"
_GRAPH, _FUNCTIONS, _NODES, _INITIALIZERS = 7, 25, 1, 5  # ModelProto.graph/.functions, GraphProto.node/.initializer
_OP_TYPE, _EXTERNAL_DATA, _DATA_LOCATION = 4, 13, 14  # NodeProto.op_type, TensorProto.external_data/.data_location
_CONTROL_FLOW = {b"Loop", b"Scan"}  # an encoder needs none, and a graph with them may never end
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def check_onnx(path: Path) -> None:
    """Raise `BadFile` when `path` is not one self-contained ONNX model of at most 2 GB."""
    with disk_errors(path), open(path, "rb") as file:
        size = file.seek(0, 2)
        fields = list(_fields(file, 0, size, path))
        graphs = [(start, end) for number, start, end in fields if number == _GRAPH]
        if len(graphs) != 1:
            raise _bad(path, f"{len(graphs)} graphs instead of one")
        if any(number == _FUNCTIONS for number, _, _ in fields):
            raise _bad(path, "it defines functions of its own")
        _check_graph(file, *graphs[0], path)


def _check_graph(file: BinaryIO, start: int, end: int, path: Path) -> None:
    for number, first, last in _fields(file, start, end, path):
        if number == _NODES:
            _check_node(file, first, last, path)
        elif number == _INITIALIZERS:
            inner = {field for field, _, _ in _fields(file, first, last, path)}
            if inner & {_EXTERNAL_DATA, _DATA_LOCATION}:
                raise _bad(path, "it keeps weights outside of the file")


def _check_node(file: BinaryIO, start: int, end: int, path: Path) -> None:
    for number, first, last in _fields(file, start, end, path):
        if number == _OP_TYPE:
            file.seek(first)
            if (name := file.read(last - first)) in _CONTROL_FLOW:
                raise _bad(path, f"it has a {name.decode()} node, which may never end")


def _fields(file: BinaryIO, start: int, end: int, path: Path) -> Iterator[tuple[int, int, int]]:
    """(field number, first byte, last byte + 1) of each field of the message in start..end."""
    at = start
    while at < end:
        tag, at = _varint(file, at, end, path)
        number, wire = tag >> 3, tag & 7
        if wire == _VARINT:
            first, (_, at) = at, _varint(file, at, end, path)
        elif wire == _BYTES:
            length, first = _varint(file, at, end, path)
            at = first + length
        elif wire in (_FIXED64, _FIXED32):
            first, at = at, at + (8 if wire == _FIXED64 else 4)
        else:
            raise _bad(path, f"wire type {wire} at byte {at}")
        if at > end or not number:
            raise _bad(path, f"truncated: a field needs {at} bytes, there are {end}")
        yield number, first, at


def _varint(file: BinaryIO, at: int, end: int, path: Path) -> tuple[int, int]:
    file.seek(at)
    value = shift = 0
    for byte in file.read(min(10, end - at)):
        value |= (byte & 0x7F) << shift
        shift += 7
        at += 1
        if byte < 0x80:
            return value, at
    raise _bad(path, f"truncated at byte {at}")


def _bad(path: Path, why: str) -> BadFile:
    return BadFile(path, f"not a valid ONNX file ({why})", _FIX)
