"""The slash commands of a chat: their table, the parser of what is typed, and the work that every door leaves to them.

A door, be it line by line or a screen, shows what comes back; texts come back as they are stored, so whoever shows
one on a terminal must make it safe. Nothing here asks, prints, or runs a model.
"""

import difflib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from edgemm import attachments, cite, package, personas, transcripts
from edgemm.attachments import Kind
from edgemm.chat_settings import LIMITS, MAX_SCHEMA, ChatSettings, Policy
from edgemm.chat_settings import parse as parse_number
from edgemm.conversation import Conversation
from edgemm.errors import BadFile, UsageError, disk_errors
from edgemm.sessions import ChatInfo, Hit, Sessions, Turn, branch, siblings
from edgemm.snippets import MARK, UNMARK

ON, OFF = "on", "off"
_SHOWN = 72  # characters of a text that stands for the whole
_LONGEST_NUMBER = 18  # digits; SQLite's own numbers end there
_NAME = 40  # characters of an unknown command that are looked at


@dataclass(frozen=True, slots=True)
class Command:
    """`arguments` as a help shows them: empty takes none, and in brackets they may be missing."""

    name: str
    arguments: str
    help: str

    @property
    def usage(self) -> str:
        return f"/{self.name} {self.arguments}".rstrip()


ROWS = (
    Command("new", "", "start a new chat"),
    Command("chats", "", "list the chats, the last used first"),
    Command("open", "N", "open chat number N"),
    Command("search", "WORDS", "find messages of all chats"),
    Command("model", "[NAME]", "go on with another model; alone: which one it is"),
    Command("system", "[TEXT|off]", "set the system prompt; alone: show it"),
    Command("persona", "[NAME]", "take a ready-made system prompt; alone: list them"),
    Command("set", "NAME VALUE", "change a setting, such as: /set temperature 0.7"),
    Command("settings", "", "show the settings of this chat"),
    Command("regenerate", "", "answer the last question again, as another version"),
    Command("edit", "TEXT", "ask TEXT in place of the last question, as another version"),
    Command("continue", "", "go on with an answer that was stopped or cut"),
    Command("branch", "[N]", "show version N of a question or an answer; alone: list them"),
    Command("history", "", "show what was said"),
    Command("attach", "FILE|off", "send a file with the next question; off: none"),
    Command("docs", "[on|off|FOLDER]", "answer from your indexed documents, with citations; alone: say which"),
    Command("documents", "", "search your documents and choose their folders, in the full screen"),
    Command("export", "FILE", "save this chat: .md holds this branch, .json all of them"),
    Command("import", "FILE", "read a chat from a file that /export wrote"),
    Command("schema", "FILE|off", "answers obey the JSON schema in FILE"),
    Command("tokens", "", "show how likely each token of the last answer was"),
    Command("compare", "MODEL", "let another model answer beside this one, in the full screen"),
    Command("rename", "TITLE", "give this chat a title"),
    Command("delete", "[yes]", "delete this chat for good; yes: without asking"),
    Command("help", "", "list the commands"),
    Command("exit", "", "leave"),
)
ASK = Command("", "TEXT", "ask the model")
"""What every text is that is no command. `//text` asks a text that begins with a slash."""

_BY_NAME = {row.name: row for row in ROWS}


def parse(text: str) -> tuple[Command, str]:
    """What is meant by a typed text, and its argument. Raises `UsageError`, which names the nearest commands."""
    if not text.startswith("/"):
        return ASK, text
    if text.startswith("//"):
        return ASK, text[1:]
    word, *rest = re.split(r"\s", text[1:], maxsplit=1)
    argument = "".join(rest).strip()
    command = _BY_NAME.get(word.lower())
    if command is None:
        raise _unknown(word)
    if argument and not command.arguments:
        raise UsageError(f"/{command.name}", "takes nothing behind it", f"type /{command.name} alone")
    if not argument and command.arguments and not command.arguments.startswith("["):
        raise UsageError(f"/{command.name}", f"needs {command.arguments}", f"type {command.usage}")
    return command, argument


def number(command: str, text: str) -> int:
    """The N that was typed behind `command`. Raises `UsageError`."""
    if not text.isdecimal() or len(text) > _LONGEST_NUMBER:
        raise UsageError(f"/{command}", f"{_short(text)!r} is not a number", f"type {_BY_NAME[command].usage}")
    return int(text)


def file(text: str) -> Path:
    """The path that was typed: quotes around it are taken off, and ~ is the home folder."""
    bare = text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'" else text
    try:
        return Path(bare).expanduser()
    except RuntimeError as error:  # no such user
        raise UsageError(_short(text), "there is no such home folder", "write the whole path") from error


# Chats as files


def export(conversation: Conversation, text: str) -> Path:
    """Save the chat as the file `text`: .md the open branch, .json all of them. An existing file is never touched.

    Raises `UsageError`, `BadFile` and `DiskFull`.
    """
    path = file(text)
    if path.suffix.lower() not in (".md", ".json"):
        raise UsageError(path.name or text, "ends neither in .md nor in .json", "choose one of these two formats")
    conversation.changed_elsewhere()
    if path.suffix.lower() == ".md":
        content = transcripts.to_markdown(conversation.info, conversation.branch())
    else:
        content = transcripts.to_json(conversation.info, conversation.turns)
    _write_new(path, content.encode("utf-8", "replace"))
    return path


