"""How often a growing answer is drawn: rarely enough that drawing takes no more than a twentieth of the time.

The model runs on the same cores. It knows no clock and no widget: times come in, in seconds.
"""

from dataclasses import dataclass

SOONEST = 0.1  # seconds between two drawings
TIMES = 20  # a pause after a drawing, in times of what it cost


@dataclass(slots=True)
class Pace:
    """`wait` says how long to wait, `spent` tells what the last drawing cost. The first one is due at once."""

    due: float = 0.0

    def wait(self, now: float) -> float:
        return max(0.0, self.due - now)

    def spent(self, now: float, cost: float) -> None:
        self.due = now + max(SOONEST, TIMES * cost)
