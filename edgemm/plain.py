"""One answer on stdout, and everything else on stderr. Ctrl-C stops it and keeps what was said."""

import contextlib
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from types import FrameType
from typing import TYPE_CHECKING

from edgemm import terminal
from edgemm.events import Done, Note, Progress, Token

if TYPE_CHECKING:
    from edgemm.chat import Chat


def answer(chat: "Chat", text: str, *, as_json: bool = False) -> Done | None:
    """Stream one answer to stdout; Ctrl-C ends it and keeps what was said."""
    done = None
    with stopping(chat.stop), terminal.ProgressBar() as bar:
        for event in chat.send(text):
            if as_json:
                terminal.print_json({"event": type(event).__name__.lower()} | asdict(event), indent=None)
            elif isinstance(event, Progress):
                bar.show(event)
            elif isinstance(event, Note):
                bar.close()
                terminal.note(event.text)
            elif isinstance(event, Token):
                bar.close()
                sys.stdout.write(terminal.safe(event.text))
                sys.stdout.flush()
            if isinstance(event, Done):
                done = event
    if not as_json:
        print(flush=True)
    return done


@contextlib.contextmanager
def stopping(stop_answer: Callable[[], None]) -> Iterator[None]:
    """The first Ctrl-C asks the model to stop, the second one leaves at once."""

    def stop(_signal: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        stop_answer()

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