def export_here(sessions: Sessions, chat: int) -> Path:
    """Save the open branch of a chat as Markdown in the working directory, under its title."""
    info = sessions.chat(chat)
    content = transcripts.to_markdown(info, branch(sessions.turns(chat), info.leaf))
    name = re.sub(r"\W+", "-", info.title[:_SHOWN]).strip("-").lower() or "chat"
    path = next(p for n in range(10**6) if not (p := Path(f"{name}{f'-{n}' if n else ''}.md")).exists())
    _write_new(path, content.encode("utf-8", "replace"))
    return path


def import_chat(sessions: Sessions, text: str) -> ChatInfo:
    """Store the chat that `export` wrote as the file `text`. Raises `UsageError` and `BadFile`."""
    path = file(text)
    readers = {".md": transcripts.from_markdown, ".json": transcripts.from_json}
    read: Callable[[Sessions, str], ChatInfo] | None = readers.get(path.suffix.lower())
    if read is None:
        raise UsageError(path.name or text, "ends neither in .md nor in .json", "choose a file that /export wrote")
    return read(sessions, _text(path))


def _write_new(path: Path, content: bytes) -> None:
    try:
        with disk_errors(path):
            try:
                open(path, "xb").close()  # takes the name, so that no other program's file is replaced below
            except FileExistsError:
                raise UsageError(path, "is there already", "choose another name") from None
    except ValueError as error:
        raise UsageError(_short(str(path)), "is no file name", "choose another name") from error
    try:
        package.write_file(path, content)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _text(path: Path) -> str:
    most = 4 * transcripts.LIMIT  # bytes: no character has more than four
    try:
        if not path.is_file():  # to open a pipe would wait
            raise UsageError(path.name or path, "is no file", "check the path")
        with open(path, "rb") as opened:
            content = opened.read(most + 1)
    except (OSError, ValueError) as error:
        raise BadFile(path, getattr(error, "strerror", None) or str(error), "check its permissions") from error
    if len(content) > most:
        raise BadFile(path, f"has more than {most:,} bytes", "choose a file that edgemm has exported")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadFile(path, f"byte {error.start:,} is not UTF-8", "save it as UTF-8") from error


# Settings


def with_value(settings: ChatSettings, text: str) -> ChatSettings:
    """`settings` after "/set NAME VALUE". A seed without a value is drawn anew each time. Raises `UsageError`."""
    name, *rest = text.split(maxsplit=1)
    value = "".join(rest)
    if name == "policy":
        if value not in tuple(Policy):
            raise UsageError("policy", f"{_short(value)!r} is none of {', '.join(Policy)}", "choose one of these")
        return replace(settings, policy=Policy(value))
    if name in ("system", "schema"):
        raise UsageError(name, "has a command of its own", f"type /{name}")
    if name not in LIMITS:
        near = _nearest(name, [*LIMITS, "policy"]) or [*LIMITS, "policy"]
        raise UsageError(_short(name), "is no setting", f"choose {' or '.join(near)}")
    if not value and name != "seed":
        raise UsageError(name, "needs a value", f"{LIMITS[name]}, such as: /set {name} {getattr(settings, name)}")
    changes: dict[str, Any] = {name: parse_number(name, value)}
    return replace(settings, **changes)


def with_system(settings: ChatSettings, text: str) -> ChatSettings:
    """`off` takes the system prompt away."""
    return replace(settings, system="" if text == OFF else text)


def with_persona(settings: ChatSettings, name: str, known: personas.Personas) -> ChatSettings:
    """The system prompt of a persona, and its temperature if it has one. Raises `UsageError`."""
    row = next((row for row in known.rows if row.name.casefold() == name.casefold()), None)
    if row is None:
        near = _nearest(name, [row.name for row in known.rows]) or [row.name for row in known.rows]
        raise UsageError(f"persona {_short(name)}", "is not known", f"choose {' or '.join(near)}")
    temperature = settings.temperature if row.temperature is None else row.temperature
    return replace(settings, system=row.system, temperature=temperature)


def with_schema(settings: ChatSettings, text: str) -> ChatSettings:
    """The JSON schema in the file `text`; `off`: none. Raises `UsageError`."""
    if text == OFF:
        return replace(settings, schema="")
    found = attachments.read(file(text), 4 * MAX_SCHEMA)
    if not found.text.strip():  # nothing must not mean: no schema
        why = "is a picture" if found.kind is Kind.IMAGE else "is empty"
        raise UsageError(attachments.plain_name(found.name), why, "choose a file with a JSON schema")
    return replace(settings, schema=found.text)


def with_docs(settings: ChatSettings, text: str) -> ChatSettings:
    """`on`: passages of every indexed folder go with each question; `off`: none; else those of the folder `text`."""
    if text in (ON, OFF):
        return replace(settings, docs=cite.ALL if text == ON else "")
    path = file(text)
    if not path.exists():
        raise UsageError(_short(text), "there is no such folder", f"type {_BY_NAME['docs'].usage}")
    return replace(settings, docs=str(path.resolve()))


