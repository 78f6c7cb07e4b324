"""What each slash command does in the line mode, as a table; its names are those of commands.py."""

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from edgemm import commands, models, personas, terminal
from edgemm.answer import TOKENS
from edgemm.attachments import Kind, plain_name, read
from edgemm.errors import UsageError
from edgemm.sessions import State
from edgemm.talk import show, typed
from edgemm.tui import shading

if TYPE_CHECKING:
    from edgemm.talk.chat import Talk


def _new(talk: "Talk", _: str) -> None:
    talk.open(talk.desk.new_chat(talk.model).id)
    terminal.note("a new chat")


def _chats(talk: "Talk", _: str) -> None:
    show.lines(commands.chat_lines(talk.desk.chats(), talk.number), "no chats yet")


def _open(talk: "Talk", argument: str) -> None:
    talk.open(talk.desk.sessions.chat(commands.number("open", argument)).id)


def _search(talk: "Talk", argument: str) -> None:
    show.lines(commands.hit_lines(talk.desk.sessions.search(argument)), "nothing is found")


def _model(talk: "Talk", argument: str) -> None:
    if not argument:
        show.lines([talk.model])
        return
    if not models.is_gguf(argument):
        models.find(argument)  # a wrong name is told while the model before is still loaded
    talk.change_model(argument)


def _system(talk: "Talk", argument: str) -> None:
    if argument:
        talk.configure(commands.with_system(talk.chat.settings, argument))
    else:
        show.lines([talk.chat.settings.system], "no system prompt")


def _persona(talk: "Talk", argument: str) -> None:
    known = personas.load()
    if argument:
        talk.configure(commands.with_persona(talk.chat.settings, argument, known))
    else:
        show.lines(commands.persona_lines(known))


def _set(talk: "Talk", argument: str) -> None:
    talk.configure(commands.with_value(talk.chat.settings, argument))


def _schema(talk: "Talk", argument: str) -> None:
    talk.configure(commands.with_schema(talk.chat.settings, argument))


def _docs(talk: "Talk", argument: str) -> None:
    if argument:
        talk.configure(commands.with_docs(talk.chat.settings, argument))
    show.lines([commands.docs_line(talk.chat.settings)])


def _settings(talk: "Talk", _: str) -> None:
    show.lines(commands.setting_lines(talk.chat.settings))


def _edit(talk: "Talk", argument: str) -> None:
    talk.stream(talk.chat.edit(talk.last("user").id, argument))


def _regenerate(talk: "Talk", _: str) -> None:
    talk.stream(talk.chat.regenerate(talk.last("user").id))


def _continue(talk: "Talk", _: str) -> None:
    answer = talk.last("assistant")
    if answer.state is State.DONE and not answer.details.get("edited"):
        raise UsageError("/continue", "the last answer is complete", "/regenerate gives another one")
    talk.stream(talk.chat.resume(answer.id))


def _branch(talk: "Talk", argument: str) -> None:
    talk.chat.changed_elsewhere()
    if argument:
        commands.choose(talk.chat, argument)
        show.lines(show.history(talk.chat.branch()))
        return
    found = commands.versions(talk.chat.turns, talk.chat.info.leaf)
    show.lines(commands.version_lines(found), "every message has one version")


def _history(talk: "Talk", _: str) -> None:
    talk.chat.changed_elsewhere()
    show.lines(show.history(talk.chat.branch()), "nothing was said yet")


def _attach(talk: "Talk", argument: str) -> None:
    if argument == commands.OFF:
        talk.attached = []
        terminal.note("no file goes with the next question")
        return
    found = read(commands.file(argument))
    name = plain_name(found.name)
    if found.kind is Kind.IMAGE:
        raise UsageError(name, "is a picture, and chat models here read text alone", "use `edgemm predict`")
    talk.attached.append(found)
    terminal.note(f"{name}: {len(found.text):,} characters go with the next question")


def _export(talk: "Talk", argument: str) -> None:
    terminal.note(f"written to {commands.export(talk.chat, argument)}")


def _import(talk: "Talk", argument: str) -> None:
    talk.open(commands.import_chat(talk.desk.sessions, argument).id)


def _tokens(talk: "Talk", _: str) -> None:
    rows = talk.last("assistant").details.get(TOKENS)
    tokens = shading.read(rows) if isinstance(rows, list) else []
    show.lines(map(_token, tokens), "this answer has no probabilities: /set top_logprobs 5, then /regenerate")


def _token(token: shading.Sampled) -> str:
    known = "" if token.probability is None else f" {token.probability:.0%}"
    others = [each for each in shading.choices(token) if each.id != token.id]
    instead = ", ".join(f"{shading.shown(each.text)!r} {each.probability:.0%}" for each in others)
    return f"{shading.shown(token.text)!r}{known}" + (f", or {instead}" if instead else "")


def _compare(_talk: "Talk", _: str) -> None:
    raise UsageError("/compare", "needs the chat screen", "start `edgemm chat` without --plain")


def _documents(_talk: "Talk", _: str) -> None:
    raise UsageError("/documents", "needs the chat screen", "start `edgemm chat` without --plain, or `edgemm search`")


def _rename(talk: "Talk", argument: str) -> None:
    talk.chat.rename(argument)
    terminal.note(f"chat {talk.number}: {argument}")


def _delete(talk: "Talk", argument: str) -> None:
    if argument not in ("", "yes"):
        raise UsageError("/delete", "takes nothing but yes behind it", "type /delete, or /delete yes")
    if not argument and not (sys.stdin.isatty() and typed.asked("delete this chat for good? y/n: ") in ("y", "yes")):
        terminal.note("nothing was deleted: /delete yes deletes this chat for good")
        return
    old, is_empty = talk.number, not talk.desk.sessions.turns(talk.number)
    talk.open(talk.desk.new_chat(talk.model).id)
    if not is_empty:  # an empty one is gone already
        talk.desk.delete(old)
    terminal.note("deleted; this is a new chat")


def _help(_talk: "Talk", _: str) -> None:
    show.lines(commands.help_lines())


def _exit(talk: "Talk", _: str) -> None:
    talk.ended = True


ROWS: dict[str, Callable[["Talk", str], None]] = {
    "new": _new,
    "chats": _chats,
    "open": _open,
    "search": _search,
    "model": _model,
    "system": _system,
    "persona": _persona,
    "set": _set,
    "settings": _settings,
    "regenerate": _regenerate,
    "edit": _edit,
    "continue": _continue,
    "branch": _branch,
    "history": _history,
    "attach": _attach,
    "docs": _docs,
    "documents": _documents,
    "export": _export,
    "import": _import,
    "schema": _schema,
    "tokens": _tokens,
    "compare": _compare,
    "rename": _rename,
    "delete": _delete,
    "help": _help,
    "exit": _exit,
}
