"""Block arithmetic: errors within the bounds of each type, blocks by hand, and the numpy decoder of `gguf` agrees."""

import ctypes
import re
import struct

import gguf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converters import ggml
from converters.allocate import CANDIDATES
from converters.checkpoint import Array
from converters.recipe import RECIPES
from converters.tensors import BOUNDS
from edgemm.errors import Unsupported
from edgemm.guard.gguf import BLOCKS

# Types that edgemm reads and never chooses: building their tables takes seconds, so one test pays for all of them.
READ_ONLY = ("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S")
types = pytest.mark.parametrize("kind", [kind for kind in ggml.TYPES if kind not in READ_ONLY])
quantized = pytest.mark.parametrize("kind", [kind for kind in BOUNDS if kind not in READ_ONLY])


def weights(shape: str, rows: int = 48, columns: int = 512) -> Array:
    rng = np.random.default_rng(11)
    values = {"gaussian": rng.normal(size=(rows, columns)), "heavy": rng.standard_t(3, (rows, columns))}[shape]
    return (values * 0.02).astype(np.float32)


def used(columns: int = 512) -> Array:
    """How strongly each input is used: most a little, some a thousand times more."""
    return np.random.default_rng(5).gamma(0.3, 2, columns).astype(np.float32) + np.float32(1e-4)


def error(rows: Array, kind: str, importance: Array | None = None, by: Array | None = None) -> float:
    back = ggml.dequantize(ggml.quantize(rows, kind, importance), kind, rows.shape[1])
    column = np.ones(rows.shape[1]) if by is None else by
    return float(np.sqrt(np.sum((back - rows) ** 2 * column) / np.sum(rows**2 * column)))


def test_every_quantized_type_has_a_bound() -> None:
    assert set(BOUNDS) == set(ggml.TYPES) - set(ggml.FLOATS)
    assert {kind: gguf.GGMLQuantizationType[kind].value for kind in ggml.TYPES} == ggml.TYPES
    for number in ggml.NAMES:
        assert gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType(number)] == BLOCKS[number]


@quantized
@pytest.mark.parametrize("shape", ["gaussian", "heavy"])
def test_the_error_stays_within_the_bound(kind: str, shape: str) -> None:
    rows = weights(shape)
    plain, guided = error(rows, kind), error(rows, kind, used())
    assert max(plain, guided) <= BOUNDS[kind]
    assert plain > BOUNDS[kind] / 20, "a bound that nothing comes near notices nothing"


def test_types_of_one_and_two_bits_hold_all_of_this_too() -> None:
    assert not set(READ_ONLY) & {*CANDIDATES, *(recipe.weights for recipe in RECIPES.values())}
    for kind in READ_ONLY:
        for shape in ("gaussian", "heavy"):
            test_the_error_stays_within_the_bound(kind, shape)
        test_the_numpy_decoder_of_gguf_agrees(kind)
        test_rows_of_zeros_and_of_one_value_are_no_trap(kind)
        test_importance_of_zeros_is_no_trap(kind)
        test_rows_do_not_depend_on_each_other(kind)


@quantized
def test_importance_lowers_the_error_where_inputs_are_used(kind: str) -> None:
    rows, by = weights("heavy"), used()
    plain, guided = error(rows, kind, by=by), error(rows, kind, by, by=by)
    assert guided < plain * (1.0001 if kind in ("Q8_0", "Q6_K") else 0.999)


@types
def test_the_numpy_decoder_of_gguf_agrees(kind: str) -> None:
    rows = weights("heavy")
    data = ggml.quantize(rows, kind, used())
    theirs = gguf.quants.dequantize(data, gguf.GGMLQuantizationType[kind])
    np.testing.assert_array_equal(ggml.dequantize(data, kind, rows.shape[1]), theirs.reshape(rows.shape))


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"])
def test_the_numpy_encoder_of_gguf_agrees(kind: str) -> None:
    """It knows the five types of 1-scale blocks; without importance they are rounded in one way only."""
    rows = weights("gaussian")
    theirs = gguf.quants.quantize(rows, gguf.GGMLQuantizationType[kind])
    ours = ggml.quantize(rows, kind)
    assert np.mean(ours == theirs) > 0.999  # numpy and C differ where a value is halfway
    off = ggml.dequantize(ours, kind, 512) - ggml.dequantize(theirs, kind, 512)
    assert np.abs(off).max() <= np.abs(rows).max() / {"8": 120, "5": 14, "4": 6}[kind[1]]


def test_a_block_of_q8_0_by_hand() -> None:
    row = np.zeros((1, 32), np.float32)
    row[0, :5] = (127.0, -127.0, 64.25, 0.5, -0.49)
    assert ggml.quantize(row, "Q8_0").tobytes() == struct.pack("<e32b", 1.0, 127, -127, 64, 1, 0, *([0] * 27))


def test_a_block_of_q4_0_by_hand() -> None:
    """The largest magnitude becomes -8 steps; value i lies beside value i + 16 in one byte."""
    row = np.zeros((1, 32), np.float32)
    row[0, 0], row[0, 1], row[0, 16] = -8.0, 7.0, 3.0
    nibbles = [0 | (11 << 4), 15 | (8 << 4), *([8 | (8 << 4)] * 14)]
    assert ggml.quantize(row, "Q4_0").tobytes() == struct.pack("<e16B", 1.0, *nibbles)


def test_a_block_of_q4_1_by_hand() -> None:
    row = np.full((1, 32), 2.0, np.float32)
    row[0, 0], row[0, 16] = 17.0, 5.0
    assert ggml.quantize(row, "Q4_1").tobytes() == struct.pack("<ee16B", 1.0, 2.0, 15 | (3 << 4), *([0] * 15))


