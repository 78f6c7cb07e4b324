"""Logits to log-probabilities of the likeliest tokens, between two tokens of a small model and hardly seen there.

Natural logarithms of the model's own distribution (temperature 1, no penalty). It knows no model and no text.
"""

import math

import numpy as np
from numpy.typing import NDArray

_DIGITS = 5


def likeliest(logits: NDArray[np.float32], token: int, count: int) -> tuple[float, list[tuple[int, float]]]:
    """The log-probability of `token`, and the `count` likeliest tokens with theirs, from the likeliest on.

    `logits`: float32 (vocabulary,). Rounded to what a float32 tells, which is shorter on its way.
    """
    rest, found = logits.copy(), []
    for _ in range(min(count, len(logits))):  # for a handful, sooner than a partition of all of them
        place = int(rest.argmax())
        found.append((place, float(rest[place])))
        rest[place] = -np.inf
    highest = found[0][1]
    np.subtract(logits, highest, out=rest)
    total = highest + math.log(float(np.exp(rest, out=rest).sum()))
    return round(float(logits[token]) - total, _DIGITS), [
        (place, round(value - total, _DIGITS)) for place, value in found
    ]
