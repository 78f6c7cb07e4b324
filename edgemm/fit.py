"""Whether a chat model fits this machine, said before it is loaded: how much memory, and with how long a context.

Two figures, both from the header of the GGUF file alone (measured on x86-64 Linux against the child process):

    resident = file + repacked + KV cache + activations of one batch + vocabulary + process
    needed   = `guard.memory_needed`, the bound that the loader itself refuses by; never less than what is used

`repacked`: llama.cpp copies matrices of some types into an order that the processor likes, beside the mapped file.
An ONNX decoder has no such header: its figure is the one that its report measured, else twice the file.
It loads no model, and it refuses to know who asks.
"""

from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache
from pathlib import Path

from edgemm import device, guard
from edgemm.catalog import Row
from edgemm.errors import BadFile
from edgemm.guard import GGUFHeader
from edgemm.package import Package

DEFAULT_CONTEXT = 4096  # tokens that a chat opens with, if the model was trained for so many
_STEP = 256  # contexts are offered in multiples of it
_BATCH = 512
_PROCESS = 45 << 20  # Python, numpy and llama.cpp without a model
_TOKEN_BYTES = 400  # of each vocabulary entry, in llama.cpp's own tables
_REPACKED = frozenset((2, 10, 12, 20))  # ggml types: Q4_0, Q2_K, Q4_K, IQ4_NL
_EMBEDDING, _OUTPUT = "token_embd.weight", "output.weight"


class Verdict(StrEnum):
    FITS = "fits"
    SHORTER = "fits with a shorter context"
    TOO_LARGE = "does not fit"


@dataclass(frozen=True, slots=True)
class Fit:
    """`bytes` of RAM that the model takes with `context` tokens, `kv_bytes` of them for the KV cache (0: not known).

    `free` bytes are to be had now. `context` is the one asked for, or the longest that fits; 0 when none does.
    """

    bytes: int
    kv_bytes: int
    free: int
    verdict: Verdict
    context: int


@dataclass(frozen=True, slots=True)
class Need:
    """Bytes of RAM by context. `resident` and `required` are without the KV cache, `kv_token` is what a token adds.

    `trained` is the longest context in tokens; 0: not known.
    """

    resident: int
    required: int
    kv_token: float
    trained: int


def fit(found: Package, context: int = 0, free: int | None = None) -> Fit:
    """Whether the package `found` fits with `context` tokens (0: its own, at most 4,096) into `free` bytes.

    `free` None: what this machine has now. Raises `BadFile` or `Unsupported` for a file that the guard refuses.
    """
    return judge(need(found), context, device.free_memory() if free is None else free)


def fit_download(row: Row, free: int | None = None) -> Fit:
    """The same for a chat model of the catalog that is not here: by its row, for 4,096 tokens."""
    return judge(Need(row.ram, row.ram, 0.0, DEFAULT_CONTEXT), 0, device.free_memory() if free is None else free)


def judge(need: Need, context: int, free: int) -> Fit:
    """The verdict on `need`. A context longer than the trained one counts as the trained one."""
    wanted = min(context or DEFAULT_CONTEXT, need.trained or context or DEFAULT_CONTEXT)
    room = free - need.required
    if room >= int(need.kv_token * wanted):
        return _fit(need, wanted, free, Verdict.FITS)
    longest = int(room / need.kv_token) // _STEP * _STEP if room > 0 and need.kv_token else 0
    if longest:
        return _fit(need, longest, free, Verdict.SHORTER)
    return replace(_fit(need, wanted, free, Verdict.TOO_LARGE), context=0)


def need(found: Package) -> Need:
    """What the package `found` needs. Raises `BadFile` or `Unsupported`."""
    gguf, onnx = found.file(".gguf"), found.file(".onnx")
    if gguf is not None:
        return need_of_file(gguf)
    if onnx is None:
        raise BadFile(found.path, "the package holds neither an .onnx nor a .gguf file", "pull or convert it again")
    report = found.manifest.report
    measured = int(report.metrics.get("memory_bytes", 0)) if report else 0
    weights = measured or 2 * found.manifest.bytes + _PROCESS
    return Need(weights, weights, 0.0, found.manifest.chat.context if found.manifest.chat else 0)


def need_of_file(path: Path) -> Need:
    """What the GGUF file `path` needs; its header is read once for each version of the file."""
    try:
        stat = path.stat()
    except OSError as error:
        raise BadFile(path, error.strerror or str(error), "pull or convert the model again") from error
    return _read(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=128)
def _read(path: Path, _size: int, _mtime: int) -> Need:
    return need_of(guard.check_gguf(path))


def need_of(header: GGUFHeader) -> Need:
    """What a GGUF model needs, by its header."""
    span = max(_STEP, header.context_length)
    tables = _TOKEN_BYTES * header.vocabulary + _PROCESS
    return Need(
        resident=header.file_bytes + _repacked(header) + _activations(header) + tables,
        required=guard.memory_needed(header, 0),
        kv_token=guard.kv_cache_bytes(header, span) / span,
        trained=header.context_length,
    )


def _fit(need: Need, context: int, free: int, verdict: Verdict) -> Fit:
    kv_bytes = int(need.kv_token * context)
    return Fit(need.resident + kv_bytes, kv_bytes, free, verdict, context)


def _repacked(header: GGUFHeader) -> int:
    """Bytes of the copies. The embedding is copied only where it is the output matrix as well."""
    is_tied = not any(tensor.name == _OUTPUT for tensor in header.tensors)
    matrices = [t for t in header.tensors if len(t.shape) == 2 and t.type in _REPACKED]
    return sum(tensor.bytes for tensor in matrices if is_tied or tensor.name != _EMBEDDING)


def _activations(header: GGUFHeader) -> int:
    """Bytes of one batch's values that are in memory at once: float32, the widest layer twice."""
    wide = header.get("feed_forward_length", 0)
    wide = max(wide) if isinstance(wide, list) else wide
    return 4 * _BATCH * (2 * int(wide) + 4 * int(header.get("embedding_length", 0)))
