"""One file over HTTP: resumed where it broke off, and hashed before it counts.

The partial file and the ETag that it belongs to lie side by side, so that a changed file starts over. Credentials go
to the first host alone, never to the one that it redirects to. It knows nothing of hubs or models.
"""

import http.client
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from edgemm import package
from edgemm.errors import ChecksumMismatch, Offline, UnknownModel, disk_errors
from edgemm.events import Note, Progress

_BLOCK = 1 << 20
_TIMEOUT = 30.0
_TRIES = 6
_WAIT = 0.5  # seconds before the second try, doubled before each further one
_BROKEN = (OSError, http.client.HTTPException)


@dataclass(frozen=True, slots=True)
class Remote:
    """A file to fetch: `name` below the target folder, its size in bytes, and its sha256 where one is known."""

    name: str
    url: str
    bytes: int
    sha256: str
    headers: dict[str, str]


def fetch(remote: Remote, folder: Path) -> Generator[Progress | Note, None, Path]:
    """Download `remote` into `folder` and return its path. What is there already is used.

    Raises `Offline` when the connection breaks again and again (the partial file stays), `ChecksumMismatch` when the
    bytes are not those that were announced (nothing stays).
    """
    path = folder / remote.name
    if path.is_file():
        return path
    part = path.with_name(path.name + ".part")
    with disk_errors(part):
        part.parent.mkdir(parents=True, exist_ok=True)
    if (had := _size(part)) and remote.bytes:
        yield Note(f"{remote.name}: resuming at {100 * had // remote.bytes} %")
    for attempt in range(_TRIES):
        try:
            yield from _receive(remote, part)
            break
        except urllib.error.HTTPError as error:
            _raise_final(remote, error)
            reason: Exception = error
        except _BROKEN as error:
            reason = error
        if attempt == _TRIES - 1:
            why = f"the connection broke {_TRIES} times ({reason})"
            raise Offline(remote.name, why, "run the same command again: it resumes") from reason
        time.sleep(_WAIT * 2**attempt)
    _check(remote, part)
    part.replace(path)
    _note(part).unlink(missing_ok=True)
    return path


def _receive(remote: Remote, part: Path) -> Generator[Progress, None, None]:
    """Append what is missing to `part`. Returns when the announced size has arrived, else raises."""
    have, etag = _size(part), _etag(part)
    if remote.bytes and have >= remote.bytes:
        return
    headers = {**remote.headers, "Accept-Encoding": "identity"}
    if have and etag:
        headers |= {"Range": f"bytes={have}-", "If-Range": etag}
    with _open(remote, headers) as response:
        if response.status == 206 and not _continues(response, have):
            raise http.client.HTTPException("the server sent another range than the one asked for")
        if "text/html" in response.headers.get("Content-Type", "") and not remote.name.endswith((".html", ".htm")):
            raise http.client.HTTPException("the server sent a web page instead of the file")
        if response.status == 206 and response.headers.get("ETag", etag) != etag:
            _discard(part)
            raise http.client.HTTPException("the file has changed on the server")
        if response.status != 206:  # the whole file, because it is new, has changed, or the server cannot resume
            have = 0
            part.unlink(missing_ok=True)  # before the new ETag is noted: it never belongs to old bytes
        _remember(part, response.headers.get("ETag", ""))
        with disk_errors(part), open(part, "ab" if have else "wb") as file:
            yield from _copy(remote, response, file, have)


def _copy(remote: Remote, response: Any, file: IO[bytes], have: int) -> Generator[Progress, None, None]:
    while True:
        try:
            block = response.read(_BLOCK)
        except _BROKEN as error:
            raise http.client.HTTPException(f"broken off at byte {have}") from error
        if not block:
            break
        file.write(block)
        have += len(block)
        if remote.bytes and have > remote.bytes:
            break
        yield Progress(f"download {remote.name}", have, remote.bytes, "B")
    file.flush()
    os.fsync(file.fileno())
    if remote.bytes and have < remote.bytes:
        raise http.client.HTTPException(f"broken off at byte {have} of {remote.bytes}")


def _continues(response: Any, have: int) -> bool:
    return str(response.headers.get("Content-Range", "")).startswith(f"bytes {have}-")


def _open(remote: Remote, headers: dict[str, str]) -> Any:
    opener = urllib.request.build_opener(_NoCredentialsElsewhere)
    return opener.open(urllib.request.Request(remote.url, headers=headers), timeout=_TIMEOUT)


class _NoCredentialsElsewhere(urllib.request.HTTPRedirectHandler):
    """Drops the Authorization header when a redirect leaves the host, its port or https."""

    def redirect_request(self, *arguments: Any, **options: Any) -> urllib.request.Request | None:
        request = super().redirect_request(*arguments, **options)
        before = arguments[0]
        if request is not None and urlsplit(request.full_url)[:2] != urlsplit(before.full_url)[:2]:
            request.remove_header("Authorization")
        return request


def _raise_final(remote: Remote, error: urllib.error.HTTPError) -> None:
    """Raise for an answer that will not change; return for one that may."""
    if error.code in (401, 403):
        raise UnknownModel(remote.name, f"the server refuses it ({error.code})", "set HF_TOKEN") from error
    if error.code in (404, 410):
        raise UnknownModel(remote.name, f"the server has no such file ({error.code})", "check the name") from error


def _check(remote: Remote, part: Path) -> None:
    size = _size(part)
    if remote.bytes and size != remote.bytes:
        _discard(part)
        why = f"has {size} bytes, {remote.bytes} were announced"
        raise ChecksumMismatch(remote.name, why, "run the same command again: it starts over")
    if remote.sha256 and package.sha256(part) != remote.sha256:
        _discard(part)
        why = "the sha256 is not the one that the source names"
        raise ChecksumMismatch(remote.name, why, "run the same command again: it starts over")


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    _note(part).unlink(missing_ok=True)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _note(part: Path) -> Path:
    return part.with_name(part.name + ".etag")


def _etag(part: Path) -> str:
    try:
        return str(json.loads(_note(part).read_bytes())["etag"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _remember(part: Path, etag: str) -> None:
    package.write_file(_note(part), json.dumps({"etag": etag}))
