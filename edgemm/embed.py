"""The embedding engine: texts in, vectors out, at the speed that the machine allows and in bounded memory.

A window of texts is tokenized at once, sorted by length, cut into batches under a token budget and run by
N threads; results come back in input order. Sorting removes the padding (two thirds of all tokens in mixed
text), and small batches keep the activations in the L2 cache. It knows no file, no store and no screen.
"""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from edgemm import device
from edgemm.backends import Encoder
from edgemm.errors import UsageError
from edgemm.manifest import Inputs
from edgemm.tokenizer import Encoded, Overflow, Tokenizer

Vectors = NDArray[np.float32]


class Kind(StrEnum):
    """Retrieval models put different prefixes before what is asked and what is stored."""

    DOCUMENT = "document"
    QUERY = "query"


@dataclass(frozen=True, slots=True)
class EmbedOptions:
    """`batch_tokens`: padded tokens a call. `threads` 0: one for each core.

    A window, the texts that are sorted together, ends at `window` texts or `window_characters`.
    """

    batch_tokens: int = 512
    window: int = 2048
    window_characters: int = 1 << 19
    threads: int = 0
    overflow: Overflow = Overflow.SPLIT


class Embedder:
    """Embeds texts with one encoder. Not more than one window of texts and vectors is held at a time."""

    def __init__(
        self, encoder: Encoder, tokenizer: Tokenizer, inputs: Inputs, options: EmbedOptions | None = None
    ) -> None:
        self._encoder, self._tokenizer, self._inputs = encoder, tokenizer, inputs
        self._options = options or EmbedOptions()
        self._pool = ThreadPoolExecutor(self._options.threads or device.cores(), thread_name_prefix="edgemm-embed")

    @property
    def dimensions(self) -> int:
        return self._inputs.dimensions

    def embed(self, texts: Sequence[str], kind: Kind = Kind.DOCUMENT) -> Vectors:
        """float32 (len(texts), dimensions), L2-normalized when the model is trained for it."""
        if isinstance(texts, str):
            raise UsageError("embed", "got one string", "pass a list of texts: embed([text])")
        windows = list(self.stream(texts, kind))
        return np.concatenate(windows) if windows else np.empty((0, self.dimensions), np.float32)

    def stream(self, texts: Iterable[str], kind: Kind = Kind.DOCUMENT) -> Iterator[Vectors]:
        """The same, window by window, in input order, in memory that does not grow with the input."""
        prefix = self._inputs.query_prefix if kind is Kind.QUERY else self._inputs.document_prefix
        window: list[str] = []
        characters = 0
        for text in texts:
            window.append(prefix + text)
            characters += len(text)
            if len(window) == self._options.window or characters >= self._options.window_characters:
                yield self._embed_window(window)
                window, characters = [], 0
        if window:
            yield self._embed_window(window)

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._encoder.close()

    def __enter__(self) -> "Embedder":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _embed_window(self, texts: list[str]) -> Vectors:
        encoded = self._tokenizer.encode(texts, self._inputs.max_tokens, self._options.overflow)
        vectors = self._run([row for text in encoded for row in text.rows])
        if len(vectors) > len(texts):
            vectors = _merge_windows(vectors, encoded)
        return _normalized(vectors) if self._inputs.normalize else vectors

    def _run(self, rows: list[list[int]]) -> Vectors:
        batches = plan_batches([len(row) for row in rows], self._options.batch_tokens)
        futures = [self._pool.submit(self._encoder.encode, [rows[i] for i in batch]) for batch in batches]
        try:
            parts = [future.result() for future in futures]
        finally:  # Ctrl-C and errors: what has not begun never will
            for future in futures:
                future.cancel()
        vectors = np.empty((len(rows), parts[0].shape[1]), np.float32)
        for batch, part in zip(batches, parts, strict=True):
            vectors[batch] = part
        return vectors


def plan_batches(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Indices of rows, grouped by like length, so that rows x longest row stays within `budget` tokens.

    The longest come first: the peak of memory is met at the start, and the threads end together.
    A row that is longer than the budget makes a batch of its own.
    """
    batches: list[list[int]] = []
    longest = 0
    for index in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
        if batches and (len(batches[-1]) + 1) * longest <= budget:
            batches[-1].append(index)
        else:
            batches.append([index])
            longest = lengths[index]
    return batches


def _merge_windows(vectors: Vectors, encoded: Sequence[Encoded]) -> Vectors:
    """One vector for each text: the mean of its windows, each weighted by its number of tokens."""
    weights = np.array([len(row) for text in encoded for row in text.rows], np.float32)
    counts = np.array([len(text.rows) for text in encoded])
    starts = np.concatenate(([0], np.cumsum(counts)[:-1]))
    sums = np.add.reduceat(vectors * weights[:, None], starts, axis=0)
    return np.asarray(sums / np.add.reduceat(weights, starts)[:, None], np.float32)


def _normalized(vectors: Vectors) -> Vectors:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    result: Vectors = vectors / np.maximum(norms, 1e-12)
    return result
