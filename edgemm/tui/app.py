"""The terminal chat: one window on the desk of a user, its keys, themes and clipboard.

What happens in a chat is the affair of screens/chat.py. Nothing here opens a model or a socket.
"""

import asyncio
import json
import os
import signal
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, ClassVar

from textual.app import App, SystemCommand
from textual.binding import BindingType
from textual.screen import Screen

from edgemm import commands, package, paths
from edgemm.desk import Desk
from edgemm.errors import EdgemmError
from edgemm.tui import actions, clipboard
from edgemm.tui.indexing import IndexDesk
from edgemm.tui.screens.chat import ChatScreen
from edgemm.tui.screens.chats import ChatsScreen

_PREFERENCES = "screen.json"  # {"theme": name, "keys": {binding id: key}}
_STOP_SECONDS = 2.0  # that the end waits for a run over the index


class ChatApp(App[None]):
    """`model` answers new chats; `chat` is opened at first, None for a new one."""

    TITLE = "edgemm"
    ENABLE_COMMAND_PALETTE = True
    BINDINGS: ClassVar[list[BindingType]] = []
    CSS = """
    ToastRack { margin-bottom: 4; }
    *:nocolor > .option-list--option-highlighted, *:nocolor > .completion--chosen { text-style: bold underline; }
    *:nocolor > .text-area--selection, *:nocolor > .input--selection, Screen:nocolor > .screen--selection {
        text-style: reverse;
    }
    """

    def __init__(self, desk: Desk, model: str, chat: int | None = None) -> None:
        super().__init__(ansi_color=True if "NO_COLOR" in os.environ else None)  # else Textual's no colour is grey
        self.desk, self.model, self._chat = desk, model, chat
        self.documents = IndexDesk(lambda: desk.library)
        self._preferences = _preferences()

    def on_mount(self) -> None:
        theme = self._preferences.get("theme")
        if isinstance(theme, str) and theme in self.available_themes:
            self.theme = theme
        self.theme_changed_signal.subscribe(self, lambda theme: self._keep("theme", theme.name))
        keys = self._preferences.get("keys")
        if isinstance(keys, dict):
            self.set_keymap({name: key for name, key in keys.items() if isinstance(key, str) and key.strip(", ")})
        with suppress(NotImplementedError, RuntimeError, ValueError):  # Windows, and another thread than the first
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._end)
        self.push_screen(ChatScreen(self.desk, self.model, self._chat))

    async def on_unmount(self) -> None:
        await asyncio.to_thread(self.documents.stop, _STOP_SECONDS)

    def _end(self) -> None:
        """Told to end by the system, leave as a user does: the terminal is left as it was."""
        self.run_worker(self.action_quit())

    async def action_quit(self) -> None:
        """Leave; the KV cache of the open chat is kept."""
        chat = next((screen for screen in self.screen_stack if isinstance(screen, ChatScreen)), None)
        if chat is not None:
            await chat.leave()
        self.exit()

    def on_chats_screen_export(self, message: ChatsScreen.Export) -> None:
        """Write the chat into the folder where the user is, under its title."""
        screen = self.screen
        if isinstance(screen, ChatsScreen):
            try:
                screen.tell(f"written to {commands.export_here(self.desk.sessions, message.chat)}")
            except EdgemmError as error:
                screen.tell(str(error))

    def copy_to_clipboard(self, text: str) -> None:
        """By the terminal, and by the desktop's own tool where there is one."""
        self._clipboard = text
        if self._driver is not None and (sequence := clipboard.request(text)):
            self._driver.write(sequence)
        if command := clipboard.tool():
            self.run_worker(lambda: clipboard.run(command, text), thread=True, group="clipboard")

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        """What the palette offers: what the chat can do, then what every screen can do."""
        if isinstance(screen, ChatScreen):
            yield from actions.palette(screen)
        yield from super().get_system_commands(screen)

    def _keep(self, name: str, value: Any) -> None:
        """Remember a preference. One that cannot be saved holds until the end."""
        self._preferences[name] = value
        with suppress(OSError, EdgemmError):
            path = paths.data() / _PREFERENCES
            path.parent.mkdir(parents=True, exist_ok=True)
            package.write_file(path, json.dumps(self._preferences, indent=1))


def _preferences() -> dict[str, Any]:
    """Those of the user; none where the file is missing or damaged."""
    with suppress(OSError, ValueError, RecursionError):
        found = json.loads((paths.data() / _PREFERENCES).read_text("utf-8"))
        if isinstance(found, Mapping):
            return dict(found)
    return {}
