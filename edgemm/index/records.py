"""What an index holds: plain frozen records, and how names and places are kept in a database.

It knows no database and no parser: files and passages are what the caller says they are.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

Place = Mapping[str, int | str]
"""Where a passage stands in its file, such as {"page": 3} or {"line": 10, "end_line": 24}."""

_HASH_BYTES = 16


class Medium(StrEnum):
    """What is embedded: each medium has models of its own."""

    TEXT = "text"
    PICTURE = "picture"


class FileState(StrEnum):
    READ = "read"
    REFUSED = "refused"


class ModelState(StrEnum):
    BUILDING = "building"  # vectors are being added; what it replaces still serves
    READY = "ready"


@dataclass(frozen=True, slots=True)
class Root:
    """An indexed folder; `added` in seconds since 1970."""

    id: int
    path: Path
    added: float


@dataclass(frozen=True, slots=True)
class FileFacts:
    """One file of a root. `name` is relative to it, with slashes; `hash` is of its bytes.

    `parser`: the version of what read it. `taken`: when a picture was taken, ISO 8601, or "". `why` it was refused.
    """

    name: str
    size: int
    mtime_ns: int
    hash: str
    kind: str
    state: FileState = FileState.READ
    why: str = ""
    title: str = ""
    taken: str = ""
    parser: int = 0


class Known(NamedTuple):
    """What a re-scan compares with a file on disk before it reads any of it."""

    size: int
    mtime_ns: int
    hash: str
    parser: int


@dataclass(frozen=True, slots=True)
class Passage:
    """A part of a file, to be stored: characters `start` to `end` of what the parser gave at `place`.

    `prefix`, such as title and headings, is embedded before the text and shown nowhere. A picture has no text.
    """

    text: str
    heading: tuple[str, ...] = ()
    place: Place = field(default_factory=dict)
    start: int = 0
    end: int = 0
    prefix: str = ""
    medium: Medium = Medium.TEXT

    def embedded_text(self) -> str:
        return embedded_text(self.prefix, self.text)


@dataclass(frozen=True, slots=True)
class Chunk:
    """A stored passage, and the file that it is from. Ids of one file follow each other."""

    id: int
    root: Path
    name: str
    kind: str
    title: str
    taken: str
    order: int  # among the passages of its file, from 0
    text: str
    heading: tuple[str, ...]
    place: Place
    start: int
    end: int
    medium: Medium
    hash: str  # of the file's bytes
    mtime_ns: int

    @property
    def path(self) -> Path:
        return self.root / self.name


@dataclass(frozen=True, slots=True)
class Model:
    """One that vectors come from. `fingerprint` changes when the vectors of a text would."""

    id: int
    name: str
    fingerprint: str
    dimensions: int
    medium: Medium
    state: ModelState


@dataclass(frozen=True, slots=True)
class Pending:
    """What has no vector yet: `text` to embed, or the picture at `path`. `id` is that of the content."""

    id: int
    hash: bytes
    text: str
    path: Path


@dataclass(frozen=True, slots=True)
class Scope:
    """Which chunks a search may find. Empty fields do not narrow it.

    `folders`: absolute ones, of which one must hold the file, or files. `names`: patterns of fnmatch, of which one must
    fit the file's name below its root; "*" crosses slashes. `since` and `until` in seconds since 1970: when a picture
    was taken, if that is known, else when the file was written.
    """

    roots: tuple[int, ...] = ()
    folders: tuple[Path, ...] = ()
    names: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    since: float = -math.inf
    until: float = math.inf


@dataclass(frozen=True, slots=True)
class RootStatus:
    """`size` of the files in bytes; `pending` chunks without a vector of the newest model; `refused`: (name, why)."""

    root: Root
    files: int
    chunks: int
    size: int
    pending: int
    refused: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class ModelStatus:
    model: Model
    vectors: int
    pending: int


@dataclass(frozen=True, slots=True)
class Status:
    """`size` of the index itself in bytes."""

    roots: tuple[RootStatus, ...]
    models: tuple[ModelStatus, ...]
    size: int


def embedded_text(prefix: str, text: str) -> str:
    return f"{prefix}\n{text}" if prefix else text


def text_hash(text: str) -> bytes:
    """The key of an embedded text."""
    return _hash(Medium.TEXT, text)


def picture_hash(file_hash: str) -> bytes:
    """The key of a picture: the same bytes have the same, wherever they lie."""
    return _hash(Medium.PICTURE, file_hash)


def _hash(medium: Medium, value: str) -> bytes:
    return hashlib.blake2b(f"{medium}\0{value}".encode(), digest_size=_HASH_BYTES).digest()


def pack_name(name: str) -> str | bytes:
    """As SQLite can hold it: a name that is no valid Unicode is kept as bytes."""
    try:
        name.encode()
        return name
    except UnicodeEncodeError:
        return name.encode("utf-8", "surrogatepass")


def unpack_name(stored: str | bytes) -> str:
    return stored if isinstance(stored, str) else stored.decode("utf-8", "surrogatepass")


def pack_json(value: object) -> str:
    """In ASCII, so that a heading or sheet with lone surrogates can be kept as well."""
    return json.dumps(value, separators=(",", ":"))


def pack_place(place: Place) -> str:
    return pack_json({key: value for key, value in place.items() if value})
