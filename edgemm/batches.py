"""Rows of token ids through an encoder, at the speed that the machine allows and in bounded memory.

Texts come in groups; the rows of a group are sorted by length, cut into batches under a token budget and run by N
threads, and results come back in input order. Sorting removes the padding (two thirds of all tokens in mixed text),
and small batches keep the activations in the L2 cache. It knows no tokenizer and no task.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from edgemm import device
from edgemm.backends import Encoder
from edgemm.errors import PromptTooLong
from edgemm.tokenizer import Overflow, Pair

Array = NDArray[np.float32]
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class BatchOptions:
    """`batch_tokens`: padded tokens a call. `threads` 0: one for each core.

    A window, the texts that are sorted together, ends at `window` texts or `window_characters`.
    """

    batch_tokens: int = 512
    window: int = 2048
    window_characters: int = 1 << 19
    threads: int = 0
    overflow: Overflow = Overflow.SPLIT


class Runner:
    """One encoder, called by several threads."""

    def __init__(self, encoder: Encoder, options: BatchOptions, name: str) -> None:
        """`name` is what the threads are called after."""
        self._encoder, self._budget = encoder, options.batch_tokens
        self._encode: Callable[..., Array] = encoder.encode  # some take token types and positions too
        self._pool = ThreadPoolExecutor(options.threads or device.cores(), thread_name_prefix=f"edgemm-{name}")

    def run(self, rows: Sequence[Sequence[int]], types: Sequence[Sequence[int]] = ()) -> list[Array]:
        """For each row float32 (width,), or (len(row), width) from an encoder that answers for every token."""
        batches = plan_batches([len(row) for row in rows], self._budget)
        futures = [self._pool.submit(self._run, rows, types, batch) for batch in batches]
        found: dict[int, Array] = {}
        try:
            for batch, future in zip(batches, futures, strict=True):
                found |= {i: _without_padding(v, len(rows[i])) for i, v in zip(batch, future.result(), strict=True)}
        finally:  # Ctrl-C and errors: what has not begun never will
            for future in futures:
                future.cancel()
        return [found[i] for i in range(len(rows))]

    def at(self, row: Sequence[int], places: Sequence[int]) -> Array:
        """float32 (len(places), width): what an encoder that is asked for `positions` says of places of one row."""
        return self._encode([row], (), np.array([(0, place) for place in places], np.int64))

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._encoder.close()

    def _run(self, rows: Sequence[Sequence[int]], types: Sequence[Sequence[int]], batch: Sequence[int]) -> Array:
        chosen = [rows[i] for i in batch]
        return self._encode(chosen, [types[i] for i in batch]) if types else self._encode(chosen)


def plan_batches(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Indices of rows, grouped by like length, so that rows x longest row stays within `budget` tokens.

    The longest come first: the peak of memory is met at the start, and the threads end together.
    A row that is longer than the budget makes a batch of its own.
    """
    batches: list[list[int]] = []
    longest = 0
    for index in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
        if batches and (len(batches[-1]) + 1) * longest <= budget:
            batches[-1].append(index)
        else:
            batches.append([index])
            longest = lengths[index]
    return batches


def groups(texts: Iterable[_T], options: BatchOptions, characters: Callable[[_T], int]) -> Iterator[list[_T]]:
    """The texts that are in memory together; no text is taken before the last group has been used."""
    group: list[_T] = []
    count = 0
    for text in texts:
        group.append(text)
        count += characters(text)
        if len(group) == options.window or count >= options.window_characters:
            yield group
            group, count = [], 0
    if group:
        yield group


def windows(row: Pair, text: int, max_tokens: int, overlap: int = 0) -> list[Pair]:
    """`row` as rows of at most `max_tokens`. The tokens of `text` (0 or 1) are dealt out, all others stand in each.

    Neighbours share `overlap` tokens. Raises `PromptTooLong` when the others leave too little room.
    """
    if len(row.ids) <= max_tokens:
        return [row]
    own = [i for i, which in enumerate(row.texts) if which == text]
    step = room(row, text, max_tokens) - overlap
    first, last = own[0], own[-1] + 1
    starts = range(first, last - overlap, step)
    return [_slice(row, first, last, start, min(start + step + overlap, last)) for start in starts]


def room(row: Pair, text: int, max_tokens: int) -> int:
    """How many tokens of `text` fit beside all others. Raises `PromptTooLong`."""
    others = sum(which != text for which in row.texts)
    if max_tokens - others < 1:
        why = f"has {others} tokens with the marks around it, this model takes {max_tokens} with the other text"
        raise PromptTooLong("the first text", why, "shorten it")
    return max_tokens - others


def _slice(row: Pair, first: int, last: int, start: int, end: int) -> Pair:
    """The tokens start..end of those from `first` to `last`, and everything around them."""
    kept = [*range(first), *range(start, end), *range(last, len(row.ids))]
    return replace(
        row,
        ids=[row.ids[i] for i in kept],
        types=[row.types[i] for i in kept],
        texts=[row.texts[i] for i in kept],
        offsets=[row.offsets[i] for i in kept],
    )


def _without_padding(values: Array, length: int) -> Array:
    return values[:length] if values.ndim > 1 else values
