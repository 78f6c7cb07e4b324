"""Pictures: no text, but when they were taken (EXIF 2.32, DateTimeOriginal)."""

from edgemm.documents.records import Document, Unreadable
from edgemm.errors import EdgemmError
from edgemm.image import taken_at


def picture(data: bytes, name: str) -> Document:
    try:
        taken = taken_at(data)
    except EdgemmError as error:
        raise Unreadable(error.why) from error
    return Document(name.rsplit("/", 1)[-1], (), taken=taken)
