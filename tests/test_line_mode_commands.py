"""The line mode obeys every slash command, and tells a bad one in one line."""

import json
from pathlib import Path

import pytest
from line_mode import Run, only_chat, texts

from edgemm import commands
from edgemm.answer import TOKENS
from edgemm.backends.fake import FakeGenerator
from edgemm.chat_settings import ChatSettings
from edgemm.desk import Desk
from edgemm.errors import ModelStopped, NotEnoughMemory
from edgemm.talk import table

pytest_plugins = ("talking",)


# Commands


def test_every_command_has_a_row() -> None:
    assert list(table.ROWS) == [row.name for row in commands.ROWS]


def test_help_lists_the_commands_on_stdout(say: Run) -> None:
    assert say("/help").out.splitlines() == commands.help_lines()


def test_an_unknown_command_is_told(say: Run) -> None:
    seen = say("/hlep", "hello")
    assert "edgemm: /hlep: is no command — did you mean /help?" in seen.err
    assert seen.out == "one two three\n"


def test_exit_leaves_at_once(say: Run) -> None:
    assert say("hello", "/exit", "never").out == "one two three\n"


def test_new_chats_are_listed_and_opened(say: Run, desk: Desk) -> None:
    seen = say("first", "/new", "second", "/chats", "/open 1", "/history", "/chats")
    lists = [line for line in seen.out.splitlines() if "messages, fake" in line]
    assert [line[0] for line in lists] == ["2", "1", "2", "1"]
    assert [line.endswith("(open)") for line in lists] == [True, False, False, True]
    assert "user: first\nassistant: one two three\n" in seen.out


@pytest.mark.parametrize(
    ("typed", "why"), [("/open 9", "chat 9"), ("/open x", "is not a number"), ("/open", "needs N")]
)
def test_a_chat_that_is_not_there_changes_nothing(say: Run, typed: str, why: str) -> None:
    seen = say("first", typed, "/history")
    assert why in seen.err
    assert seen.out.endswith("user: first\nassistant: one two three\n")


def test_search_finds_words_of_every_chat(say: Run) -> None:
    seen = say("a red apple", "/new", "pears", "/search appl", '/search "*(', "/search nothing")
    assert "chat 1, a red apple: user: a red apple\n" in seen.out
    assert seen.err.count("nothing is found") == 2


def test_another_model_answers_on(say: Run, tmp_path: Path) -> None:
    path = tmp_path / "other.gguf"
    path.touch()
    desk = Desk(opener=lambda name: FakeGenerator(["other" if name == str(path) else "fake"]))
    seen = say("hello", "/model", f"/model {path}", "/model", "again", to=desk)
    assert seen.out == f"fake\nfake\n{path}\nother\n"


def test_a_model_that_is_unknown_or_too_large_leaves_the_one_before(say: Run, tmp_path: Path) -> None:
    path = tmp_path / "large.gguf"
    path.touch()

    def opened(name: str) -> FakeGenerator:
        if name == str(path):
            raise NotEnoughMemory(name, "needs 9 GB", "close something")
        return FakeGenerator(["yes"])

    seen = say("/model no-such-model", f"/model {path}", "hello", "/model", to=Desk(opener=opened))
    assert "edgemm: no-such-model: " in seen.err
    assert "needs 9 GB" in seen.err
    assert seen.out == "yes\nfake\n"


def test_a_chat_whose_model_is_gone_leaves_the_one_before_open(say: Run) -> None:
    def opened(name: str) -> FakeGenerator:
        if name == "gone":
            raise ModelStopped(name, "cannot be loaded", "pull it")
        return FakeGenerator(["yes"])

    desk = Desk(opener=opened)
    gone = desk.new_chat("gone").id
    desk.sessions.add(gone, None, "user", "old question")
    seen = say("hello", f"/open {gone}", "again", to=desk)
    assert "edgemm: gone: cannot be loaded" in seen.err
    assert seen.out == "yes\nyes\n"
    assert texts(desk, gone) == ["old question"]


