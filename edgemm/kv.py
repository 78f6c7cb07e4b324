"""The folder of saved KV caches, one file for each chat: found, bounded in size, the oldest dropped first.

Every file may be lost at any time: the transcript is the truth, and the backend refuses a file that does not fit. It
knows no model and no bytes of a cache; a backend writes and reads the files.
"""

import contextlib
import time
from pathlib import Path

from edgemm import paths
from edgemm.backends.state import PARTIAL, SUFFIX

LIMIT = 2 << 30
_ABANDONED = 3600.0  # seconds after which a file that is half written has no writer left


class KvStore:
    """The files in `folder`, together at most `limit` bytes after each `sweep`."""

    def __init__(self, folder: Path | None = None, limit: int = LIMIT) -> None:
        """`folder` None: below the user's cache folder. It need not exist yet."""
        self._folder, self._limit = folder or paths.cache() / "kv", limit

    def path(self, chat: int) -> Path:
        """The file of a chat, whether or not it is there."""
        return self._folder / f"{chat}{SUFFIX}"

    def size(self) -> int:
        """Bytes of all files."""
        return sum(size for _, size, _ in self._files())

    def sweep(self) -> int:
        """Delete the files that were not used for the longest time, until all fit; the newest one always stays.

        Returns the bytes that are free now. A file that another process deletes meanwhile is no error.
        """
        self._sweep_partial()
        files = self._files()
        total = before = sum(size for _, size, _ in files)
        for _, size, path in files[:-1]:
            if total <= self._limit:
                break
            _delete(path)
            total -= size
        return before - total

    def forget(self, chat: int) -> None:
        """Delete the file of a chat, if there is one."""
        _delete(self.path(chat))

    def _files(self) -> list[tuple[float, int, Path]]:
        """Time of last use, bytes and path of each file, the oldest first."""
        found = []
        for path in self._folder.glob(f"*{SUFFIX}"):
            with contextlib.suppress(OSError):
                facts = path.stat()
                found.append((facts.st_mtime, facts.st_size, path))
        return sorted(found)

    def _sweep_partial(self) -> None:
        for path in self._folder.glob(f"*{PARTIAL}"):
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > _ABANDONED:
                    _delete(path)


def _delete(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)
