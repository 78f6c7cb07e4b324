"""Verification notices what went wrong on the way: a flipped byte, swapped rows, a wrong order, a shifted tensor."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_gguf
import tiny_llama

from converters import ggml, gguf_model, tensors
from converters.checkpoint import open_checkpoint
from converters.gguf_file import Entry, header, offsets
from converters.gguf_model import Blueprint, Source, Tensor
from converters.operations import (
    INTERLEAVE_K,
    INTERLEAVE_Q,
    KEEP,
    PLUS_ONE,
    SPLIT_HEADS,
    TRANSPOSE,
    FromRow,
    Operation,
    ScaleIfTied,
)
from converters.quantize import Draft, write
from converters.tensors import Error
from edgemm import package
from edgemm.errors import BadFile, BelowFloor

SIZES = {"heads": 4, "kv_heads": 2, "h": 256, "tied": 1}
floats = pytest.mark.parametrize("kind", ggml.FLOATS)
quantized = pytest.mark.parametrize("kind", ["Q8_0", "Q6_K", "Q4_K", "IQ4_NL", "Q3_K", "Q2_K"])


def finished(draft: Draft, path: Path, sizes: dict[str, int]) -> dict[str, Error]:
    """What `check` gives."""
    running = tensors.check(path, draft, sizes, 2)
    while True:
        try:
            next(running)
        except StopIteration as end:
            found: dict[str, Error] = end.value
            return found


class Written:
    """A file of three tensors of one type; `change` edits the bytes of the middle one."""

    def __init__(
        self, folder: Path, kind: str, operation: Operation = KEEP, rows: int = 48, columns: int = 256
    ) -> None:
        rng = np.random.default_rng(4)
        shape = (columns, rows) if operation is TRANSPOSE else (rows, columns)
        self.arrays = [rng.standard_t(3, shape).astype(np.float32) * np.float32(0.02) for _ in range(3)]
        self.arrays = [array.astype(np.float16).astype(np.float32) for array in self.arrays]
        made = [
            Tensor(f"t{i}.weight", operation.shape(a.shape), Source(lambda x, y, a=a: a[x:y], len(a), "F32"), operation)  # type: ignore[misc]
            for i, a in enumerate(self.arrays)
        ]
        self.draft = Draft({}, made, {t.name: kind for t in made})
        self.path = folder / "model.gguf"
        list(write(self.path, self.draft, {}, SIZES, 2))
        self.entry: Entry = self.draft.entries[1]
        self.start = len(header({}, self.draft.entries)) + offsets(self.draft.entries)[1]

    def check(self) -> dict[str, Error]:
        return finished(self.draft, self.path, SIZES)

    def change(self, edit: Callable[[np.ndarray], object]) -> None:
        content = bytearray(self.path.read_bytes())
        stored = np.frombuffer(content, np.uint8, self.entry.bytes, self.start).reshape(self.entry.rows, -1).copy()
        edit(stored)
        content[self.start : self.start + self.entry.bytes] = stored.tobytes()
        self.path.write_bytes(content)

    def is_refused(self) -> None:
        with pytest.raises(BelowFloor, match=r"model\.gguf: t1\.weight differs from the checkpoint by .* after"):
            self.check()


def swap(stored: np.ndarray) -> None:
    stored[[3, 9]] = stored[[9, 3]]


OPERATIONS = {
    "keep": KEEP, "queries": INTERLEAVE_Q, "keys": INTERLEAVE_K, "transpose": TRANSPOSE, "heads": SPLIT_HEADS,
    "from row 2": FromRow(2), "plus one": PLUS_ONE, "scale": ScaleIfTied(),
}  # fmt: skip


# Norms, to which one is added, are not quantized.
GOOD = [
    pytest.param(operation, kind, id=f"{kind}-{name}")
    for kind in ("F32", "F16", "BF16", "Q8_0", "Q4_K", "Q2_K")
    for name, operation in OPERATIONS.items()
    if operation is not PLUS_ONE or kind in ggml.FLOATS
]


@pytest.mark.parametrize(("operation", "kind"), GOOD)
def test_a_good_file_passes_whatever_was_done_to_it(operation: Operation, kind: str, tmp_path: Path) -> None:
    found = Written(tmp_path, kind, operation).check()
    for error in found.values():
        assert error.exact == (kind in ggml.FLOATS)
        assert error.relative <= tensors.BOUNDS.get(kind, {"F32": 1e-4, "F16": 0.02, "BF16": 0.2}.get(kind, 0))
    if kind == "F32" and operation in (KEEP, INTERLEAVE_Q, INTERLEAVE_K, TRANSPOSE, SPLIT_HEADS):
        assert {error.relative for error in found.values()} == {0.0}


@floats
@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
def test_every_flipped_bit_is_noticed(kind: str, operation: Operation, tmp_path: Path) -> None:
    written = Written(tmp_path, kind, operation, rows=48)
    good = written.path.read_bytes()
    rng = np.random.default_rng(1)
    for _ in range(25):
        at, bit = rng.integers(written.entry.bytes), rng.integers(8)

        def flip(stored: np.ndarray, at: int = at, bit: int = bit) -> None:
            stored.reshape(-1)[at] ^= 1 << bit

        written.change(flip)
        written.is_refused()
        written.path.write_bytes(good)
    written.check()


@floats
def test_swapped_rows_are_noticed_in_floats(kind: str, tmp_path: Path) -> None:
    written = Written(tmp_path, kind)
    written.change(swap)
    written.is_refused()


@quantized
def test_swapped_rows_are_noticed_in_quantized_tensors(kind: str, tmp_path: Path) -> None:
    written = Written(tmp_path, kind, rows=512)
    written.change(swap)  # two rows of 512: the whole tensor is only 9 % off
    written.is_refused()


@quantized
def test_a_quantized_tensor_beyond_its_bound_is_noticed(kind: str, tmp_path: Path) -> None:
    written = Written(tmp_path, kind)
    assert max(e.relative for e in written.check().values()) < tensors.BOUNDS[kind]
    size = float(np.linalg.norm(written.arrays[1]))
    for share, noticed in ((0.2, False), (1.5, True)):
        off = np.random.default_rng(0).normal(size=written.arrays[1].shape).astype(np.float32)
        off *= np.float32(share * tensors.BOUNDS[kind] * size / np.linalg.norm(off))
        written.change(lambda stored, off=off: stored.__setitem__(..., ggml.quantize(written.arrays[1] + off, kind)))
        if noticed:
            written.is_refused()
        else:
            written.check()


@quantized
def test_a_block_that_is_not_finite_is_noticed(kind: str, tmp_path: Path) -> None:
    written = Written(tmp_path, kind)
    scale = {"Q8_0": 0, "Q6_K": 208, "Q4_K": 0, "IQ4_NL": 0, "Q3_K": 108, "Q2_K": 80}[kind]
    written.change(lambda stored: stored[5].__setitem__(slice(scale, scale + 2), (0x00, 0x7E)))
    written.is_refused()


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q8_0", "Q4_K"])
@pytest.mark.parametrize("shift", [1, 32, -32])
def test_a_shifted_tensor_is_noticed(kind: str, shift: int, tmp_path: Path) -> None:
    written = Written(tmp_path, kind)
    written.change(lambda stored: stored.__setitem__(..., np.roll(stored.reshape(-1), shift).reshape(stored.shape)))
    written.is_refused()


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q8_0", "Q4_K", "Q2_K"])
@pytest.mark.parametrize("operation", [INTERLEAVE_Q, SPLIT_HEADS, FromRow(2)], ids=["queries", "heads", "from row"])
def test_a_wrong_order_of_rows_is_noticed(kind: str, operation: Operation, tmp_path: Path) -> None:
    """The file was written without the operation, or with that of another number of heads."""
    written = Written(tmp_path, kind, operation)
    same = written.entry.shape == written.arrays[1].shape
    plain = written.arrays[1] if same else written.arrays[1][:-2]
    written.change(lambda stored: stored.__setitem__(..., ggml.quantize(plain, kind)))
    written.is_refused()
    if same:
        other = operation.apply(written.arrays[1], SIZES | {"heads": 2})
        written.change(lambda stored: stored.__setitem__(..., ggml.quantize(other, kind)))
        written.is_refused()


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    written = Written(tmp_path, "F16")
    os.truncate(written.path, written.start + 100)
    with pytest.raises(BadFile, match=r"model\.gguf: truncated: needs"):
        written.check()


def test_a_zero_tensor_passes_and_noise_in_it_does_not(tmp_path: Path) -> None:
    written = Written(tmp_path, "Q4_K")
    zero = Source(lambda a, b: np.zeros((b - a, 256), np.float32), 48, "F32")
    made = [replace(tensor, source=zero) for tensor in written.draft.tensors]
    draft = Draft({}, made, written.draft.types)
    list(write(written.path, draft, {}, SIZES, 2))
    assert {error.relative for error in finished(draft, written.path, SIZES).values()} == {0.0}
    written.change(lambda stored: stored.__setitem__(..., ggml.quantize(written.arrays[1], "Q4_K")))
    with pytest.raises(BelowFloor, match=r"t1\.weight"):
        finished(draft, written.path, SIZES)


@pytest.fixture(scope="module")
def blueprint(tmp_path_factory: pytest.TempPathFactory) -> Blueprint:
    return gguf_model.blueprint(open_checkpoint(tiny_llama.write(tmp_path_factory.mktemp("tiny") / "tiny")))


@pytest.mark.parametrize("kind", ["F16", "Q8_0", "Q4_K"])
def test_a_whole_model_is_checked_tensor_by_tensor(kind: str, blueprint: Blueprint, tmp_path: Path) -> None:
    types = {t.name: kind if t.is_matrix else "F32" for t in blueprint.tensors}
    draft = Draft(blueprint.settings, blueprint.tensors, types)
    path = tmp_path / "model.gguf"
    list(write(path, draft, {}, blueprint.sizes, 2))
    found = finished(draft, path, blueprint.sizes)
    assert list(found) == [tensor.name for tensor in blueprint.tensors]
    good = path.read_bytes()
    start = len(header(draft.settings, draft.entries))
    for entry, at in zip(draft.entries, offsets(draft.entries), strict=True):
        content = bytearray(good)
        content[start + at : start + at + entry.bytes] = content[start + at : start + at + entry.bytes][::-1]
        path.write_bytes(content)
        with pytest.raises(BelowFloor, match=entry.name.replace(".", r"\.")):
            finished(draft, path, blueprint.sizes)


WRONG = {
    "order": "operations.InterleaveRope.apply = lambda self, x, sizes: x",
    "byte": (
        "from converters import gguf_job\n"
        "def write(path, *rest):\n"
        "    yield from quantize.write(path, *rest)\n"
        "    with open(path, 'r+b') as file:\n"
        "        file.seek(-100, 2); byte = file.read(1); file.seek(-1, 1); file.write(bytes([byte[0] ^ 1]))\n"
        "gguf_job.write = write"
    ),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_the_command_keeps_nothing_that_differs(wrong: str, tmp_path: Path, home: Path) -> None:
    """What a mistake in the converter, or memory that forgets, would do."""
    source = tiny_llama.write(tmp_path / "tiny", layers=1)
    code = f"from converters import operations, quantize\n{wrong}\nfrom edgemm.cli import main; main()"
    arguments = ["convert", str(source), "--to", "gguf-f16", "--no-oracle", "--no-compare"]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 3, done.stderr
    assert "differs from the checkpoint by" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not list(package.installed())
    assert not list((home / ".partial").iterdir())


def test_the_report_says_how_many_tensors_are_exact(tmp_path: Path, home: Path) -> None:
    source = tiny_gguf.write(tmp_path / "tiny.gguf")
    arguments = ["convert", str(source), "--to", "gguf-q8_0", "--no-oracle", "--no-compare", "--json"]
    done = subprocess.run([sys.executable, "-m", "edgemm", *arguments], capture_output=True, text=True, timeout=120)
    metrics = json.loads(done.stdout)["metrics"]
    assert metrics["tensors_exact"] == pytest.approx(5 / 21)  # the norms
    assert 0.001 < metrics["tensor_error_max"] < tensors.BOUNDS["Q8_0"]
