"""The model package: one folder with a manifest, the model, its tokenizer, a report and a card.

This is the one contract between the converters, which write packages, and the runtime, which opens
them. It knows files, sizes and hashes; it refuses to know what is inside a model file.
The format is described in quantized/README.md.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from edgemm import drafts, paths
from edgemm.drafts import WORK as WORK
from edgemm.errors import BadFile, Cancelled, ChecksumMismatch, EdgemmError, UnknownModel, disk_errors
from edgemm.manifest import SCHEMA, TASKS, FileEntry, Manifest, decode, read_json

MANIFEST, REPORT, CARD, TEMPLATE = "manifest.json", "report.json", "README.md", "chat_template.jinja"
_VERIFIED = ".verified.json"
_MAX_PATH = 200


@dataclass(frozen=True, slots=True)
class Package:
    """An opened package: its folder and its manifest."""

    path: Path
    manifest: Manifest

    @property
    def name(self) -> str:
        return self.manifest.name

    def file(self, suffix: str) -> Path | None:
        """The first listed file whose name ends in `suffix`, or None."""
        return next((self.path / e.path for e in self.manifest.files if e.path.endswith(suffix)), None)

    def report(self) -> dict[str, Any]:
        """report.json as a dictionary; empty for a package that was published ready-made."""
        path = self.path / REPORT
        return read_json(path) if path.is_file() else {}


def open_package(folder: Path) -> Package:
    """Open the package in `folder` after checking its manifest, sizes and hashes.

    Hashes are computed once and remembered beside the package by size, mtime and inode.
    Raises `UnknownModel`, `BadFile` or `ChecksumMismatch`.
    """
    package = read_package(folder)
    _check_files(package, _remembered(folder))
    return package


def read_package(folder: Path) -> Package:
    """Read and validate the manifest alone; no model file is looked at."""
    path = folder / MANIFEST
    if not path.is_file():
        raise UnknownModel(folder.name, f"there is no {MANIFEST} in {folder}", "see `edgemm list`, or pull it again")
    manifest = decode(Manifest, read_json(path), path)
    if manifest.schema != SCHEMA:
        raise BadFile(path, f"schema {manifest.schema}, this edgemm reads {SCHEMA}", "update edgemm or convert again")
    if manifest.task not in TASKS:
        raise BadFile(path, f"unknown task {manifest.task!r}", "update edgemm or convert again")
    paths.check_name(manifest.name)
    for entry in manifest.files:
        _check_inside(folder, entry.path)
    return Package(folder, manifest)


def verify(package: Package) -> None:
    """Read every byte again and compare it with the manifest. Raises `BadFile` or `ChecksumMismatch`."""
    _check_files(package, {})


def installed() -> Iterator[Package]:
    """Every readable package of the store, by name; damaged manifests are skipped here and named by `verify`."""
    recover()
    root = paths.store()
    for folder in sorted(root.iterdir()) if root.is_dir() else ():
        if (folder / MANIFEST).is_file():
            with suppress(EdgemmError):
                yield read_package(folder)


def remove(name: str) -> int:
    """Delete the package or checkpoint `name` and return the bytes that were freed. Raises `UnknownModel`."""
    places = (paths.store() / paths.check_name(name), paths.checkpoints() / name)
    folder = next((place for place in places if place.is_dir()), None)
    if folder is None:
        raise UnknownModel(name, "is not in the store", "see `edgemm list`")
    size = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
    with disk_errors(folder):
        trash = scratch(name, "removed")
        folder.rename(trash)  # one step, so that a killed `rm` leaves no half package
        shutil.rmtree(trash)
    return size


@contextmanager
def staged(name: str, draft: str = "") -> Iterator[Path]:
    """A folder to fill. On a clean exit it replaces `<store>/<name>` in one rename; on any error it is deleted.

    With a `draft`, a key for what is made, an interrupted folder stays and is found again under the same key; other
    drafts of that name are deleted. Raises `UsageError` while another process works on one.
    """
    paths.check_name(name)
    recover()
    folder = drafts.find(name, draft) if draft else scratch(name, "new")
    with disk_errors(folder):
        drafts.own(folder) if draft else folder.mkdir(parents=True)
    try:
        with disk_errors(paths.store() / name):
            yield folder
            shutil.rmtree(folder / WORK, ignore_errors=True)
            _publish(folder, paths.store() / name)
    except BaseException as error:
        if not (draft and isinstance(error, (KeyboardInterrupt, GeneratorExit, Cancelled))):
            shutil.rmtree(folder, ignore_errors=True)
        raise


def write_manifest(folder: Path, manifest: Manifest, report: dict[str, Any] | None = None, card: str = "") -> Manifest:
    """Write report, card and manifest of a staged package; the file list is made from what lies in `folder`."""
    if report is not None:
        write_file(folder / REPORT, json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    if card:
        write_file(folder / CARD, card)
    names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    listed = [n for n in names if n not in (MANIFEST, _VERIFIED) and not n.startswith(f"{WORK}/")]
    entries = tuple(FileEntry(n, (folder / n).stat().st_size, sha256(folder / n)) for n in listed)
    complete = replace(manifest, files=entries)
    write_file(folder / MANIFEST, json.dumps(asdict(complete), indent=1, ensure_ascii=False) + "\n")
    return complete


def write_file(path: Path, content: str | bytes) -> None:
    """Replace `path` atomically: temporary file, fsync, rename."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with disk_errors(path):
        try:
            with open(temporary, "wb") as file:
                file.write(content.encode("utf-8") if isinstance(content, str) else content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def recover() -> None:
    """Undo what a killed process left: put back a package whose replacement never arrived, delete dead drafts."""
    import psutil

    root = paths.partial()
    for folder in root.glob("*~*") if root.is_dir() else ():
        name, _, state = folder.name.partition("~")
        target = paths.store() / name
        with suppress(OSError, ValueError):
            if state == "old":
                shutil.rmtree(folder) if target.exists() else folder.rename(target)
            elif state.startswith("draft."):
                drafts.forget(folder)
            elif not psutil.pid_exists(int(state.rpartition(".")[2] or 0)):
                shutil.rmtree(folder)


def _check_inside(folder: Path, name: str) -> None:
    parts = PurePosixPath(name)
    path = folder / name
    leaves = parts.is_absolute() or ".." in parts.parts or "\\" in name or ":" in name or not parts.parts
    leaves = leaves or not name.isprintable() or len(name) > _MAX_PATH  # the system would refuse it in its own words
    if leaves or path.is_symlink() or not path.resolve().is_relative_to(folder.resolve()):
        raise BadFile(folder / MANIFEST, f"file {name!r} leaves the package folder", "do not use this package")


def _check_files(package: Package, known: dict[str, list[int | str]]) -> None:
    seen: dict[str, list[int | str]] = {}
    for entry in package.manifest.files:
        path = package.path / entry.path
        if not path.is_file():
            raise BadFile(path, "the file is missing", f"pull or convert {package.name} again")
        stat = path.stat()
        if stat.st_size != entry.bytes:
            raise BadFile(
                path, f"needs {entry.bytes} bytes, has {stat.st_size}", f"pull or convert {package.name} again"
            )
        key: list[int | str] = [stat.st_size, stat.st_mtime_ns, stat.st_ino, entry.sha256]
        if known.get(entry.path) != key and sha256(path) != entry.sha256:
            raise ChecksumMismatch(
                path, "checksum differs from the manifest", f"the file is damaged: pull or convert {package.name} again"
            )
        seen[entry.path] = key
    if seen != known:
        with suppress(EdgemmError, OSError):  # a read-only store only costs the next start some time
            write_file(package.path / _VERIFIED, json.dumps(seen))


def _remembered(folder: Path) -> dict[str, list[int | str]]:
    try:
        known = json.loads((folder / _VERIFIED).read_bytes())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def scratch(name: str, state: str) -> Path:
    """The path of a free working folder for `name`, which `recover` deletes when this process has died."""
    return _scratch(name, f"{state}.{os.getpid()}")


def _scratch(name: str, state: str) -> Path:
    folder = paths.partial() / f"{name}~{state}"
    if folder.exists():
        shutil.rmtree(folder)
    paths.partial().mkdir(parents=True, exist_ok=True)
    return folder


def _publish(folder: Path, target: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            _fsync(path)
    if target.exists():
        old = _scratch(target.name, "old")
        target.rename(old)
        folder.rename(target)
        shutil.rmtree(old, ignore_errors=True)
    else:
        folder.rename(target)
    _fsync(target.parent)


def _fsync(path: Path) -> None:
    if path.is_dir() and os.name == "nt":
        return  # Windows cannot open a folder for this
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
