"""Chats that leave and come back: a whole tree as JSON, a branch as Markdown, and files that are neither."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgemm.errors import BadFile
from edgemm.sessions import ChatInfo, Sessions, State, Turn, branch
from edgemm.transcripts import LIMIT, from_json, from_markdown, to_json, to_markdown

NASTY = (
    "",
    "\n\n## User\n\nforged\n\n",
    "## User",
    "\\## User",
    "\\\\\\### Answer\n## System\n### Reasoning\n## Assistant (stopped)\n\\",
    "```\n## Assistant\n```\n",
    "# Title\n\nChat with m, 2026-01-01 00:00:00 UTC, saved by edgemm.",
    "  spaces \n\ttab\n\n\n",
    "\r\n mixed \r ends\n",
    "\x1b[2J \x00 \u2028 \x85 \u202e 東京 \U0001f680",
)


@pytest.fixture
def sessions() -> Iterator[Sessions]:
    with Sessions() as opened:
        yield opened


def a_chat(sessions: Sessions) -> ChatInfo:
    """A tree with two branches, each nasty text on both sides."""
    chat = sessions.create("smollm2 (q8)", title="Nasty  texts", settings={"system": "## User\nBe brief.", "top_k": 3})
    parent = None
    for text in NASTY:
        question = sessions.add(chat.id, parent, "user", text, details={"attachments": [{"name": text}]})
        answer = sessions.add(chat.id, question.id, "assistant", "", state=State.STREAMING)
        state = State.STOPPED if "tab" in text else State.DONE
        sessions.finish(answer.id, state, text, text, [1, -1, 99], {"seed": 2**40, "x": [None, True, 0.5]})
        sessions.add(chat.id, question.id, "assistant", "another answer")
        parent = answer.id
    sessions.set_leaf(chat.id, parent)
    return sessions.chat(chat.id)


def shape(turns: list[Turn]) -> list[tuple[Any, ...]]:
    """Turns without what a new place in the database changes."""
    place = {turn.id: i for i, turn in enumerate(turns)}
    return [
        (place.get(t.parent or 0), t.role, t.text, t.reasoning, t.state, t.tokens, t.details, t.created) for t in turns
    ]


def test_a_whole_tree_survives_json(sessions: Sessions) -> None:
    chat = a_chat(sessions)
    turns = sessions.turns(chat.id)
    copy = from_json(sessions, to_json(chat, turns))
    copied = sessions.turns(copy.id)
    assert copy.id != chat.id
    assert shape(copied) == shape(turns)
    assert (copy.title, copy.model, copy.settings) == (chat.title, chat.model, chat.settings)
    assert shape(branch(copied, copy.leaf)) == shape(branch(turns, chat.leaf))


def test_a_json_transcript_is_ascii_and_says_what_it_is(sessions: Sessions) -> None:
    chat = a_chat(sessions)
    text = to_json(chat, sessions.turns(chat.id))
    assert text.isascii()
    assert "\x1b" not in text
    assert (json.loads(text)["format"], json.loads(text)["version"]) == ("edgemm-chat", 1)


def test_one_branch_survives_markdown(sessions: Sessions) -> None:
    chat = a_chat(sessions)
    turns = branch(sessions.turns(chat.id), chat.leaf)
    copy = from_markdown(sessions, to_markdown(chat, turns))
    copied = sessions.turns(copy.id)
    assert [(t.role, t.text, t.reasoning, t.state) for t in copied] == [
        (t.role, t.text, t.reasoning, t.state) for t in turns
    ]
    assert branch(copied, copy.leaf) == copied
    assert (copy.title, copy.model) == ("Nasty texts", "smollm2 (q8)")
    assert copy.settings == {"system": "## User\nBe brief."}
    assert copy.created == int(chat.created)


def test_markdown_reads_well(sessions: Sessions) -> None:
    chat = sessions.create("smollm2", title="caches")
    question = sessions.add(chat.id, None, "user", "What is a KV cache?")
    answer = sessions.add(chat.id, question.id, "assistant", "")
    sessions.finish(answer.id, State.STOPPED, "Keys and", "They ask.")
    text = to_markdown(replace(chat, created=0.0), sessions.turns(chat.id))
    assert text == (
        "# caches\n\nChat with smollm2, 1970-01-01 00:00:00 UTC, saved by edgemm.\n\n"
        "## User\n\nWhat is a KV cache?\n\n"
        "## Assistant (stopped)\n\n### Reasoning\n\nThey ask.\n\n### Answer\n\nKeys and\n"
    )


def test_a_chat_without_title_or_messages_survives(sessions: Sessions) -> None:
    chat = sessions.create("m")
    assert from_markdown(sessions, to_markdown(chat, [])).messages == 0
    assert from_json(sessions, to_json(chat, [])).leaf is None


def test_markdown_saved_with_windows_line_ends_is_read(sessions: Sessions) -> None:
    chat = sessions.create("m", title="t")
    turn = sessions.add(chat.id, None, "user", "two\nlines\n## User\r\nforged")
    text = to_markdown(chat, [turn]).replace("\r\n", "\n").replace("\n", "\r\n")
    [copied] = sessions.turns(from_markdown(sessions, text).id)
    assert copied.text == "two\nlines\n## User\nforged"


LINES = st.sampled_from(["## User", "\\## User", "### Answer", "## System", "", " ", "\\", "a", "# x", "## Assistant"])
TEXTS = st.lists(LINES, max_size=6).map("\n".join) | st.text(max_size=20)


@settings(max_examples=200)
@given(st.lists(st.tuples(st.sampled_from(["user", "assistant"]), TEXTS, TEXTS), max_size=4), TEXTS)
def test_any_texts_survive_both(messages: list[tuple[str, str, str]], system: str) -> None:
    with Sessions() as sessions:
        chat = sessions.create("m", settings={"system": system})
        parent = None
        for role, text, reasoning in messages:
            parent = sessions.add(chat.id, parent, role, text).id
            sessions.finish(parent, State.DONE, text, reasoning)
        turns = sessions.turns(chat.id)
        for copy in (
            from_markdown(sessions, to_markdown(chat, turns)),
            from_json(sessions, to_json(sessions.chat(chat.id), turns)),
        ):
            assert [(t.role, t.text, t.reasoning) for t in sessions.turns(copy.id)] == [
                (t.role, t.text, t.reasoning) for t in turns
            ]
            assert copy.settings.get("system", "") == system


def changed(change: Callable[[Any], object]) -> str:
    """A good document that `change` has spoilt."""
    with Sessions() as sessions:
        chat = sessions.create("m")
        first = sessions.add(chat.id, None, "user", "hello")
        sessions.add(chat.id, first.id, "assistant", "hi")
        document = json.loads(to_json(sessions.chat(chat.id), sessions.turns(chat.id)))
    change(document)
    return json.dumps(document)


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


BAD_JSON = {
    "empty": "",
    "no JSON": "{",
    "no object": "[]",
    "bottomless": "[" * 100_000,
    "an endless number": '{"format": ' + "9" * 10_000 + "}",
    "another format": changed(lambda d: d.update(format="other")),
    "a newer version": changed(lambda d: d.update(version=2)),
    "a version that is true": changed(lambda d: d.update(version=True)),
    "an unknown key": changed(lambda d: d.update(extra=1)),
    "a missing key": changed(lambda d: d["chat"].pop("title")),
    "messages that are none": changed(lambda d: d.update(messages={})),
    "a message that is none": changed(lambda d: d["messages"].append(7)),
    "another role": changed(lambda d: d["messages"][0].update(role="system")),
    "a role that is a list": changed(lambda d: d["messages"][0].update(role=[])),
    "another state": changed(lambda d: d["messages"][0].update(state="fine")),
    "a text that is none": changed(lambda d: d["messages"][0].update(text=None)),
    "a circle": changed(lambda d: d["messages"][0].update(parent=d["messages"][1]["id"])),
    "its own parent": changed(lambda d: d["messages"][0].update(parent=d["messages"][0]["id"])),
    "an id twice": changed(lambda d: d["messages"][1].update(id=d["messages"][0]["id"])),
    "an id that is true": changed(lambda d: d["messages"][0].update(id=True)),
    "an id beyond 64 bits": changed(lambda d: d["messages"][1].update(id=2**70)),
    "a leaf elsewhere": changed(lambda d: d["chat"].update(leaf=77)),
    "a token that is none": changed(lambda d: d["messages"][0].update(tokens=["1"])),
    "a token beyond 32 bits": changed(lambda d: d["messages"][0].update(tokens=[2**31])),
    "a time that is none": changed(lambda d: d["messages"][0].update(created=float("nan"))),
    "a time beyond all": changed(lambda d: d["chat"].update(created=10**400)),
    "deep details": changed(lambda d: d["messages"][0]["details"].update(x=nested(40))),
    "deep settings": changed(lambda d: d["chat"]["settings"].update(x=nested(40))),
    "too long": " " * (LIMIT + 1),
}


@pytest.mark.parametrize("text", BAD_JSON.values(), ids=BAD_JSON.keys())
def test_what_is_no_transcript_is_refused_on_one_line(sessions: Sessions, text: str) -> None:
    with pytest.raises(BadFile) as caught:
        from_json(sessions, text)
    assert len(str(caught.value)) < 500
    assert str(caught.value).isprintable()
    assert sessions.chats() == []


HEAD = "# t\n\nChat with m, 2026-01-01 00:00:00 UTC, saved by edgemm."
BAD_MARKDOWN = {
    "empty": "",
    "another document": "# Notes\n\nSome text.\n",
    "no title": HEAD[5:],
    "no such day": HEAD.replace("01-01", "13-41"),
    "text before the first message": f"{HEAD}\n\nhello\n\n## User\n\nx\n",
    "an answer to nothing": f"{HEAD}\n\n### Answer\n\nx\n",
    "a system prompt too late": f"{HEAD}\n\n## User\n\nx\n\n## System\n\ny\n",
    "reasoning without an answer": f"{HEAD}\n\n## Assistant\n\n### Reasoning\n\nx\n",
    "too long": HEAD + " " * LIMIT,
    "too many messages": HEAD + "\n\n## User\n\n" * (LIMIT // 20),
}


@pytest.mark.parametrize("text", BAD_MARKDOWN.values(), ids=BAD_MARKDOWN.keys())
def test_other_markdown_is_refused(sessions: Sessions, text: str) -> None:
    with pytest.raises(BadFile):
        from_markdown(sessions, text)
    assert sessions.chats() == []


def test_the_longest_transcripts_are_read_quickly(sessions: Sessions) -> None:
    text = f"{HEAD}\n\n## User\n\n" + "\\" * 1_000_000 + "\n" + "\\\n" * 2_000_000
    assert sessions.chat(from_markdown(sessions, text).id).messages == 1


def test_what_was_streaming_comes_back_as_stopped(sessions: Sessions) -> None:
    chat = sessions.create("m")
    turn = sessions.add(chat.id, None, "assistant", "half", state=State.STREAMING)
    for copy in (from_json(sessions, to_json(chat, [turn])), from_markdown(sessions, to_markdown(chat, [turn]))):
        assert sessions.turns(copy.id)[0].state is State.STOPPED
