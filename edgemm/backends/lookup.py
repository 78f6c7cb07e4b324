"""What an answer may say next, looked up in what was said before: drafts for speculative decoding.

When the last tokens stand in the text already, what followed them there is the draft (Saxena 2023, prompt lookup
decoding). It is read ahead only where the tokens that are likely to be right pay for the larger batch: both the share
of right guesses and the cost of a batch are measured all the time. It knows no model, only token ids and seconds.
"""

import math
import statistics
from collections import deque
from collections.abc import Sequence

_GRAM = 3  # tokens that must be equal
_PLACES = 8  # the newest places of a gram that are compared
_LONGEST = 32  # equal tokens that are counted
_GAIN = 1.08  # a draft must promise so many times the tokens a second; less drowns in the error of the estimate
_MOST_SECONDS = 0.4  # of a batch, for nothing is cancelled within one
_KEPT = 9  # measurements of a batch size
_WARM = 4  # measurements of single tokens, before anything is drafted
_SLOPE = 0.4  # what a token more costs, in single tokens, where it was not measured: two cores of a processor
_MEMORY = 48  # guesses after which older ones count half
# From so many equal tokens on: the share of right guesses that is assumed at first. It counts as much as four guesses.
_SHARES = ((3, 0.4), (4, 0.5), (6, 0.65), (9, 0.8), (16, 0.9))
_WEIGHT = 4.0


class Costs:
    """Seconds of a batch by its size, measured: medians of the last ones."""

    def __init__(self) -> None:
        self._seen: dict[int, deque[float]] = {}
        self._medians: dict[int, float] = {}

    def measure(self, size: int, seconds: float) -> None:
        seen = self._seen.setdefault(size, deque(maxlen=_KEPT))
        seen.append(seconds)
        self._medians[size] = statistics.median(seen)

    @property
    def known(self) -> bool:
        """Whether single tokens were measured often enough to compare with."""
        return len(self._seen.get(1, ())) >= _WARM

    @property
    def single(self) -> float:
        """Seconds of a single token."""
        return self._medians.get(1, 0.0)

    def forget(self) -> None:
        """Drop the oldest measurement of each batch, so that one taken on a busy machine is not believed for ever."""
        for size, seen in list(self._seen.items()):
            if size > 1:
                seen.popleft()
                self._medians[size] = statistics.median(seen) if seen else 0.0
            if not seen:
                del self._seen[size], self._medians[size]

    def of(self, size: int) -> float:
        """What a batch of `size` costs, in single tokens; between measured sizes by a straight line."""
        below = max((n for n in self._medians if n <= size), default=1)
        above = min((n for n in self._medians if n >= size), default=0)
        low = self._relative(below)
        if not above or above == below:
            return low + _SLOPE * (size - below)
        return low + (self._relative(above) - low) * (size - below) / (above - below)

    def _relative(self, size: int) -> float:
        return self._medians[size] / self._medians[1] if size > 1 else 1.0


class Shares:
    """How often guesses were right, by how many tokens were equal before."""

    def __init__(self) -> None:
        self._right = [share * _WEIGHT for _, share in _SHARES]
        self._all = [_WEIGHT for _ in _SHARES]

    def of(self, equal: int) -> float:
        row = _row(equal)
        return self._right[row] / self._all[row]

    def count(self, equal: int, right: bool) -> None:
        row = _row(equal)
        if self._all[row] > _MEMORY:
            self._all[row] /= 2
            self._right[row] /= 2
        self._all[row] += 1
        self._right[row] += right


class Lookup:
    """The text so far, and the place in it where the last tokens stood before.

    `drafted` and `accepted`: how many tokens were drafted, and how many of them the reader of the drafts found right.
    """

    def __init__(self, tokens: Sequence[int], costs: Costs, most: int) -> None:
        """`most`: the longest draft; with 0 nothing is looked up."""
        self.drafted = self.accepted = 0
        self._costs, self._shares, self._most = costs, Shares(), most
        self._text = list(tokens) if most else []
        self._lengths = [n for n in (1, 2, 4, 8) if n < most] + [most]  # few, so that each is measured often
        costs.forget()
        self._places: dict[tuple[int, ...], list[int]] = {}
        self._next, self._equal = 0, 0  # the place of the guess, and how many tokens before it are equal
        for end in range(_GRAM, len(self._text)):
            self._places.setdefault(tuple(self._text[end - _GRAM : end]), []).append(end)
        self._find()

    def add(self, token: int) -> None:
        """The text goes on with `token`. Every guess is counted, whether or not it was read ahead."""
        if not self._most:
            return
        right = self._equal > 0 and self._text[self._next] == token
        if self._equal:
            self._shares.count(self._equal, right)
        self._text.append(token)
        if right:
            self._next, self._equal = self._next + 1, min(self._equal + 1, _LONGEST)
            self._note()
        else:
            self._find()

    def draft(self, room: int) -> list[int]:
        """At most `room` tokens that are worth reading ahead; empty where none are."""
        size = self._size(min(self._most, room)) if self._equal and self._costs.known else 0
        found: list[int] = []
        for place in range(self._next, self._next + size):  # behind the text's end it goes on with itself
            found.append(self._text[place] if place < len(self._text) else found[place - len(self._text)])
        self.drafted += size
        return found

    def _size(self, most: int) -> int:
        """The length of draft that promises the most tokens a second."""
        best, size, chance, expected = _GAIN, 0, 1.0, 1.0
        for n in range(1, most + 1):
            chance *= self._shares.of(self._equal + n - 1)
            expected += chance
            cost = self._costs.of(n + 1) if n in self._lengths else math.inf
            if expected / cost > best and cost * self._costs.single < _MOST_SECONDS:
                best, size = expected / cost, n
        return size

    def _find(self) -> None:
        """The newest of the places that have the most tokens before them in common with the end of the text."""
        self._equal = 0
        for place in self._places.get(tuple(self._text[-_GRAM:]), ())[: -_PLACES - 1 : -1]:
            equal = self._common(place)
            if equal > self._equal:
                self._next, self._equal = place, equal
        self._note()

    def _common(self, place: int) -> int:
        end, most = len(self._text), min(place, _LONGEST)
        return next((n for n in range(most) if self._text[place - 1 - n] != self._text[end - 1 - n]), most)

    def _note(self) -> None:
        if len(self._text) >= _GRAM:
            self._places.setdefault(tuple(self._text[-_GRAM:]), []).append(len(self._text))


def _row(equal: int) -> int:
    return max((i for i, (least, _) in enumerate(_SHARES) if equal >= least), default=0)
