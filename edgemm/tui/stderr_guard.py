"""While a screen is drawn, nothing but the screen writes to the terminal.

Native libraries print on file descriptor 2, into the middle of what is drawn. The guard gives the screen one of
its own and points 2 at a log. On Windows screens are drawn through the console's own handle, and 2 alone is moved.
"""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from edgemm import paths

_MOST = 1 << 20  # bytes of the log; then it begins again


@contextlib.contextmanager
def guarded() -> Iterator[Path]:
    """Gives the path of the log."""
    log = paths.cache() / "stderr.log"
    private = os.dup(2)
    # It outlives the block by its descriptor. What no UTF-8 can hold must not end the thread that draws.
    screen = open(private, "w", encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115
    before, before_raw = sys.stderr, sys.__stderr__
    target = _opened(log)
    os.dup2(target, 2)
    os.close(target)
    if sys.platform != "win32":
        setattr(sys, "__stderr__", screen)  # noqa: B010 - a final name to type checkers; Textual draws on it
    try:
        yield log
    finally:
        screen.flush()
        sys.stderr = before
        setattr(sys, "__stderr__", before_raw)  # noqa: B010
        os.dup2(private, 2)
        os.close(private)


def _opened(log: Path) -> int:
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        mode = os.O_TRUNC if log.is_file() and log.stat().st_size > _MOST else os.O_APPEND
        return os.open(log, os.O_WRONLY | os.O_CREAT | mode, 0o600)
    except OSError:
        return os.open(os.devnull, os.O_WRONLY)
