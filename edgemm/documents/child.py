"""The child process that reads documents: one path in, its text out; limits are set before the first byte is read.

Parsers are native code and large libraries fed with files of strangers. Whatever becomes of this process, the parent
says so and goes on with the next file.
"""

import contextlib
import hashlib
import os
import stat
import sys
from pathlib import Path
from typing import Any

from edgemm.backends.frames import Frame, read_frame, write_frame
from edgemm.documents.kinds import Kind, of_bytes
from edgemm.documents.parsers import parser
from edgemm.documents.records import Unreadable, pack

_TEXT = 32 << 20  # characters of one document


def limit_memory(size: int) -> None:
    """Let the address space grow to `size` bytes, and write no core file.

    Windows has no such limit, and macOS takes it without heeding it: there the limits of file and time hold alone.
    """
    if sys.platform == "win32":
        return
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    with contextlib.suppress(OSError, ValueError):  # macOS may refuse it as well
        resource.setrlimit(resource.RLIMIT_AS, (min(size, hard) if hard != resource.RLIM_INFINITY else size, hard))


def answer(request: dict[str, Any]) -> Frame:
    """The document of a request, or why there is none."""
    try:
        return _document(request)
    except Unreadable as error:
        why = str(error)
    except OSError as error:
        why = (error.strerror or str(error)).lower()
    except MemoryError:
        why = "needs more memory than a document may take"
    except RecursionError:
        why = "is nested too deeply"
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # of a parser that met what it did not expect; a panic of Rust is no Exception
        why = f"damaged ({type(error).__name__})"
    return {"refused": " ".join(why.split())[:200]}, b""


def _document(request: dict[str, Any]) -> Frame:
    data = _bytes(Path(request["path"]), int(request["most"]))
    kind = of_bytes(data, Kind(request["kind"]))
    document = parser(kind)(data, request["name"])
    length = sum(len(section.text) for section in document.sections)
    if length > _TEXT:
        raise Unreadable(f"holds {length / 1e6:,.0f} M characters of text, at most {_TEXT / 1e6:,.0f} M are read")
    header, raw = pack(document)
    return {"hash": hashlib.sha256(data).hexdigest(), "kind": kind, **header}, raw


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
            header, raw = answer(request)
            write_frame(outbox, {"event": "reply", **header}, raw)


if __name__ == "__main__":
    main()
