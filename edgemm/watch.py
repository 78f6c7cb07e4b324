"""Which folders have changed: as the system tells it, or by looking through them now and then where it cannot.

It says no more than that a folder is worth another look, and when. It reads no document, and writes nothing.
"""

import hashlib
import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from edgemm.documents.walk import RULES, Found, walk
from edgemm.events import Note
from edgemm.index import default_path

LONGEST = 10.0  # seconds that changes are held back while others follow
POLL = 5.0  # seconds between two looks through a folder, at least
_SHARE = 0.05  # of the time that looks may take
_TICK, _LEAST_TICK = 0.2, 0.01  # seconds between two questions to the system
# File systems whose changes on other machines, or outside of a virtual machine, the system does not hear of.
_REMOTE = frozenset(
    """9p afpfs afs ceph cifs davfs drvfs fuse.gcsfuse fuse.glusterfs fuse.goofys fuse.grpcfuse fuse.gvfsd-fuse
    fuse.rclone fuse.s3fs fuse.sshfs fuse.vmhgfs-fuse lustre macfuse ncpfs nfs nfs4 osxfuse smb2 smb3 smbfs vboxsf
    virtiofs webdav""".split()
)
_REMOTE_DRIVE = 4  # winbase.h: DRIVE_REMOTE
# What the system's refusal holds -> what it means.
_REASONS = {
    "watch limit": "the system has no watchers left",
    "Too many open files": "the system has no watchers left",
    "Permission denied": "a folder in it cannot be read",
    "decode": "a name in it is no valid Unicode",
    "surrogates": "its name is no valid Unicode",
    "watchfiles": "watchfiles is not installed",
}

_REFUSALS = (OSError, RuntimeError, ValueError, ImportError)

_Identity = tuple[int, int]  # device and inode
_Change = tuple[Any, str]  # what was done, an enum of watchfiles, and to which path


def changes(
    roots: Sequence[Path],
    stop: threading.Event | None = None,
    quiet: float = 1.0,
    index: Path | None = None,
    poll: float = POLL,
) -> Iterator[Note | frozenset[Path]]:
    """Those of `roots` in which something has changed, when nothing more has for `quiet` seconds, or after 10 s.

    Watching begins with the call: call it before a first scan, and nothing is missed. It goes on, also while a root is
    gone, until `stop` is set; Ctrl-C is a `KeyboardInterrupt`. Hidden files and folders do not count, nor do the files
    of the `index` (None: the default one). A root on a network share, or one for which the system has no watchers left,
    is looked through every `poll` seconds or, when that takes long, less often; a `Note` says so.
    """
    own = index or default_path()
    watched = [_Watched(root, own, poll) for root in roots]
    return _follow(watched, _Settling(quiet), stop or threading.Event(), max(_LEAST_TICK, min(_TICK, quiet / 4)))


def _follow(
    watched: "Sequence[_Watched]", settling: "_Settling", stop: threading.Event, tick: float
) -> Iterator[Note | frozenset[Path]]:
    try:
        while not stop.wait(tick):
            for one in watched:
                if one.has_changed():
                    settling.add(one.root, time.monotonic())
                while one.notes:
                    yield Note(one.notes.pop(0))
            if settled := settling.take(time.monotonic()):
                yield settled
    finally:
        for one in watched:
            one.close()


class _Settling:
    """Gathers roots until nothing more changes. Times are in seconds of any clock."""

    def __init__(self, quiet: float, longest: float = LONGEST) -> None:
        self._quiet, self._longest = quiet, longest
        self._roots: set[Path] = set()
        self._first = self._last = 0.0

    def add(self, root: Path, now: float) -> None:
        if not self._roots:
            self._first = now
        self._last = now
        self._roots.add(root)

    def take(self, now: float) -> frozenset[Path]:
        """Empty while it has not settled."""
        if now - self._last < self._quiet and now - self._first < self._longest:
            return frozenset()
        found, self._roots = frozenset(self._roots), set()
        return found


