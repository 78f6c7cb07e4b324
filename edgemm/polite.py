"""Work that stays out of the way: at a low priority, and not while the machine runs on battery.

It knows no work, and never fails: what a system does not tell or allow is left as it is.
"""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TypeVar

from edgemm.events import Note

_T = TypeVar("_T")
_LOOK_SECONDS = 10.0  # between two looks at the battery
_NICE = 10  # of 19: the others go first, and an idle machine is still used in full


def politely(work: Iterator[_T]) -> Iterator[_T | Note]:
    """`work` at a low priority, held up between two of its events while the machine is on battery."""
    lower_priority()
    looked = -_LOOK_SECONDS
    for event in work:
        yield event
        if time.monotonic() - looked > _LOOK_SECONDS:
            yield from wait_for_power()
            looked = time.monotonic()


def lower_priority() -> None:
    """Let everything else on this machine go first. The children that are started from now on inherit it.

    On Linux it holds for the calling thread and the threads that it starts; so call it before any other starts.
    """
    if sys.platform == "win32":
        import psutil

        with suppress(psutil.Error, OSError):
            psutil.Process().nice(psutil.BELOW_NORMAL_PRIORITY_CLASS)
    else:
        with suppress(OSError):
            os.nice(max(0, _NICE - os.nice(0)))


def on_battery() -> bool | None:
    """None: there is no battery, or the system does not tell."""
    import psutil

    try:
        battery = psutil.sensors_battery()
    except Exception:  # it reads what drivers report, and fails in more ways than it says
        return None
    return None if battery is None or battery.power_plugged is None else not battery.power_plugged


def wait_for_power(
    on_battery: Callable[[], bool | None] = on_battery,
    seconds: float = 30.0,
    sleep: Callable[[float], object] = time.sleep,
) -> Iterator[Note]:
    """Go on when the machine is no longer on battery, as far as is known. What that means is said before and after.

    It looks every `seconds`. When `sleep` gives true, as `wait` of a set `threading.Event` does, the waiting ends.
    """
    if not on_battery():
        return
    yield Note("the machine runs on battery: waiting until it is plugged in")
    while on_battery():
        if sleep(seconds):
            return
    yield Note("the machine is plugged in: going on")
