"""The error tree is the one that is drawn, and every error is one line with its remedy."""

import errno
import re

import pytest

from edgemm import errors
from edgemm.errors import BadFile, DiskFull, EdgemmError, disk_errors


def tree() -> dict[str, type[EdgemmError]]:
    return {n: c for n, c in vars(errors).items() if isinstance(c, type) and issubclass(c, EdgemmError)}


def test_the_drawing_is_the_tree() -> None:
    drawn = re.findall(r"^ +[│├└─ ]*(\w+)( +\d+)?", (errors.__doc__ or "").split("exit code")[1], re.MULTILINE)
    names = ["EdgemmError", *(name for name, _ in drawn if name in tree())]
    assert set(names) == set(tree())
    for name, code in drawn:
        if name in tree() and code.strip():
            assert tree()[name].exit_code == int(code)


@pytest.mark.parametrize("kind", tree().values(), ids=lambda k: k.__name__)
def test_every_error_is_one_line(kind: type[EdgemmError]) -> None:
    error = kind("a\nthing", "went\n\twrong", "do\nthis")
    assert str(error) == "a thing: went wrong — do this"
    assert error.exit_code in (1, 2, 3, 4, 130)


@pytest.mark.parametrize(
    ("number", "kind"),
    [(errno.ENOSPC, DiskFull), (errno.EFBIG, DiskFull), (errno.EACCES, BadFile), (errno.ENOENT, BadFile)],
)
def test_system_errors_become_ours(number: int, kind: type[EdgemmError]) -> None:
    with pytest.raises(kind, match="file"), disk_errors("file"):
        raise OSError(number, "text")