def test_without_any_model_the_chat_is_left_without_an_error(say: Run) -> None:
    names = iter(["works"])

    def opened(name: str) -> FakeGenerator:
        if not next(names, ""):
            raise ModelStopped(name, "cannot be loaded", "pull it")
        return FakeGenerator(["yes"])

    desk = Desk(opener=opened)
    gone = desk.new_chat("gone").id
    seen = say(f"/open {gone}", "hello", "/new", "/history", "/exit", to=desk)
    assert "its model is not loaded" in seen.err
    assert seen.out == ""


def test_the_system_prompt_is_set_shown_and_taken_away(say: Run, desk: Desk) -> None:
    seen = say("/system", "/system Be brief.", "/system", "hello", "/system off", "/system")
    assert seen.err.count("no system prompt\n") == 2
    assert seen.out == "Be brief.\none two three\n"


def test_a_persona_is_listed_and_taken(say: Run, desk: Desk) -> None:
    seen = say("/persona", "/persona brief", "/system", "/persona nobody")
    assert "Brief: short answers\n" in seen.out
    assert "Answer in as few words as possible." in seen.out
    assert "persona nobody: is not known" in seen.err


def test_settings_are_set_shown_and_kept(say: Run, desk: Desk) -> None:
    seen = say("/set temperature 0.7", "/set temperature hot", "/settings", "hello")
    assert "temperature: 0.7 (a number in 0..5)\n" in seen.out
    assert "'hot' is not a number in 0..5" in seen.err
    assert ChatSettings.from_json(only_chat(desk).settings).temperature == 0.7


def test_an_answer_is_given_again_and_versions_are_chosen(say: Run, desk: Desk) -> None:
    seen = say("/branch", "hello", "/regenerate", "/branch", "/branch 1", "/branch 7", "next")
    assert "every message has one version" in seen.err
    assert "1 answer: one two three\n2 answer (shown): four five\n" in seen.out
    assert "user: hello\nassistant: one two three\n" in seen.out
    assert "there are versions 1 to 2" in seen.err
    assert [turn.text for turn in desk.open_chat(1).branch()] == ["hello", "one two three", "next", "six"]


def test_the_last_question_is_edited(say: Run, desk: Desk) -> None:
    seen = say("first", "helo", "/edit hello\\", "there", "/history")
    assert seen.out.endswith("user: first\nassistant: one two three\nuser: hello\nthere\nassistant: six\n")
    assert "helo" in texts(desk, 1)


def test_a_cut_answer_goes_on(say: Run, desk: Desk) -> None:
    seen = say("/set max_tokens 2", "hello", "/set max_tokens 9", "/continue", "/history", "/continue")
    assert ", cut here: /continue goes on]" in seen.err
    assert seen.out == "one two\nfour five\nuser: hello\nassistant: one twofour five\n"
    assert "the last answer is complete" in seen.err


@pytest.mark.parametrize("typed", ["/regenerate", "/edit x", "/continue", "/tokens", "/history"])
def test_a_command_about_what_was_said_waits_until_something_was(say: Run, typed: str) -> None:
    seen = say(typed, "hello")
    assert "yet" in seen.err
    assert seen.out == "one two three\n"


def test_a_file_goes_with_the_next_question_alone(say: Run, desk: Desk, tmp_path: Path) -> None:
    path = tmp_path / "my notes.txt"
    path.write_text("The code is 42.")
    seen = say(f'/attach "{path}"', "what is the code?", "thanks")
    assert "my notes.txt: 15 characters go with the next question" in seen.err
    first, _, second, _ = desk.sessions.turns(1)
    assert [each["text"] for each in first.details["attachments"]] == ["The code is 42."]
    assert not second.details.get("attachments")


def test_a_file_is_let_go_or_refused(say: Run, desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "b.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    seen = say(
        f"/attach {tmp_path / 'a.txt'}",
        "/attach off",
        f"/attach {tmp_path / 'b.png'}",
        f"/attach {tmp_path / 'c.txt'}",
        f"/attach {tmp_path}",
        "hello",
    )
    assert "b.png: is a picture" in seen.err
    assert "c.txt: no such file" in seen.err
    assert "is a folder" in seen.err
    assert not desk.sessions.turns(1)[0].details.get("attachments")


