"""Zip files as office programs write them: bounded before anything is unpacked, XML without entities.

What an archive says of its sizes is not believed: a member is read up to its limit and no further.
"""

import io
import zipfile
from xml.etree import ElementTree

from edgemm.documents.records import Unreadable

_MEMBER, _TOTAL, _MEMBERS = 64 << 20, 256 << 20, 20_000  # bytes of one, of all; how many
_RATIO = 200  # unpacked to packed, above 1 MB
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


class Archive:
    """Raises `Unreadable` for what is damaged, encrypted or a bomb."""

    def __init__(self, data: bytes) -> None:
        try:
            self._zip = zipfile.ZipFile(io.BytesIO(data))
        except (zipfile.BadZipFile, ValueError, OSError, EOFError) as error:
            raise Unreadable(f"damaged: {error}") from error
        infos = self._zip.infolist()
        if len(infos) > _MEMBERS:
            raise Unreadable(f"holds {len(infos):,} files, at most {_MEMBERS:,} are unpacked")
        if (total := sum(info.file_size for info in infos)) > _TOTAL:
            raise Unreadable(f"unpacks to {total / 1e6:,.0f} MB, at most {_TOTAL / 1e6:,.0f} MB are read")
        self.names = {info.filename for info in infos}

    def check(self) -> None:
        """For a reader of its own that will unpack every member. Raises `Unreadable`."""
        for info in self._zip.infolist():
            _check(info)

    def read(self, name: str) -> bytes:
        try:
            info = self._zip.getinfo(name)
            _check(info)
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
            raise Unreadable(f"{name[:60]} unpacks to {info.file_size / 1e6:,.0f} MB, at most {_MEMBER >> 20} are read")
        return data

    def xml(self, name: str) -> ElementTree.Element:
        return parse_xml(self.read(name))


def parse_xml(data: bytes) -> ElementTree.Element:
    """Raises `Unreadable`; entities, which can grow without bound, are never expanded."""
    try:
        # Read by its own declaration, UTF-16 would hide what is looked for here.
        source = data.decode("utf-16") if data.startswith(_UTF16) or b"\0" in data[:4] else data
        if _declares(source):
            raise Unreadable("its XML declares entities")
        return ElementTree.fromstring(source)
    except (ElementTree.ParseError, ValueError, LookupError, RecursionError) as error:
        raise Unreadable(f"damaged XML: {error}") from error


def local(element: ElementTree.Element) -> str:
    """Its name without the namespace: those of strict and of transitional Office files differ."""
    return str(element.tag).rpartition("}")[2]


def _check(info: zipfile.ZipInfo) -> None:
    if info.flag_bits & 1:
        raise Unreadable("encrypted: it asks for a password")
    if info.file_size > 1 << 20 and info.file_size > _RATIO * max(1, info.compress_size):
        size, packed = info.file_size / 1e6, info.compress_size / 1e6
        raise Unreadable(f"a ZIP bomb: {size:,.1f} MB are packed in {packed:,.3f} MB")


def _declares(source: str | bytes) -> bool:
    if isinstance(source, bytes):
        return b"<!DOCTYPE" in source or b"<!ENTITY" in source
    return "<!DOCTYPE" in source or "<!ENTITY" in source
