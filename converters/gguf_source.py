"""A GGUF file as a `Blueprint`, so that a finished model can be stored with other types.

Its settings are copied byte for byte, its weights dequantized row by row. What an earlier quantization lost stays
lost, and this module says so. The file is not trusted: guard.py reads its header first.
"""

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from converters import ggml
from converters.checkpoint import Array
from converters.gguf_file import Settings
from converters.gguf_model import POOLING, Blueprint, Source, Tensor
from edgemm import guard
from edgemm.errors import BadFile, Unsupported, disk_errors
from edgemm.guard.gguf import ENCODERS, GGUFHeader
from edgemm.guard.gguf import Tensor as Entry

_FIX = "download it again"
_WRITTEN_ANEW = ("general.file_type", "general.quantization_version", "general.alignment")


@dataclass(frozen=True, slots=True)
class Stored(Source):
    """A tensor of a GGUF file. `raw(start, stop)` gives its rows as they are stored, for a file that keeps its type."""

    raw: Callable[[int, int], ggml.Bytes]


def blueprint(path: Path) -> Blueprint:
    """Raises `BadFile` for a damaged file and `Unsupported` for a type that cannot be read back."""
    header = guard.check_gguf(path)
    unknown = [t for t in header.tensors if t.type not in ggml.NAMES]
    if unknown:
        raise Unsupported(path, f"{unknown[0].name} has the type {unknown[0].type}", "convert the original checkpoint")
    if deep := next((t for t in header.tensors if math.prod(t.shape[2:]) > 1), None):
        raise Unsupported(path, f"{deep.name} has {len(deep.shape)} axes", "convert the original checkpoint")
    tensors = [_tensor(path, header, entry) for entry in header.tensors]
    heads = _first(header.get("attention.head_count", 1))
    sizes = {"heads": heads, "kv_heads": _first(header.get("attention.head_count_kv", heads))}
    sizes["tied"] = int(not any(t.name == "output.weight" for t in tensors))
    return Blueprint(header.architecture, _settings(path, header), tensors, sizes, _task(header), _notes(path, tensors))


def _first(value: int | list[int]) -> int:
    """Of a number that may be one for each layer."""
    return value[0] if isinstance(value, list) else value


def _task(header: GGUFHeader) -> str:
    pooled = header.get("pooling_type", 0)
    if pooled == POOLING["rank"]:
        return "classify"
    return "embed" if header.architecture in ENCODERS or pooled in POOLING.values() else "chat"


def _settings(path: Path, header: GGUFHeader) -> Settings:
    found: Settings = {}
    with disk_errors(path), open(path, "rb") as file:
        for key, (start, stop) in header.spans.items():
            if key not in _WRITTEN_ANEW:
                file.seek(start)
                found[key] = file.read(stop - start)
    return found


def _tensor(path: Path, header: GGUFHeader, entry: Entry) -> Tensor:
    kind, columns = ggml.NAMES[entry.type], entry.shape[0]
    rows = math.prod(entry.shape[1:])
    row_bytes = ggml.row_bytes(kind, columns)
    start_byte = header.data_start + entry.offset
    flat = len(entry.shape) == 1

    def raw(start: int, stop: int) -> ggml.Bytes:
        if flat:
            start, stop = 0, 1
        with disk_errors(path), open(path, "rb") as file:
            file.seek(start_byte + start * row_bytes)
            data = file.read((stop - start) * row_bytes)
        if len(data) != (stop - start) * row_bytes:
            raise BadFile(path, f"{entry.name} ends before its last row", _FIX)
        return np.frombuffer(data, np.uint8).reshape(stop - start, row_bytes)

    def read(start: int, stop: int) -> Array:
        values = ggml.dequantize(raw(start, stop), kind, columns)
        if not np.isfinite(values).all():
            raise BadFile(path, f"{entry.name} holds values that are not finite", _FIX)
        return values.reshape(-1) if flat else values

    shape = (columns,) if flat else (rows, columns)
    return Tensor(entry.name, shape, Stored(read, 1 if flat else rows, kind, raw))


def _notes(path: Path, tensors: list[Tensor]) -> list[str]:
    weights: Counter[str] = Counter()
    for tensor in tensors:
        if tensor.is_matrix:
            weights[tensor.source.dtype] += tensor.weights
    lossy = {kind: count for kind, count in weights.items() if kind not in ggml.FLOATS}
    if not lossy:
        return []
    kind, _ = weights.most_common(1)[0]
    share = 100 * sum(lossy.values()) // sum(weights.values())
    return [
        f"{path.name} is quantized already ({share} % of its matrices, mostly {kind}): what that lost stays lost, and "
        "the figures compare with this file, not with the original model"
    ]
