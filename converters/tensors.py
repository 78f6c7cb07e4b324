"""Is every value of a finished GGUF file what the checkpoint says? Each tensor is read back, dequantized, its
transformation inverted, and compared.

f32, f16 and bf16 must be the checkpoint's values rounded once; other types must stay within the error that their
number of bits explains. A wrong permutation or a shifted row has an error of 100 %. It runs no model.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from converters import ggml
from converters.checkpoint import Array
from converters.gguf_file import Entry, header, offsets
from converters.gguf_model import Tensor
from converters.operations import Add, Keep, ScaleIfTied
from converters.quantize import Draft, slabs
from edgemm import device
from edgemm.errors import BadFile, BelowFloor, disk_errors
from edgemm.events import Progress, Work

# The largest error, as a share of the tensor's size (root mean square), that the rounding of each type explains.
# Twice what heavy-tailed weights have; 1.4 would be another tensor.
BOUNDS = {
    "Q8_0": 0.02, "Q6_K": 0.06, "Q5_1": 0.12, "Q5_K": 0.12, "Q5_0": 0.14, "Q4_1": 0.25, "Q4_K": 0.25, "IQ4_NL": 0.25,
    "IQ4_XS": 0.25, "Q4_0": 0.3, "Q3_K": 0.45, "IQ3_S": 0.5, "IQ3_XXS": 0.6, "Q2_K": 0.8, "IQ2_S": 0.8, "IQ2_XS": 0.85,
    "IQ2_XXS": 0.9, "IQ1_M": 1.1, "IQ1_S": 1.1,
}  # fmt: skip
_OTHER_ROW = 1.2  # rounding moves no row further than its own length; another row is 1.4 away
_ARITHMETIC = (Add, ScaleIfTied)  # operations that round; the others move values
# What arithmetic costs there and back, with the storage between.
_ROUNDING = {"F32": 2.0**-22, "F16": 2.0**-10, "BF16": 2.0**-7}


@dataclass(frozen=True, slots=True)
class Error:
    """How far a tensor of the file is from the checkpoint's.

    `relative`: root mean square of the difference as a share of the tensor's own; `row`: the same of its worst row.
    `exact`: f32, f16 and bf16 hold the checkpoint's values rounded once; other types every value unchanged.
    """

    relative: float
    row: float
    exact: bool


def check(path: Path, draft: Draft, sizes: dict[str, int], threads: int = 0) -> Work[dict[str, Error]]:
    """Compare every tensor of `path` with its source. Gives the `Error` of each by name.

    Raises `BelowFloor` for the first tensor that is further off than its type explains.
    """
    entries = draft.entries
    start = len(header(draft.settings, entries))
    found: dict[str, Error] = {}
    with ThreadPoolExecutor(threads or device.cores()) as pool:
        places = zip(draft.tensors, entries, offsets(entries), strict=True)
        jobs = [(t, e, pool.submit(_compare, path, t, e, start + at, sizes)) for t, e, at in places]
        try:
            for done, (tensor, entry, job) in enumerate(jobs):
                yield Progress("verify: tensors", done, len(jobs), "tensors")
                found[tensor.name] = _judged(path, entry, job.result())
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    return found


def _judged(path: Path, entry: Entry, error: Error) -> Error:
    fine = error.relative <= BOUNDS[entry.type] and error.row <= _OTHER_ROW if entry.type in BOUNDS else error.exact
    if not fine:
        share = f"{100 * error.relative:.2g} %, its worst row by {100 * error.row:.2g} %,"
        why = f"{entry.name} differs from the checkpoint by {share} after {entry.type}"
        raise BelowFloor(path.name, why, "convert again; if it stays so, report this checkpoint")
    return error


def _compare(path: Path, tensor: Tensor, entry: Entry, place: int, sizes: dict[str, int]) -> Error:
    difference = size = row = 0.0
    exact = True
    for source, raw in _pieces(path, tensor, entry, place):
        expected = tensor.operation.apply(source, sizes)
        values = ggml.dequantize(raw, entry.type, entry.columns).reshape(expected.shape)
        off, whole = _squares(_less(values, expected), entry), _squares(expected, entry)
        if not np.isfinite(off).all():
            return Error(float("inf"), float("inf"), exact=False)
        row = max(row, float(np.sqrt(np.max(off / np.maximum(whole, np.finfo(np.float32).tiny)))))
        exact = exact and _is_exact(raw, values, expected, entry)
        if not isinstance(tensor.operation, Keep):  # else it is the same comparison
            back = tensor.operation.inverse(values, sizes)
            there = ~np.isnan(back)  # what the operation dropped is not
            exact = exact and _is_undone(back[there], source[there], entry, tensor)
            off, whole = _squares(_less(back[there], source[there]), entry), _squares(source[there], entry)
        difference, size = difference + float(off.sum()), size + float(whole.sum())
    return Error((difference / size) ** 0.5 if size else float(difference > 0), row, exact)


def _less(values: Array, others: Array) -> Array:
    with np.errstate(invalid="ignore"):  # what is not finite is found by the caller
        return values - others


def _squares(values: Array, entry: Entry) -> NDArray[np.float64]:
    """The sum of squares of each row."""
    rows = values.reshape(-1, entry.columns)
    with np.errstate(over="ignore", invalid="ignore"):  # then it is infinitely far off
        return np.asarray(np.einsum("ij,ij->i", rows, rows), np.float64)


def _pieces(path: Path, tensor: Tensor, entry: Entry, place: int) -> Iterator[tuple[Array, ggml.Bytes]]:
    """(rows of the checkpoint, what the file holds of them), slab by slab where the operation allows it."""
    row_bytes = ggml.row_bytes(entry.type, entry.columns)
    flat = len(tensor.shape) == 1
    with disk_errors(path), open(path, "rb") as file:
        if not tensor.operation.by_rows or flat:
            yield tensor.source.read(0, tensor.source.rows), _read(path, file, place, entry.rows, row_bytes)
            return
        for slab in slabs(tensor, {}):
            at = place + slab.start * row_bytes
            yield tensor.source.read(slab.start, slab.stop), _read(path, file, at, slab.stop - slab.start, row_bytes)


def _read(path: Path, file: BinaryIO, place: int, rows: int, row_bytes: int) -> ggml.Bytes:
    file.seek(place)
    raw = file.read(rows * row_bytes)
    if len(raw) != rows * row_bytes:
        raise BadFile(path, f"truncated: needs {place + rows * row_bytes} bytes", "convert again")
    return np.frombuffer(raw, np.uint8).reshape(rows, row_bytes)


def _is_exact(raw: ggml.Bytes, values: Array, expected: Array, entry: Entry) -> bool:
    """Whether the file holds `expected` as its type holds it, to the bit."""
    if entry.type in ggml.FLOATS:
        rows = expected.reshape(raw.shape[0], entry.columns)
        return bool(np.array_equal(raw, ggml.quantize(rows, entry.type)))
    return bool(np.array_equal(values, expected))


def _is_undone(back: Array, source: Array, entry: Entry, tensor: Tensor) -> bool:
    """Whether the inverse of what was stored is `source`, rounded once; arithmetic may cost another rounding."""
    if entry.type not in ggml.FLOATS:
        return True
    rounded = ggml.dequantize(ggml.quantize(source.reshape(1, -1), entry.type), entry.type, source.size)
    off = np.abs(back.reshape(1, -1) - rounded)
    allowed = _ROUNDING[entry.type] if isinstance(tensor.operation, _ARITHMETIC) else 0.0
    return bool(np.all(off <= allowed * (1 + np.abs(rounded))))
