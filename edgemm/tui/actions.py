"""What can be done in a chat, each with its key: rows that the bindings, the palette and the slash commands share.

Each is a function of the chat screen; those that ask something first open a screen of their own.
"""

import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from textual.app import SystemCommand
from textual.binding import Binding

from edgemm import commands, personas
from edgemm.answer import Events, token_rows
from edgemm.backends import Sampling
from edgemm.chat_settings import ChatSettings, Policy
from edgemm.context import Plan
from edgemm.conversation import Conversation
from edgemm.errors import EdgemmError, UsageError
from edgemm.sessions import Turn
from edgemm.tui import shelf

if TYPE_CHECKING:
    from edgemm.tui.draft import Draft
    from edgemm.tui.screens.chat import ChatScreen

_TWICE = 2.0  # seconds between two presses of Ctrl+C that mean to leave
Run = Callable[["ChatScreen"], None]


@dataclass(frozen=True, slots=True)
class Row:
    """`run` raises nothing: what stands in the way is told on the screen."""

    name: str
    key: str
    help: str
    run: Run

    @property
    def comes_first(self) -> bool:
        """The editor has a use for some of these keys; here they are the chat's. Its own Ctrl+C copies."""
        return self.key != "ctrl+c"


def by_name(name: str) -> Row:
    return next(row for row in ROWS if row.name == name)


def _told(action: Run) -> Run:
    """`action`, with its errors told on the screen."""

    def run(screen: "ChatScreen") -> None:
        try:
            action(screen)
        except EdgemmError as error:
            screen.tell(str(error))

    return run


def _asking(action: Callable[["ChatScreen"], Coroutine[Any, Any, None]]) -> Run:
    """An action that waits for the end of another screen."""

    async def run(screen: "ChatScreen") -> None:
        try:
            await action(screen)
        except EdgemmError as error:
            screen.tell(str(error))

    return lambda screen: void(screen.run_worker(run(screen), group="ask", exclusive=True))


def void(_: object) -> None:
    """Take what is not needed."""


def conversation(screen: "ChatScreen") -> Conversation:
    """The conversation, when nothing else is being done. Raises `UsageError`."""
    free(screen)
    if screen.conversation is None:
        raise UsageError("this chat", "its model is not loaded", "choose one with F3")
    return screen.conversation


def free(screen: "ChatScreen") -> None:
    if screen.busy:
        raise UsageError("this chat", "the model is at work", "wait, or stop it with Esc")


def chosen(screen: "ChatScreen", role: str = "") -> Turn:
    """The chosen message, else the last one of that role. Raises `UsageError`."""
    path = screen.branch()
    found = [turn for turn in path if screen.transcript.selected in (None, turn.id) and role in ("", turn.role)]
    if not found:
        raise UsageError("this chat", f"no {role or 'such'} message is there", "choose one with Alt+Up")
    return found[-1]


# Chats, models, settings


def new(screen: "ChatScreen") -> None:
    free(screen)
    screen.open(screen.desk.new_chat(screen.model).id)


async def chats(screen: "ChatScreen") -> None:
    from edgemm.tui.screens.chats import ChatsScreen

    sessions = screen.desk.sessions
    chosen = await screen.app.push_screen_wait(
        ChatsScreen(screen.desk.chats, sessions.search, sessions.rename, partial(delete, screen))
    )
    if chosen is not None and chosen != screen.chat.id:
        free(screen)
        screen.open(chosen)
    else:
        screen.refresh_chat()


def delete(screen: "ChatScreen", chat: int) -> None:
    """Delete a chat; in the place of the open one comes a new one."""
    if chat == screen.chat.id:
        free(screen)
        screen.conversation = None  # its KV cache is not to be kept
        screen.open(screen.desk.new_chat(screen.model).id)
    screen.desk.delete(chat)


async def choose_model(screen: "ChatScreen") -> None:
    from edgemm.tui.screens.models import ModelScreen

    free(screen)
    name = await screen.app.push_screen_wait(
        ModelScreen(screen.chat.model, held=screen.desk.held, speeds=screen.desk.speeds)
    )
    if name is not None:
        screen.change_model(name)


async def settings(screen: "ChatScreen") -> None:
    from edgemm.tui.screens.settings import SettingsScreen

    chat = conversation(screen)
    found = await screen.app.push_screen_wait(SettingsScreen(chat.settings, personas.load()))
    if found is not None:
        configure(screen, found)


def configure(screen: "ChatScreen", settings: ChatSettings) -> None:
    conversation(screen).configure(settings)
    screen.refresh_chat()
    screen.tell("settings of this chat are saved")


async def help(screen: "ChatScreen") -> None:
    from edgemm.tui.screens.help import HelpScreen

    await screen.app.push_screen_wait(HelpScreen([(row.usage, row.help) for row in commands.ROWS]))


async def compare(other: str, screen: "ChatScreen") -> None:
    """The model of the chat beside `other`; empty: the last one there is."""
    from edgemm.tui.screens.compare import CompareScreen

    free(screen)
    names = [row.name for row in shelf.stock({}) if row.state is shelf.State.READY]
    if not names:
        raise UsageError("compare", "no chat model is on this machine", "F3 downloads one")
    if other and other not in names:
        raise UsageError("compare", f"{other} is no chat model on this machine", "F3 shows those that are")
    screen.leave_model()  # one model at a time in memory
    question = next((turn.text for turn in reversed(screen.turns) if turn.role == "user"), "")
    await screen.app.push_screen_wait(
        CompareScreen(
            names, screen.desk.open_model, left=screen.chat.model, right=other or names[-1], prompt=question,
            system=screen.settings.system, sampling=Sampling(),
        )
    )  # fmt: skip
    screen.open(screen.chat.id)


