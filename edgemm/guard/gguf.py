"""A bounded GGUF header reader, and the lies that llama.cpp does not survive.

The format is described in ggml's docs/gguf.md. Every count is compared with the bytes that are left before
anything is allocated. It reads the header alone: the weights are covered by the package's sha256.
"""

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from edgemm.errors import BadFile, Unsupported, disk_errors

_FIX = "download or convert it again"
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_MAX_HEADER = 256 << 20
_MAX_KEYS, _MAX_TENSORS, _MAX_NAME = 4096, 65536, 64
_MAX_LAYERS, _MAX_CONTEXT = 512, 1 << 27
# ggml type id -> (values a block, bytes a block), from ggml.h and ggml-common.h
BLOCKS = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 9: (32, 36),
    10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292),
    16: (256, 66), 17: (256, 74), 18: (256, 98), 19: (256, 50), 20: (32, 18), 21: (256, 110), 22: (256, 82),
    23: (256, 136), 24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8), 28: (1, 8), 29: (256, 56), 30: (1, 2),
    34: (256, 54), 35: (256, 66), 39: (32, 17),
}  # fmt: skip
ARCHITECTURES = frozenset(
    "llama qwen2 qwen3 gemma gemma2 gemma3 gpt2 gptneox phi2 phi3 granite smollm3 olmo2 stablelm starcoder2 "
    "falcon mpt bloom bert nomic-bert modern-bert jina-bert-v2 gemma-embedding t5 t5encoder mistral3".split()
)
ENCODERS = frozenset("bert nomic-bert modern-bert jina-bert-v2 gemma-embedding t5encoder".split())
_VOCABULARIES = {"llama": "SentencePiece", "gpt2": "BPE", "bert": "WordPiece", "t5": "Unigram"}
_BYTE = 6  # token_type of byte tokens


@dataclass(frozen=True, slots=True)
class Tensor:
    """One row of the tensor table: shape in ggml order (fastest axis first), ggml type id, offset and size."""

    name: str
    shape: tuple[int, ...]
    type: int
    offset: int
    bytes: int


@dataclass(frozen=True, slots=True)
class GGUFHeader:
    """What a GGUF file says about itself, after the checks.

    `data_start` is the byte that tensor offsets count from; `spans` are the first and last byte of each value, its
    type included.
    """

    path: Path
    metadata: dict[str, Any]
    tensors: tuple[Tensor, ...]
    file_bytes: int
    data_start: int
    spans: dict[str, tuple[int, int]]

    @property
    def architecture(self) -> str:
        return str(self.metadata["general.architecture"])

    def get(self, key: str, default: Any = None) -> Any:
        """The value of `<architecture>.<key>`."""
        return self.metadata.get(f"{self.architecture}.{key}", default)

    @property
    def context_length(self) -> int:
        return int(self.get("context_length", 0))

    @property
    def chat_template(self) -> str:
        return str(self.metadata.get("tokenizer.chat_template", ""))

    @property
    def vocabulary(self) -> int:
        return len(self.metadata.get("tokenizer.ggml.tokens", ()))

    @property
    def weights(self) -> int:
        """The number of weights."""
        return sum(math.prod(tensor.shape) for tensor in self.tensors)

    @property
    def bits_per_weight(self) -> float:
        return 8 * sum(tensor.bytes for tensor in self.tensors) / max(1, self.weights)


def check_gguf(path: Path, *, vocabulary_only: bool = False) -> GGUFHeader:
    """Read and check the header of `path`. Raises `BadFile` for a damaged or lying file, or `Unsupported`.

    `vocabulary_only`: a file without weights, as the converter writes it to try a tokenizer.
    """
    header = read_gguf(path)
    _check_architecture(header)
    if not vocabulary_only:
        _check_numbers(header)
    _check_vocabulary(header)
    return header


