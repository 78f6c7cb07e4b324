"""The next token from logits, in numpy: penalty for repetition, then top-k, top-p, min-p, temperature, a seeded draw.

The order and the meaning of each step are those of llama.cpp's sampler chain, so that the same settings mean the same
on both backends. It knows no model and no text.
"""

from collections import deque

import numpy as np
from numpy.typing import NDArray

from edgemm.backends import Sampling

_PENALTY_WINDOW = 64


class Sampler:
    """Chooses one token after the other, and remembers the last ones."""

    def __init__(self, sampling: Sampling) -> None:
        self._sampling = sampling
        self._rng = np.random.default_rng(sampling.seed)
        self._recent: deque[int] = deque(maxlen=_PENALTY_WINDOW)

    def choose(self, logits: NDArray[np.float32]) -> int:
        """The next token after `logits`, float32 (vocabulary,). Temperature 0 is greedy."""
        scores = self._penalized(logits)
        token = int(scores.argmax()) if self._sampling.temperature <= 0 else self._draw(scores)
        self._recent.append(token)
        return token

    def _penalized(self, logits: NDArray[np.float32]) -> NDArray[np.float64]:
        """Keskar et al. 2019: what was said lately becomes less likely, whatever the sign of its logit."""
        scores = logits.astype(np.float64)
        penalty = self._sampling.repetition_penalty
        if penalty != 1 and self._recent:
            said = np.unique(self._recent)
            scores[said] = np.where(scores[said] > 0, scores[said] / penalty, scores[said] * penalty)
        return scores

    def _draw(self, scores: NDArray[np.float64]) -> int:
        s = self._sampling
        tokens = _highest(scores, s.top_k)
        shares = _softmax(scores[tokens])
        kept = len(tokens)
        if s.top_p < 1:  # the fewest tokens that reach the share
            kept = min(kept, int(np.searchsorted(np.cumsum(shares), s.top_p)) + 1)
        if s.min_p > 0:
            kept = min(kept, max(1, int((shares >= s.min_p * shares[0]).sum())))
        tokens = tokens[:kept]
        return int(self._rng.choice(tokens, p=_softmax(scores[tokens] / s.temperature)))


def _highest(scores: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """Tokens from the likeliest on, at most `count`; 0: all."""
    if 0 < count < len(scores):
        chosen = np.argpartition(-scores, count - 1)[:count]
        return np.asarray(chosen[np.argsort(-scores[chosen], kind="stable")])
    return np.argsort(-scores, kind="stable")


def _softmax(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    shares = np.exp(scores - scores.max())
    return np.asarray(shares / shares.sum())