def test_f16_rounds_to_nearest_even_by_hand() -> None:
    """2048 + 1 is halfway between two numbers of f16, 2048 + 3 too; then subnormals and the largest number."""
    row = np.array([[1.0, 2049.0, 2051.0, 2.0**-24, 1.5 * 2.0**-24, 65504.0, 65519.0, -0.0]], np.float32)
    expected = [0x3C00, 0x6800, 0x6802, 0x0001, 0x0002, 0x7BFF, 0x7BFF, 0x8000]
    assert ggml.quantize(row, "F16").view(np.uint16).tolist() == [expected]


def test_bf16_rounds_to_nearest_even_by_hand() -> None:
    bits = [0x3F800000, 0x3F808000, 0x3F818000, 0x3F808001, 0x80000000, 0x00008000, 0x00018000, 0x7F7F7FFF]
    row = np.array([bits], np.uint32).view(np.float32)
    expected = [0x3F80, 0x3F80, 0x3F82, 0x3F81, 0x8000, 0x0000, 0x0002, 0x7F7F]
    assert ggml.quantize(row, "BF16").view(np.uint16).tolist() == [expected]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-65000, 65000, width=32), min_size=8, max_size=8))
def test_f16_and_bf16_are_the_nearest_numbers(values: list[float]) -> None:
    row = np.array([values], np.float32)
    half = ggml.dequantize(ggml.quantize(row, "F16"), "F16", 8)
    np.testing.assert_array_equal(half, row.astype(np.float16).astype(np.float32))
    back = ggml.dequantize(ggml.quantize(row, "BF16"), "BF16", 8)
    bits = back.view(np.uint32)
    assert not (bits & 0xFFFF).any()
    for step in (1 << 16, -(1 << 16)):  # the neighbours in bf16 are no nearer
        neighbour = (bits.astype(np.int64) + step).astype(np.uint32).view(np.float32)
        known = np.isfinite(neighbour)
        assert (np.abs(back - row)[known] <= np.abs(neighbour - row)[known]).all()


@pytest.mark.parametrize(
    ("kind", "value", "fix"),
    [
        ("F16", 65520.0, "gguf-bf16"),
        ("BF16", 3.4e38, "gguf-f32"),
        ("Q8_0", 1e8, "gguf-bf16"),
        ("Q4_K", 1e9, "gguf-bf16"),
    ],
)
def test_a_weight_that_is_too_large_is_refused_with_a_remedy(kind: str, value: float, fix: str) -> None:
    rows = weights("gaussian")
    rows[3, 7] = value
    said = re.escape(f"gguf: a weight of {value:g} does not fit into {kind.lower()} — use --to {fix}")
    with pytest.raises(Unsupported, match=said):
        ggml.quantize(rows.copy(), kind)
    rows[3, 7] = 60000.0
    assert np.isfinite(ggml.dequantize(ggml.quantize(rows, kind), kind, 512)).all()


@types
def test_rows_of_zeros_and_of_one_value_are_no_trap(kind: str) -> None:
    rows = np.zeros((3, 256), np.float32)
    assert not ggml.dequantize(ggml.quantize(rows, kind), kind, 256).any()
    assert not ggml.dequantize(ggml.quantize(rows, kind, np.zeros(256, np.float32)), kind, 256).any()
    rows[1] = 0.5
    back = ggml.dequantize(ggml.quantize(rows, kind), kind, 256)
    assert not back[[0, 2]].any()
    assert np.linalg.norm(back[1] - 0.5) <= np.linalg.norm(rows[1]) * BOUNDS.get(kind, 0)


@types
def test_importance_of_zeros_is_no_trap(kind: str) -> None:
    """Inputs that were never used: any rounding will do, but the blocks must be finite."""
    rows = weights("heavy")
    assert np.isfinite(ggml.dequantize(ggml.quantize(rows, kind, np.zeros(512, np.float32)), kind, 512)).all()


@types
def test_rows_do_not_depend_on_each_other(kind: str) -> None:
    rows, by = weights("heavy"), used()
    whole = ggml.quantize(rows, kind, by)
    one_by_one = np.concatenate([ggml.quantize(rows[i : i + 1], kind, by) for i in range(len(rows))])
    np.testing.assert_array_equal(whole, one_by_one)
    np.testing.assert_array_equal(ggml.quantize(np.asfortranarray(rows), kind, by), whole)
    backwards = ggml.dequantize(whole[::-1], kind, 512)
    np.testing.assert_array_equal(backwards, ggml.dequantize(whole, kind, 512)[::-1])


# What rows of 288 become; rows of 40 become f16.
FALLBACK = {
    "Q2_K": "Q4_0", "Q3_K": "Q4_0", "Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0", "IQ4_XS": "IQ4_NL",
    "IQ3_S": "IQ4_NL", "IQ3_XXS": "IQ4_NL", "IQ2_S": "IQ4_NL", "IQ2_XS": "IQ4_NL", "IQ2_XXS": "IQ4_NL",
    "IQ1_S": "IQ4_NL", "IQ1_M": "IQ4_NL",
}  # fmt: skip


@pytest.mark.parametrize("kind", ggml.TYPES)
def test_rows_of_another_length_fall_back_as_in_llama_cpp(kind: str) -> None:
    assert ggml.fitting(kind, 512) == kind
    assert ggml.fitting(kind, 288) == FALLBACK.get(kind, kind)
    assert ggml.fitting(kind, 40) == (kind if kind in ggml.FLOATS else "F16")


def test_the_types_that_need_importance_are_those_of_the_library() -> None:
    needs = ggml._library().ggml_quantize_requires_imatrix
    needs.restype = ctypes.c_bool
    assert {kind for kind, number in ggml.TYPES.items() if needs(number)} == set(ggml.NEEDS_IMPORTANCE)