def test_a_file_stays_attached_when_its_question_is_not_sent(say: Run, full: Desk, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("attached")
    seen = say(f"/attach {path}", "z" * 290, "/set policy drop", "z", chat=1, to=full)
    assert "/set policy drop" in seen.err
    [question] = [turn for turn in full.sessions.turns(1) if turn.text == "z"]
    assert [each["text"] for each in question.details["attachments"]] == ["attached"]


def test_a_chat_is_written_to_a_file_and_read_back(say: Run, desk: Desk, tmp_path: Path) -> None:
    path = tmp_path / "chat.json"
    seen = say("hello", f"/export {path}", f"/export {path}", f"/import {path}", "/history")
    assert f"written to {path}" in seen.err
    assert "is there already" in seen.err
    assert "chat 2, hello: 2 messages" in seen.err
    assert seen.out.endswith("user: hello\nassistant: one two three\n")


def test_a_bad_import_changes_nothing(say: Run, desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{")
    seen = say("hello", f"/import {tmp_path / 'x.json'}", f"/import {tmp_path / 'y.md'}", f"/import {tmp_path}", "more")
    assert seen.err.count("edgemm: ") == 3
    assert only_chat(desk).messages == 4


def test_a_schema_is_read_from_a_file(say: Run, desk: Desk, tmp_path: Path) -> None:
    path = tmp_path / "schema.json"
    path.write_text('{"type": "object"}')
    seen = say(f"/schema {path}", "/settings", "/schema off", "/settings", f"/schema {tmp_path}")
    assert "schema: 18 characters\n" in seen.out
    assert "schema: off\n" in seen.out
    assert "is a folder" in seen.err


def test_the_tokens_of_an_answer_are_shown_with_their_alternatives(say: Run) -> None:
    seen = say("hello", "/tokens", "/set top_logprobs 3", "/regenerate", "/tokens")
    assert "this answer has no probabilities: /set top_logprobs 5" in seen.err
    assert "'four' 50%, or 'four1' 25%, 'four2' 13%\n" in seen.out


@pytest.mark.parametrize("rows", [5, "x", [1], [[1, "a", 0.5]], [[1, "a", "b", [["x", 1e999, 1]]]], [[1, "a", -1, 3]]])
def test_damaged_probabilities_are_told(say: Run, desk: Desk, rows: object) -> None:
    chat = desk.new_chat("fake").id
    turn = desk.sessions.add(chat, None, "user", "hello")
    desk.sessions.add(chat, turn.id, "assistant", "hi", details={TOKENS: json.loads(json.dumps(rows))})
    seen = say("/tokens", "next", chat=chat)
    assert "probabilities" in seen.err
    assert seen.out == "one two three\n"


def test_two_models_are_compared_on_the_screen_alone(say: Run) -> None:
    assert "/compare: needs the chat screen" in say("/compare other").err


def test_a_chat_is_renamed(say: Run, desk: Desk) -> None:
    say("hello", "/rename My  title")
    assert only_chat(desk).title == "My  title"


def test_a_chat_is_deleted_by_yes_alone(say: Run, desk: Desk) -> None:
    seen = say("hello", "/delete", "/delete now", "/chats", "/delete yes", "/chats", "next")
    assert "nothing was deleted: /delete yes deletes" in seen.err
    assert "takes nothing but yes" in seen.err
    assert seen.out.count("2 messages") == 1
    assert texts(desk, only_chat(desk).id) == ["next", "four five"]


@pytest.mark.parametrize(("typed", "left"), [("y", 0), ("n", 1), ("", 1)])
def test_a_terminal_is_asked_before_a_chat_is_deleted(prompted: Run, desk: Desk, typed: str, left: int) -> None:
    seen = prompted("hello", "/delete", typed)
    assert "delete this chat for good? y/n: " in seen.err
    assert len(desk.chats()) == left


def test_an_empty_chat_is_deleted_without_an_error(say: Run) -> None:
    seen = say("/delete yes", "hello")
    assert "edgemm:" not in seen.err
    assert seen.out == "one two three\n"
