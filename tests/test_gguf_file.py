"""What we write is what other readers read: the package `gguf`, our own guard, and llama.cpp through both."""

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converters import ggml
from converters.gguf_file import ALIGNMENT, Entry, Setting, data_bytes, header, offsets, setting
from converters.gguf_model import Source, Tensor
from converters.quantize import Draft, write
from edgemm import guard

SETTINGS: dict[str, Setting] = {
    "general.architecture": setting("llama"),
    "a.text": setting("ü 👩‍👩‍👧 \x00 end"),
    "a.empty": setting(""),
    "a.number": setting(4_000_000_000),
    "a.float": setting(0.1),
    "a.yes": setting(True),
    "a.texts": setting(["", "x", "日本"]),
    "a.ids": setting([-1, 2, 3]),
    "a.floats": setting([0.5, -1e30]),
    "a.flags": setting([True, False]),
    "a.bytes": setting(b"\x00\xff\x7f"),
    "a.no_bytes": setting(b""),
    "a.no_texts": Setting([], 9, 8),
    "a.no_floats": Setting([], 9, 6),
    **{f"a.type{kind}": Setting(1, kind) for kind in (0, 1, 2, 3, 4, 5, 10, 11)},
    "a.double": Setting(1e300, 12),
}
ENTRIES = [
    Entry("token_embd.weight", (3, 64), "Q4_0"),  # 108 bytes: padded
    Entry("norm.weight", (5,), "F32"),
    Entry("wide.weight", (2, 256), "Q6_K"),
    Entry("half.weight", (7, 3), "F16"),
    Entry("last.bias", (1,), "BF16"),
]
DATA = {entry.name: np.arange(entry.bytes, dtype=np.uint32).astype(np.uint8).tobytes() for entry in ENTRIES}


def written(path: Path, settings: dict[str, Any], entries: list[Entry]) -> Path:
    content = bytearray(header(settings, entries))
    start = len(content)
    content += bytes(data_bytes(entries))
    for entry, at in zip(entries, offsets(entries), strict=True):
        content[start + at : start + at + entry.bytes] = DATA[entry.name]
    path.write_bytes(content)
    return path


def plain(value: Any) -> Any:
    """Numbers as float32 holds them."""
    if isinstance(value, float):
        return float(np.float32(value)) if abs(value) < 1e38 else value
    if isinstance(value, bytes):
        return list(value)
    return [plain(item) for item in value] if isinstance(value, list) else value


def test_the_package_gguf_reads_the_same_settings_and_tensors(tmp_path: Path) -> None:
    reader = gguf.GGUFReader(written(tmp_path / "x.gguf", dict(SETTINGS), ENTRIES))
    for key, item in SETTINGS.items():
        field = reader.fields[key]
        assert field.types[0] == item.type
        if item.type != 9 or item.value:  # its reader gives no item type of an empty list
            assert plain(field.contents()) == plain(item.value), key
        if item.type == 9 and item.value:
            assert field.types[1] == item.item
    assert [t.name for t in reader.tensors] == [e.name for e in ENTRIES]
    for tensor, entry in zip(reader.tensors, ENTRIES, strict=True):
        assert tensor.tensor_type.name == entry.type
        assert tuple(tensor.shape)[::-1] == entry.shape
        assert tensor.data.tobytes() == DATA[entry.name]


def test_the_guard_reads_the_same_settings_and_tensors(tmp_path: Path) -> None:
    path = written(tmp_path / "x.gguf", dict(SETTINGS), ENTRIES)
    found = guard.read_gguf(path)
    assert {k: plain(v) for k, v in found.metadata.items()} == {k: plain(i.value) for k, i in SETTINGS.items()}
    content = path.read_bytes()
    for tensor, entry in zip(found.tensors, ENTRIES, strict=True):
        assert (tensor.name, ggml.NAMES[tensor.type], tensor.shape) == (entry.name, entry.type, entry.shape[::-1])
        start = found.data_start + tensor.offset
        assert start % ALIGNMENT == 0
        assert content[start : start + tensor.bytes] == DATA[entry.name]


def test_settings_of_another_file_are_carried_byte_for_byte(tmp_path: Path) -> None:
    path = written(tmp_path / "x.gguf", dict(SETTINGS), ENTRIES)
    content, found = path.read_bytes(), guard.read_gguf(path)
    carried = {key: content[start:stop] for key, (start, stop) in found.spans.items()}
    assert header(carried, ENTRIES) == content[: found.data_start]


def test_the_writer_of_gguf_gives_the_same_bytes(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "theirs.gguf", "llama")
    writer.add_uint32("a.number", 7)
    writer.add_float32("a.float", 0.1)
    writer.add_bool("a.yes", True)
    writer.add_string("a.text", "ü")
    writer.add_array("a.texts", ["x", "yz"])
    writer.add_array("a.ids", [-1, 2])
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    writer.add_tensor("x.weight", array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    values = {"a.number": 7, "a.float": 0.1, "a.yes": True, "a.text": "ü", "a.texts": ["x", "yz"], "a.ids": [-1, 2]}
    settings = {"general.architecture": setting("llama")} | {key: setting(value) for key, value in values.items()}
    entry = Entry("x.weight", (2, 3), "F32")
    ours = header(settings, [entry]) + array.tobytes() + bytes(8)
    assert ours == (tmp_path / "theirs.gguf").read_bytes()


def test_a_file_without_tensors_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(header(dict(SETTINGS), []))
    assert not guard.read_gguf(path).tensors
    assert not gguf.GGUFReader(path).tensors


@pytest.mark.parametrize("value", [None, {}, object(), []])
def test_a_value_without_a_type_is_a_mistake(value: object) -> None:
    with pytest.raises(TypeError, match="no GGUF type"):
        setting(value)


FAST = [kind for kind in ggml.TYPES if not kind.startswith(("IQ1", "IQ2"))]  # the others build tables for seconds


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(FAST), st.integers(1, 9), st.integers(1, 3)), max_size=6))
def test_offsets_are_aligned_and_a_draft_knows_its_bytes(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, int, int]]
) -> None:
    tensors = []
    for i, (_, count, blocks) in enumerate(rows):
        array = np.full((count, 256 * blocks), 0.5, np.float32)
        tensors.append(Tensor(f"t{i}.weight", array.shape, Source(lambda a, b, x=array: x[a:b], count, "F32")))  # type: ignore[misc]
    draft = Draft(dict(SETTINGS), tensors, {f"t{i}.weight": kind for i, (kind, _, _) in enumerate(rows)})
    places = [*offsets(draft.entries), data_bytes(draft.entries)]
    assert all(place % ALIGNMENT == 0 for place in places)
    for entry, start, stop in zip(draft.entries, places, places[1:], strict=False):
        assert 0 <= stop - start - entry.bytes < ALIGNMENT
    path = tmp_path_factory.mktemp("draft") / "x.gguf"
    list(write(path, draft, {}, {}, 1))
    assert path.stat().st_size == draft.bytes
    assert [t.name for t in guard.read_gguf(path).tensors] == [t.name for t in tensors]
