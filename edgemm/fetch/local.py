"""Putting files that are already on this disk into the store: as a checkpoint, or as a package around a GGUF.

Files are copied, never moved, into a hidden folder that one rename publishes.
"""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgemm import __version__, guard, package, paths
from edgemm.errors import BadFile, ChecksumMismatch, DiskFull, Unsupported, disk_errors
from edgemm.events import Note, Progress
from edgemm.guard.gguf import ENCODERS
from edgemm.manifest import ChatFormat, MadeBy, Manifest, Quantization, Source
from edgemm.package import Package

SOURCE = "source.json"
_CHECKPOINT_FILES = ("*.json", "*.safetensors", "*.txt", "*.md", "*.model", "*/config.json", "LICENSE*")


def add(path: Path) -> Iterator[Progress | Note | Package | Path]:
    """Copy a checkpoint folder, a package folder or a .gguf file into the store."""
    name = paths.check_name(path.resolve().stem if path.is_file() else path.resolve().name)
    if path.is_file():
        if path.suffix.lower() != ".gguf":
            raise Unsupported(path, "is not a .gguf file", "give a .gguf file, or a checkpoint folder")
        yield gguf_package(path, name.lower(), str(path.name), "", "")
    elif (path / package.MANIFEST).is_file():
        yield _copy_package(path)
    else:
        yield _copy_checkpoint(path, name)


def gguf_package(path: Path, name: str, source: str, revision: str, licence: str) -> Package:
    """A package around a copy of the GGUF file `path`, after the guard has seen it."""
    header = guard.check_gguf(path)
    if header.architecture in ENCODERS:
        raise Unsupported(path, "is an embedding model", "convert its checkpoint, so that it is verified")
    with package.staged(name) as folder:
        with disk_errors(folder):
            shutil.copyfile(path, folder / path.name)
        if header.chat_template:
            package.write_file(folder / package.TEMPLATE, header.chat_template)
        manifest = Manifest(
            name=name,
            task="chat",
            architecture=header.architecture,
            source=Source(source, revision, licence or str(header.metadata.get("general.license", ""))),
            quantization=Quantization("as-published", round(header.bits_per_weight, 3), "as in the published file"),
            made_by=MadeBy(__version__, "edgemm pull"),
            chat=ChatFormat(header.context_length),
        )
        written = package.write_manifest(folder, manifest)
    return Package(paths.store() / name, written)


@contextmanager
def incoming_checkpoint(name: str) -> Iterator[Path]:
    """A folder to fill; on a clean exit it becomes the checkpoint `name`."""
    with scratch_folder(name) as folder:
        yield folder
        target = paths.checkpoints() / paths.check_name(name)
        with disk_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.exists():
                shutil.rmtree(target)
            folder.rename(target)


@contextmanager
def scratch_folder(name: str) -> Iterator[Path]:
    """A folder for files on their way into the store, deleted at the end in any case."""
    folder = package.scratch(paths.check_name(name), "incoming")
    with disk_errors(folder):
        folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def note_source(folder: Path, identity: str, revision: str, licence: str) -> None:
    """Leave source.json beside a checkpoint: for the manifest of what is made from it, and to notice damage."""
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    hashes = {p.relative_to(folder).as_posix(): package.sha256(p) for p in files}
    content = {"id": identity, "revision": revision, "licence": licence, "sha256": hashes}
    package.write_file(folder / SOURCE, json.dumps(content, indent=1) + "\n")


def held(name: str) -> tuple[Package | Path | None, str]:
    """The package or checkpoint that the store holds as `name`, and its source's id. Raises `BadFile` if damaged."""
    folder, waiting = paths.store() / name, paths.checkpoints() / name
    if (folder / package.MANIFEST).is_file():
        found = package.open_package(folder)
        return found, found.manifest.source.id
    if not waiting.is_dir():
        return None, ""
    hashes = _noted(waiting).get("sha256")
    for file, digest in hashes.items() if isinstance(hashes, dict) else ():
        if not (waiting / file).is_file() or package.sha256(waiting / file) != digest:
            raise ChecksumMismatch(waiting / file, "is not as it was downloaded", f"run `edgemm pull {name}`")
    return waiting, origin(waiting)


def origin(checkpoint: Path) -> str:
    """The id of the source that a checkpoint came from; empty when nothing was noted."""
    return str(_noted(checkpoint).get("id", ""))


def existing(name: str) -> Path | None:
    """`name` as a path of this machine, or None; a text that the system cannot take for a path is none."""
    try:
        path = Path(name).expanduser()
        return path if name and path.exists() else None
    except (OSError, RuntimeError, ValueError):  # too long, a home of nobody, a NUL
        return None


def check_room(needed: int) -> None:
    """Raise `DiskFull` when the store has not `needed` free bytes. A download is held twice for a moment."""
    paths.store().mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(paths.store()).free
    if needed > free:
        why = f"the download needs {needed / 1e9:.2f} GB, {free / 1e9:.2f} GB are free"
        raise DiskFull(paths.store(), why, "free some space, or set EDGEMM_HOME")


def size(folder: Path) -> int:
    """Bytes of the files below `folder`, which need not exist."""
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) if folder.is_dir() else 0


def _noted(checkpoint: Path) -> dict[str, Any]:
    try:
        content = json.loads((checkpoint / SOURCE).read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _copy_package(path: Path) -> Package:
    source = package.open_package(path)
    with package.staged(source.name) as folder:
        for entry in source.manifest.files:
            target = folder / entry.path
            with disk_errors(target):
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path / entry.path, target)
        shutil.copyfile(path / package.MANIFEST, folder / package.MANIFEST)
        copied = package.read_package(folder)
        package.verify(copied)
    return Package(paths.store() / source.name, copied.manifest)


def _copy_checkpoint(path: Path, name: str) -> Path:
    if not (path / "config.json").is_file():
        raise BadFile(path, "holds neither config.json nor manifest.json", "give the folder of a checkpoint or package")
    with incoming_checkpoint(name) as folder:
        for source in sorted({p for pattern in _CHECKPOINT_FILES for p in path.glob(pattern) if p.is_file()}):
            target = folder / source.relative_to(path)
            with disk_errors(target):
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, target)
        if not (folder / SOURCE).is_file():
            note_source(folder, name, "", "")
    return paths.checkpoints() / name


def discard(folder: Path) -> None:
    """Delete a folder of partial downloads that is no longer needed."""
    shutil.rmtree(folder, ignore_errors=True)
