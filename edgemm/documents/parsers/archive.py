"""Zip files as office programs write them: bounded before anything is unpacked, XML without entities.

What an archive says of its sizes is not believed: a member is read up to its limit and no further.
"""

import io
import zipfile
from xml.etree import ElementTree

from edgemm.documents.records import Unreadable

_MEMBER, _TOTAL, _MEMBERS = 64 << 20, 256 << 20, 20_000  # bytes of one, of all; how many
_RATIO = 200  # unpacked to packed, above 1 MB


class Archive:
    """Raises `Unreadable` for what is damaged, encrypted or a bomb."""

    def __init__(self, data: bytes) -> None:
        try:
            self._zip = zipfile.ZipFile(io.BytesIO(data))
        except (zipfile.BadZipFile, ValueError, OSError, EOFError) as error:
            raise Unreadable(f"damaged: {error}") from error
        infos = self._zip.infolist()
        if len(infos) > _MEMBERS or sum(info.file_size for info in infos) > _TOTAL:
            raise Unreadable(f"unpacks to more than {_TOTAL >> 20} MB")
        self.names = {info.filename for info in infos}

    def read(self, name: str) -> bytes:
        try:
            info = self._zip.getinfo(name)
            if info.flag_bits & 1:
                raise Unreadable("encrypted")
            if info.file_size > 1 << 20 and info.file_size > _RATIO * max(1, info.compress_size):
                raise Unreadable("unpacks to far more than it holds")
            with self._zip.open(info) as member:
                data = member.read(_MEMBER + 1)
        except (
            KeyError,
            zipfile.BadZipFile,
            RuntimeError,
            NotImplementedError,
            EOFError,
            OSError,
            ValueError,
        ) as error:
            raise Unreadable(f"damaged: {name[:60]} is not there or broken") from error
        except Exception as error:  # zlib.error and those of other compressions
            if isinstance(error, Unreadable):
                raise
            raise Unreadable(f"damaged: {name[:60]}") from error
        if len(data) > _MEMBER:
            raise Unreadable(f"{name[:60]} unpacks to more than {_MEMBER >> 20} MB")
        return data

    def xml(self, name: str) -> ElementTree.Element:
        return parse_xml(self.read(name))


def parse_xml(data: bytes) -> ElementTree.Element:
    """Raises `Unreadable`; entities, which can grow without bound, are never expanded."""
    if b"<!DOCTYPE" in data[:4096].upper() or b"<!ENTITY" in data.upper():
        raise Unreadable("its XML declares entities")
    try:
        return ElementTree.fromstring(data)
    except (ElementTree.ParseError, ValueError, RecursionError) as error:
        raise Unreadable(f"damaged XML: {error}") from error