def compare_with(screen: "ChatScreen", other: str) -> None:
    _asking(partial(compare, other))(screen)


async def documents(screen: "ChatScreen") -> None:
    """The user's documents; a passage to ask about is put into the editor."""
    from edgemm.tui.app import ChatApp
    from edgemm.tui.screens.documents import DocumentsScreen

    assert isinstance(screen.app, ChatApp)
    passage = await screen.app.push_screen_wait(DocumentsScreen(screen.app.documents))
    if passage is not None:
        screen.prompt.paste(passage)
        screen.prompt.focus()


# Answers and messages


def ask_what_goes(screen: "ChatScreen", plan: Plan, draft: "Draft", send: "Callable[[Policy], Events]") -> None:
    """A question that fits only when older messages go: the user says how, or takes it back."""

    async def ask(screen: "ChatScreen") -> None:
        from edgemm.tui.screens.fit import FitScreen

        policy = await screen.app.push_screen_wait(FitScreen(plan))
        if policy is None:
            screen.give_back(draft, "not sent")
        else:
            screen.run(lambda: send(policy), draft)

    _asking(ask)(screen)


def regenerate(screen: "ChatScreen") -> None:
    chat, turn = conversation(screen), chosen(screen)
    screen.run(lambda: chat.regenerate(turn.id))


def resume(screen: "ChatScreen") -> None:
    chat, turn = conversation(screen), chosen(screen, "assistant")
    screen.run(lambda: chat.resume(turn.id))


async def tokens(screen: "ChatScreen") -> None:
    from edgemm.tui.screens.tokens import TokenScreen

    chat, turn = conversation(screen), chosen(screen, "assistant")
    if not (rows := token_rows(turn)):
        raise UsageError("token probabilities", "this answer has none", "switch them on with F4 and answer again (F5)")
    found = await screen.app.push_screen_wait(TokenScreen(rows))
    if found is not None:
        screen.run(lambda: chat.fork(turn.id, *found))


def edit(screen: "ChatScreen") -> None:
    """Put the chosen message into the editor; sending it makes a branch."""
    turn = chosen(screen, "user" if screen.transcript.selected is None else "")
    if screen.editing is None and screen.prompt.expanded().strip():
        raise UsageError("the editor", "holds a message that was not sent", "send it or delete it first")
    screen.editing = turn.id
    screen.prompt.put(turn.text)
    screen.prompt.focus()
    screen.tell("sending makes another branch; what was said stays — Esc keeps it as it is")


def copy(screen: "ChatScreen") -> None:
    turn = chosen(screen)
    screen.app.copy_to_clipboard(turn.text)
    screen.tell(f"copied {len(turn.text):,} characters")


def previous(screen: "ChatScreen") -> None:
    screen.transcript.action_previous()


def following(screen: "ChatScreen") -> None:
    screen.transcript.action_next()


def reasoning(screen: "ChatScreen") -> None:
    screen.transcript.action_reasoning()


def sibling(step: int, screen: "ChatScreen") -> None:
    """Show the version of the chosen message before or after this one."""
    chat, turn = conversation(screen), chosen(screen)
    free(screen)
    versions = [each.id for each in chat.siblings(turn.id)]
    if len(versions) == 1:
        raise UsageError("this message", "has one version", "answer again with F5, or edit it with Alt+E")
    chat.choose(versions[(versions.index(turn.id) + step) % len(versions)])
    screen.refresh_chat()


def interrupt(screen: "ChatScreen") -> None:
    """What is selected is copied, an answer stopped; pressed twice with nothing to do, it leaves."""
    if selection := screen.get_selected_text():
        screen.app.copy_to_clipboard(selection)
        screen.clear_selection()
        screen.tell(f"copied {len(selection):,} characters")
    elif screen.answering:
        screen.action_stop()
    elif time.monotonic() - screen.warned < _TWICE:
        screen.run_worker(screen.app.action_quit())
    else:
        screen.warned = time.monotonic()
        screen.tell("press Ctrl+C again, or Ctrl+Q, to leave")


ROWS = (
    Row("help", "f1", "Help: keys and commands", _asking(help)),
    Row("chats", "f2", "Chats: open, search, delete, export", _asking(chats)),
    Row("new", "ctrl+n", "New chat", _told(new)),
    Row("models", "f3", "Models: choose, download", _asking(choose_model)),
    Row("settings", "f4", "Settings of this chat", _asking(settings)),
    Row("regenerate", "f5", "Answer again", _told(regenerate)),
    Row("resume", "f6", "Go on with the answer", _told(resume)),
    Row("tokens", "f7", "Probabilities of the answer's tokens", _asking(tokens)),
    Row("compare", "f8", "Compare two models", _asking(partial(compare, ""))),
    Row("documents", "f9", "Documents: search, folders of the index", _asking(documents)),
    Row("previous", "alt+up", "Choose the message above", _told(previous)),
    Row("next", "alt+down", "Choose the message below", _told(following)),
    Row("earlier", "alt+left", "Earlier version of the message", _told(partial(sibling, -1))),
    Row("later", "alt+right", "Later version of the message", _told(partial(sibling, 1))),
    Row("edit", "alt+e", "Edit the message", _told(edit)),
    Row("copy", "alt+c", "Copy the message", _told(copy)),
    Row("reasoning", "alt+r", "Unfold the reasoning", _told(reasoning)),
    Row("interrupt", "ctrl+c", "Copy the selection, stop, or leave", _told(interrupt)),
)
BINDINGS = [
    Binding(row.key, f"do('{row.name}')", row.help, id=f"chat.{row.name}", priority=row.comes_first) for row in ROWS
]


def palette(screen: "ChatScreen") -> Iterator[SystemCommand]:
    for row in ROWS:
        yield SystemCommand(row.help, f"key {row.key}", partial(row.run, screen))
