"""One vector out of several, on vectors whose geometry is known."""

import math

import numpy as np
import pytest

from edgemm.errors import UsageError
from edgemm.fusion import Fusion, attend, fuse, unit

X, Y, Z = np.eye(3, dtype=np.float32)


def at(degrees: float) -> np.ndarray:
    """A direction in the plane."""
    return np.array([math.cos(math.radians(degrees)), math.sin(math.radians(degrees))], np.float32)


def angle(vector: np.ndarray) -> float:
    return math.degrees(math.atan2(vector[1], vector[0]))


def test_the_sum_of_two_directions_lies_between_them() -> None:
    assert angle(fuse([at(10), at(50)])) == pytest.approx(30, abs=1e-3)


def test_weights_turn_the_sum() -> None:
    fused = fuse([X, Y], [3, 4])
    np.testing.assert_allclose(fused, [0.6, 0.8, 0], atol=1e-6)
    np.testing.assert_allclose(fuse([X, Y], [30, 40]), fused, atol=1e-6)


def test_lengths_do_not_weigh() -> None:
    np.testing.assert_allclose(fuse([100 * X, 0.01 * Y]), unit(X + Y), atol=1e-6)


def test_a_negative_weight_leads_away() -> None:
    away = fuse([unit(X + Y), Y], [1, -0.5])
    assert away @ X > unit(X + Y) @ X
    assert away @ Y < unit(X + Y) @ Y


@pytest.mark.parametrize("how", list(Fusion))
def test_every_result_has_length_one(how: Fusion) -> None:
    rng = np.random.default_rng(0)
    fused = fuse(rng.normal(size=(4, 8)).astype(np.float32), [1, 2, 3, 4], how)
    assert fused.dtype == np.float32
    assert float(np.linalg.norm(fused)) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("how", list(Fusion))
def test_one_part_stays_itself(how: Fusion) -> None:
    np.testing.assert_allclose(fuse([5 * Z], how=how), Z, atol=1e-6)


def test_a_query_of_two_parts_finds_what_has_both() -> None:
    red, car = X, Y
    stored = {"red car": unit(red + car), "red house": unit(red + Z), "blue car": unit(car + Z)}
    query = fuse([red, car])
    assert max(stored, key=lambda name: float(stored[name] @ query)) == "red car"


def test_the_cosine_of_concatenations_is_the_weighted_mean_of_cosines() -> None:
    rng = np.random.default_rng(1)
    text, image = (rng.normal(size=(2, n)).astype(np.float32) for n in (5, 9))
    weights = [0.25, 0.75]
    first, second = (fuse([text[i], image[i]], weights, "concat") for i in (0, 1))
    assert first.shape == (14,)
    cosines = [float(unit(part[0]) @ unit(part[1])) for part in (text, image)]
    assert float(first @ second) == pytest.approx(float(np.dot(weights, cosines)), abs=1e-6)


def test_attention_is_not_pulled_away_by_one_odd_part() -> None:
    parts = [at(0), at(10), at(-10), at(120)]
    assert abs(angle(fuse(parts, how="attention"))) < 5
    assert abs(angle(fuse(parts))) > 15


def test_attention_keeps_the_weights_of_parts_that_agree() -> None:
    assert angle(fuse([at(0), at(20)], [1, 1], "attention")) == pytest.approx(10, abs=1e-3)
    assert angle(fuse([at(0), at(20)], [1, 9], "attention")) > 15


def test_a_query_finds_the_one_patch_that_the_mean_hides() -> None:
    patches = np.stack([Y] * 20 + [Z] * 20 + [X])
    assert float(attend(X, patches) @ X) > 0.99
    assert float(unit(patches.mean(axis=0)) @ X) < 0.1


def test_the_temperature_goes_from_the_nearest_to_the_mean() -> None:
    features = np.stack([X, Y])
    query = unit(2 * X + Y)
    np.testing.assert_allclose(attend(query, features, 1e-3), X, atol=1e-5)
    np.testing.assert_allclose(attend(query, features, 1e6), unit(X + Y), atol=1e-5)


@pytest.mark.parametrize(
    ("vectors", "weights", "how", "message"),
    [
        ([], None, "sum", "no vectors"),
        ([X, Y], [1.0], "sum", "1 weights for 2 vectors"),
        ([X, Y], [0.0, 0.0], "sum", "all 0"),
        ([X, Y], [math.nan, 1.0], "sum", "not all numbers"),
        ([X, X[:2]], None, "sum", "3, 2 dimensions"),
        ([X, Y], [1.0, -1.0], "concat", "negative"),
        ([X, -X], None, "sum", "cancel each other out"),
        ([X, -X], None, "attention", "cancel each other out"),
        ([X, Y], None, "product", "product"),
    ],
)
def test_what_has_no_answer_is_refused(vectors: list, weights: list | None, how: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        fuse(vectors, weights, how)


def test_features_of_another_space_are_refused() -> None:
    with pytest.raises(UsageError, match=r"\(3,\).*\(4, 2\)"):
        attend(X, np.ones((4, 2), np.float32))
