"""The error tree is the one that is drawn, and every error is one line with its remedy."""

import errno
import re
from pathlib import Path

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


@pytest.mark.parametrize("name", sorted(set(tree()) - {"EdgemmError", "UsageError", "BadFile", "ResourceError"}))
def test_every_error_is_raised_somewhere_and_triggered_by_a_test(name: str) -> None:
    root = Path(errors.__file__).parent.parent
    source = [p for folder in ("edgemm", "converters") for p in (root / folder).rglob("*.py") if p.name != "errors.py"]
    assert any(f"{name}(" in p.read_text("utf-8") for p in source)
    sign = "130" if name == "Cancelled" else name  # Ctrl-C is seen by its exit code
    tests = [p for p in Path(__file__).parent.glob("test_*.py") if p.name != "test_errors.py"]
    assert any(re.search(rf"\b{sign}\b", p.read_text("utf-8")) for p in tests)


@pytest.mark.parametrize(
    ("number", "kind"),
    [(errno.ENOSPC, DiskFull), (errno.EFBIG, DiskFull), (errno.EACCES, BadFile), (errno.ENOENT, BadFile)],
)
def test_system_errors_become_ours(number: int, kind: type[EdgemmError]) -> None:
    with pytest.raises(kind, match="file"), disk_errors("file"):
        raise OSError(number, "text")
