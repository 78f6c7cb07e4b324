"""What goes over the pipe between a worker and its child: JSON, with raw array bytes behind it; nothing is pickled.

A frame is two little-endian uint32 (length of the JSON, length of the bytes), the JSON and the bytes.
"""

import json
import struct
from typing import IO, Any

_MAX_FRAME = 1 << 30
Frame = tuple[dict[str, Any], bytes]


def write_frame(stream: IO[bytes], message: dict[str, Any], raw: bytes = b"") -> None:
    body = json.dumps(message, ensure_ascii=True).encode()
    stream.write(struct.pack("<II", len(body), len(raw)) + body + raw)
    stream.flush()


def read_frame(stream: IO[bytes]) -> Frame | None:
    """The next frame, or None at the end of the stream. Raises `ValueError` for a frame that is none."""
    head = stream.read(8)
    if len(head) < 8:
        return None
    sizes = struct.unpack("<II", head)
    if max(sizes) > _MAX_FRAME:
        raise ValueError("frame too large")
    body, raw = stream.read(sizes[0]), stream.read(sizes[1])
    if (len(body), len(raw)) != sizes:  # the other end died while it wrote
        return None
    return json.loads(body), raw
