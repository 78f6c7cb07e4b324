"""The embedding engine: texts in, vectors out, in input order and in bounded memory.

A text that is longer than the model's window becomes several rows, whose vectors are averaged. It knows no file, no
store and no screen; how rows become batches is the business of batches.py.
"""

from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from edgemm.backends import Encoder
from edgemm.batches import BatchOptions, Runner, groups
from edgemm.errors import UsageError
from edgemm.manifest import Inputs
from edgemm.tokenizer import Encoded, Tokenizer

Vectors = NDArray[np.float32]


class Kind(StrEnum):
    """Retrieval models put different prefixes before what is asked and what is stored."""

    DOCUMENT = "document"
    QUERY = "query"


class Embedder:
    """Embeds texts with one encoder. Not more than one window of texts and vectors is held at a time."""

    def __init__(
        self,
        encoder: Encoder,
        tokenizer: Tokenizer,
        inputs: Inputs,
        options: BatchOptions | None = None,
        dimensions: int = 0,
    ) -> None:
        """`dimensions`: how many of the first values of a vector are kept (Kusupati et al. 2022); 0: all of them."""
        if dimensions > inputs.dimensions:
            why = f"{dimensions} are asked for, the model gives {inputs.dimensions}"
            raise UsageError("dimensions", why, "ask for fewer")
        self._tokenizer, self._inputs = tokenizer, inputs
        self._dimensions = dimensions or inputs.dimensions
        self._options = options or BatchOptions()
        self._runner = Runner(encoder, self._options, "embed")
        self.tokens = 0  # that were embedded since it was opened, special ones included

    @property
    def dimensions(self) -> int:
        return self._dimensions

    @property
    def tokenizer(self) -> Tokenizer:
        return self._tokenizer

    @property
    def inputs(self) -> Inputs:
        """What the model takes: its window, prefixes and dimensions."""
        return self._inputs

    def embed(self, texts: Sequence[str], kind: Kind = Kind.DOCUMENT) -> Vectors:
        """float32 (len(texts), dimensions), L2-normalized when the model is trained for it."""
        if isinstance(texts, str):
            raise UsageError("embed", "got one string", "pass a list of texts: embed([text])")
        windows = list(self.stream(texts, kind))
        return np.concatenate(windows) if windows else np.empty((0, self.dimensions), np.float32)

    def stream(self, texts: Iterable[str], kind: Kind = Kind.DOCUMENT) -> Iterator[Vectors]:
        """The same, window by window, in input order, in memory that does not grow with the input."""
        prefix = self._inputs.query_prefix if kind is Kind.QUERY else self._inputs.document_prefix
        for window in groups(texts, self._options, len):
            yield self._embed_window([prefix + text for text in window])

    def close(self) -> None:
        self._runner.close()

    def __enter__(self) -> "Embedder":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _embed_window(self, texts: list[str]) -> Vectors:
        encoded = self._tokenizer.encode(texts, self._inputs.max_tokens, self._options.overflow)
        rows = [row for text in encoded for row in text.rows]
        vectors = np.stack(self._runner.run(rows))
        self.tokens += sum(map(len, rows))
        if len(vectors) > len(texts):
            vectors = _merge_windows(vectors, encoded)
        vectors = vectors[:, : self._dimensions]
        return normalized(vectors) if self._inputs.normalize else vectors


def _merge_windows(vectors: Vectors, encoded: Sequence[Encoded]) -> Vectors:
    """One vector for each text: the mean of its windows, each weighted by its number of tokens."""
    weights = np.array([len(row) for text in encoded for row in text.rows], np.float32)
    counts = np.array([len(text.rows) for text in encoded])
    starts = np.concatenate(([0], np.cumsum(counts)[:-1]))
    sums = np.add.reduceat(vectors * weights[:, None], starts, axis=0)
    return np.asarray(sums / np.add.reduceat(weights, starts)[:, None], np.float32)


def normalized(vectors: Vectors) -> Vectors:
    """float32 (n, dimensions): unit vectors; a zero stays one."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    result: Vectors = vectors / np.maximum(norms, 1e-12)
    return result
