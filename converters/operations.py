"""What happens to a weight on its way into a GGUF file: a closed set of operations, each with its inverse.

Because every operation can be undone, a finished file can be compared with its checkpoint value by value. Arrays are
in numpy order (outputs, inputs); ggml lists the axes the other way round. It knows no file and no architecture.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from converters.checkpoint import Array

Shape = tuple[int, ...]
Sizes = dict[str, int]


class Operation(Protocol):
    """`by_rows`: a slice of rows can be worked on alone, because rows neither move nor mix."""

    @property
    def by_rows(self) -> bool: ...

    def shape(self, shape: Shape) -> Shape:
        """The shape that `apply` makes of `shape`."""
        ...

    def apply(self, x: Array, sizes: Sizes) -> Array: ...

    def inverse(self, y: Array, sizes: Sizes) -> Array:
        """`x` from `apply(x)`; NaN where `apply` dropped something."""
        ...


@dataclass(frozen=True, slots=True)
class Keep:
    """As in the checkpoint."""

    by_rows = True

    def shape(self, shape: Shape) -> Shape:
        return shape

    def apply(self, x: Array, _: Sizes) -> Array:
        return x

    def inverse(self, y: Array, _: Sizes) -> Array:
        return y


@dataclass(frozen=True, slots=True)
class Add:
    """Gemma stores its norm weights less one."""

    constant: float
    by_rows = True

    def shape(self, shape: Shape) -> Shape:
        return shape

    def apply(self, x: Array, _: Sizes) -> Array:
        return x + np.float32(self.constant)

    def inverse(self, y: Array, _: Sizes) -> Array:
        return y - np.float32(self.constant)


@dataclass(frozen=True, slots=True)
class ScaleIfTied:
    """Times width ** -0.5 where the output matrix is the embedding: T5 scales there, llama.cpp's graph does not."""

    by_rows = True

    def shape(self, shape: Shape) -> Shape:
        return shape

    def apply(self, x: Array, sizes: Sizes) -> Array:
        return x * _tied_scale(sizes)

    def inverse(self, y: Array, sizes: Sizes) -> Array:
        return y / _tied_scale(sizes)


@dataclass(frozen=True, slots=True)
class Transpose:
    """GPT-2's Conv1D keeps (inputs, outputs). A bias has one axis and stays as it is."""

    by_rows = False

    def shape(self, shape: Shape) -> Shape:
        return shape[::-1]

    def apply(self, x: Array, _: Sizes) -> Array:
        return np.ascontiguousarray(x.T)

    inverse = apply


@dataclass(frozen=True, slots=True)
class FromRow:
    """Without the first rows: RoBERTa's positions begin behind its padding id."""

    first: int
    by_rows = False

    def shape(self, shape: Shape) -> Shape:
        return (shape[0] - self.first, *shape[1:])

    def apply(self, x: Array, _: Sizes) -> Array:
        return x[self.first :]

    def inverse(self, y: Array, _: Sizes) -> Array:
        return np.concatenate([np.full((self.first, *y.shape[1:]), np.nan, np.float32), y])


@dataclass(frozen=True, slots=True)
class InterleaveRope:
    """Rows of each head from Hugging Face's order of rotary pairs (i, i + d/2) to the paper's (2i, 2i + 1).

    `heads` names the size that holds the number of heads. Su et al. 2021, equation 34.
    """

    heads: str
    by_rows = False

    def shape(self, shape: Shape) -> Shape:
        return shape

    def apply(self, x: Array, sizes: Sizes) -> Array:
        return _swap(x, (sizes[self.heads], 2, -1))

    def inverse(self, y: Array, sizes: Sizes) -> Array:
        return _swap(y, (sizes[self.heads], -1, 2))


@dataclass(frozen=True, slots=True)
class SplitHeads:
    """GPT-NeoX keeps query, key and value of each head together; here all queries come first, then all keys."""

    by_rows = False

    def shape(self, shape: Shape) -> Shape:
        return shape

    def apply(self, x: Array, sizes: Sizes) -> Array:
        return _grouped(x, (sizes["heads"], 3, -1))

    def inverse(self, y: Array, sizes: Sizes) -> Array:
        return _grouped(y, (3, sizes["heads"], -1))


@dataclass(frozen=True, slots=True)
class Rows:
    """Some rows alone, by the names of the sizes that hold their numbers: a reranker's answers are two tokens."""

    names: tuple[str, ...]
    by_rows = False

    def shape(self, shape: Shape) -> Shape:
        return (len(self.names), *shape[1:])

    def apply(self, x: Array, sizes: Sizes) -> Array:
        return np.ascontiguousarray(x[[sizes[name] for name in self.names]])

    def inverse(self, y: Array, sizes: Sizes) -> Array:
        x = np.full((sizes["v"], *y.shape[1:]), np.nan, np.float32)
        x[[sizes[name] for name in self.names]] = y
        return x


def _tied_scale(sizes: Sizes) -> np.float32:
    return np.float32(sizes["h"] ** -0.5 if sizes["tied"] else 1)


def _swap(x: Array, rows: Shape) -> Array:
    """Rows as a grid of three axes, the last two of them swapped."""
    return np.ascontiguousarray(x.reshape(*rows, *x.shape[1:]).swapaxes(1, 2)).reshape(x.shape)


def _grouped(x: Array, rows: Shape) -> Array:
    """Rows as a grid of three axes, the first two of them swapped."""
    return np.ascontiguousarray(x.reshape(*rows, *x.shape[1:]).swapaxes(0, 1)).reshape(x.shape)


KEEP, TRANSPOSE, SPLIT_HEADS, PLUS_ONE = Keep(), Transpose(), SplitHeads(), Add(1.0)
INTERLEAVE_Q, INTERLEAVE_K = InterleaveRope("heads"), InterleaveRope("kv_heads")
