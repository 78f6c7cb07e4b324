"""Scripted stand-ins for the two backend interfaces: no model, no native code, the same events.

For tests of everything above the backends, and for showing a screen without a model.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemm.backends import ModelInfo, Prompt, Sampling
from edgemm.errors import PromptTooLong
from edgemm.events import Done, Progress, Token
from edgemm.prompt import Message


class FakeGenerator:
    """Answers with the next of `answers`, a word at a time, and begins again after the last one."""

    def __init__(self, answers: Sequence[str], *, context: int = 4096) -> None:
        self.info = ModelInfo("fake", context, context, 256, 0, True)
        self._answers = answers
        self._asked = 0
        self._cancelled = False

    def tokenize(self, text: str) -> list[int]:
        return list(text.encode())

    def prompt(self, messages: Sequence[Message]) -> Prompt:
        return Prompt([t for m in messages for t in self.tokenize(f"{m['role']}: {m['content']}\n")])

    def generate(self, tokens: Sequence[int], sampling: Sampling) -> Iterator[Progress | Token | Done]:
        if len(tokens) >= self.info.context:
            why = f"has {len(tokens)} tokens, this model takes {self.info.context - 1}"
            raise PromptTooLong("prompt", why, "shorten it")
        self._cancelled = False
        answer = self._answers[self._asked % len(self._answers)]
        self._asked += 1
        yield Progress("prefill", len(tokens), len(tokens), "tokens")
        count, reason = 0, "stop"
        for word in answer.split(" "):
            if count == sampling.max_tokens or self._cancelled:
                reason = "cancelled" if self._cancelled else "length"
                break
            yield Token(count, word if not count else f" {word}")
            count += 1
        yield Done(reason, len(tokens), 0, count, 0.0, 1e-3 * count)

    def cancel(self) -> None:
        self._cancelled = True

    def close(self) -> None:
        """Nothing to free."""


class FakeEncoder:
    """A unit vector for each row, drawn from a seed that is the hash of its token ids."""

    def __init__(self, dimensions: int = 16) -> None:
        self._dimensions = dimensions

    def encode(self, rows: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        vectors = np.stack([self._vector(row) for row in rows])
        return vectors.astype(np.float32)

    def close(self) -> None:
        """Nothing to free."""

    def _vector(self, row: Sequence[int]) -> NDArray[np.float64]:
        seed = hashlib.sha256(repr(list(row)).encode()).digest()[:8]
        vector = np.random.default_rng(int.from_bytes(seed, "little")).standard_normal(self._dimensions)
        return np.asarray(vector / np.linalg.norm(vector))


class FakeHead:
    """An encoder with scores: what the function `scores` gives for the ids and token types of a row.

    That is float32 (labels,), or (len(row), labels), which is padded to the longest row of the batch.
    With `positions`, int64 (n, 2), only those (row, place) are given.
    """

    def __init__(self, scores: Callable[[list[int], list[int]], Any]) -> None:
        self._scores = scores
        self.batches: list[list[int]] = []

    def encode(
        self, rows: Sequence[Sequence[int]], types: Sequence[Sequence[int]] = (), positions: Any = None
    ) -> NDArray[np.float32]:
        self.batches.append([len(row) for row in rows])
        kinds = types or [[0] * len(row) for row in rows]
        found = [np.asarray(self._scores(list(r), list(k)), np.float32) for r, k in zip(rows, kinds, strict=True)]
        if positions is not None:
            return np.stack([found[row][place] for row, place in positions])
        longest = max(len(row) for row in rows)
        return np.stack([values if values.ndim == 1 else _padded(values, longest) for values in found])

    def close(self) -> None:
        """Nothing to free."""


class FakePictures:
    """An encoder of pictures: the mean of each colour of each picture, float32 (batch, channels)."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def run(self, feeds: dict[str, Any]) -> NDArray[np.float32]:
        [pixels] = feeds.values()
        self.batches.append(len(pixels))
        return np.asarray(pixels.mean(axis=(2, 3)), np.float32)

    def close(self) -> None:
        """Nothing to free."""


def _padded(values: NDArray[np.float32], length: int) -> NDArray[np.float32]:
    return np.pad(values, ((0, length - len(values)), (0, 0)), constant_values=99)
