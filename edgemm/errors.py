"""Every error that edgemm raises on purpose: what, why, what to do, on one line.

    EdgemmError                 exit code
    ├── UsageError              2    the command or the call was wrong
    │   ├── UnknownModel             no such model; the nearest names are given
    │   ├── BadName                  a model name that could leave the store
    │   └── PromptTooLong            more tokens than the context holds
    ├── BadFile                 3    an input file is missing, damaged or hostile
    │   ├── ChecksumMismatch         the bytes are not those that the manifest or the source names
    │   ├── Unsupported              a valid file of a kind that edgemm cannot convert or run
    │   └── BelowFloor               converted, but too different from the checkpoint
    ├── ResourceError           4    this machine cannot do it now
    │   ├── NotEnoughMemory
    │   ├── DiskFull
    │   ├── Offline                  a download was needed, and there is no network or it is switched off
    │   ├── MissingExtra             an optional package is not installed
    │   └── ModelStopped             the child process that ran the model died
    └── Cancelled             130    Ctrl-C

This module knows no file format, no model and no terminal.
"""

import errno
from collections.abc import Iterator
from contextlib import contextmanager


class EdgemmError(Exception):
    """One line: `<what>: <why> — <what to do>`. `exit_code` is what the command line returns."""

    exit_code = 1

    def __init__(self, what: object, why: str, fix: str) -> None:
        self.what, self.why, self.fix = str(what), why, fix
        super().__init__(" ".join(f"{what}: {why} — {fix}".split()))


class UsageError(EdgemmError):
    exit_code = 2


class UnknownModel(UsageError):
    pass


class BadName(UsageError):
    pass


class PromptTooLong(UsageError):
    pass


class BadFile(EdgemmError):
    exit_code = 3


class ChecksumMismatch(BadFile):
    pass


class Unsupported(BadFile):
    pass


class BelowFloor(BadFile):
    pass


class ResourceError(EdgemmError):
    exit_code = 4


class NotEnoughMemory(ResourceError):
    pass


class DiskFull(ResourceError):
    pass


class Offline(ResourceError):
    pass


class MissingExtra(ResourceError):
    pass


class ModelStopped(ResourceError):
    pass


class Cancelled(EdgemmError):
    exit_code = 130


@contextmanager
def disk_errors(path: object) -> Iterator[None]:
    """Turn the operating system's write errors at `path` into a `DiskFull` or a `BadFile`."""
    try:
        yield
    except OSError as error:
        short_write = error.errno is None and "written" in str(error)  # numpy's own words, without a number
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) or short_write:
            raise DiskFull(path, "the disk is full", "free some space and run the command again") from error
        raise BadFile(path, error.strerror or str(error), "check the path and its permissions") from error