def docs_line(settings: ChatSettings) -> str:
    """Where passages come from."""
    if not settings.docs:
        return "your documents are not searched: /docs on"
    where = "every indexed folder" if settings.docs == cite.ALL else settings.docs
    return f"passages of {where} go with each question: /docs off"


# Versions of messages


@dataclass(frozen=True, slots=True)
class Version:
    """One of several versions of a message. `number` from 1 on; `is_open`: it is on the branch that is shown."""

    number: int
    turn: Turn
    is_open: bool


def versions(turns: Sequence[Turn], leaf: int | None) -> list[Version]:
    """The versions of each message of the open branch that has several: last message first, oldest version first.

    Every version can be reached by its number, whatever lies above or below it.
    """
    found: list[tuple[Turn, bool]] = []
    for turn in reversed(branch(turns, leaf)):
        same = siblings(turns, turn.id)
        found += [(each, each.id == turn.id) for each in same] if len(same) > 1 else []
    return [Version(number, turn, is_open) for number, (turn, is_open) in enumerate(found, 1)]


def choose(conversation: Conversation, text: str) -> Version:
    """Open the branch of the version whose number is typed. Raises `UsageError`."""
    wanted = number("branch", text)
    found = versions(conversation.turns, conversation.info.leaf)
    if not 1 <= wanted <= len(found):
        why = f"there are versions 1 to {len(found)}" if found else "no message here has a second version"
        raise UsageError(f"version {wanted}", why, "list them with /branch, make one with /regenerate or /edit")
    version = found[wanted - 1]
    if not version.is_open:
        conversation.choose(version.turn.id)
    return version


# Lines of text, one for each item


def help_lines() -> list[str]:
    return [*(f"{row.usage}: {row.help}" for row in ROWS), "//TEXT: ask a text that begins with a slash"]


def chat_lines(chats: Sequence[ChatInfo], opened: int) -> list[str]:
    return [f"{_chat(chat)}{' (open)' if chat.id == opened else ''}" for chat in chats]


def hit_lines(hits: Sequence[Hit]) -> list[str]:
    return [f"chat {hit.chat}, {_title(hit.title)}: {hit.role}: {_unmarked(hit.snippet)}" for hit in hits]


def version_lines(found: Sequence[Version]) -> list[str]:
    return [
        f"{each.number} {'answer' if each.turn.role == 'assistant' else 'question'}"
        f"{' (shown)' if each.is_open else ''}: {_short(each.turn.text)}"
        for each in found
    ]


def turn_lines(turns: Sequence[Turn]) -> list[str]:
    return [f"{turn.role}: {_short(turn.text)}" for turn in turns]


def persona_lines(known: personas.Personas) -> list[str]:
    return [*(f"{row.name}: {row.about}" if row.about else row.name for row in known.rows), *known.problems]


def setting_lines(settings: ChatSettings) -> list[str]:
    found = []
    for name in (each.name for each in fields(settings)):
        value = getattr(settings, name)
        if name == "seed":
            value = "a new one each time" if value is None else value
        elif name == "schema":
            value = f"{len(value):,} characters" if value else OFF
        elif name == "docs" and value == cite.ALL:
            value = "every indexed folder"
        found.append(f"{name}: {_short(str(value)) or OFF}" + (f" ({LIMITS[name]})" if name in LIMITS else ""))
    return found


def _chat(chat: ChatInfo) -> str:
    count = f"{chat.messages} message{'s' * (chat.messages != 1)}"
    return f"{chat.id} {_when(chat.updated)}, {count}, {_short(chat.model)}: {_title(chat.title)}"


def _when(seconds: float) -> str:
    try:
        return f"{datetime.fromtimestamp(seconds):%Y-%m-%d %H:%M}"
    except (OverflowError, ValueError, OSError):
        return "at an unknown time"


def _title(title: str) -> str:
    return _short(title) or "without a title"


def _unmarked(snippet: str) -> str:
    return " ".join(snippet.replace(MARK, "").replace(UNMARK, "").split())


def _short(text: str) -> str:
    words = " ".join(text[: 8 * _SHOWN].split())
    return words if len(words) <= _SHOWN else words[: _SHOWN - 1] + "…"


def _nearest(name: str, known: Sequence[str]) -> list[str]:
    """Those that begin like it, then those that are spelled like it."""
    short = name[:_NAME].casefold()
    begin = [each for each in known if short and each.casefold().startswith(short)]
    folded = {each.casefold(): each for each in known}
    alike = [folded[each] for each in difflib.get_close_matches(short, folded, 3, 0.5)]
    return list(dict.fromkeys([*begin, *alike]))[:3]


def _unknown(word: str) -> UsageError:
    near = " or ".join(f"/{name}" for name in _nearest(word, list(_BY_NAME)))
    fix = f"did you mean {near}? /help lists all" if near else "/help lists all"
    return UsageError(f"/{_short(word)}", "is no command", f"{fix}, and // sends a text that begins with a slash")