class _Watched:
    """One root: the system's events, or a fingerprint of what is in it. `notes` are for the user."""

    def __init__(self, root: Path, own: Path, poll: float) -> None:
        self.root, self.notes = root, list[str]()
        self._paths = (root.absolute(), Path(os.path.realpath(root)))  # some systems tell the real one
        self._own = (own.name, {own.parent, Path(os.path.realpath(own.parent))})
        self._events: Iterator[set[_Change]] | None = None
        self._identity: _Identity | None = None
        self._poll, self._is_polled = poll, False
        self._print, self._due = b"", 0.0
        if is_remote(root):
            self._poll_from_now_on("it is on a network share")
        else:
            self._open()

    def has_changed(self) -> bool:
        if self._is_polled:
            return time.monotonic() >= self._due and self._looks_different()
        if self._events is None or _identity(self.root) != self._identity:
            was_there = self._events is not None
            self._open()
            return was_there or self._identity is not None
        return self._has_events(self._events)

    def close(self) -> None:
        if self._events is not None:
            self._events.close()  # type: ignore[attr-defined]
        self._events = None

    def _open(self) -> None:
        """Have the system tell from now on, if the root is there."""
        self.close()
        self._identity = _identity(self.root)
        if self._identity is None:
            return
        try:
            self._events = _listen(self._paths[0])
        except FileNotFoundError:  # it was there a moment ago
            self._identity = None
        except _REFUSALS as error:
            self._poll_from_now_on(_reason(error))

    def _has_events(self, events: Iterator[set[_Change]]) -> bool:
        try:
            found = next(events)
            paths = {path for _, path in found if self._matters(Path(path))}
            _check_room(Path(path) for change, path in found if change.name == "added" and path in paths)
        except _REFUSALS as error:
            self._poll_from_now_on(_reason(error))
            return True
        if any(change.name == "deleted" and Path(path) in self._paths for change, path in found):
            self._open()  # another one may be there already, and have its number
        return bool(paths)

    def _matters(self, path: Path) -> bool:
        name, folders = self._own
        if path.name.startswith(name) and path.parent in folders:
            return False
        for root in self._paths:
            if path.is_relative_to(root):
                *above, last = path.relative_to(root).parts or ("",)
                is_hidden = last.startswith(".") and last not in RULES  # hidden, but they decide what is read
                return not is_hidden and not any(folder.startswith(".") for folder in above)
        return True

    def _poll_from_now_on(self, why: str) -> None:
        self.close()
        self._is_polled = True
        self._looks_different()
        self.notes.append(f"{self.root}: edgemm looks for changes every {self._poll:g} s or less often, as {why}")

    def _looks_different(self) -> bool:
        began, before = time.monotonic(), self._print
        self._print = _fingerprint(self.root)
        ended = time.monotonic()
        self._due = ended + max(self._poll, (ended - began) / _SHARE)
        return self._print != before


def is_remote(root: Path) -> bool:
    """Whether it lies on another machine, as far as the system tells."""
    if sys.platform == "win32":
        import ctypes

        return ctypes.windll.kernel32.GetDriveTypeW(root.absolute().anchor) == _REMOTE_DRIVE
    import psutil

    try:
        mounts = [(Path(part.mountpoint), part.fstype) for part in psutil.disk_partitions(all=True)]
    except (psutil.Error, OSError):
        return False
    return file_system(Path(os.path.realpath(root)), mounts).lower() in _REMOTE


def file_system(path: Path, mounts: Sequence[tuple[Path, str]]) -> str:
    """The one of `mounts`, (where, type), that holds `path`: the innermost, and of those the last; "": none does."""
    holding = [(len(where.parts), number) for number, (where, _) in enumerate(mounts) if path.is_relative_to(where)]
    return mounts[max(holding)[1]][1] if holding else ""


def _listen(folder: Path) -> Iterator[set[_Change]]:
    """What has changed in `folder`, when asked. Raises one of `_REFUSALS`."""
    import watchfiles

    events = watchfiles.watch(
        folder,
        watch_filter=None,
        debounce=1,
        step=1,
        rust_timeout=1,
        yield_on_timeout=True,
        debug=False,
        force_polling=False,
        ignore_permission_denied=False,  # if they are ignored, then so is every other failure
    )
    next(events)  # now it has begun
    return events


def _check_room(added: Iterable[Path]) -> None:
    """New folders are watched too, but nobody is told when there are no watchers left for them: so try it with one."""
    folder = next((path for path in added if path.is_dir()), None)
    if folder is not None:
        with suppress(FileNotFoundError):
            _listen(folder).close()  # type: ignore[attr-defined]


def _identity(root: Path) -> _Identity | None:
    try:
        facts = root.stat()
    except (OSError, ValueError):
        return None
    return facts.st_dev, facts.st_ino


def _fingerprint(root: Path) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for entry in walk(root):
        digest.update(ascii((entry.name, entry.size, entry.mtime_ns) if isinstance(entry, Found) else entry).encode())
    return digest.digest()


def _reason(error: Exception) -> str:
    text = str(error)
    return next((why for part, why in _REASONS.items() if part in text), f"the system does not tell of them ({text})")
