"""The KV cache of a conversation as a file: a cache that may be lost at any time, and is never trusted.

    magic, 16 bytes | sha256 of all that follows, 32 bytes | length of the header, little-endian uint32
    header, JSON {"identity", "tokens"} | llama.cpp's bytes of the sequence

llama.cpp restores most damaged bytes without a word, so that nothing reaches it before the hash is right. The identity
names everything that the bytes depend on but the tokens. It knows no model and no chat.
"""

import contextlib
import hashlib
import json
import struct
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgemm.errors import disk_errors

FORMAT = 1
SUFFIX, PARTIAL = ".kv", ".part"
_MAGIC = b"edgemm KV cache\n"
_HEADER = struct.Struct("<I")
_START = len(_MAGIC) + hashlib.sha256().digest_size + _HEADER.size


def identity(*facts: object) -> str:
    """sha256 over all that the bytes depend on, this format included."""
    return hashlib.sha256(json.dumps([FORMAT, *map(str, facts)]).encode()).hexdigest()


def write(path: Path, identity: str, tokens: Sequence[int], blob: NDArray[np.uint8]) -> int:
    """Write the file, whole or not at all, readable by its owner alone; how many bytes it has.

    It is not forced to the disk: a file that a power cut damaged is found out by its hash.
    """
    header = json.dumps({"identity": identity, "tokens": list(tokens)}).encode()
    head = _HEADER.pack(len(header)) + header
    digest = hashlib.sha256(head)
    digest.update(blob.data)
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(PARTIAL, path.stem, path.parent)
        try:
            with open(handle, "wb") as file:
                file.write(_MAGIC + digest.digest() + head)
                file.write(blob.data)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    return _START + len(header) + blob.nbytes


def read(path: Path, identity: str) -> tuple[list[int], NDArray[np.uint8]] | None:
    """The tokens and the bytes of a file that `write` wrote for this `identity`; None: it is not that."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, RecursionError, struct.error):
        size = path.stat().st_size
        with open(path, "rb") as file:
            start = file.read(_START)
            (length,) = _HEADER.unpack(start[-_HEADER.size :])
            if len(start) < _START or not start.startswith(_MAGIC) or _START + length > size:
                return None
            raw = file.read(length)
            header = json.loads(raw)
            if header["identity"] != identity:
                return None
            blob = np.fromfile(file, np.uint8)
        digest = hashlib.sha256(start[-_HEADER.size :] + raw)
        digest.update(blob.data)
        if digest.digest() == start[len(_MAGIC) : -_HEADER.size]:
            return header["tokens"], blob
    return None
