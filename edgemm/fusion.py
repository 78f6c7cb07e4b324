"""One vector out of several: a query that is a text and a picture, a text in parts, the tokens that matter.

Plain geometry on arrays; every result has length 1, so that dot products are cosines. It knows no model: the vectors
must come from one space (`VisionModel` embeds texts and pictures into one), except for concatenation.
"""

from collections.abc import Sequence
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from edgemm.errors import UsageError

Vector = NDArray[np.float32]
TEMPERATURE = 0.1  # of the softmax over cosines: a part that agrees 0.1 more weighs 2.7 times as much
_LEAST = 1e-6  # the length below which a sum has no direction


class Fusion(StrEnum):
    """How parts become one vector."""

    SUM = "sum"
    CONCAT = "concat"
    ATTENTION = "attention"


def fuse(
    vectors: Sequence[Vector] | NDArray[np.float32],
    weights: Sequence[float] | None = None,
    how: Fusion | str = Fusion.SUM,
) -> Vector:
    """float32 (dimensions,), of length 1, out of `vectors`, float32 (dimensions,) each; their own lengths are dropped.

    "sum": the weighted sum of directions, to search one index of pictures or texts by a text and a picture together:
    its cosine with a stored vector is highest where both parts agree. A negative weight searches away from a part.
    "concat": float32 (sum of dimensions,): the cosine of two such vectors is the weighted mean of the cosines of their
    parts, which may come from different models. For records with several fields; both sides must be made so.
    "attention": a sum in which parts that agree with the mean of all weigh more, so that one odd picture or one stray
    sentence among several does not pull the result away.

    Raises `UsageError` for no vectors, unequal dimensions, wrong weights, or parts that cancel each other out.
    """
    if len(vectors) == 0:
        raise UsageError("fuse", "there are no vectors", "give at least one")
    if how not in list(Fusion):
        raise UsageError("fuse", f"there is no way called {how!r}", f"choose {', '.join(Fusion)}")
    parts = [unit(np.asarray(vector, np.float32)) for vector in vectors]
    shares = _weights(weights, len(parts))
    if how == Fusion.CONCAT:
        return _concatenated(parts, shares)
    if len({part.shape for part in parts}) > 1:
        sizes = ", ".join(str(len(part)) for part in parts)
        raise UsageError("fuse", f"the vectors have {sizes} dimensions", "use one model for all, or how='concat'")
    stacked = np.stack(parts)
    if how == Fusion.ATTENTION:
        shares = shares * _softmax(stacked @ _direction(shares @ stacked) / TEMPERATURE)
    return _direction(shares @ stacked)


def attend(query: Vector, features: NDArray[np.float32], temperature: float = TEMPERATURE) -> Vector:
    """Attention pooling by a query: float32 (dimensions,), of length 1.

    `features`, float32 (n, dimensions), are vectors of tokens, patches, sentences or pictures of one space with
    `query`, float32 (dimensions,). Those that point where the query does weigh most: one small thing in a large
    picture is found by its patches, where the mean over all of them would hide it. A high `temperature` gives the mean
    of the directions, a low one the nearest feature.
    """
    if features.ndim != 2 or features.shape[1:] != query.shape:
        why = f"the query has shape {query.shape}, the features have {features.shape}"
        raise UsageError("attend", why, "give (dimensions,) and (n, dimensions)")
    parts = np.stack([unit(feature) for feature in features])
    return _direction(_softmax(parts @ unit(query) / temperature) @ parts)


def unit(vector: Vector) -> Vector:
    """The direction of one vector; a zero stays one."""
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-12), np.float32)


def _weights(weights: Sequence[float] | None, count: int) -> Vector:
    if weights is None:
        return np.full(count, 1 / count, np.float32)
    if len(weights) != count:
        raise UsageError("fuse", f"{len(weights)} weights for {count} vectors", "give one for each")
    found = np.asarray(weights, np.float32)
    if not np.isfinite(found).all() or not np.abs(found).sum():
        raise UsageError("fuse", f"the weights {list(weights)} are not all numbers, or all 0", "give numbers")
    return np.asarray(found / np.abs(found).sum(), np.float32)


def _concatenated(parts: Sequence[Vector], shares: Vector) -> Vector:
    if (shares < 0).any():
        raise UsageError("fuse", "a weight is negative", "use how='sum' to search away from a part")
    return unit(np.concatenate([np.sqrt(share) * part for share, part in zip(shares, parts, strict=True)]))


def _direction(vector: Vector) -> Vector:
    if np.linalg.norm(vector) < _LEAST:
        raise UsageError("fuse", "the parts cancel each other out", "change the weights, or leave one out")
    return unit(vector)


def _softmax(scores: Vector) -> Vector:
    powers = np.exp(scores - scores.max())
    return np.asarray(powers / powers.sum(), np.float32)
