"""Numpy work on all cores: a thread for each piece, and one BLAS thread for each of those.

BLAS's own threads wait for each other in a busy loop after every product. Where anything else runs on the machine, that
costs several times more than it gains, and pieces that do not depend on each other gain as much without it.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from edgemm import device

_A = TypeVar("_A")
_B = TypeVar("_B")


@contextmanager
def one_blas_thread() -> Iterator[None]:
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1, user_api="blas"):
        yield


def each(function: Callable[[_A], _B], items: Iterable[_A]) -> list[_B]:
    """`function` of every item, in their order."""
    with ThreadPoolExecutor(device.cores(), thread_name_prefix="edgemm-convert") as pool:
        return list(pool.map(function, items))
