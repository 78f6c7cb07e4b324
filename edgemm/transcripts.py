"""Chats as files that people keep: JSON for the whole tree, Markdown for one branch, and both read back.

What comes in is untrusted: it is bounded, checked whole, and stored whole or not at all. It knows how a chat is
made, not where a file lies; texts go out as they are, so whoever shows one on a terminal must make it safe.
"""

import json
import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from edgemm.context import ATTACHMENTS
from edgemm.errors import BadFile
from edgemm.sessions import ChatInfo, Sessions, State, Turn

LIMIT = 16 << 20  # characters of a transcript that is read
_MAX_MESSAGES = 50_000
_MAX_DEPTH = 32  # of settings and details
_FORMAT, _VERSION = "edgemm-chat", 1
_LATEST = datetime(9999, 1, 1, tzinfo=UTC).timestamp()

_SYSTEM, _REASONING, _ANSWER = "## System", "### Reasoning", "### Answer"
_HEADINGS = (_SYSTEM, _REASONING, _ANSWER)
_ROLES = {"user": "User", "assistant": "Assistant"}
_TURN = re.compile(r"## (User|Assistant)(?: \((streaming|stopped|failed)\))?")
_OURS = re.compile(rf"\\*(?:{'|'.join(_HEADINGS)}|{_TURN.pattern})\r*")  # also when escaped already
_HEAD = re.compile(r"# (.*)\n\nChat with (.*), (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) UTC, saved by edgemm\.")


def to_json(chat: ChatInfo, turns: Sequence[Turn]) -> str:
    """The chat with all its branches, as an ASCII JSON document."""
    head = {"title": chat.title, "model": chat.model, "settings": chat.settings}
    times = {"leaf": chat.leaf, "created": chat.created, "updated": chat.updated}
    messages = [{name: getattr(turn, name) for name in _MESSAGE} for turn in turns]
    document = {"format": _FORMAT, "version": _VERSION, "chat": head | times, "messages": messages}
    return json.dumps(document, indent=1) + "\n"


def from_json(sessions: Sessions, text: str) -> ChatInfo:
    """Store what `to_json` wrote as a new chat. Raises `BadFile` for anything else."""
    _check_size(text)
    try:
        chat, turns = _decode(json.loads(text))
        return sessions.insert(chat, turns)
    except (ValueError, RecursionError) as error:  # among them numbers too long to read, and bottomless nesting
        raise _bad(str(error)) from error


def to_markdown(chat: ChatInfo, turns: Sequence[Turn]) -> str:
    """The messages `turns` of one branch, from its first to its last. A system prompt stands before them."""
    created = datetime.fromtimestamp(min(max(chat.created, 0), _LATEST), UTC)
    head = f"# {_one_line(chat.title) or 'Chat'}"
    line = f"Chat with {_one_line(chat.model)}, {created:%Y-%m-%d %H:%M:%S} UTC, saved by edgemm."
    system = chat.settings.get("system")
    parts = [_SYSTEM, _escape(system)] if isinstance(system, str) and system else []
    for turn in turns:
        parts += _turn_parts(turn)
    return "\n\n".join([head, line, *parts]) + "\n"


def from_markdown(sessions: Sessions, text: str) -> ChatInfo:
    """Store what `to_markdown` wrote as a new chat of one branch. Raises `BadFile` for anything else.

    Markdown holds no token ids, figures or settings other than the system prompt.
    """
    _check_size(text)
    if text.partition("\n")[0].endswith("\r"):  # the file was saved with Windows line ends
        text = text.replace("\r\n", "\n")
    head, sections = _sections(text.removesuffix("\n"))
    found = _HEAD.fullmatch(head)
    if not found:
        raise _bad("it does not begin with a title and the line that tells the model")
    title, model, time = found.groups()
    created = _time(time)
    system = sections.pop(0)[1] if sections and sections[0][0] == _SYSTEM else ""
    _check_count(len(sections))
    turns = list(_turns(sections, created))
    settings = {"system": system} if system else {}
    leaf = turns[-1].id if turns else None
    chat = ChatInfo(0, title, model, settings, leaf, created, created, len(turns))
    return sessions.insert(chat, turns)


def _turn_parts(turn: Turn) -> list[str]:
    state = "" if turn.state is State.DONE else f" ({turn.state})"
    heading = f"## {_ROLES[turn.role]}{state}"
    if not turn.reasoning:
        return [heading, _escape(turn.text)]
    return [heading, _REASONING, _escape(turn.reasoning), _ANSWER, _escape(turn.text)]


def _sections(text: str) -> tuple[str, list[tuple[str, str]]]:
    """What stands before our first heading, and each of our headings with its text.

    A text begins after the blank line below its heading and ends before the blank line above the next one.
    """
    lines = text.split("\n")
    at = [i for i, line in enumerate(lines) if line in _HEADINGS or _TURN.fullmatch(line)]
    ends = [*(i - 1 for i in at[1:]), len(lines)]
    sections = (
        [(lines[start], "\n".join(map(_unescape, lines[start + 2 : end]))) for start, end in zip(at, ends, strict=True)]
        if at
        else []
    )
    return "\n".join(lines[: at[0] - 1] if at else lines), sections


