"""What the user may set once for every command, read from the environment: one frozen `Settings`.

Options of a single command are not here; they travel as that command's own dataclass.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from edgemm.errors import UsageError

_FLAGS = {"": False, "0": False, "false": False, "no": False, "1": True, "true": True, "yes": True}


@dataclass(frozen=True, slots=True)
class Settings:
    """`home`: EDGEMM_HOME, where models live. `index`: EDGEMM_INDEX, the file of the documents' index.

    `offline`: EDGEMM_OFFLINE. `threads`: EDGEMM_THREADS, 0 = cores.
    """

    home: Path | None = None
    index: Path | None = None
    offline: bool = False
    threads: int = 0

    @classmethod
    def from_environment(cls) -> "Settings":
        return cls(
            home=_path("EDGEMM_HOME"),
            index=_path("EDGEMM_INDEX"),
            offline=_flag("EDGEMM_OFFLINE"),
            threads=_count("EDGEMM_THREADS"),
        )


def _path(name: str) -> Path | None:
    value = os.environ.get(name)
    return Path(value).expanduser() if value else None


def _flag(name: str) -> bool:
    value = os.environ.get(name, "")
    try:
        return _FLAGS[value.strip().lower()]
    except KeyError:
        raise UsageError(name, f"{value!r} is neither yes nor no", "set it to 1 or 0") from None


def _count(name: str) -> int:
    value = os.environ.get(name, "0").strip() or "0"
    if not value.isdecimal() or int(value) > 1024:
        raise UsageError(name, f"{value!r} is not a number of threads", "set it to 1..1024, or 0 for all cores")
    return int(value)
