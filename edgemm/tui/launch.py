"""Starts the chat screen on this terminal."""

import sys
from importlib import import_module

from edgemm.desk import Desk
from edgemm.errors import EdgemmError
from edgemm.tui.app import ChatApp
from edgemm.tui.stderr_guard import guarded
from edgemm.tui.typed import Decoder

_DRIVERS = ("linux_driver", "linux_inline_driver")  # of Textual; those of Windows and the web get text, not bytes


def run(desk: Desk, model: str, chat: int | None, *, inline: bool = False) -> None:
    """The chat until the user leaves it. `inline`: below what stands on the terminal, not in its place."""
    _read_as_text()
    app = ChatApp(desk, model, chat)
    with guarded() as log:
        app.run(inline=inline)
    if app.return_code:
        raise EdgemmError("chat", "the screen ended by a bug; what was said is saved", f"its traceback is in {log}")


def _read_as_text() -> None:
    """Let Textual take what is typed from `Decoder`."""
    if sys.platform == "win32":
        return
    for name in _DRIVERS:
        setattr(import_module(f"textual.drivers.{name}"), "getincrementaldecoder", lambda _: Decoder)  # noqa: B010
