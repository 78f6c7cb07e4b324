"""Folders of small documents, and stand-ins for models: a text is its bag of words, a picture is its mean colour."""

import os
import re
import sys
import tempfile
import zlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemm.errors import BadFile, UnknownModel
from edgemm.image import from_pixels
from edgemm.index import Medium, Pending, Root, Store
from edgemm.ingest import Encoder, Report, update
from edgemm.library import Engine

DIMENSIONS = 48
COLOURS = {"red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1)}
_OLD = 1_600_000_000  # seconds: long ago, so that a file is not read again for being young
_WORD = re.compile(r"\w+")


@cache
def _direction(word: str) -> NDArray[np.float32]:
    return np.random.default_rng(zlib.crc32(word.lower().encode())).standard_normal(DIMENSIONS).astype(np.float32)


def vector(text: str) -> NDArray[np.float32]:
    """float32 (48,), of length 1: texts that share words are near each other."""
    found = sum((_direction(word) for word in _WORD.findall(text)), np.full(DIMENSIONS, 0.01, np.float32))
    return found / np.linalg.norm(found)


def word_spans(texts: Sequence[str]) -> list[list[tuple[int, int]]]:
    return [[match.span() for match in re.finditer(r"\S+", text)] for text in texts]


class Bag:
    """What embeds texts, and remembers which. `broken`: texts with that word have no vector."""

    def __init__(self, name: str = "bag", fingerprint: str = "f1", broken: str = "\0") -> None:
        self.name, self.fingerprint, self.broken = name, fingerprint, broken
        self.embedded: list[str] = []

    def encoder(self) -> Encoder:
        return Encoder(
            *(self.name, self.fingerprint, DIMENSIONS, Medium.TEXT, self.embed),
            tokens=lambda: sum(len(text.split()) for text in self.embedded),
            count=word_spans,
            window=40,
        )

    def embed(self, some: Sequence[Pending]) -> NDArray[np.float32]:
        if damaged := [each for each in some if self.broken in each.text]:
            raise BadFile(damaged[0].path, "has no vector", "give another")
        self.embedded += [each.text for each in some]
        return np.stack([vector(each.text) for each in some])


class Colours:
    """What embeds pictures, and "red", "green" and "blue" in texts, into one space."""

    def __init__(self, name: str = "colours") -> None:
        self.name = name
        self.embedded: list[Path] = []

    def encoder(self) -> Encoder:
        return Encoder(self.name, "f1", 3, Medium.PICTURE, self.embed)

    def embed(self, some: Sequence[Pending]) -> NDArray[np.float32]:
        found = np.stack([self.of_picture(each.path) for each in some])
        self.embedded += [each.path for each in some]
        return found

    def of_picture(self, path: Path) -> NDArray[np.float32]:
        from PIL import Image

        try:
            pixels = np.asarray(Image.open(path), np.float32)
        except OSError as error:
            raise BadFile(path, "is no picture", "give another") from error
        mean = pixels.mean(axis=(0, 1))
        return np.asarray(mean / max(float(np.linalg.norm(mean)), 1e-9), np.float32)

    def of_text(self, text: str) -> NDArray[np.float32]:
        found = np.sum([COLOURS.get(word, (0, 0, 0)) for word in text.split()] + [(0.01,) * 3], axis=0)
        return np.asarray(found / np.linalg.norm(found), np.float32)


class Models:
    """An opener for `Index`: the models by name; others are not on this machine."""

    def __init__(self, *models: Bag | Colours) -> None:
        self.models = {model.name: model for model in models}
        self.opened: list[str] = []
        self.closed: list[str] = []

    def __call__(self, name: str, medium: Medium) -> Engine:
        if name not in self.models:
            raise UnknownModel(name, "is not on this machine yet", "pull it")
        model = self.models[name]
        self.opened.append(name)

        def close() -> None:
            self.closed.append(name)

        if isinstance(model, Bag):
            return Engine(model.encoder(), vector, None, close)
        return Engine(model.encoder(), model.of_text, model.of_picture, close)


@cache
def is_almighty() -> bool:
    """Whether rights mean nothing to this user, or to this system."""
    if sys.platform == "win32":
        return True
    with tempfile.NamedTemporaryFile() as file:
        os.chmod(file.name, 0)  # noqa: PTH101
        return os.access(file.name, os.R_OK)


def write(folder: Path, files: dict[str, str | bytes], age: float = 0) -> Path:
    """Files of long ago; `age` in seconds makes them older or, below 0, younger."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        os.utime(path, (_OLD - age, _OLD - age))
    return folder


def picture(path: Path, colour: str, taken: str = "", size: int = 8) -> Path:
    """A picture of one colour, of long ago; `taken` as EXIF has it: "2021:05:01 10:00:00"."""
    from PIL import Image

    shape = (size, size, 3)
    made = from_pixels((np.full(shape, COLOURS[colour], np.float32) * 255).astype(np.uint8))
    exif = Image.Exif()
    if taken:
        exif[0x0131] = "edgemm"  # what is empty but for its folders is not written
        exif.get_ifd(0x8769)[0x9003] = taken
    path.parent.mkdir(parents=True, exist_ok=True)
    made.save(path, exif=exif)
    os.utime(path, (_OLD, _OLD))
    return path


def run(store: Store, roots: Root | Sequence[Root], *models: Bag | Colours, **more: Any) -> Report:
    """Bring roots up to date."""
    chosen = [roots] if isinstance(roots, Root) else roots
    *_, report = update(store, chosen, [model.encoder() for model in models], **more)
    assert isinstance(report, Report)
    return report


def found_names(store: Store, query: str) -> set[str]:
    return {chunk.name for chunk in store.chunks(id for id, _ in store.words(query, limit=1000))}
