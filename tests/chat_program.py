"""The chat screen as a program of its own, on a scripted model. Arguments: a JSON file with what the model does.

{"answers": [[piece, ...], ...], "seconds": per token, "model": name, "title": ..., "noise": bytes printed natively,
"last": true, "inline": true}
"""

import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from edgemm.backends import Sampling
from edgemm.backends.fake import FakeGenerator
from edgemm.desk import Desk
from edgemm.events import Done, Progress, Token
from edgemm.tui.launch import run


class Scripted(FakeGenerator):
    """Gives its answers in pieces of any cut, and prints on file descriptor 2 as native code does."""

    def __init__(self, script: dict[str, Any]) -> None:
        super().__init__(["x"], seconds_per_token=script.get("seconds", 0.0), context=1 << 20)
        self._pieces, self._noise = script["answers"], script.get("noise", "")

    def generate(self, tokens: Sequence[int], sampling: Sampling) -> Iterator[Progress | Token | Done]:
        self._cancelled.clear()
        pieces = self._pieces[self._asked % len(self._pieces)]
        self._asked += 1
        yield Progress("prefill", len(tokens), len(tokens), "tokens")
        reason = "stop"
        for number, piece in enumerate(pieces):
            if self._noise:
                os.write(2, self._noise.encode())
            if self._cancelled.wait(self._seconds):
                reason = "cancelled"
                break
            yield Token(number, piece)
        yield Done(reason, len(tokens), 0, len(pieces), 0.0, 1.0)


def main() -> None:
    script = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    desk = Desk(opener=lambda _: Scripted(script))
    number = desk.last_chat() if script.get("last") else None
    model = script.get("model", "fake")
    if "title" in script:
        number = desk.new_chat(model).id
        desk.sessions.rename(number, script["title"])
        desk.sessions.add(number, None, "user", script["title"])
    run(desk, model, number, inline=script.get("inline", False))
    desk.close()


if __name__ == "__main__":
    main()
