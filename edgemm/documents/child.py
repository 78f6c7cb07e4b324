"""The child process that reads documents: one path in, its text out; limits are set before the first byte is read.

Parsers are native code and large libraries fed with files of strangers. Whatever becomes of this process, the parent
says so and goes on with the next file.
"""

import hashlib
import os
import stat
import sys
from pathlib import Path
from typing import Any

from edgemm.backends.frames import read_frame, write_frame
from edgemm.documents.kinds import Kind, of_bytes
from edgemm.documents.parsers import parser
from edgemm.documents.records import Unreadable, to_json

_TEXT = 32 << 20  # characters of one document


def limit_memory(size: int) -> None:
    """Let the address space grow to `size` bytes (not on Windows, where no such limit is set)."""
    if sys.platform == "win32":
        return
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (min(size, hard) if hard != resource.RLIM_INFINITY else size, hard))


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """The document of a request, or why there is none."""
    try:
        data = _bytes(Path(request["path"]), int(request["most"]))
        kind = of_bytes(data[:16], Kind(request["kind"]))
        document = parser(kind)(data, request["name"])
        if sum(len(section.text) for section in document.sections) > _TEXT:
            raise Unreadable(f"holds more than {_TEXT >> 20} M characters of text")
        return {"hash": hashlib.sha256(data).hexdigest(), "document": to_json(document)}
    except Unreadable as error:
        return {"refused": str(error)}
    except OSError as error:
        return {"refused": (error.strerror or str(error)).lower()}
    except MemoryError:
        return {"refused": "needs more memory than a document may take"}
    except RecursionError:
        return {"refused": "is nested too deeply"}
    except Exception as error:  # of a parser that met what it did not expect
        return {"refused": f"damaged ({type(error).__name__})"}


def _bytes(path: Path, most: int) -> bytes:
    flags = os.O_RDONLY | sum(getattr(os, name, 0) for name in ("O_NONBLOCK", "O_NOFOLLOW", "O_BINARY", "O_CLOEXEC"))
    with open(os.open(path, flags), "rb") as file:
        before = os.fstat(file.fileno())
        if not stat.S_ISREG(before.st_mode):
            raise Unreadable("is no regular file")
        if before.st_size > most:
            raise Unreadable(f"has {before.st_size / 1e6:,.0f} MB, at most {most / 1e6:,.0f} MB are read")
        if not before.st_size:
            raise Unreadable("is empty")
        data = file.read(most + 1)
        after = os.fstat(file.fileno())
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns) or len(data) != after.st_size:
        raise Unreadable("changed while it was read")
    return data


def main() -> None:
    outbox = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever native code prints, the pipe is for frames alone
    inbox = sys.stdin.buffer
    while (frame := read_frame(inbox)) is not None:
        request = frame[0]
        if request["op"] == "limit":
            limit_memory(int(request["memory"]))
        else:
            write_frame(outbox, {"event": "reply", **answer(request)})


if __name__ == "__main__":
    main()
