"""Folders of unfinished packages that a later run goes on with: found by a key, owned by one process at a time.

It knows no package; package.py stages and publishes.
"""

import os
import shutil
import time
from pathlib import Path

from edgemm import paths
from edgemm.errors import UsageError

WORK = ".work"  # a folder in a staged package for files that are not part of it
_OWNER = "owner"
_DAYS = 14


def find(name: str, key: str) -> Path:
    """The folder of the unfinished `key`, which may not exist yet; other drafts of that name are deleted.

    Raises `UsageError` while another process works on a draft of that name.
    """
    folder = paths.partial() / f"{name}~draft.x{key}"
    for other in paths.partial().glob(f"{name}~draft.x*"):
        if owner := _owner(other):
            raise UsageError(name, f"is being made by process {owner}", "wait for it, or choose another --out")
        if other != folder:
            shutil.rmtree(other, ignore_errors=True)
    return folder


def own(folder: Path) -> None:
    """Make `folder`, say that this process works in it, and clear away what a killed one was writing."""
    import psutil

    (folder / WORK).mkdir(parents=True, exist_ok=True)
    for path in folder.glob("*.tmp"):
        path.unlink()
    (folder / WORK / _OWNER).write_text(f"{os.getpid()} {psutil.Process().create_time()!r}")


def forget(folder: Path) -> None:
    """Delete it when nobody has gone on with it for two weeks."""
    if time.time() - folder.stat().st_mtime > _DAYS * 86400 and not _owner(folder):
        shutil.rmtree(folder)


def _owner(folder: Path) -> int:
    """The other process that works in `folder` now; 0: none."""
    import psutil

    try:
        pid, started = map(float, (folder / WORK / _OWNER).read_text().split())
        alive = pid != os.getpid() and psutil.Process(int(pid)).create_time() == started
    except (OSError, ValueError, OverflowError, psutil.Error):
        return 0
    return int(pid) if alive else 0
