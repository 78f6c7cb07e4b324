"""Rounding with error feedback: what the rounding of a weight loses is made up for by the weights that come after it.

GPTQ (Frantar et al. 2022) for one scale a column. The second moments of the inputs come from few calibration tokens,
so that they are shrunk towards their diagonal: what they say of two inputs together is less certain than of each.
"""

import numpy as np
from numpy.typing import NDArray

from converters.checkpoint import Array

_SHRINK = 0.3  # of what is off the diagonal
_DAMPING = 0.01  # of the mean of the diagonal, added to it
_BLOCK = 128  # rows, whose errors go to those behind the block in one product
_SMALL = 256


def with_feedback(weight: Array, scale: Array, gram: Array, levels: int = 127) -> NDArray[np.int8]:
    """int8 codes of `weight` (inputs, outputs), at most `levels`, for `scale` (outputs,).

    `gram` (inputs, inputs) is the sum of x xT.
    """
    upper = _factor(gram)
    left, codes = weight / scale, np.empty(weight.shape, np.int8)
    for start in range(0, len(left), _BLOCK):
        stop = min(start + _BLOCK, len(left))
        errors = np.empty((stop - start, left.shape[1]), np.float32)
        for i in range(start, stop):
            codes[i] = np.clip(np.rint(left[i]), -levels, levels)
            errors[i - start] = (left[i] - codes[i]) / upper[i, i]
            left[i + 1 : stop] -= np.outer(upper[i, i + 1 : stop], errors[i - start])
        left[stop:] -= upper[start:stop, stop:].T @ errors
    return codes


def _factor(gram: Array) -> Array:
    """The upper Cholesky factor of the inverse of the shrunk second moments.

    With the lower factor of the reversed matrix, reversed, as R: gram = R RT, so that the inverse of R is it.
    """
    diagonal = np.diag(gram).copy()
    mean = max(float(diagonal.mean()), 1e-12)
    shrunk = gram * np.float32(1 - _SHRINK)
    np.fill_diagonal(shrunk, diagonal + _DAMPING * mean)
    return _inverse(np.linalg.cholesky(shrunk[::-1, ::-1])[::-1, ::-1])


def _inverse(upper: Array) -> Array:
    """Of an upper triangular matrix, by halves: a third of the work of a general inverse."""
    size = len(upper)
    if size <= _SMALL:
        return np.asarray(np.linalg.inv(upper), np.float32)
    half = size // 2
    first, last = _inverse(upper[:half, :half]), _inverse(upper[half:, half:])
    found = np.zeros_like(upper, np.float32)
    found[:half, :half], found[half:, half:] = first, last
    found[:half, half:] = -first @ (upper[:half, half:] @ last)
    return found
