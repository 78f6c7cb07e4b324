"""The chat screen as a program of its own, on a scripted model. Argument: a JSON file that says what the model does.

{"answers": [[piece, ...], ...], "seconds": for each piece, "model": its name, "noise": what its native code prints,
"note": what it says of its template, "error": why it fails after an answer, "last": true opens the chat used last,
"inline": true}
"""

import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgemm.backends import Prompt, Sampling
from edgemm.backends.fake import FakeGenerator
from edgemm.desk import Desk
from edgemm.errors import ModelStopped
from edgemm.events import Done, Progress, Token
from edgemm.prompt import Message
from edgemm.tui.launch import run


class Scripted(FakeGenerator):
    """Gives its answers in pieces of any cut, and prints on file descriptor 2 as native code does."""

    def __init__(self, script: dict[str, Any]) -> None:
        super().__init__(["x"], seconds_per_token=script.get("seconds", 0.0), context=1 << 20)
        self._script = script

    def prompt(self, messages: Sequence[Message]) -> Prompt:
        return replace(super().prompt(messages), note=self._script.get("note", ""))

    def generate(self, tokens: Sequence[int], sampling: Sampling) -> Iterator[Progress | Token | Done]:
        self._cancelled.clear()
        answers = self._script["answers"]
        pieces = answers[self._asked % len(answers)]
        self._asked += 1
        yield Progress("prefill", len(tokens), len(tokens), "tokens")
        reason = "stop"
        for number, piece in enumerate(pieces):
            os.write(2, self._script.get("noise", "").encode())
            if self._cancelled.wait(self._seconds):
                reason = "cancelled"
                break
            yield Token(number, piece)
        if error := self._script.get("error"):
            raise ModelStopped(error, error, error)
        yield Done(reason, len(tokens), 0, len(pieces), 0.0, 1.0)


def main() -> None:
    script = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    desk = Desk(opener=lambda _: Scripted(script))
    chat = desk.last_chat() if script.get("last") else None
    try:
        run(desk, script.get("model", "fake"), chat, inline=script.get("inline", False))
    finally:
        desk.close()


if __name__ == "__main__":
    main()
