"""Slash commands typed in the chat screen: actions that have a key too, and commands shared with the line mode."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from edgemm import commands, models, personas
from edgemm.errors import EdgemmError, UsageError
from edgemm.tui import actions
from edgemm.tui.draft import Draft
from edgemm.tui.entry import Entry

if TYPE_CHECKING:
    from edgemm.tui.screens.chat import ChatScreen

Obey = Callable[["ChatScreen", str], None]


def obey(screen: "ChatScreen", line: str) -> None:
    """Do what a line that begins with a slash says; what stands in the way is told on the screen."""
    try:
        command, argument = commands.parse(line)
        if command is commands.ASK:
            screen.submit(Draft(argument))
        else:
            _TABLE[command.name](screen, argument)
    except EdgemmError as error:
        screen.tell(str(error))


def _action(name: str) -> Obey:
    return lambda screen, _: actions.by_name(name).run(screen)


def _open(screen: "ChatScreen", argument: str) -> None:
    actions.free(screen)
    screen.open(screen.desk.sessions.chat(commands.number("open", argument)).id)


def _search(screen: "ChatScreen", argument: str) -> None:
    _list(screen, commands.hit_lines(screen.desk.sessions.search(argument)) or ["nothing is found"])


def _model(screen: "ChatScreen", argument: str) -> None:
    if not argument:
        actions.by_name("models").run(screen)
        return
    actions.free(screen)
    if not models.is_gguf(argument):
        models.find(argument)  # a wrong name is told before the chat changes
    screen.change_model(argument)


def _system(screen: "ChatScreen", argument: str) -> None:
    if argument:
        actions.configure(screen, commands.with_system(screen.settings, argument))
    else:
        _list(screen, [screen.settings.system or "no system prompt"])


def _persona(screen: "ChatScreen", argument: str) -> None:
    known = personas.load()
    if argument:
        actions.configure(screen, commands.with_persona(screen.settings, argument, known))
    else:
        _list(screen, commands.persona_lines(known))


def _set(screen: "ChatScreen", argument: str) -> None:
    actions.configure(screen, commands.with_value(screen.settings, argument))


def _schema(screen: "ChatScreen", argument: str) -> None:
    actions.configure(screen, commands.with_schema(screen.settings, argument))


def _docs(screen: "ChatScreen", argument: str) -> None:
    if argument:
        actions.configure(screen, commands.with_docs(screen.settings, argument))
    screen.tell(commands.docs_line(screen.settings))


def _edit(screen: "ChatScreen", argument: str) -> None:
    screen.submit(Draft(argument, instead=actions.chosen(screen, "user").id))


def _branch(screen: "ChatScreen", argument: str) -> None:
    conversation = actions.conversation(screen)
    if argument:
        commands.choose(conversation, argument)
        screen.refresh_chat()
    else:
        found = commands.versions(conversation.turns, conversation.info.leaf)
        _list(screen, commands.version_lines(found) or ["every message has one version"])


def _attach(screen: "ChatScreen", argument: str) -> None:
    screen.prompt.put("", [] if argument == commands.OFF else [commands.file(argument)])


def _export(screen: "ChatScreen", argument: str) -> None:
    screen.tell(f"written to {commands.export(actions.conversation(screen), argument)}")


def _import(screen: "ChatScreen", argument: str) -> None:
    actions.free(screen)
    screen.open(commands.import_chat(screen.desk.sessions, argument).id)


def _rename(screen: "ChatScreen", argument: str) -> None:
    screen.desk.sessions.rename(screen.chat.id, argument)
    screen.refresh_chat()


def _delete(screen: "ChatScreen", argument: str) -> None:
    if argument not in ("", "yes"):
        raise UsageError("/delete", f"{argument!r} is not yes", "type /delete yes, or /delete alone")
    if argument == "yes":
        actions.delete(screen, screen.chat.id)
    else:
        screen.tell("this deletes the chat for good: /delete yes")


def _exit(screen: "ChatScreen", _: str) -> None:
    screen.run_worker(screen.app.action_quit())


def _list(screen: "ChatScreen", lines: list[str]) -> None:
    """Lines that are said to the user alone; they are no part of the chat."""
    if screen.answering:  # they would stand below what grows
        actions.free(screen)
    screen.transcript.append(Entry(-1, "system", "\n".join(f"- {line}" for line in lines), name="edgemm"))
    screen.transcript.to_end()


_TABLE: dict[str, Obey] = {
    "new": _action("new"),
    "chats": _action("chats"),
    "open": _open,
    "search": _search,
    "model": _model,
    "system": _system,
    "persona": _persona,
    "set": _set,
    "settings": _action("settings"),
    "regenerate": _action("regenerate"),
    "edit": _edit,
    "continue": _action("resume"),
    "branch": _branch,
    "history": lambda screen, _: screen.transcript.to_start(),
    "attach": _attach,
    "docs": _docs,
    "documents": _action("documents"),
    "export": _export,
    "import": _import,
    "schema": _schema,
    "tokens": _action("tokens"),
    "compare": actions.compare_with,
    "rename": _rename,
    "delete": _delete,
    "help": _action("help"),
    "exit": _exit,
}
