"""What native code prints while a screen is drawn: it goes to a log, and the terminal is as it was afterwards."""

import os
import sys
from pathlib import Path

import pytest

from edgemm import paths
from edgemm.tui import stderr_guard
from edgemm.tui.stderr_guard import guarded

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="screens are drawn through another handle there")


def test_native_prints_go_to_a_log_while_a_screen_is_drawn(capfd: pytest.CaptureFixture[str]) -> None:
    raw, text = sys.__stderr__, sys.stderr
    with guarded() as log:
        os.write(2, b"ggml: hello\n")
        assert sys.__stderr__ is not None
        sys.__stderr__.write("drawn\n")
    assert sys.__stderr__ is raw
    assert sys.stderr is text
    assert log.read_text() == "ggml: hello\n"
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "drawn\nafter\n"


def test_an_error_on_the_screen_leaves_the_terminal_as_it_was(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="boom"), guarded():
        raise ValueError("boom")
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "after\n"


def test_no_descriptor_is_left_open() -> None:
    before = len(list(Path("/dev/fd").iterdir()))
    for _ in range(5):
        with guarded():
            pass
    assert len(list(Path("/dev/fd").iterdir())) == before


def test_a_log_goes_on_and_begins_again_when_it_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stderr_guard, "_MOST", 10)
    for text in (b"first ", b"second ", b"third"):
        with guarded() as log:
            os.write(2, text)
    assert log.read_text() == "third"
    assert log.stat().st_mode & 0o077 == 0, "others of the machine do not read it"


@pytest.mark.parametrize("hinder", ["folder", "file"])
def test_without_a_log_prints_are_lost_and_the_screen_stays(hinder: str, capfd: pytest.CaptureFixture[str]) -> None:
    cache = paths.cache()
    if hinder == "folder":
        (cache / "stderr.log").mkdir(parents=True)
    else:
        cache.parent.mkdir(parents=True)
        cache.touch()
    with guarded():
        os.write(2, b"ggml: hello\n")
    assert capfd.readouterr().err == ""


def test_the_log_is_where_the_user_looks_for_it(home: Path) -> None:
    with guarded() as log:
        pass
    assert log.is_relative_to(home)
