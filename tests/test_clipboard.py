"""Copying: what is asked of the terminal, and which tool of the desktop is used."""

import base64
import sys

import pytest

from edgemm.tui import clipboard
from edgemm.tui.stderr_guard import guarded


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


@pytest.mark.skipif(sys.platform == "win32", reason="screens are drawn through another handle there")
def test_native_prints_go_to_a_log_while_a_screen_is_drawn(capfd: pytest.CaptureFixture[str]) -> None:
    import os

    raw = sys.__stderr__
    with guarded() as log:
        os.write(2, b"ggml: hello\n")
        assert sys.__stderr__ is not None
        sys.__stderr__.write("drawn\n")
    assert sys.__stderr__ is raw
    assert log.read_text() == "ggml: hello\n"
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "drawn\nafter\n"
