"""Staying out of the way: a low priority that children inherit, and no work on battery."""

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from edgemm import polite
from edgemm.events import Note

_NICE = "import psutil; print(int(psutil.Process().nice()), flush=True)"
_LOWERED = f"""
import subprocess, sys
from edgemm.polite import lower_priority
lower_priority()
lower_priority()
{_NICE}
subprocess.run([sys.executable, "-c", {_NICE!r}], check=True)
"""


def test_the_priority_is_lowered_once_and_children_inherit_it() -> None:
    def run(code: str) -> list[int]:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
        return [int(word) for word in done.stdout.split()]

    [before] = run(_NICE)
    after = run(_LOWERED)
    if sys.platform == "win32":
        assert after == [psutil.BELOW_NORMAL_PRIORITY_CLASS] * 2
    else:
        assert after == [max(before, 10)] * 2


def test_a_priority_that_may_not_be_changed_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError("not allowed")

    monkeypatch.setattr("os.nice", refuse, raising=False)
    monkeypatch.setattr(psutil.Process, "nice", refuse)
    polite.lower_priority()


@pytest.mark.parametrize(
    ("battery", "expected"),
    [
        (SimpleNamespace(power_plugged=False), True),
        (SimpleNamespace(power_plugged=True), False),
        (SimpleNamespace(power_plugged=None), None),
        (None, None),
    ],
)
def test_the_system_says_whether_it_runs_on_battery(
    battery: Any, expected: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(psutil, "sensors_battery", lambda: battery, raising=False)
    assert polite.on_battery() is expected


def test_a_system_that_cannot_tell_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise ValueError("could not convert string to float")

    monkeypatch.setattr(psutil, "sensors_battery", fail, raising=False)
    assert polite.on_battery() is None
    monkeypatch.delattr(psutil, "sensors_battery")
    assert polite.on_battery() is None


def telling(*states: bool | None) -> Callable[[], bool | None]:
    left: Iterator[bool | None] = iter(states)
    return lambda: next(left)


@pytest.mark.parametrize("state", [False, None])
def test_nothing_waits_without_a_battery_in_use(state: bool | None) -> None:
    assert list(polite.wait_for_power(telling(state), sleep=pytest.fail)) == []


def test_the_wait_for_power_is_said_once_and_its_end_once() -> None:
    slept: list[float] = []
    notes = list(polite.wait_for_power(telling(True, True, True, True, False), 7.0, slept.append))
    assert notes == [
        Note("the machine runs on battery: waiting until it is plugged in"),
        Note("the machine is plugged in: going on"),
    ]
    assert slept == [7.0, 7.0, 7.0]


def test_it_says_that_it_waits_before_it_does() -> None:
    waiting = polite.wait_for_power(lambda: True, sleep=pytest.fail)
    assert "waiting" in next(waiting).text


def test_an_event_that_is_set_ends_the_wait_for_power() -> None:
    stop = threading.Event()
    stop.set()
    assert len(list(polite.wait_for_power(lambda: True, 60.0, stop.wait))) == 1
