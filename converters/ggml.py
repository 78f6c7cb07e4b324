"""The tensor types of GGUF, and their arithmetic by the installed llama.cpp's own library (libggml-base).

Arrays in, block bytes out, and back; one row is one line of blocks. It is loaded by ctypes, which lets go of Python's
lock, so threads work in parallel; nothing else of llama.cpp is loaded. It knows no file and no model.
API: ggml.h (ggml_quantize_chunk, ggml_get_type_traits).
"""

import ctypes
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.checkpoint import Array
from edgemm.errors import MissingExtra, Unsupported
from edgemm.guard.gguf import BLOCKS

# name -> ggml type id (enum ggml_type)
TYPES = {
    "F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q5_0": 6, "Q5_1": 7, "Q8_0": 8, "Q2_K": 10, "Q3_K": 11, "Q4_K": 12,
    "Q5_K": 13, "Q6_K": 14, "IQ2_XXS": 16, "IQ2_XS": 17, "IQ3_XXS": 18, "IQ1_S": 19, "IQ4_NL": 20, "IQ3_S": 21,
    "IQ2_S": 22, "IQ4_XS": 23, "IQ1_M": 29, "BF16": 30,
}  # fmt: skip
NAMES = {number: name for name, number in TYPES.items()}
FLOATS = ("F32", "F16", "BF16")
_LARGEST_F16 = 65504.0
NEEDS_IMPORTANCE = ("IQ2_XXS", "IQ2_XS", "IQ1_S")  # ggml_quantize_requires_imatrix
# What a row of another length is stored as: K- and IQ-types have blocks of 256, these have blocks of 32.
_SMALLER_BLOCKS = {
    "Q6_K": "Q8_0", "Q5_K": "Q5_1", "Q4_K": "Q5_0", "Q3_K": "Q4_0", "Q2_K": "Q4_0", "IQ4_XS": "IQ4_NL",
    "IQ3_S": "IQ4_NL", "IQ3_XXS": "IQ4_NL", "IQ2_S": "IQ4_NL", "IQ2_XS": "IQ4_NL", "IQ2_XXS": "IQ4_NL",
    "IQ1_S": "IQ4_NL", "IQ1_M": "IQ4_NL",
}  # fmt: skip
Bytes = NDArray[np.uint8]


def row_bytes(kind: str, columns: int) -> int:
    """Bytes of one row of `columns` weights stored as `kind`."""
    block, size = BLOCKS[TYPES[kind]]
    assert columns % block == 0, (kind, columns)
    return columns // block * size


def fits(kind: str, columns: int) -> bool:
    return columns % BLOCKS[TYPES[kind]][0] == 0


def fitting(kind: str, columns: int) -> str:
    """`kind`, or the type that llama.cpp falls back to when rows of `columns` are no multiple of its blocks."""
    while not fits(kind, columns):
        kind = _SMALLER_BLOCKS.get(kind, "F16")
    return kind


def quantize(rows: Array, kind: str, importance: Array | None = None) -> Bytes:
    """float32 (rows, columns) as uint8 (rows, row_bytes). `importance`: float32 (columns,), E[x^2] of each input.

    A type that cannot do without counts all inputs alike. Raises `Unsupported` when a weight is too large for `kind`.
    """
    rows = np.ascontiguousarray(rows, np.float32)
    if kind in FLOATS:
        return _float_bytes(rows, kind)
    out = np.empty((len(rows), row_bytes(kind, rows.shape[1])), np.uint8)
    if importance is None and kind in NEEDS_IMPORTANCE:
        importance = np.ones(rows.shape[1], np.float32)
    weights = None if importance is None else np.ascontiguousarray(importance, np.float32)
    written = _library().ggml_quantize_chunk(
        TYPES[kind], _pointer(rows), out.ctypes.data, 0, len(rows), rows.shape[1], _pointer(weights)
    )
    assert written == out.nbytes
    if np.abs(rows).max(initial=0) > _LARGEST_F16 and not np.isfinite(dequantize(out, kind, rows.shape[1])).all():
        raise _too_large(rows, kind)  # the scale of a block is an f16
    return out


def dequantize(data: Bytes, kind: str, columns: int) -> Array:
    """uint8 (rows, row_bytes) as float32 (rows, columns)."""
    if kind in FLOATS:
        return _floats(data, kind).reshape(len(data), columns)
    data = np.ascontiguousarray(data)
    out = np.empty((len(data), columns), np.float32)
    _to_float(kind)(data.ctypes.data, out.ctypes.data, out.size)
    return out


def _float_bytes(rows: Array, kind: str) -> Bytes:
    if kind == "F32":
        stored: NDArray[Any] = rows
    elif kind == "F16":
        with np.errstate(over="ignore"):
            stored = rows.astype(np.float16)
    else:
        bits = rows.view(np.uint32)
        stored = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)  # round to nearest even
    if kind != "F32" and not np.isfinite(_floats(stored.view(np.uint8), kind)).all():
        raise _too_large(rows, kind)
    return stored.view(np.uint8).reshape(len(rows), -1)


def _too_large(rows: Array, kind: str) -> Unsupported:
    fix = f"use --to gguf-{'f32' if kind == 'BF16' else 'bf16'}"
    return Unsupported("gguf", f"a weight of {np.abs(rows).max():g} does not fit into {kind.lower()}", fix)


def _floats(data: Bytes, kind: str) -> Array:
    data = np.ascontiguousarray(data)
    if kind == "BF16":
        return (data.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    return data.view(np.float32 if kind == "F32" else np.float16).astype(np.float32)


def _pointer(array: Array | None) -> int | None:
    return None if array is None else array.ctypes.data


class _Traits(ctypes.Structure):
    """struct ggml_type_traits of ggml.h."""

    _fields_ = (
        ("type_name", ctypes.c_char_p),
        ("block", ctypes.c_int64),
        ("block_interleave", ctypes.c_int64),
        ("type_size", ctypes.c_size_t),
        ("is_quantized", ctypes.c_bool),
        ("to_float", ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)),
        ("from_float", ctypes.c_void_p),
    )


@cache
def _to_float(kind: str) -> Any:
    traits = _library().ggml_get_type_traits(TYPES[kind]).contents
    block, size = BLOCKS[TYPES[kind]]
    if (traits.block, traits.type_size) != (block, size):
        raise MissingExtra("llama.cpp", f"its type {kind} is not the one of the GGUF format", "reinstall edgemm")
    return traits.to_float


@cache
def _library() -> Any:
    name = {"darwin": "libggml-base.dylib", "win32": "ggml-base.dll"}.get(sys.platform, "libggml-base.so")
    spec = find_spec("llama_cpp")
    path = Path(spec.origin).parent / "lib" / name if spec and spec.origin else Path(name)
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise MissingExtra("llama.cpp", f"{name} cannot be loaded ({error})", "reinstall llama-cpp-python") from error
    library.ggml_quantize_chunk.restype = ctypes.c_size_t
    library.ggml_quantize_chunk.argtypes = (
        ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p,
    )  # fmt: skip
    library.ggml_get_type_traits.restype = ctypes.POINTER(_Traits)
    library.ggml_get_type_traits.argtypes = (ctypes.c_int,)
    return library
