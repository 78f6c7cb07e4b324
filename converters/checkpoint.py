"""A Hugging Face checkpoint as data: config.json, lazy float arrays, pooling, tokenizer; nothing is executed.

Weights are read from safetensors alone, by plain reads (a file that shrinks under a memory map would end the
process). Pickle files are refused and `auto_map` code is ignored. Format: the safetensors README ("Format").
It knows no architecture: names and shapes are what the file says.
"""

import hashlib
import json
import math
import re
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
_CARD = 4096  # characters of a model card that hold its front matter
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
_QUANTIZED = ("F8_E4M3", "F8_E5M2", "I8", "U32")  # how FP8, INT8 and MLX checkpoints store their weights
PICTURES = "preprocessor_config.json"
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
_POOLING = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_lasttoken": "last",
}
# The end of a class's name in transformers -> what the checkpoint is for
_TASKS = {
    "ForCausalLM": "chat",
    "ForConditionalGeneration": "chat",
    "LMHeadModel": "chat",
    "ForMaskedLM": "fill-mask",
    "ForPreTraining": "fill-mask",
    "ForSequenceClassification": "classify",
    "ForTokenClassification": "token-classify",
    "ForQuestionAnswering": "question-answering",
    "ForNextSentencePrediction": "next-sentence",
    "ForImageClassification": "image-classify",
    "ForImageClassificationWithTeacher": "image-classify",
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
    """An opened checkpoint. `pooling` is "mean", "cls" or "last"; `max_tokens` is 0 when nothing says it.

    `modules` are the kinds of its sentence-transformers modules; empty without modules.json. `ranks`: its card says
    that it judges how well a text answers a question (it may be a chat model in its config.json), `is_matryoshka` that
    the first values of a vector are a vector too.
    """

    folder: Path
    config: dict[str, Any]
    tensors: dict[str, TensorEntry]
    pooling: str
    normalize: bool
    max_tokens: int
    prompts: dict[str, str]
    modules: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    files: tuple[Path, ...] = field(default=())
    ranks: bool = False
    is_matryoshka: bool = False

    @property
    def model_type(self) -> str:
        return str(self.config["model_type"])

    @property
    def kind(self) -> str:
        """The class of transformers that saved it, such as "BertModel"; empty when config.json does not say."""
        return str((self.config.get("architectures") or [""])[0])

    @property
    def task(self) -> str:
        """What the checkpoint is for, by its modules, class and card: one of `_TASKS`, "rerank", or else "embed"."""
        if self.modules:
            return "embed"
        task = next((task for end, task in _TASKS.items() if self.kind.endswith(end)), "embed")
        return "rerank" if task == "chat" and self.ranks else task

    def entry(self, name: str) -> TensorEntry:
        """Raises `BadFile` when there is no tensor of this name."""
        if name not in self.tensors:
            raise BadFile(self.folder, f"the checkpoint has no tensor {name}", _FIX)
        return self.tensors[name]

    def read(self, name: str) -> Array:
        """The array `name` as float32. Raises `BadFile` when it is missing, unreadable or not finite."""
        entry = self.entry(name)
        return self.read_rows(name, 0, entry.shape[0] if entry.shape else 1)

    def read_rows(self, name: str, start: int, stop: int) -> Array:
        """The rows `start` to `stop` of the first axis, as float32."""
        entry = self.entry(name)
        row = entry.bytes // max(1, entry.shape[0] if entry.shape else 1)
        with disk_errors(entry.file), open(entry.file, "rb") as file:
            file.seek(entry.start + start * row)
            raw = file.read((stop - start) * row)
        if len(raw) != (stop - start) * row:
            raise BadFile(entry.file, f"{name} needs {entry.bytes} bytes, the file ends before", _FIX)
        array = np.frombuffer(raw, _DTYPES[entry.dtype])
        if entry.dtype == "BF16":
            array = (array.astype(np.uint32) << 16).view(np.float32)  # bfloat16 is the upper half of float32
        result = array.astype(np.float32, copy=False)
        flat = result.reshape(-1)
        if not np.isfinite(np.dot(flat, flat)) and not np.isfinite(flat).all():  # the first is fast, and may overflow
            raise BadFile(entry.file, f"{name} holds values that are not finite", _FIX)
        return result.reshape(stop - start, *entry.shape[1:]) if entry.shape else result.reshape(())

    @property
    def weights(self) -> int:
        return sum(math.prod(entry.shape) for entry in self.tensors.values())

    @property
    def tokenizer(self) -> Path:
        return self.folder / "tokenizer.json"

    @property
    def pictures(self) -> Path:
        return self.folder / PICTURES

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
    _check_not_quantized(folder, config)
    shards = _shards(folder)
    tensors = _index(shards)
    if not any((folder / name).is_file() for name in ("tokenizer.json", PICTURES)):
        raise BadFile(folder / "tokenizer.json", "the file is missing", "save the tokenizer in its fast format")
    modules, front = _modules(folder), _front_matter(folder)
    for place in (place for kind, place in modules if kind == "Dense"):
        tensors |= _dense(folder, place)
    return Checkpoint(
        folder=folder,
        config=config,
        tensors=tensors,
        pooling=_pooling(folder, modules),
        normalize=any(kind == "Normalize" for kind, _ in modules) or not modules,
        max_tokens=_max_tokens(folder),
        prompts=_prompts(folder),
        modules=tuple(kind for kind, _ in modules),
        notes=tuple(_notes(folder, config, modules)),
        files=tuple(sorted(_files_read(folder, shards))),
        ranks=re.search(r"^pipeline_tag:\s*['\"]?text-ranking\b", front, re.MULTILINE) is not None
        or "reranker" in folder.resolve().name.lower(),
        is_matryoshka="matryoshka" in front.lower(),
    )


def _front_matter(folder: Path) -> str:
    """That of the model card; empty where there is none."""
    path = folder / "README.md"
    if not path.is_file():
        return ""
    with disk_errors(path), open(path, encoding="utf-8", errors="replace") as file:
        head = file.read(_CARD)
    return head.split("\n---", 1)[0] if head.startswith("---") else ""


def _notes(folder: Path, config: dict[str, Any], modules: list[tuple[str, str]]) -> Iterator[str]:
    if "auto_map" in config:
        yield f"{folder.name}: config.json asks to run its own code (auto_map) — ignored"


def _check_not_quantized(folder: Path, config: dict[str, Any]) -> None:
    """What was rounded once would be rounded twice, and its scales would be taken for weights."""
    section = config.get("quantization_config") or config.get("quantization")
    if section:
        method = section.get("quant_method", "MLX") if isinstance(section, dict) else section
        why = f"the checkpoint is quantized already ({str(method)[:40]})"
        raise Unsupported(folder / "config.json", why, "convert the original checkpoint, in bf16, f16 or f32")


def _shards(folder: Path) -> list[Path]:
    """The safetensors files, in the order of their names; the index, when there is one, names them."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        names = sorted(set(_json(index).get("weight_map", {}).values()))
        if not names or any(not isinstance(n, str) or "/" in n or "\\" in n or n.startswith(".") for n in names):
            raise BadFile(index, "weight_map is empty or names a file outside of the folder", _FIX)
        return [folder / name for name in names]
    whole = folder / "model.safetensors"  # other files beside it are adapters, or the same weights by other names
    found = [whole] if whole.is_file() else sorted(folder.glob("*.safetensors"))
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
    if isinstance(row, dict) and row.get("dtype") in _QUANTIZED:
        why = f"{name[:80]} is stored as {row['dtype']}: the checkpoint is quantized already"
        raise Unsupported(path, why, "convert the original checkpoint, in bf16, f16 or f32")
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


def optional_json(path: Path) -> dict[str, Any]:
    """The object in `path`, or an empty one when there is no such file."""
    return _json(path) if path.is_file() else {}


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
    strange = [kind for kind, _ in modules if kind not in ("Transformer", "Pooling", "Dense", "Normalize")]
    if strange:
        raise Unsupported(path, f"the module {strange[0][:40]} is not supported", "use a model without it")
    return modules


def _inside(folder: Path, place: str) -> Path:
    if "/" in place or "\\" in place or place.startswith("."):
        raise BadFile(folder / "modules.json", f"the path {place[:40]!r} leaves the folder", _FIX)
    return folder / place


def _dense(folder: Path, place: str) -> dict[str, TensorEntry]:
    """The tensors of a projection behind the pooling, named `<folder>.linear.weight`."""
    path = _inside(folder, place)
    if not str(_json(path / "config.json").get("activation_function", "")).endswith("Identity"):
        raise Unsupported(path / "config.json", "a projection with an activation", "use a model without it")
    return {f"{place}.{name}": entry for name, entry in _header(path / "model.safetensors")}


def _pooling(folder: Path, modules: list[tuple[str, str]]) -> str:
    place = next((place for kind, place in modules if kind == "Pooling"), None)
    if place is None:
        return "mean"
    path = _inside(folder, place) / "config.json"
    chosen = [key for key, value in _json(path).items() if key.startswith("pooling_mode_") and value is True]
    if len(chosen) != 1 or chosen[0] not in _POOLING:
        raise Unsupported(path, f"pooling {', '.join(chosen) or 'of no kind'}", "known: mean, cls and last")
    return _POOLING[chosen[0]]


def _max_tokens(folder: Path) -> int:
    """The trained window of a sentence-transformers model; 0: what the positions allow."""
    path = folder / "sentence_bert_config.json"
    value = optional_json(path).get("max_seq_length")
    return value if type(value) is int and value > 2 else 0


def _prompts(folder: Path) -> dict[str, str]:
    path = folder / "config_sentence_transformers.json"
    prompts = optional_json(path).get("prompts")
    return {str(k): str(v) for k, v in prompts.items()} if isinstance(prompts, dict) else {}


def _files_read(folder: Path, shards: list[Path]) -> Iterator[Path]:
    names = ("config.json", "modules.json", "sentence_bert_config.json", "config_sentence_transformers.json")
    chat = ("tokenizer_config.json", "generation_config.json", "chat_template.jinja")
    settings = [*names, "tokenizer.json", PICTURES, *chat, "model.safetensors.index.json", "1_Pooling/config.json"]
    yield from (path for name in settings if (path := folder / name).is_file())
    yield from shards