def read_gguf(path: Path) -> GGUFHeader:
    """The header of any GGUF file, bounded and consistent in itself; what it describes is not looked at."""
    with disk_errors(path), open(path, "rb") as file:
        size = file.seek(0, 2)
        if size < 24:
            raise BadFile(path, f"truncated: a GGUF header needs 24 bytes, has {size}", _FIX)
        file.seek(0)
        return _Reader(path, file, size).header()


def kv_cache_bytes(header: GGUFHeader, context: int) -> int:
    """Bytes of an f16 KV cache for `context` tokens."""
    heads = int(header.get("attention.head_count", 1)) if _is_int(header.get("attention.head_count", 1)) else 1
    kv = header.get("attention.head_count_kv", heads)
    width = int(header.get("embedding_length", 0)) // max(1, heads)
    key = int(header.get("attention.key_length", width))
    value = int(header.get("attention.value_length", width))
    layers = int(header.get("block_count", 0))
    per_layer = sum(kv) / max(1, len(kv)) if isinstance(kv, list) else int(kv)
    return 0 if header.architecture in ENCODERS else int(2 * layers * per_layer * (key + value) * context)


def memory_needed(header: GGUFHeader, context: int, batch: int = 512) -> int:
    """Bytes of RAM for the weights, the KV cache and the compute buffers (logits and activations of one batch)."""
    wide = max(header.vocabulary, 4 * int(header.get("embedding_length", 0)))
    return header.file_bytes + kv_cache_bytes(header, context) + 4 * batch * wide + (64 << 20)


