"""Nothing that a model, a user, a file, a title or an error says gets to the terminal as more than text.

What the whole screen writes is read back from a terminal: pty_screen.py refuses every sequence and character that is
none of the screen's own, and here those that only begin or end it are refused as well.
"""

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

if sys.platform == "win32":
    pytest.skip("there are no pseudo-terminals here", allow_module_level=True)

from hostile_texts import CONTROLS, MARKUP, SEQUENCES, TEXTS
from pty_driver import (
    ALT_UP,
    DOWN,
    ESCAPE,
    F1,
    F2,
    F4,
    F7,
    PAGE_DOWN,
    PAGE_UP,
    READY,
    UP,
    Program,
    plain,
    program,
    scripted,
    sequences,
)
from pty_screen import Foreign, Screen

from edgemm import paths
from edgemm.answer import TOKENS
from edgemm.attachments import Attachment, Kind
from edgemm.chat_settings import ChatSettings
from edgemm.sessions import Sessions, State, Turn, default_path

SIZE = (100, 30)
EVIL = "\x1b[2J\x1b]52;c;YQ==\x07\x9b31m\u202egnp\r\x08\U000e0041[@click=app.quit]x[/][/b]\x1bPq\x1b\\\x1b[?1049l"
SHORT = 14  # characters: cut at every place
GROUP = 30  # texts in one answer
ALT_R, CTRL_P, CTRL_R, CLEAR, F3, F8 = "\x1b[114;3u", "\x10", "\x12", "\x15", "\x1bOR", "\x1b[19~"
# What each key opens, and what is seen there alone.
VIEWS = {
    F7: "n/p unsure token",
    F4: "Ctrl+S save",
    F1: "scroll · Esc close",
    F3: "v report card",
    F8: "no chat model",
    CTRL_P: "Search for commands",
    F2: "Enter open",
}
# Each slash command, and what is told of it alone.
COMMANDS = {
    "persona": "- Programmer",
    "system": "- system ␛[2J",
    "search hello": "user: hello",
    "branch": "every message has one version",
    f"persona {EVIL}": "persona ␛[2J",
    f"system {EVIL}": "settings of this chat are saved",
    f"search {EVIL}": "nothing is found",
    f"branch {EVIL}": "/branch: '␛[2J",
    f"model {EVIL}": "there is no manifest.json",
    f"open {EVIL}": "/open: '␛[2J",
    f"set {EVIL}": "is no setting",
    f"import {EVIL}": "that /export wrote",
    f"schema {EVIL}": "no such file or directory",
    f"export {EVIL}": "one of these two formats",
    f"delete {EVIL}": "/delete: '␛[2J",
    f"rename new {EVIL}": "new ␛[2J",
    f"x {EVIL}": "/x: is no command",
    f"set policy {EVIL}": "policy: '␛[2J",
    EVIL: "/␛[2J",
}
MOVE = re.compile(rb"\x1b\[(\d+);(\d+)H")
_ATTRIBUTE = rb"(?:[0-9]|[34]8;5;\d+|[34]8;2;\d+;\d+;\d+)"
STYLE = re.compile(rb"\x1b\[%b(?:;%b)*m" % (_ATTRIBUTE, _ATTRIBUTE))
OWN = (b"\x1b[?2026h", b"\x1b[?2026l", b"\x1b]22;default\x07", b"\x1b]22;pointer\x07", b"\x1b]22;text\x07")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the user is. Whoever opens a link leaves a file `opened` there."""
    found = tmp_path / "here"
    found.mkdir()
    browser = tmp_path / "browser"
    browser.write_text(f"#!/bin/sh\ntouch {found}/opened\n")
    browser.chmod(0o755)
    monkeypatch.setenv("BROWSER", str(browser))
    monkeypatch.chdir(found)
    return found


def assert_harmless(it: Program, since: int) -> None:
    """From `since` to its end it moved the cursor on the terminal and changed its style, and did nothing else."""
    it.lines()
    leaving = it.seen.rindex(b"\x1b[?2004l")
    assert not foreign(it.seen[since:leaving])


def foreign(raw: bytes) -> set[bytes]:
    return {sequence for sequence in sequences(raw) if not _is_drawing(sequence)}


def _is_drawing(sequence: bytes) -> bool:
    moved = MOVE.fullmatch(sequence)
    if moved:
        return int(moved[1]) <= SIZE[1] and int(moved[2]) <= SIZE[0]
    return bool(STYLE.fullmatch(sequence)) or sequence in OWN


def test_these_tests_would_see_a_hostile_text() -> None:
    unseen = [text for text in (*CONTROLS, *SEQUENCES) if not _is_seen(text)]
    assert unseen == ["\x1b[10;10H", "\x1b[?2026h", "\x1b[38;2;1;2;3;4;5;6;7;8;9m"]  # others of their kind are


def _is_seen(text: str) -> bool:
    raw = f"before {text} after".encode()
    try:
        Screen(*SIZE).write(raw)
    except Foreign:
        return True
    return bool(foreign(raw))


# Said, streamed, clicked


def pieces(text: str) -> Iterator[str]:
    """A short text once for each place where it can be cut; a long one in threes."""
    if len(text) > SHORT:
        yield from (text[i : i + 3] for i in range(0, len(text), 3))
        return
    for place in range(1, max(2, len(text))):
        yield from (text[:place], text[place:], "\n\n")


def test_no_answer_and_no_question_drives_the_terminal(tmp_path: Path, folder: Path) -> None:
    assert len(TEXTS) >= 200
    groups = [TEXTS[i : i + GROUP] for i in range(0, len(TEXTS), GROUP)]
    answers = [[piece for text in group for piece in (*pieces(text), "\n\n")] for group in groups]
    with program(scripted(tmp_path / "s.json", answers=answers), SIZE) as it:
        it.until(READY)
        since = len(it.seen)
        for number, group in enumerate(groups):
            it.ask("\n".join(group).replace("\x1b[201~", ""))
            it.until(lambda done=2 * (number + 1): [turn.state for turn in said()] == [State.DONE] * done)
            it.press(PAGE_UP, PAGE_UP)
            click_what_asks_for_it(it)
            it.press(PAGE_DOWN, PAGE_DOWN)
        it.leave()
        assert_harmless(it, since)
    assert not (folder / "opened").exists()


def said() -> list[Turn]:
    with Sessions(default_path()) as sessions:
        return sessions.turns(sessions.chats()[0].id)


def test_no_markup_is_obeyed(tmp_path: Path, folder: Path) -> None:
    answers = [[text[:3], text[3:], f"\n\nend{number}."] for number, text in enumerate(MARKUP)]
    with program(scripted(tmp_path / "s.json", answers=answers), SIZE) as it:
        it.until(READY)
        since = len(it.seen)
        for number, text in enumerate(MARKUP):
            if "\n" in text or text.startswith("/"):
                it.ask(f" {text}")
            else:
                it.send("".join(filter(str.isprintable, text)) + "\r")
            it.until(f"end{number}.")
            click_what_asks_for_it(it)
        it.leave()
        assert plain(it.seen).count("x[/]") > 3
        assert_harmless(it, since)
    assert not (folder / "opened").exists()


def click_what_asks_for_it(it: Program) -> None:
    for row, line in enumerate(it.lines()[1:-6], 1):
        for found in re.finditer(r"@click|x\[|\]x|\]y|http|javascript", line):
            it.click(found.start() + 1, row)
    it.pause(0.02)


def test_half_a_character_stops_no_drawing(tmp_path: Path) -> None:
    answers = [["one \ud800 ", "two \udc80 ", "three"], ["four"]]
    with program(scripted(tmp_path / "s.json", answers=answers, seconds=0.2), SIZE) as it:
        it.until(READY)
        it.ask("hello")
        it.until("three")
        it.ask("again")
        it.until("four")
        it.leave()


def test_no_paste_presses_a_key(tmp_path: Path) -> None:
    with program(scripted(tmp_path / "s.json"), SIZE) as it:
        it.until(READY)
        for number, key in enumerate(("\r", "\n\r", "\x1b\r", "[A\r", "OP", "[15~", "[27;1;13~", "[13u")):
            it.ask(f"a \x1b{key}/delete yes\r\x1b{key}\x1b\x1b end{number}", key=".")
            it.until(f"end{number}.")  # whatever the paste pressed, it did so before
            assert not it.shows("Esc close")
        it.leave()
    with Sessions(default_path()) as sessions:
        assert not sessions.chats()  # nothing was sent


# Stored, named, refused


def store(folder: Path) -> None:
    """Chats with every text as their title and model, a last one with hostile details, files and personas."""
    default_path().parent.mkdir(parents=True)
    with Sessions(default_path()) as sessions:
        for text in TEXTS[::-1]:
            chat = sessions.create(text[:100], title=text)
            sessions.add(chat.id, None, "user", f"hello {text}")
        last = sessions.create("fake", title=f"last {EVIL}", settings=ChatSettings(system=f"system {EVIL}").to_json())
        parent = None
        for text in TEXTS:
            parent = sessions.add(last.id, parent, "user", text).id
            parent = sessions.add(last.id, parent, "assistant", text, details=details()).id
            sessions.finish(parent, State.DONE, text, f"thought {text}", tokens=(1, 2), details=details())
    (paths.data() / "personas.json").write_text(json.dumps([{"name": EVIL[:40], "system": EVIL}, {EVIL: EVIL}]))
    names = [
        f"@file {EVIL}.txt".replace("/", "|"),
        "plain.txt",
        *(["\udcff\udcfe.txt"] if sys.platform == "linux" else []),
    ]
    for name in names:
        (folder / name).write_text("much text " * 200 + EVIL)
    package = paths.data().parent / f"evil{EVIL}".replace("/", "|")
    package.mkdir()
    (package / "manifest.json").write_text(EVIL)


def details() -> dict[str, Any]:
    rows = [[1, EVIL, -0.1, [[EVIL, -0.1, 1], [f"b{EVIL}", -2, 2]]], [2, " x", -1, [[" x", -1, 2]]]]
    return {
        "attachments": [asdict(Attachment(f"name {EVIL}", Kind.TEXT, EVIL, 1, ""))],
        "context": {"left_out": 1, "summary": f"summary {EVIL}"},
        "model": {"model": f"model {EVIL}"},
        "figures": {"reason": EVIL, "generated_tokens": EVIL, "decode_seconds": EVIL},
        "error": EVIL,
        TOKENS: rows,
    }


def test_no_title_name_setting_or_stored_word_drives_the_terminal(tmp_path: Path, folder: Path) -> None:
    store(folder)
    with program(scripted(tmp_path / "s.json", last=True, note=f"note {EVIL}"), SIZE) as it:
        it.until(READY)
        since = len(it.seen)
        it.until("last ␛[2J")
        it.press(*[PAGE_UP] * 12, ALT_UP, ALT_R)
        for key, shown in VIEWS.items():
            it.send(key)
            it.until(shown)
            it.press(*[DOWN] * 3, *[PAGE_DOWN] * 40 * (key == F2))
            it.send(ESCAPE)
            it.until(lambda shown=shown: not it.shows(shown))
            if key == F7:
                it.press(ESCAPE)  # chooses no message
        it.send(F2)
        it.until("Enter open")
        it.send("hello")
        it.until("user: hello ")
        it.press(DOWN, DOWN, ESCAPE)
        it.leave()
        assert_harmless(it, since)


def test_no_argument_file_name_or_error_drives_the_terminal(tmp_path: Path, folder: Path) -> None:
    store(folder)
    script = {"last": True, "note": f"note {EVIL}", "error": f"error {EVIL}", "model": f"m {EVIL}"}
    with program(scripted(tmp_path / "s.json", **script), SIZE) as it:
        it.until(READY)
        since = len(it.seen)
        for line, told in COMMANDS.items():
            it.ask(f"/{line}")
            it.until(told)
        it.send("@fi")
        it.until("@file ␛[2J")
        it.send("\t\r")
        it.until("error ␛[2J")
        it.press(UP, UP, CTRL_R, "a", DOWN, ESCAPE, ESCAPE)
        it.press(CLEAR, "@", DOWN, DOWN, DOWN)
        it.until("plain.txt")
        it.leave()
        assert_harmless(it, since)
