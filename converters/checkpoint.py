"""A Hugging Face checkpoint as data: config.json, lazy float arrays, pooling, tokenizer; nothing is executed.

Weights are read from safetensors alone, by plain reads (a file that shrinks under a memory map would end the
process). Pickle files are refused and `auto_map` code is ignored. Format: the safetensors README ("Format").
It knows no architecture: names and shapes are what the file says.
"""

import hashlib
import json
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemm.errors import BadFile, Unsupported, disk_errors

Array = NDArray[np.float32]
_FIX = "download the checkpoint again"
_MAX_HEADER = 64 << 20
_MAX_JSON = 64 << 20
_DTYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "<u2",
    "I64": "<i8",
    "I32": "<i4",
    "U8": "u1",
    "BOOL": "u1",
}
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
_POOLING = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
}


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """Where an array lies: file, type name, shape, first byte, bytes."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """An opened checkpoint. `pooling` is "mean" or "cls"; `max_tokens` is 0 when nothing says it."""

    folder: Path
    config: dict[str, Any]
    tensors: dict[str, TensorEntry]
    pooling: str
    normalize: bool
    max_tokens: int
    prompts: dict[str, str]
    notes: tuple[str, ...] = ()
    files: tuple[Path, ...] = field(default=())

    @property
    def model_type(self) -> str:
        return str(self.config["model_type"])

    def read(self, name: str) -> Array:
        """The array `name` as float32. Raises `BadFile` when it is missing, unreadable or not finite."""
        entry = self.tensors.get(name)
        if entry is None:
            raise BadFile(self.folder, f"the checkpoint has no tensor {name}", _FIX)
        with disk_errors(entry.file), open(entry.file, "rb") as file:
            file.seek(entry.start)
            raw = file.read(entry.bytes)
        if len(raw) != entry.bytes:
            raise BadFile(entry.file, f"{name} needs {entry.bytes} bytes, has {len(raw)}", _FIX)
        array = np.frombuffer(raw, _DTYPES[entry.dtype]).reshape(entry.shape)
        if entry.dtype == "BF16":
            array = (array.astype(np.uint32) << 16).view(np.float32)  # bfloat16 is the upper half of float32
        result = array.astype(np.float32)
        if not np.isfinite(result).all():
            raise BadFile(entry.file, f"{name} holds values that are not finite", _FIX)
        return result

    @property
    def weights(self) -> int:
        return sum(math.prod(entry.shape) for entry in self.tensors.values())

    @property
    def tokenizer(self) -> Path:
        return self.folder / "tokenizer.json"

    def hashes(self) -> dict[str, str]:
        """sha256 of every file that was read."""
        found = {}
        for path in self.files:
            with open(path, "rb") as file:
                found[path.relative_to(self.folder).as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
        return found


def open_checkpoint(folder: Path) -> Checkpoint:
    """Read the headers and settings of the checkpoint in `folder`; weights are read later, one by one."""
    if not folder.is_dir():
        raise BadFile(folder, "there is no such folder", "give the folder that holds config.json")
    if not any(folder.iterdir()):
        raise BadFile(folder, "the folder is empty", _FIX)
    config = _json(folder / "config.json")
    if not isinstance(config.get("model_type"), str):
        raise BadFile(folder / "config.json", "model_type is missing", _FIX)
    shards = _shards(folder)
    tensors = _index(shards)
    if not (folder / "tokenizer.json").is_file():
        raise BadFile(folder / "tokenizer.json", "the file is missing", "save the tokenizer in its fast format")
    modules = _modules(folder)
    return Checkpoint(
        folder=folder,
        config=config,
        tensors=tensors,
        pooling=_pooling(folder, modules),
        normalize=any(kind == "Normalize" for kind, _ in modules) or not modules,
        max_tokens=_max_tokens(folder),
        prompts=_prompts(folder),
        notes=tuple(_notes(folder, config, modules)),
        files=tuple(sorted(_files_read(folder, shards))),
    )


def _notes(folder: Path, config: dict[str, Any], modules: list[tuple[str, str]]) -> Iterator[str]:
    if "auto_map" in config:
        yield f"{folder.name}: config.json asks to run its own code (auto_map) — ignored"
    if not modules:
        yield f"{folder.name}: no modules.json — mean pooling and normalized vectors are assumed"


def _shards(folder: Path) -> list[Path]:
    """The safetensors files, in the order of their names; the index, when there is one, names them."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        names = sorted(set(_json(index).get("weight_map", {}).values()))
        if not names or any(not isinstance(n, str) or "/" in n or "\\" in n or n.startswith(".") for n in names):
            raise BadFile(index, "weight_map is empty or names a file outside of the folder", _FIX)
        return [folder / name for name in names]
    found = sorted(folder.glob("*.safetensors"))
    if found:
        return found
    if any(list(folder.glob(pattern)) for pattern in _PICKLES):
        raise Unsupported(
            folder, "pickle checkpoints are not read, they can run code", "convert it to safetensors first"
        )
    raise BadFile(folder, "there is no .safetensors file", _FIX)


def _index(shards: list[Path]) -> dict[str, TensorEntry]:
    tensors: dict[str, TensorEntry] = {}
    for path in shards:
        if not path.is_file():
            raise BadFile(path, "the file is missing", _FIX)
        for name, entry in _header(path):
            if name in tensors:
                raise BadFile(path, f"the tensor {name} stands twice", _FIX)
            tensors[name] = entry
    return tensors


