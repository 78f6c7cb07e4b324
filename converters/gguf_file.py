"""The GGUF container: settings and a table of tensors as bytes, with every offset known before a weight is read.

Format: ggml's docs/gguf.md, version 3, little-endian. It knows no architecture and no quantization.
"""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from converters import ggml

ALIGNMENT = 32
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_UINT32, _INT32, _FLOAT32, _BOOL, _STRING, _ARRAY, _UINT8 = 4, 5, 6, 7, 8, 9, 0


@dataclass(frozen=True, slots=True)
class Setting:
    """A value with its GGUF type; `item` is the type of the items of an array."""

    value: Any
    type: int
    item: int = 0


Settings = dict[str, Setting | bytes]  # bytes: a type and a value as they stand in another file


@dataclass(frozen=True, slots=True)
class Entry:
    """A row of the tensor table: `shape` in numpy order, `type` a name of `ggml.TYPES`."""

    name: str
    shape: tuple[int, ...]
    type: str

    @property
    def columns(self) -> int:
        return self.shape[-1]

    @property
    def rows(self) -> int:
        return self.shape[0] if len(self.shape) > 1 else 1

    @property
    def bytes(self) -> int:
        return self.rows * ggml.row_bytes(self.type, self.columns)


def setting(value: Any) -> Setting:
    """A Python value with the type that llama.cpp expects: uint32, float32, bool, text, or an array of these."""
    match value:
        case bool():
            return Setting(value, _BOOL)
        case int():
            return Setting(value, _UINT32)
        case float():
            return Setting(value, _FLOAT32)
        case str():
            return Setting(value, _STRING)
        case bytes():
            return Setting(value, _ARRAY, _UINT8)
        case [str(), *_]:
            return Setting(value, _ARRAY, _STRING)
        case [float(), *_]:
            return Setting(value, _ARRAY, _FLOAT32)
        case [bool(), *_]:
            return Setting(value, _ARRAY, _BOOL)
        case [int(), *_]:
            return Setting(value, _ARRAY, _INT32)
    raise TypeError(f"no GGUF type for {value!r}")


def header(settings: Mapping[str, Setting | bytes], entries: Sequence[Entry]) -> bytes:
    """Everything before the first weight, padded to the alignment."""
    parts = [b"GGUF", struct.pack("<IQQ", 3, len(entries), len(settings))]
    for key, item in settings.items():
        value = item if isinstance(item, bytes) else struct.pack("<I", item.type) + _value(item)
        parts += [_text(key), value]
    for entry, offset in zip(entries, offsets(entries), strict=True):
        axes = entry.shape[::-1]
        fields = struct.pack(f"<I{len(axes)}QIQ", len(axes), *axes, ggml.TYPES[entry.type], offset)
        parts += [_text(entry.name), fields]
    content = b"".join(parts)
    return content + padding(len(content))


def offsets(entries: Sequence[Entry]) -> list[int]:
    """The first byte of each tensor, from the end of the header."""
    found, at = [], 0
    for entry in entries:
        found.append(at)
        at += stored_bytes(entry)
    return found


def data_bytes(entries: Sequence[Entry]) -> int:
    return sum(map(stored_bytes, entries))


def stored_bytes(entry: Entry) -> int:
    """With the padding behind it."""
    return entry.bytes + len(padding(entry.bytes))


def padding(size: int) -> bytes:
    """What follows `size` bytes, so that the next tensor is aligned."""
    return bytes(-size % ALIGNMENT)


def _text(text: str) -> bytes:
    raw = text.encode("utf-8")
    return struct.pack("<Q", len(raw)) + raw


def _value(item: Setting) -> bytes:
    if item.type == _STRING:
        return _text(item.value)
    if item.type != _ARRAY:
        return struct.pack("<" + _SCALARS[item.type], item.value)
    start = struct.pack("<IQ", item.item, len(item.value))
    if item.item == _STRING:
        return start + b"".join(map(_text, item.value))
    return start + struct.pack(f"<{len(item.value)}{_SCALARS[item.item]}", *item.value)