class _Reader:
    """A cursor over the header; each read is checked against what is left of the file.

    No memory map: a file that shrinks under one ends the process by SIGBUS.
    """

    def __init__(self, path: Path, file: BinaryIO, file_bytes: int) -> None:
        self.path, self.file, self.at, self.file_bytes = path, file, 0, file_bytes
        self.limit = min(file_bytes, _MAX_HEADER)

    def bad(self, why: str) -> BadFile:
        return BadFile(self.path, why, _FIX)

    def take(self, count: int) -> bytes:
        data = self.file.read(count) if count <= self.limit - self.at else b""
        if len(data) != count:
            raise self.bad(f"truncated: the header needs {self.at + count} bytes, has {self.limit}")
        self.at += count
        return data

    def number(self, code: str) -> Any:
        return struct.unpack("<" + code, self.take(struct.calcsize("<" + code)))[0]

    def count(self, what: str, most: int) -> int:
        value = int(self.number("Q"))
        if value > most:
            raise self.bad(f"{what} is {value}, more than {most}")
        return value

    def string(self) -> str:
        return self.take(self.count("a text length", self.limit - self.at)).decode("utf-8", "replace")

    def value(self, kind: int, key: str, depth: int = 0) -> Any:
        if kind in _SCALARS:
            return self.number(_SCALARS[kind])
        if kind == _STRING:
            return self.string()
        if kind != _ARRAY or depth:
            raise self.bad(f"{key} has the unknown type {kind}")
        item = int(self.number("I"))
        length = self.count(f"the length of {key}", self.limit - self.at)
        if item in _SCALARS:
            code = f"{length}{_SCALARS[item]}"
            return list(struct.unpack("<" + code, self.take(struct.calcsize("<" + code))))
        return [self.value(item, key, depth + 1) for _ in range(length)]

    def header(self) -> GGUFHeader:
        if self.take(4) != b"GGUF":
            raise self.bad("not a GGUF file (the first four bytes are not GGUF)")
        if (version := self.number("I")) not in (2, 3):
            raise self.bad(f"GGUF version {version}, edgemm reads 2 and 3")
        tensors = self.count("the number of tensors", _MAX_TENSORS)
        keys = self.count("the number of keys", _MAX_KEYS)
        metadata, spans = self.metadata(keys)
        table = [self.tensor() for _ in range(tensors)]
        start = self.check_layout(table, metadata)
        return GGUFHeader(self.path, metadata, tuple(table), self.file_bytes, start, spans)

    def metadata(self, keys: int) -> tuple[dict[str, Any], dict[str, tuple[int, int]]]:
        found: dict[str, Any] = {}
        spans = {}
        for _ in range(keys):
            key = self.string()
            if key in found:
                raise self.bad(f"the key {key!r} stands twice")
            start = self.at
            found[key] = self.value(int(self.number("I")), key)
            spans[key] = (start, self.at)
        return found, spans

    def tensor(self) -> Tensor:
        name = self.string()
        if not 0 < len(name) < _MAX_NAME:
            raise self.bad(f"a tensor name of {len(name)} characters")
        axes = int(self.number("I"))
        if not 1 <= axes <= 4:
            raise self.bad(f"{name} has {axes} axes")
        shape = struct.unpack(f"<{axes}Q", self.take(8 * axes))
        kind, offset = int(self.number("I")), int(self.number("Q"))
        if kind not in BLOCKS:
            raise self.bad(f"{name} has the unknown type {kind}")
        block, size = BLOCKS[kind]
        values = math.prod(shape)
        if not 0 < values < 1 << 48 or shape[0] % block:
            raise self.bad(f"{name} has the shape {list(shape)}, which type {kind} cannot hold")
        return Tensor(name, shape, kind, offset, values // block * size)

    def check_layout(self, tensors: list[Tensor], metadata: dict[str, Any]) -> int:
        """The byte that the offsets count from."""
        alignment = metadata.get("general.alignment", 32)
        if not _is_int(alignment) or not 8 <= alignment <= 4096 or alignment & (alignment - 1):
            raise self.bad(f"general.alignment is {alignment}, not a small power of two")
        if len({tensor.name for tensor in tensors}) != len(tensors):
            raise self.bad("a tensor name stands twice")
        start: int = -(-self.at // alignment) * alignment
        end = 0
        for tensor in sorted(tensors, key=lambda t: t.offset):
            if tensor.offset % alignment or tensor.offset < end:
                raise self.bad(f"{tensor.name} overlaps another tensor or is not aligned")
            end = tensor.offset + tensor.bytes
        if start + end > self.file_bytes:
            raise self.bad(f"truncated: needs {start + end} bytes, has {self.file_bytes}")
        return start


def _check_architecture(header: GGUFHeader) -> None:
    name = header.metadata.get("general.architecture")
    if not isinstance(name, str):
        raise BadFile(header.path, "general.architecture is missing", _FIX)
    if name not in ARCHITECTURES:
        raise Unsupported(
            header.path, f"architecture {name[:40]!r} is not supported", "use a model of `edgemm list --all`"
        )
    if header.get("expert_count", 0) != 0:
        raise Unsupported(header.path, "mixture-of-experts models are not supported", "use a dense model")


# key -> least, most; a float where the limits are floats. A value outside trips an assert or an allocation.
_RANGES: dict[str, tuple[float, float]] = {
    "block_count": (1, _MAX_LAYERS),
    "context_length": (1, _MAX_CONTEXT),
    "embedding_length": (1, 1 << 17),
    "feed_forward_length": (1, 1 << 20),
    "attention.head_count": (1, 1 << 12),
    "attention.head_count_kv": (1, 1 << 12),
    "attention.key_length": (1, 1 << 12),
    "attention.value_length": (1, 1 << 12),
    "rope.dimension_count": (0, 1 << 12),
    "vocab_size": (1, 1 << 24),
    "attention.layer_norm_epsilon": (0.0, 1.0),
    "attention.layer_norm_rms_epsilon": (0.0, 1.0),
    "rope.freq_base": (1e-3, 1e12),
    "rope.scaling.factor": (0.0, 1e6),
    "attention.sliding_window": (0, _MAX_CONTEXT),
    "pooling_type": (0, 4),
}
_PER_LAYER = ("feed_forward_length", "attention.head_count", "attention.head_count_kv")  # may be a list
_REQUIRED = ("block_count", "context_length", "embedding_length")


def _check_numbers(header: GGUFHeader) -> None:
    if not header.tensors:
        raise BadFile(header.path, "the file holds no tensors", _FIX)
    for key, (least, most) in _RANGES.items():
        value = header.get(key)
        if value is None and key not in _REQUIRED:
            continue
        for item in value if isinstance(value, list) and key in _PER_LAYER else [value]:
            whole = isinstance(most, int)
            if not (_is_int(item) if whole else _is_number(item)) or not least <= item <= most:
                raise BadFile(header.path, f"{header.architecture}.{key} is {item}, not in {least}..{most}", _FIX)
    _check_shapes(header)


def _check_shapes(header: GGUFHeader) -> None:
    """The sizes that llama.cpp only asserts: heads divide the width, and layers have their own tensors."""
    width, heads = header.get("embedding_length"), header.get("attention.head_count")
    kv = header.get("attention.head_count_kv", heads)
    if (
        _is_int(heads)
        and _is_int(kv)
        and (heads % kv or (header.get("attention.key_length") is None and width % heads))
    ):
        raise BadFile(header.path, f"{heads} heads, {kv} KV heads and width {width} do not fit each other", _FIX)
    blocks = (t.name.split(".")[1] for t in header.tensors if t.name.startswith("blk."))
    layers = {int(number) for number in blocks if number.isdecimal()}
    if layers and layers != set(range(header.get("block_count"))):
        raise BadFile(header.path, f"block_count is {header.get('block_count')}, the tensors have {len(layers)}", _FIX)
    embedding = next((t for t in header.tensors if t.name == "token_embd.weight"), None)
    if embedding is None or embedding.shape[0] != width or embedding.shape[-1] != header.vocabulary:
        shape = list(embedding.shape) if embedding else "missing"
        raise BadFile(header.path, f"token_embd.weight is {shape}, not [{width}, {header.vocabulary}]", _FIX)


def _check_vocabulary(header: GGUFHeader) -> None:
    kind = header.metadata.get("tokenizer.ggml.model")
    if not isinstance(kind, str) or kind not in _VOCABULARIES:
        raise Unsupported(
            header.path, f"tokenizer.ggml.model is {str(kind)[:40]!r}", f"known: {', '.join(_VOCABULARIES)}"
        )
    tokens = header.metadata.get("tokenizer.ggml.tokens")
    if not isinstance(tokens, list) or not tokens or not all(isinstance(t, str) for t in tokens):
        raise BadFile(header.path, "tokenizer.ggml.tokens is no list of texts", _FIX)
    if len(set(tokens)) != len(tokens):
        raise BadFile(header.path, "tokenizer.ggml.tokens holds a token twice", _FIX)
    for key in ("token_type", "scores"):
        values = header.metadata.get(f"tokenizer.ggml.{key}")
        if values is not None and (not isinstance(values, list) or len(values) != len(tokens)):
            raise BadFile(header.path, f"tokenizer.ggml.{key} does not fit the {len(tokens)} tokens", _FIX)
    for key, value in header.metadata.items():
        if key.startswith("tokenizer.ggml.") and key.endswith("_token_id") and not _is_id(value, len(tokens)):
            raise BadFile(header.path, f"{key} is {value}, the vocabulary has {len(tokens)} tokens", _FIX)
    _check_vocabulary_kind(header, str(kind), tokens)


def _check_vocabulary_kind(header: GGUFHeader, kind: str, tokens: list[str]) -> None:
    types = header.metadata.get("tokenizer.ggml.token_type", [])
    merges = header.metadata.get("tokenizer.ggml.merges")
    if kind == "llama" and types.count(_BYTE) < 256:
        raise BadFile(header.path, "a SentencePiece vocabulary without its 256 byte tokens", _FIX)
    if kind == "gpt2" and not (isinstance(merges, list) and all(isinstance(m, str) and " " in m for m in merges)):
        raise BadFile(header.path, "a BPE vocabulary without its merges", _FIX)
    if kind == "bert" and not header.metadata.get("tokenizer.ggml.token_type_count"):
        raise BadFile(header.path, "tokenizer.ggml.token_type_count is missing", _FIX)


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _is_id(value: Any, size: int) -> bool:
    return _is_int(value) and (0 <= value < size or value == 0xFFFFFFFF)
