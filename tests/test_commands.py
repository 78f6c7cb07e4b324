"""Slash commands: what a typed line means, and the work that every door leaves to them."""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from edgemm import commands, personas
from edgemm.backends.fake import FakeGenerator
from edgemm.chat_settings import ChatSettings, Policy
from edgemm.conversation import Conversation, Facts
from edgemm.errors import BadFile, EdgemmError, UsageError
from edgemm.sessions import ChatInfo, Hit, Sessions
from edgemm.snippets import MARK, UNMARK

NAMES = [row.name for row in commands.ROWS]


@pytest.fixture
def sessions() -> Sessions:
    return Sessions()


@pytest.fixture
def chat(sessions: Sessions) -> Conversation:
    """A question with two answers, and a second question with one."""
    generator = FakeGenerator(["Paris it is", "It is Paris", "Rome"])
    found = Conversation(sessions, sessions.create("fake").id, generator, Facts("fake"))
    question = run(found, found.send("Capital of France?"))
    run(found, found.regenerate(question))
    run(found, found.send("And of Italy?"))
    return found


def run(chat: Conversation, events: object) -> int:
    list(events)  # type: ignore[call-overload]
    return chat.branch()[-2].id


# Parsing


def test_names_are_different_words() -> None:
    assert len(set(NAMES)) == len(NAMES)
    assert all(name.isalpha() and name.islower() for name in NAMES)


@pytest.mark.parametrize("text", ["hello", " /help", "a/b", "", "1 / 2", "hello\n/exit"])
def test_a_text_that_does_not_begin_with_a_slash_is_asked(text: str) -> None:
    assert commands.parse(text) == (commands.ASK, text)


def test_two_slashes_ask_a_text_that_begins_with_one() -> None:
    assert commands.parse("//etc/hosts is missing") == (commands.ASK, "/etc/hosts is missing")


@pytest.mark.parametrize(
    ("text", "name", "argument"),
    [
        ("/help", "help", ""),
        ("/HELP ", "help", ""),
        ("/open  7 ", "open", "7"),
        ("/edit two\nlines", "edit", "two\nlines"),
        ("/edit\ntwo\nlines\n", "edit", "two\nlines"),
        ("/branch", "branch", ""),
        ("/branch 2", "branch", "2"),
        ("/search a  b", "search", "a  b"),
    ],
)
def test_a_command_and_its_argument(text: str, name: str, argument: str) -> None:
    command, found = commands.parse(text)
    assert (command.name, found) == (name, argument)


@pytest.mark.parametrize(
    ("typed", "near"),
    [("/hlep", "/help"), ("/e", "/edit"), ("/regenrate", "/regenerate"), ("/Setings", "/settings"), ("/quit", "/exit")],
)
def test_an_unknown_command_is_answered_with_the_nearest_names(typed: str, near: str) -> None:
    with pytest.raises(UsageError, match=f"did you mean .*{near}") as caught:
        commands.parse(typed)
    assert "// sends a text" in str(caught.value)


@pytest.mark.parametrize("typed", ["/", "/ help", "/?", "/etc/hosts is missing", "/" + "x" * 1_000_000])
def test_an_unknown_command_is_one_short_line(typed: str) -> None:
    with pytest.raises(UsageError, match="is no command") as caught:
        commands.parse(typed)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("row", commands.ROWS, ids=lambda row: row.name)
def test_each_command_insists_on_the_arguments_that_its_help_shows(row: commands.Command) -> None:
    if row.arguments and not row.arguments.startswith("["):
        with pytest.raises(UsageError, match="needs"):
            commands.parse(f"/{row.name} ")
    else:
        assert commands.parse(f"/{row.name}") == (row, "")
    if row.arguments:
        assert commands.parse(f"/{row.name} x") == (row, "x")
    else:
        with pytest.raises(UsageError, match="takes nothing"):
            commands.parse(f"/{row.name} x")


@pytest.mark.parametrize("typed", ["", "x", "-1", "1.5", "9" * 30, "²", "0x10", "1 2"])
def test_a_number_is_digits(typed: str) -> None:
    with pytest.raises(UsageError, match="is not a number"):
        commands.number("open", typed)
    assert commands.number("open", "007") == 7


def test_the_help_names_every_command() -> None:
    assert [line.split(":")[0].split(" ")[0] for line in commands.help_lines()] == [*(f"/{n}" for n in NAMES), "//TEXT"]


# Files


@pytest.mark.parametrize("typed", ["a b.md", '"a b.md"', "'a b.md'"])
def test_a_path_may_stand_in_quotes(typed: str) -> None:
    assert commands.file(typed) == Path("a b.md")


def test_a_tilde_is_the_home_folder() -> None:
    assert commands.file("~/x.md") == Path.home() / "x.md"
    assert commands.file('"') == Path('"')


