"""What happens to a weight on its way into a GGUF file can be undone, and keeps what it should keep."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converters.operations import (
    INTERLEAVE_K,
    INTERLEAVE_Q,
    KEEP,
    PLUS_ONE,
    SPLIT_HEADS,
    TRANSPOSE,
    Add,
    FromRow,
    Operation,
    Rows,
    ScaleIfTied,
)

SIZES = {"heads": 4, "kv_heads": 2, "h": 16, "tied": 1, "v": 24, "yes": 5, "no": 3}
OPERATIONS: list[Operation] = [
    KEEP, PLUS_ONE, Add(0.5), ScaleIfTied(), TRANSPOSE, FromRow(2), INTERLEAVE_Q, INTERLEAVE_K, SPLIT_HEADS,
    Rows(("yes", "no")),
]  # fmt: skip


@pytest.mark.parametrize("operation", OPERATIONS, ids=repr)
@settings(deadline=None, max_examples=40)
@given(columns=st.integers(0, 5), tied=st.booleans(), seed=st.integers(0, 99))
def test_every_operation_can_be_undone(operation: Operation, columns: int, tied: bool, seed: int) -> None:
    """`columns` 0: a vector. Values are sixteenths, so that an addition is exact."""
    shape = (24, columns) if columns else (24,)
    x = np.random.default_rng(seed).integers(-99, 99, shape).astype(np.float32) / 16
    sizes = SIZES | {"tied": int(tied)}
    y = operation.apply(x.copy(), sizes)
    assert y.shape == operation.shape(shape)
    back = operation.inverse(y, sizes)
    known = ~np.isnan(back)
    assert back.shape == shape
    np.testing.assert_array_equal(back[known], x[known])
    rows_kept = {FromRow: 22, Rows: 2}.get(type(operation), 24)
    assert known.sum() == rows_kept * max(1, columns)


@pytest.mark.parametrize("operation", [o for o in OPERATIONS if o.by_rows], ids=repr)
def test_operations_by_rows_give_the_same_slice_by_slice(operation: Operation) -> None:
    x = np.random.default_rng(0).normal(size=(24, 3)).astype(np.float32)
    pieces = [operation.apply(x[i : i + 5], SIZES) for i in range(0, 24, 5)]
    np.testing.assert_array_equal(np.concatenate(pieces), operation.apply(x, SIZES))


def test_rotary_pairs_become_neighbours() -> None:
    x = np.arange(16, dtype=np.float32)  # two heads of eight
    assert INTERLEAVE_K.apply(x, {"kv_heads": 2}).tolist() == [0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15]
