"""How often a growing answer is drawn: so rarely that it takes a fortieth of the time, as long as that looks alive.

The model runs on the same cores. It knows no clock and no widget: times come in, in seconds.
"""

from dataclasses import dataclass

SOONEST, LATEST = 0.1, 0.6  # seconds between two drawings
TIMES = 40  # a pause after a drawing, in times of what it cost


@dataclass(slots=True)
class Pace:
    """`wait` says how long to wait, `spent` tells what the last drawing cost. The first one is due at once."""

    due: float = 0.0

    def wait(self, now: float) -> float:
        return max(0.0, self.due - now)

    def spent(self, now: float, cost: float) -> None:
        self.due = now + min(LATEST, max(SOONEST, TIMES * cost))