@pytest.mark.skipif(sys.platform == "win32", reason="Windows finds a folder for any user")
def test_the_home_of_nobody_is_told() -> None:
    with pytest.raises(UsageError, match="no such home folder"):
        commands.file("~no-such-user/x.md")


@pytest.mark.parametrize("name", ["chat.json", "chat.MD"])
def test_what_was_exported_can_be_imported(chat: Conversation, sessions: Sessions, tmp_path: Path, name: str) -> None:
    path = commands.export(chat, str(tmp_path / name))
    found = commands.import_chat(sessions, str(path))
    ours, theirs = chat.branch(), sessions.turns(found.id)
    assert found.title == chat.info.title == "Capital of France?"
    assert found.messages == (5 if name.endswith("json") else 4)
    assert {turn.text for turn in ours} <= {turn.text for turn in theirs}


def test_an_export_never_touches_a_file_that_is_there(chat: Conversation, tmp_path: Path) -> None:
    path = tmp_path / "mine.md"
    path.write_text("mine")
    with pytest.raises(UsageError, match="is there already"):
        commands.export(chat, str(path))
    assert path.read_text() == "mine"
    assert os.listdir(tmp_path) == ["mine.md"]  # noqa: PTH208


def test_a_failed_export_leaves_nothing(chat: Conversation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(EdgemmError, match="disk is full"):
        commands.export(chat, str(tmp_path / "chat.md"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "why"),
    [("chat.txt", "neither in .md"), ("chat", "neither in .md"), ("..", "neither"), ("no/such/folder.md", "No such")],
)
def test_an_export_that_cannot_be_is_told(chat: Conversation, tmp_path: Path, name: str, why: str) -> None:
    with pytest.raises(EdgemmError, match=why):
        commands.export(chat, str(tmp_path / name))


def test_a_name_that_no_file_can_have_is_told(chat: Conversation, sessions: Sessions) -> None:
    for name in ("a\0b.md", "x" * 5000 + ".md"):
        with pytest.raises(EdgemmError):
            commands.export(chat, name)
        with pytest.raises(EdgemmError):
            commands.import_chat(sessions, name)


def test_half_a_character_does_not_stop_an_export(chat: Conversation, tmp_path: Path) -> None:
    chat.configure(replace(chat.settings, system="half \ud800 character"))
    assert "half ? character" in commands.export(chat, str(tmp_path / "chat.md")).read_text("utf-8")


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("a.json", b"{", "transcript"),
        ("a.json", b"\xff\xfe", "UTF-8"),
        ("a.md", b"hello", "does not begin with a title"),
        ("a.txt", b"", "neither in .md"),
        ("a.json", json.dumps({"format": "other"}).encode(), "transcript"),
    ],
)
def test_an_import_of_anything_else_is_refused(
    sessions: Sessions, tmp_path: Path, name: str, content: bytes, why: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(EdgemmError, match=why):
        commands.import_chat(sessions, str(tmp_path / name))
    assert not sessions.chats()


def test_an_endless_import_is_refused(sessions: Sessions, tmp_path: Path) -> None:
    path = tmp_path / "large.json"
    with open(path, "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(BadFile, match="has more than"):
        commands.import_chat(sessions, str(path))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFO here")
def test_an_import_does_not_wait_for_a_pipe(sessions: Sessions, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(UsageError, match="is no file"):
        commands.import_chat(sessions, str(tmp_path / "pipe.json"))
    with pytest.raises(UsageError, match="is no file"):
        commands.import_chat(sessions, str(tmp_path / "missing.json"))


# Settings


@pytest.mark.parametrize(
    ("typed", "changes"),
    [
        ("temperature 0,7", {"temperature": 0.7}),
        ("top_k 5", {"top_k": 5}),
        ("seed 42", {"seed": 42}),
        ("seed", {"seed": None}),
        ("policy drop", {"policy": Policy.DROP}),
        ("top_logprobs   3", {"top_logprobs": 3}),
    ],
)
def test_a_setting_is_set(typed: str, changes: dict[str, object]) -> None:
    before = ChatSettings(seed=1)
    assert commands.with_value(before, typed) == replace(before, **changes)


@pytest.mark.parametrize(
    ("typed", "why"),
    [
        ("temperature", "needs a value"),
        ("temperature 9", r"0\.\.5"),
        ("temperature nan", r"0\.\.5"),
        ("temperature hot", r"0\.\.5"),
        ("top_k 1.5", "a whole number"),
        ("temprature 1", "choose temperature"),
        ("x 1", "choose max_tokens or"),
        ("policy", "is none of"),
        ("policy forget", "is none of"),
        ("system hello", "type /system"),
        ("schema off", "type /schema"),
    ],
)
def test_a_bad_setting_is_told_and_changes_nothing(typed: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        commands.with_value(ChatSettings(), typed)


def test_a_system_prompt_is_set_and_taken_away() -> None:
    found = commands.with_system(ChatSettings(), "Be brief.\nBe kind.")
    assert found.system == "Be brief.\nBe kind."
    assert commands.with_system(found, "off").system == ""


def test_a_persona_brings_its_prompt_and_temperature() -> None:
    known = personas.Personas(personas.ROWS, ("persona 2 has no name",))
    found = commands.with_persona(ChatSettings(temperature=1.0), "EDITOR", known)
    assert found.system.startswith("Correct")
    assert found.temperature == 0
    assert commands.with_persona(ChatSettings(temperature=1.0), "brief", known).temperature == 1
    with pytest.raises(UsageError, match="choose Brief"):
        commands.with_persona(ChatSettings(), "brif", known)
    assert commands.persona_lines(known)[-1] == "persona 2 has no name"


def test_a_schema_comes_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "schema.json"
    path.write_text('{"type": "object"}')
    found = commands.with_schema(ChatSettings(), str(path))
    assert json.loads(found.schema) == {"type": "object"}
    assert commands.with_schema(found, "off").schema == ""


@pytest.mark.parametrize("content", [b"[]", b"{", b"", b"\x89PNG\r\n\x1a\n", b"\0\0", b'{"x": "' + b"y" * 300_000])
def test_a_bad_schema_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "schema.json"
    path.write_bytes(content)
    with pytest.raises(UsageError):
        commands.with_schema(ChatSettings(), str(path))
    with pytest.raises(UsageError):
        commands.with_schema(ChatSettings(), str(tmp_path))


def test_the_settings_are_listed_with_their_limits() -> None:
    lines = commands.setting_lines(ChatSettings(schema='{"type": "object"}', system="one\ntwo"))
    assert "system: one two" in lines
    assert "temperature: 0.3 (a number in 0..5)" in lines
    assert "schema: 18 characters" in lines
    assert any(line.startswith("seed: a new one each time") for line in lines)
    assert commands.setting_lines(ChatSettings())[0] == "system: off"


# Versions


def test_every_version_on_the_branch_has_a_number(chat: Conversation) -> None:
    found = commands.versions(chat.turns, chat.info.leaf)
    assert [(each.number, each.turn.text, each.is_open) for each in found] == [
        (1, "Paris it is", False),
        (2, "It is Paris", True),
    ]
    assert commands.version_lines(found) == ["1 answer: Paris it is", "2 answer (shown): It is Paris"]


def test_a_version_is_opened_by_its_number(chat: Conversation) -> None:
    commands.choose(chat, "1")
    assert [turn.text for turn in chat.branch()] == ["Capital of France?", "Paris it is"]
    commands.choose(chat, "2")
    assert chat.branch()[-1].text == "Rome"


def test_versions_of_questions_and_of_answers_can_both_be_reached(chat: Conversation) -> None:
    first = chat.branch()[0].id
    list(chat.edit(first, "Capital of Spain?"))
    texts = set()
    for number in range(1, 5):
        if number > len(commands.versions(chat.turns, chat.info.leaf)):
            break
        texts.add(commands.choose(chat, str(number)).turn.text)
    assert {"Capital of France?", "Capital of Spain?"} <= texts
    assert {"Paris it is", "It is Paris"} & texts


@pytest.mark.parametrize("typed", ["0", "3", "99999"])
def test_a_version_that_is_not_there_is_told(chat: Conversation, typed: str) -> None:
    leaf = chat.info.leaf
    with pytest.raises(UsageError, match="versions 1 to 2"):
        commands.choose(chat, typed)
    assert chat.info.leaf == leaf


def test_a_chat_without_second_versions_says_so(sessions: Sessions) -> None:
    chat = Conversation(sessions, sessions.create("fake").id, FakeGenerator(["yes"]), Facts("fake"))
    with pytest.raises(UsageError, match="no message here has a second version"):
        commands.choose(chat, "1")


# Lines


def test_chats_and_hits_are_one_line_each() -> None:
    chats = [
        ChatInfo(1, "", "m", {}, None, 0, 0, 1),
        ChatInfo(2, "a\nb" + "c" * 100, "m" * 500, {}, None, 0, 1e300, 2),
    ]
    first, second = commands.chat_lines(chats, 1)
    assert first.startswith("1 ")
    assert first.endswith(", 1 message, m: without a title (open)")
    assert "2 at an unknown time, 2 messages" in second
    assert "a bccc" in second
    assert "\n" not in second
    assert len(second) < 250
    [hit] = commands.hit_lines([Hit(3, "Title", 9, "user", f"one {MARK}two{UNMARK}\nthree")])
    assert hit == "chat 3, Title: user: one two three"
