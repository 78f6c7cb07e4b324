"""How fast each model answers on this machine: the median of its last answers, kept in one small file.

It knows names and numbers; it refuses to know models. The file is a convenience: a damaged one counts as empty, and a
figure that cannot be written is lost without an error.
"""

import json
import statistics
import threading
from contextlib import suppress
from pathlib import Path

from edgemm import package, paths
from edgemm.errors import EdgemmError
from edgemm.events import Done

_KEPT, _MODELS = 9, 256  # figures of a model, models
_LEAST_TOKENS = 16  # a shorter answer says little about speed
_MAX_BYTES = 1 << 20
_FASTEST = 1e6  # tokens a second; more is damage


def default_path() -> Path:
    return paths.data() / "speeds.json"


class Speeds:
    """Tokens a second by the model's name. Safe to call from several threads.

    Of two processes that write in the same moment, one figure may be lost.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path or default_path()
        self._lock = threading.Lock()

    def median(self, name: str) -> float | None:
        """Tokens a second of the last answers of `name`; None: nothing is known."""
        return self.medians().get(name)

    def medians(self) -> dict[str, float]:
        return {name: statistics.median(figures) for name, figures in self._read().items()}

    def record(self, name: str, done: Done) -> None:
        """Count the answer that ended with `done`, if it was long enough to say something."""
        if done.generated_tokens < _LEAST_TOKENS or not _is_speed(done.tokens_per_second):
            return
        with self._lock:
            known = self._read()
            figures = [*known.pop(name, []), round(done.tokens_per_second, 2)]
            recent = dict(list(known.items())[1 - _MODELS :])  # the one used longest ago goes first
            self._write(recent | {name: figures[-_KEPT:]})

    def _read(self) -> dict[str, list[float]]:
        try:
            with open(self._path, "rb") as file:
                found = json.loads(file.read(_MAX_BYTES))
        except (OSError, ValueError, RecursionError):
            return {}
        rows = found.items() if isinstance(found, dict) else ()
        return {name: figures[-_KEPT:] for name, figures in rows if _are_speeds(figures)}

    def _write(self, figures: dict[str, list[float]]) -> None:
        with suppress(EdgemmError, OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            package.write_file(self._path, json.dumps(figures, indent=1) + "\n")


def _are_speeds(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_speed, value))


def _is_speed(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < _FASTEST
