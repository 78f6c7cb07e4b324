"""Text to the clipboard of the machine that the user sits at, over ssh and tmux too.

A terminal is asked by OSC 52, wrapped for tmux and screen; where there is a tool of the desktop's own, and no ssh in
between, that is used as well, because some terminals ignore the request. It knows no widget.
"""

import base64
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping

_MOST = 74_994  # bytes of text; longer requests are dropped by many terminals
_TOOLS = (("pbcopy",), ("wl-copy",), ("xclip", "-selection", "clipboard"), ("clip.exe",), ("clip",))
_SECONDS = 2.0


def request(text: str, environment: Mapping[str, str] = os.environ) -> str:
    """What asks the terminal to take `text`; empty when it is too long to be taken."""
    raw = text.encode("utf-8", "replace")
    if len(raw) > _MOST:
        return ""
    sequence = f"\x1b]52;c;{base64.b64encode(raw).decode()}\a"
    if environment.get("TMUX"):
        return "\x1bPtmux;" + sequence.replace("\x1b", "\x1b\x1b") + "\x1b\\"
    if environment.get("TERM", "").startswith("screen"):
        return "".join(f"\x1bP{sequence[i : i + 76]}\x1b\\" for i in range(0, len(sequence), 76))
    return sequence


def tool(environment: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """The command of this desktop that takes text on stdin; empty over ssh, and where there is none."""
    if environment.get("SSH_CONNECTION") or environment.get("SSH_TTY"):
        return ()
    is_drawn = sys.platform in ("darwin", "win32") or any(environment.get(n) for n in ("DISPLAY", "WAYLAND_DISPLAY"))
    found = (each for each in _TOOLS if shutil.which(each[0]))
    return next(found, ()) if is_drawn or shutil.which("clip.exe") else ()


def run(command: tuple[str, ...], text: str) -> bool:
    """Give `text` to a command of `tool`; whether it took it."""
    encoding = "utf-16" if command[0].startswith("clip") else "utf-8"
    try:
        done = subprocess.run(
            command,
            input=text.encode(encoding, "replace"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_SECONDS,
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return done.returncode == 0
