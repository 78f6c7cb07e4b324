"""The importance matrix: how strongly each input of each matrix is used, so that rounding spares what matters.

It is collected by running the model on calibration texts through the runtime, and it is kept in the same GGUF layout
as llama.cpp's imatrix tool writes (`<tensor>.in_sum2`, `<tensor>.counts`), so both can read each other's files.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from converters.checkpoint import Array
from converters.gguf_file import Entry, header, padding, setting
from converters.judge import Pair
from converters.quantize import Importance
from edgemm import package
from edgemm.backends.worker import LoadOptions, Worker
from edgemm.errors import BadFile, disk_errors
from edgemm.events import Progress, Work
from edgemm.guard.gguf import read_gguf

_SUMS, _COUNTS = ".in_sum2", ".counts"
_F32 = 0
_CHUNK = 512
_FIX = "collect it again with --calibrate TEXT-FILE"


def collect(model: Path, pairs: Sequence[Pair], *, embedding: bool, threads: int = 0) -> Work[dict[str, Array]]:
    """Run `model` on `pairs` of token ids. Gives the importance: float32 (columns,) by tensor."""
    options = LoadOptions(embedding=embedding, threads=threads, observe=True, exact=True)
    total, done = sum(len(text) for text, _ in pairs), 0
    with Worker(model, options) as worker:
        for text, answer in pairs:
            if embedding:
                worker.encode([text])
            else:
                for _ in worker.score(text, answer):
                    pass
            done += len(text)
            yield Progress("calibrate", done, total, "tokens")
        found = worker.importance()
    return {name: (sums / max(1, count)).astype(np.float32) for name, (sums, count) in found.items()}


def save(path: Path, importance: Importance, dataset: str, tokens: int) -> None:
    """Write the matrix as a GGUF file of type imatrix."""
    settings = {
        "general.type": setting("imatrix"),
        "imatrix.datasets": setting([dataset]),
        "imatrix.chunk_count": setting(max(1, tokens // _CHUNK)),
        "imatrix.chunk_size": setting(_CHUNK),
    }
    arrays: dict[str, Array] = {}
    for name, mean in importance.items():
        arrays[name + _SUMS] = (mean * np.float32(tokens)).reshape(1, -1)
        arrays[name + _COUNTS] = np.full((1, 1), tokens, np.float32)
    entries = [Entry(name, array.shape, "F32") for name, array in arrays.items()]
    content = [header(dict(settings), entries)]
    content += [array.tobytes() + padding(array.nbytes) for array in arrays.values()]
    package.write_file(path, b"".join(content))


def copy(source: Path, target: Path) -> None:
    """Write the file `source` to `target`."""
    with disk_errors(source):
        content = source.read_bytes()
    package.write_file(target, content)


def load(path: Path) -> dict[str, Array]:
    """Read a GGUF imatrix, ours or llama.cpp's. Raises `BadFile`."""
    found = read_gguf(path)
    raw = {}
    with disk_errors(path), open(path, "rb") as file:
        for tensor in found.tensors:
            if tensor.type != _F32:
                raise BadFile(path, f"{tensor.name} is not float32", _FIX)
            file.seek(found.data_start + tensor.offset)
            raw[tensor.name] = np.frombuffer(file.read(tensor.bytes), np.float32)
    names = [name.removesuffix(_SUMS) for name in raw if name.endswith(_SUMS)]
    if not names:
        raise BadFile(path, "it holds no importance matrix", _FIX)
    importance = {}
    for name in names:
        counts = raw.get(name + _COUNTS)
        if counts is None or len(counts) != 1 or not counts[0] > 0:
            raise BadFile(path, f"{name} has no single count", _FIX)
        importance[name] = (raw[name + _SUMS] / counts[0]).astype(np.float32)
        if not np.isfinite(importance[name]).all() or (importance[name] < 0).any():
            raise BadFile(path, f"{name} is not a sum of squares", _FIX)
    return importance


def is_importance(path: Path) -> bool:
    with disk_errors(path), open(path, "rb") as file:
        return file.read(4) == b"GGUF"