def _header(path: Path) -> list[tuple[str, TensorEntry]]:
    """The tensor table of one file, after checking that it covers the data without holes or overlaps."""
    with disk_errors(path), open(path, "rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        head = file.read(8)
        length = struct.unpack("<Q", head)[0] if len(head) == 8 else 0
        if not 2 <= length <= min(_MAX_HEADER, size - 8):
            raise BadFile(path, f"truncated or damaged: a header of {length} bytes in a file of {size}", _FIX)
        raw = file.read(length)
    table = _parse(raw, path, unique=True)
    table.pop("__metadata__", None)
    entries = [(name, _entry(path, name, row, 8 + length)) for name, row in table.items()]
    at = 8 + length
    for name, entry in sorted(entries, key=lambda item: item[1].start):
        if entry.start != at:
            raise BadFile(path, f"header says that {name} begins at byte {entry.start}, expected {at}", _FIX)
        at += entry.bytes
    if at != size:
        raise BadFile(path, f"truncated: needs {at} bytes, has {size}", _FIX)
    return entries


def _entry(path: Path, name: str, row: Any, base: int) -> TensorEntry:
    try:
        dtype, shape, (start, end) = row["dtype"], tuple(row["shape"]), row["data_offsets"]
        good = dtype in _DTYPES and all(type(n) is int and 0 <= n < 1 << 40 for n in (*shape, start, end))
        fits = good and end - start == math.prod(shape) * _width(dtype)
    except (TypeError, KeyError, ValueError) as error:
        raise BadFile(path, f"header: the row of {name[:80]!r} is damaged ({error})", _FIX) from error
    if not fits:
        raise BadFile(path, f"header: type, shape and size of {name[:80]!r} do not agree", _FIX)
    return TensorEntry(path, dtype, shape, base + start, end - start)


def _width(dtype: str) -> int:
    return np.dtype(_DTYPES[dtype]).itemsize


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise BadFile(path, "the file is missing", _FIX)
    with disk_errors(path):
        if path.stat().st_size > _MAX_JSON:
            raise BadFile(path, f"larger than {_MAX_JSON} bytes", _FIX)
        return _parse(path.read_bytes(), path)


def _parse(raw: bytes, path: Path, *, unique: bool = False) -> dict[str, Any]:
    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        table = dict(items)
        if unique and len(table) != len(items):
            raise ValueError("a key stands twice")
        return table

    try:
        content = json.loads(raw, object_pairs_hook=pairs)
    except (ValueError, RecursionError) as error:
        raise BadFile(path, f"not valid JSON ({error})", _FIX) from error
    if not isinstance(content, dict):
        raise BadFile(path, "not a JSON object", _FIX)
    return content


def _modules(folder: Path) -> list[tuple[str, str]]:
    """(kind, folder) of the sentence-transformers modules behind the transformer; empty without modules.json."""
    path = folder / "modules.json"
    if not path.is_file():
        return []
    with disk_errors(path):
        raw = path.read_bytes()
    rows = _parse(b'{"modules":' + raw + b"}", path)["modules"]
    try:
        modules = [(str(row["type"]).rsplit(".", 1)[-1], str(row["path"])) for row in rows]
    except (TypeError, KeyError) as error:
        raise BadFile(path, f"a row is damaged ({error})", _FIX) from error
    strange = [kind for kind, _ in modules if kind not in ("Transformer", "Pooling", "Normalize")]
    if strange:
        raise Unsupported(path, f"the module {strange[0][:40]} is not supported", "use a model without it")
    return modules


def _pooling(folder: Path, modules: list[tuple[str, str]]) -> str:
    place = next((place for kind, place in modules if kind == "Pooling"), None)
    if place is None:
        return "mean"
    if "/" in place or "\\" in place or place.startswith("."):
        raise BadFile(folder / "modules.json", f"the path {place[:40]!r} leaves the folder", _FIX)
    path = folder / place / "config.json"
    chosen = [key for key, value in _json(path).items() if key.startswith("pooling_mode_") and value is True]
    if len(chosen) != 1 or chosen[0] not in _POOLING:
        raise Unsupported(path, f"pooling {', '.join(chosen) or 'of no kind'}", "known: mean and cls")
    return _POOLING[chosen[0]]


def _max_tokens(folder: Path) -> int:
    """The trained window of a sentence-transformers model; 0: what the positions allow."""
    path = folder / "sentence_bert_config.json"
    value = _json(path).get("max_seq_length") if path.is_file() else None
    return value if type(value) is int and value > 2 else 0


def _prompts(folder: Path) -> dict[str, str]:
    path = folder / "config_sentence_transformers.json"
    prompts = _json(path).get("prompts") if path.is_file() else None
    return {str(k): str(v) for k, v in prompts.items()} if isinstance(prompts, dict) else {}


def _files_read(folder: Path, shards: list[Path]) -> Iterator[Path]:
    names = ("config.json", "modules.json", "sentence_bert_config.json", "config_sentence_transformers.json")
    settings = [*names, "tokenizer.json", "model.safetensors.index.json", "1_Pooling/config.json"]
    yield from (path for name in settings if (path := folder / name).is_file())
    yield from shards
