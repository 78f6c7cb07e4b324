"""Settings of one chat: valid by construction, the same after a round trip, refused when they come from elsewhere."""

import dataclasses
import json
import math
from typing import Any

import pytest

from edgemm.backends import Sampling
from edgemm.chat_settings import LIMITS, MAX_SCHEMA, ChatSettings, Policy, parse
from edgemm.errors import UsageError

FULL = ChatSettings(
    system="Answer briefly.",
    max_tokens=64,
    temperature=0.7,
    top_k=0,
    top_p=0.5,
    min_p=0,
    repetition_penalty=1,
    seed=7,
    top_logprobs=5,
    draft=0,
    schema='{"type": "object"}',
    policy=Policy.SUMMARISE,
)


def test_the_defaults_are_those_of_the_sampler() -> None:
    assert ChatSettings().sampling() == Sampling()
    assert ChatSettings().policy is Policy.REFUSE


def test_every_number_reaches_the_sampler() -> None:
    sampling = FULL.sampling()
    assert {name: getattr(sampling, name) for name in LIMITS} == {name: getattr(FULL, name) for name in LIMITS}
    assert sampling.schema == FULL.schema


def test_settings_survive_a_round_trip_through_json() -> None:
    assert ChatSettings.from_json(json.loads(json.dumps(FULL.to_json()))) == FULL
    assert ChatSettings.from_json(json.loads(json.dumps(ChatSettings().to_json()))) == ChatSettings()


def test_what_is_not_stored_has_its_default() -> None:
    assert ChatSettings.from_json({}) == ChatSettings()
    assert ChatSettings.from_json({"system": "x", "policy": "drop"}) == ChatSettings(system="x", policy=Policy.DROP)


def test_every_number_has_limits() -> None:
    numbers = {f.name for f in dataclasses.fields(ChatSettings) if isinstance(f.default, int | float)} | {"seed"}
    assert numbers == set(LIMITS)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([], "expected an object, found list"),
        (None, "expected an object, found NoneType"),
        ({"tempreature": 1}, "unknown key 'tempreature'"),
        ({1: 1}, "unknown key '1'"),
        ({"temperature": "0.3"}, "'0.3' is not a number in 0..5"),
        ({"temperature": math.nan}, "nan is not a number in 0..5"),
        ({"temperature": math.inf}, "inf is not a number in 0..5"),
        ({"temperature": -0.1}, "-0.1 is not a number in 0..5"),
        ({"max_tokens": 0}, "0 is not a whole number of at least 1"),
        ({"max_tokens": 1.0}, "1.0 is not a whole number of at least 1"),
        ({"max_tokens": True}, "True is not a whole number of at least 1"),
        ({"max_tokens": None}, "None is not a whole number of at least 1"),
        ({"top_k": 2**31}, "is not a whole number of at least 0"),
        ({"top_p": 1.1}, "1.1 is not a number in 0..1"),
        ({"repetition_penalty": 0}, "0 is not a number in 0.1..5"),
        ({"seed": -1}, "-1 is not a whole number in 0..4294967295"),
        ({"top_logprobs": 6}, "6 is not a whole number in 0..5"),
        ({"draft": 65}, "65 is not a whole number in 0..64"),
        ({"system": 1}, "expected text, found int"),
        ({"schema": {"type": "object"}}, "expected text, found dict"),
        ({"schema": "nonsense"}, "is not a JSON object"),
        ({"schema": "[" * 60_000}, "is not a JSON object"),
        ({"schema": " " * (MAX_SCHEMA + 1)}, "65,537 characters, 65,536 are allowed"),
        ({"policy": "forget"}, "'forget' is none of refuse, drop, summarise"),
        ({"policy": ["drop"]}, "is none of refuse, drop, summarise"),
    ],
)
def test_bad_settings_are_refused_with_their_value_and_the_limit(values: Any, reason: str) -> None:
    with pytest.raises(UsageError) as caught:
        ChatSettings.from_json(values)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_bad_value_is_refused_however_it_comes() -> None:
    with pytest.raises(UsageError, match="temperature"):
        ChatSettings(temperature=6)
    with pytest.raises(UsageError, match="top_p"):
        dataclasses.replace(FULL, top_p=2)


def test_a_long_bad_value_is_shown_in_part() -> None:
    with pytest.raises(UsageError) as caught:
        ChatSettings.from_json({"temperature": "9" * 10_000})
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("temperature", " 0.7 ", 0.7),
        ("temperature", "0,7", 0.7),
        ("max_tokens", "128", 128),
        ("seed", "", None),
        ("seed", "3", 3),
        ("top_k", "0", 0),
    ],
)
def test_typed_numbers_are_read(name: str, text: str, value: float | None) -> None:
    assert parse(name, text) == value


@pytest.mark.parametrize(
    ("name", "text"),
    [("temperature", "warm"), ("temperature", ""), ("temperature", "nan"), ("max_tokens", "1.5"), ("system", "1")],
)
def test_typed_nonsense_is_refused(name: str, text: str) -> None:
    with pytest.raises(UsageError, match=name):
        parse(name, text)
