"""Tables of positions: buckets of distances, and a grid of learned positions brought to another size.

Numpy alone, used by the graph and by the reference.
"""

import numpy as np
from numpy.typing import NDArray

from converters.checkpoint import Array

_CUBIC = -0.75  # the parameter of torch's bicubic interpolation (Keys 1981)


def relative_buckets(positions: int, buckets: int, longest: int = 128) -> NDArray[np.uint8]:
    """uint8 (positions, positions): the bucket of key - query, as T5 and MPNet count (Raffel et al. 2020).

    Half of the buckets are for keys behind the query; a half of those for exact distances, the others grow like the
    logarithm up to `longest`.
    """
    steps = np.arange(positions)
    back = steps[:, None] - steps[None, :]  # query - key
    half = buckets // 2
    offset = np.where(back < 0, half, 0)
    distance = np.abs(back)
    exact = half // 2
    scale = np.log(np.maximum(distance, 1).astype(np.float32) / exact) / np.log(longest / exact) * (half - exact)
    coarse = np.minimum(exact + scale.astype(np.int64), half - 1)
    return np.asarray(offset + np.where(distance < exact, distance, coarse), np.uint8)


def resized_positions(positions: Array, first: int, grid: tuple[int, int]) -> Array:
    """Learned positions (first + patches, hidden) for a `grid` of patches; the `first` ones belong to no patch.

    Bicubic, as torch.nn.functional.interpolate without antialiasing. The old grid is a square.
    """
    side = round((len(positions) - first) ** 0.5)
    if grid == (side, side):
        return positions
    old = positions[first:].reshape(side, side, -1)
    rows, columns = (_cubic(side, size) for size in grid)
    new = np.einsum("ai,bj,ijh->abh", rows, columns, old, optimize=True)
    return np.concatenate([positions[:first], new.reshape(grid[0] * grid[1], -1).astype(np.float32)])


def _cubic(old: int, new: int) -> Array:
    """float32 (new, old): the weights by which old points make a new one; the borders are repeated."""
    matrix = np.zeros((new, old), np.float32)
    for i, place in enumerate((np.arange(new) + 0.5) * old / new - 0.5):
        base = int(np.floor(place))
        for tap in range(base - 1, base + 3):
            matrix[i, min(max(tap, 0), old - 1)] += _kernel(abs(place - tap))
    return matrix


def _kernel(x: float) -> float:
    if x <= 1:
        return (_CUBIC + 2) * x**3 - (_CUBIC + 3) * x**2 + 1
    return _CUBIC * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0
