"""Copying: what is asked of the terminal, and which tool of the desktop is used."""

import base64
import sys
import time
from pathlib import Path

import pytest

from edgemm.tui import clipboard


def carried(sequence: str) -> str:
    return base64.b64decode(sequence.split("52;c;")[1].split("\a")[0]).decode()


def test_the_terminal_is_asked_by_osc_52() -> None:
    sequence = clipboard.request("häl\x1blo", {})
    assert sequence.startswith("\x1b]52;c;")
    assert sequence.endswith("\a")
    assert carried(sequence) == "häl\x1blo"


def test_tmux_and_screen_pass_the_request_on() -> None:
    wrapped = clipboard.request("text", {"TMUX": "/tmp/x", "TERM": "screen-256color"})
    assert wrapped.startswith("\x1bPtmux;\x1b\x1b]52;c;")
    assert wrapped.endswith("\a\x1b\\")
    assert carried(wrapped) == "text"
    long = clipboard.request("x" * 300, {"TERM": "screen"})
    assert all(len(part) <= 80 for part in long.split("\x1b\\"))
    assert carried(long.replace("\x1b\\", "").replace("\x1bP", "")) == "x" * 300


def test_a_text_that_no_terminal_would_take_is_not_sent() -> None:
    assert clipboard.request("x" * 100_000, {}) == ""


def test_over_ssh_no_tool_of_this_machine_is_used() -> None:
    assert clipboard.tool({"SSH_CONNECTION": "1 2 3 4", "DISPLAY": ":0"}) == ()


def test_a_tool_that_fails_is_no_error() -> None:
    assert not clipboard.run(("no-such-tool-anywhere",), "x")
    assert not clipboard.run((sys.executable, "-c", "import sys; sys.exit(3)"), "x")
    assert clipboard.run((sys.executable, "-c", "import sys; assert sys.stdin.read() == 'x'"), "x")


def test_a_lone_surrogate_is_copied_as_a_question_mark() -> None:
    assert carried(clipboard.request("a\ud800b", {})) == "a?b"


@pytest.mark.parametrize(
    ("here", "environment", "expected"),
    [
        (("xclip",), {"DISPLAY": ":0"}, "xclip"),
        (("wl-copy", "xclip"), {"WAYLAND_DISPLAY": "w"}, "wl-copy"),
        (("xclip",), {}, ""),
        (("clip.exe",), {}, "clip.exe"),
        ((), {"DISPLAY": ":0"}, ""),
        (("xclip",), {"DISPLAY": ":0", "SSH_TTY": "/dev/pts/1"}, ""),
    ],
)
def test_the_tool_of_this_desktop_is_found(
    here: tuple[str, ...], environment: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in here:
        (tmp_path / name).touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "platform", "linux")
    assert "".join(clipboard.tool(environment)[:1]) == expected


def test_a_tool_that_hangs_is_left() -> None:
    started = time.monotonic()
    assert not clipboard.run((sys.executable, "-c", "import time; time.sleep(60)"), "x")
    assert time.monotonic() - started < 10
