"""The files below a folder that can be read: ignored ones are left out, and what leads outside is never followed.

Rules are those of .gitignore and .edgemmignore files, in every folder, as git reads them (pathspec). It opens no other
file.
"""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgemm.documents.kinds import Kind, of_name

_RULES = (".gitignore", ".edgemmignore")
_MAX_RULES = 1 << 20  # bytes of one such file
_NEVER = {"__pycache__", "node_modules", "site-packages", "venv", "target", "dist", "build"}
_DEEPEST = 100


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
    """What is there and is not read: "symbolic link", "pipe, device or socket", "cannot be listed"."""

    name: str
    why: str


def walk(root: Path) -> Iterator[Found | Skipped]:
    """In the order of names. Files of kinds that nobody reads, hidden ones and ignored ones are passed over."""
    yield from _folder(root, "", [], 0)


def _folder(folder: Path, prefix: str, rules: list[tuple[str, Any]], depth: int) -> Iterator[Found | Skipped]:
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        yield Skipped(prefix or ".", f"cannot be listed: {(error.strerror or '').lower()}")
        return
    rules = rules + [(prefix, spec) for entry in entries if entry.name in _RULES and (spec := _spec(entry))]
    for entry in entries:
        if entry.name.startswith("."):
            continue
        name = prefix + entry.name
        try:
            yield from _entry(entry, name, rules, depth)
        except OSError as error:
            yield Skipped(name, (error.strerror or "cannot be read").lower())


def _entry(entry: os.DirEntry[str], name: str, rules: list[tuple[str, Any]], depth: int) -> Iterator[Found | Skipped]:
    if entry.is_symlink() or getattr(entry, "is_junction", bool)():
        if not _ignored(name, rules):
            yield Skipped(name, "symbolic link")
    elif entry.is_dir(follow_symlinks=False):
        if entry.name not in _NEVER and depth < _DEEPEST and not _ignored(name + "/", rules):
            yield from _folder(Path(entry.path), name + "/", rules, depth + 1)
    elif (kind := of_name(entry.name)) is not None and not _ignored(name, rules):
        facts = entry.stat(follow_symlinks=False)
        if stat.S_ISREG(facts.st_mode):
            yield Found(Path(entry.path), name, facts.st_size, facts.st_mtime_ns, kind)
        else:
            yield Skipped(name, "pipe, device or socket")


def _ignored(name: str, rules: list[tuple[str, Any]]) -> bool:
    """The innermost file of rules that has a word about it decides, as in git."""
    for prefix, spec in reversed(rules):
        found = spec.check_file(name[len(prefix) :]).include
        if found is not None:
            return bool(found)
    return False


def _spec(entry: os.DirEntry[str]) -> Any:
    import pathspec

    try:
        if not entry.is_file(follow_symlinks=False) or entry.stat(follow_symlinks=False).st_size > _MAX_RULES:
            return None
        lines = Path(entry.path).read_text("utf-8", "replace").splitlines()
        return pathspec.GitIgnoreSpec.from_lines(lines)
    except (OSError, ValueError):
        return None
