"""The files below a folder that can be read: ignored ones are left out, and what leads outside is never followed.

Rules are those of .gitignore and .edgemmignore files, in every folder, as git reads them (pathspec). It opens no other
file.
"""

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgemm.documents.kinds import Kind, of_name

RULES = (".gitignore", ".edgemmignore")  # the later one has the last word
_MAX_RULES = 1 << 20  # bytes of one such file
_NEVER = {"__pycache__", "node_modules", "site-packages", "venv", "target", "dist", "build"}
_DEEPEST = 100
_Above = tuple[tuple[int, int], ...]  # device and inode of each folder around, and of the folder itself


@dataclass(frozen=True, slots=True)
class Found:
    """`name` is relative to the root, with slashes. `size` in bytes, `mtime_ns` since 1970."""

    path: Path
    name: str
    size: int
    mtime_ns: int
    kind: Kind


@dataclass(frozen=True, slots=True)
class Skipped:
    """What is there and is not read: "symbolic link", "pipe, device or socket", "cannot be listed: ...".

    `name` of a folder ends with a slash.
    """

    name: str
    why: str


@dataclass(frozen=True, slots=True)
class _Rules:
    """The `extra` ones, then those of each folder from the outermost on, with its name."""

    extra: Any
    files: tuple[tuple[str, Any], ...] = ()

    def of(self, name: str) -> bool | None:
        """Whether it is ignored, by the innermost rules that have a word about it; None: none has."""
        found = self.extra.check_file(name).include
        for prefix, spec in reversed(self.files):
            if found is not None:
                break
            found = spec.check_file(name[len(prefix) :]).include
        return None if found is None else bool(found)

    def within(self, prefix: str, entries: list[os.DirEntry[str]]) -> "_Rules":
        here = {entry.name: entry for entry in entries if entry.name in RULES}
        specs = [(prefix, _spec(_lines(here[name]))) for name in RULES if name in here]
        return _Rules(self.extra, (*self.files, *specs)) if specs else self


def walk(root: Path, *, extra: Iterable[str] = ()) -> Iterator[Found | Skipped]:
    """In the order of names. Files of kinds that nobody reads, hidden ones and ignored ones are passed over.

    `extra`: rules of the caller, written as in .gitignore, which win over those of the files.
    """
    try:
        facts = root.stat()
    except OSError as error:
        yield Skipped(".", f"cannot be listed: {(error.strerror or '').lower()}")
        return
    yield from _folder(root, "", _Rules(_spec(extra)), ((facts.st_dev, facts.st_ino),))


def _folder(folder: Path, prefix: str, rules: _Rules, above: _Above) -> Iterator[Found | Skipped]:
    try:
        with os.scandir(folder) as listing:
            entries = sorted(listing, key=lambda entry: entry.name)
    except OSError as error:
        yield Skipped(prefix or ".", f"cannot be listed: {(error.strerror or '').lower()}")
        return
    rules = rules.within(prefix, entries)
    for entry in entries:
        if entry.name.startswith("."):
            continue
        name = prefix + entry.name
        try:
            yield from _entry(entry, name, rules, above)
        except OSError as error:
            yield Skipped(name, (error.strerror or "cannot be read").lower())


def _entry(entry: os.DirEntry[str], name: str, rules: _Rules, above: _Above) -> Iterator[Found | Skipped]:
    if entry.is_symlink() or getattr(entry, "is_junction", bool)():
        if not rules.of(name):
            yield Skipped(name, "symbolic link")
    elif entry.is_dir(follow_symlinks=False):
        yield from _subfolder(entry, name + "/", rules, above)
    elif (kind := of_name(entry.name)) is not None and not rules.of(name):
        facts = entry.stat(follow_symlinks=False)
        if stat.S_ISREG(facts.st_mode):
            yield Found(Path(entry.path), name, facts.st_size, facts.st_mtime_ns, kind)
        else:
            yield Skipped(name, "pipe, device or socket")


def _subfolder(entry: os.DirEntry[str], name: str, rules: _Rules, above: _Above) -> Iterator[Found | Skipped]:
    ignored = rules.of(name)
    facts = entry.stat(follow_symlinks=False)
    key = (facts.st_dev, facts.st_ino)
    if ignored:
        return
    if entry.name in _NEVER and ignored is None:
        yield Skipped(name, "folder of caches or of what was built")
    elif facts.st_ino and key in above:
        yield Skipped(name, "the same folder as one around it")
    elif len(above) > _DEEPEST:
        yield Skipped(name, f"below {_DEEPEST} other folders")
    else:
        yield from _folder(Path(entry.path), name, rules, (*above, key))


def _lines(entry: os.DirEntry[str]) -> list[str]:
    try:
        if not entry.is_file(follow_symlinks=False) or entry.stat(follow_symlinks=False).st_size > _MAX_RULES:
            return []
        return Path(entry.path).read_text("utf-8-sig", "replace").split("\n")
    except OSError:
        return []


def _spec(lines: Iterable[str]) -> Any:
    """A line that is no rule is passed over, as git does; the others hold."""
    import pathspec

    lines = list(lines)
    try:
        return pathspec.GitIgnoreSpec.from_lines(lines)
    except ValueError:
        return pathspec.GitIgnoreSpec.from_lines([line for line in lines if _is_rule(line)])


def _is_rule(line: str) -> bool:
    import pathspec

    try:
        pathspec.GitIgnoreSpec.from_lines([line])
    except ValueError:
        return False
    return True
