"""Scripted stand-ins for the two backend interfaces: no model, no native code, the same events.

For tests of everything above the backends, and for showing a screen without a model.
"""

import hashlib
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemm.backends import ModelInfo, Prompt, Sampling, common_prefix
from edgemm.errors import ModelStopped, PromptTooLong
from edgemm.events import Done, Progress, Token
from edgemm.prompt import Message


class FakeGenerator:
    """Answers with the next of `answers`, a word at a time, and begins again after the last one.

    `seconds_per_token` is how long each word takes. After `die_after` words it raises `ModelStopped`, once.
    """

    def __init__(
        self,
        answers: Sequence[str],
        *,
        context: int = 4096,
        seconds_per_token: float = 0,
        die_after: int | None = None,
    ) -> None:
        self.info = ModelInfo("fake", context, context, 256, 0, has_template=True, can_rewind=True)
        self._answers = answers
        self._seconds = seconds_per_token
        self._die_after = die_after
        self._asked = 0
        self._cached: list[int] = []
        self._cancelled = threading.Event()

    def tokenize(self, text: str) -> list[int]:
        return list(text.encode())

    def prompt(self, messages: Sequence[Message]) -> Prompt:
        turns = "".join(f"{m['role']}: {m['content']}\n" for m in messages)
        return Prompt(self.tokenize(f"{turns}assistant: "))

    def continuation(self, messages: Sequence[Message]) -> Prompt:
        return Prompt(self.prompt(messages[:-1]).tokens + self.tokenize(messages[-1]["content"]))

    def generate(self, tokens: Sequence[int], sampling: Sampling) -> Iterator[Progress | Token | Done]:
        if len(tokens) >= self.info.context:
            why = f"has {len(tokens)} tokens, this model takes {self.info.context - 1}"
            raise PromptTooLong("prompt", why, "shorten it")
        self._cancelled.clear()
        words = self._answers[self._asked % len(self._answers)].split(" ")
        self._asked += 1
        reused = common_prefix(self._cached, tokens[:-1])
        self._cached = list(tokens)
        yield Progress("prefill", len(tokens), len(tokens), "tokens")
        count, reason = 0, ""
        for count, word in enumerate(words):
            if reason := self._reason(count, sampling):
                break
            yield self._token(count, f" {word}" if count else word, sampling)
        count = count if reason else len(words)
        seconds = (self._seconds or 1e-3) * count
        yield Done(reason or "stop", len(tokens), reused, count, 0.0, seconds)

    def save_state(self, path: Path) -> int:
        return 0

    def restore_state(self, path: Path) -> int:
        return 0

    def cancel(self) -> None:
        self._cancelled.set()

    def close(self) -> None:
        """Nothing to free."""

    def _reason(self, count: int, sampling: Sampling) -> str:
        """Why the answer ends before its next word; empty: it does not."""
        if count == self._die_after:
            self._die_after, self._cached = None, []
            raise ModelStopped("fake", "model stopped: as the script says", "ask again")
        if count == sampling.max_tokens:
            return "length"
        return "cancelled" if self._cancelled.wait(self._seconds) else ""

    def _token(self, number: int, text: str, sampling: Sampling) -> Token:
        """With log-probabilities, half of what is left goes to each next alternative."""
        self._cached += self.tokenize(text)
        if not sampling.top_logprobs:
            return Token(number, text)
        texts = [text, *(f"{text}{rank}" for rank in range(1, sampling.top_logprobs))]
        top = tuple((each, -math.log(2) * (rank + 1), number + 1000 * rank) for rank, each in enumerate(texts))
        return Token(number, text, top[0][1], top)


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
