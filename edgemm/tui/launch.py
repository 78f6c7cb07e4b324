"""Starts the chat screen on this terminal."""

import sys
from codecs import getincrementaldecoder
from functools import partial
from importlib import import_module
from typing import Any

from edgemm.desk import Desk
from edgemm.errors import EdgemmError
from edgemm.tui.app import ChatApp
from edgemm.tui.stderr_guard import guarded

_DRIVERS = ("linux_driver", "linux_inline_driver")  # of Textual; those of Windows and the web get text, not bytes


def run(desk: Desk, model: str, chat: int | None, *, inline: bool = False) -> None:
    """The chat until the user leaves it. `inline`: below what stands on the terminal, not in its place."""
    _forgive_bad_bytes()
    app = ChatApp(desk, model, chat)
    with guarded() as log:
        app.run(inline=inline)
    if app.return_code:
        raise EdgemmError("chat", "the screen ended by a bug; what was said is saved", f"its traceback is in {log}")


def _forgive_bad_bytes() -> None:
    """Show typed bytes that are no UTF-8 as �. Textual 8.2 decodes strictly, and its input ends at such a byte."""
    if sys.platform == "win32":
        return

    def decoder(encoding: str) -> Any:
        return partial(getincrementaldecoder(encoding), errors="replace")

    for name in _DRIVERS:
        setattr(import_module(f"textual.drivers.{name}"), "getincrementaldecoder", decoder)  # noqa: B010
