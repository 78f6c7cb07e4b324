"""Walking through earlier prompts with two keys: nothing that was typed is lost on the way.

Every place keeps what was made of it, as readline does, the unsent draft at the end included. Pure: it knows no
widget and no database.
"""

from collections.abc import Sequence


class Recall:
    """Earlier prompts, newest last, and a place among them; the place after the last one is the draft."""

    def __init__(self, prompts: Sequence[str] = ()) -> None:
        self._prompts = list(prompts)
        self._edited: dict[int, str] = {}
        self._place = len(self._prompts)

    def back(self, shown: str) -> str | None:
        """The prompt before; `shown` is what stands there now. None at the first one."""
        return self._move(-1, shown)

    def forward(self, shown: str) -> str | None:
        """The prompt after, at last the draft; None at the draft."""
        return self._move(1, shown)

    def add(self, prompt: str) -> None:
        """`prompt` was sent: it is the newest one now, and the next walk begins at an empty draft."""
        self._prompts = [*(p for p in self._prompts if p != prompt), prompt]
        self.rest()

    def rest(self) -> None:
        """Forget what was edited on the way, and stand at the draft."""
        self._edited.clear()
        self._place = len(self._prompts)

    def search(self, query: str, limit: int = 100) -> list[str]:
        """Prompts that hold every word of `query`, in any case, newest first."""
        words = query.casefold().split()
        found: list[str] = []
        for prompt in reversed(self._prompts):
            if len(found) == limit:
                break
            if not words or all(word in prompt.casefold() for word in words):
                found.append(prompt)
        return found

    def _move(self, step: int, shown: str) -> str | None:
        target = self._place + step
        if not 0 <= target <= len(self._prompts):
            return None
        self._edited[self._place] = shown
        self._place = target
        return self._edited.get(target, self._prompts[target] if target < len(self._prompts) else "")