def _turns(sections: Sequence[tuple[str, str]], created: float) -> Iterator[Turn]:
    """Turns one below the other, with the ids 1, 2, ..."""
    waiting = deque(sections)
    number = 0
    while waiting:
        heading, text = waiting.popleft()
        found = _TURN.fullmatch(heading)
        if not found:
            raise _bad(f"{heading!r} stands where a message should begin")
        reasoning = ""
        if [name for name, _ in islice(waiting, 2)] == [_REASONING, _ANSWER]:
            (_, reasoning), (_, text) = waiting.popleft(), waiting.popleft()
        number += 1
        state = State(found[2] or State.DONE)
        yield Turn(number, 0, number - 1 or None, found[1].lower(), text, reasoning, state, (), {}, created)


def _escape(text: str) -> str:
    r"""A line that looks like one of our headings gets a backslash before it, and one more each time."""
    return "\n".join("\\" + line if _OURS.fullmatch(line) else line for line in text.split("\n"))


def _unescape(line: str) -> str:
    return line[1:] if line.startswith("\\") and _OURS.fullmatch(line) else line


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _time(text: str) -> float:
    try:
        return datetime.strptime(f"{text}+0000", "%Y-%m-%d %H:%M:%S%z").timestamp()
    except ValueError as error:
        raise _bad(str(error)) from error


def _decode(document: Any) -> tuple[ChatInfo, list[Turn]]:
    """Raises `ValueError`."""
    top = _fields(document, _DOCUMENT, "the document")
    if (top["format"], top["version"]) != (_FORMAT, _VERSION):
        found, known = f"{top['format']} {top['version']}"[:80], f"{_FORMAT} {_VERSION}"
        raise ValueError(f"it is of the format {found!r}, this edgemm reads {known!r}")
    _check_count(len(top["messages"]))
    turns: list[Turn] = []
    known_ids: set[int | None] = {None}
    for number, message in enumerate(top["messages"], 1):
        values = _fields(message, _MESSAGE, f"message number {number}")
        if values["parent"] not in known_ids or values["id"] in known_ids:
            raise ValueError(f"message number {number} follows none that stands before it, or repeats an id")
        known_ids.add(values["id"])
        fixed = {"chat": 0, "state": State(values["state"]), "tokens": tuple(values["tokens"])}
        fixed["details"] = _without_paths(values["details"])
        turns.append(Turn(**(values | fixed)))
    chat = _fields(top["chat"], _CHAT, "chat")
    if chat["leaf"] not in known_ids:
        raise ValueError(f"the leaf {chat['leaf']} is none of its messages")
    chat["settings"] = {name: value for name, value in chat["settings"].items() if name != "docs"}
    return ChatInfo(id=0, messages=len(turns), **chat), turns


def _without_paths(details: dict[str, Any]) -> dict[str, Any]:
    """Files that were quoted on another machine are none of this one, so nobody must look for them here."""
    rows = details.get(ATTACHMENTS)
    if not isinstance(rows, list):
        return details
    return details | {
        ATTACHMENTS: [row | {"path": ""} if isinstance(row, dict) and "path" in row else row for row in rows]
    }


def _fields(value: Any, checks: Mapping[str, Callable[[Any], bool]], what: str) -> dict[str, Any]:
    """`value` if it is an object with exactly these fields, each of its kind. Raises `ValueError`."""
    if not isinstance(value, dict) or value.keys() != checks.keys():
        raise ValueError(f"{what} is no object with the fields {', '.join(checks)}")
    for name, check in checks.items():
        if not check(value[name]):
            raise ValueError(f"{what} has a bad {name}")
    return value


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _whole(value: Any) -> bool:
    return type(value) is int and -(2**63) <= value < 2**63  # a bool is an int to isinstance


def _number(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value <= _LATEST


def _reference(value: Any) -> bool:
    return value is None or _whole(value)


def _list(value: Any) -> bool:
    return isinstance(value, list)


def _object(value: Any) -> bool:
    return isinstance(value, dict) and _shallow(value, _MAX_DEPTH)


def _shallow(value: Any, levels: int) -> bool:
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels > 0 and all(_shallow(item, levels - 1) for item in inside)


def _tokens(value: Any) -> bool:
    return isinstance(value, list) and all(type(token) is int and -1 <= token < 2**31 for token in value)


def _role(value: Any) -> bool:
    return value in tuple(_ROLES)


def _state(value: Any) -> bool:
    return value in tuple(State)


_DOCUMENT = {"format": _text, "version": _whole, "chat": lambda _: True, "messages": _list}
_CHAT = {
    "title": _text,
    "model": _text,
    "settings": _object,
    "leaf": _reference,
    "created": _number,
    "updated": _number,
}
_MESSAGE = {
    "id": _whole,
    "parent": _reference,
    "role": _role,
    "text": _text,
    "reasoning": _text,
    "state": _state,
    "tokens": _tokens,
    "details": _object,
    "created": _number,
}


def _check_size(text: str) -> None:
    if len(text) > LIMIT:
        raise _bad(f"it has {len(text):,} characters, at most {LIMIT:,} are read")


def _check_count(messages: int) -> None:
    if messages > _MAX_MESSAGES:
        raise _bad(f"it has {messages:,} messages or parts of them, at most {_MAX_MESSAGES:,} are read")


def _bad(why: str) -> BadFile:
    return BadFile("transcript", why[:300], "choose a file that edgemm has exported")
