"""Chats from elsewhere: damaged settings, details of wrong types, another model's tokens. None may end the program."""

import itertools
import json
from dataclasses import replace
from typing import Any

import pytest
from scripted import ANSWERS, Recorder, finish, last, opened, reopened, texts

from edgemm import context, transcripts
from edgemm.answer import TOKENS, token_rows
from edgemm.attachments import Attachment, Kind
from edgemm.chat_settings import ChatSettings, Policy
from edgemm.conversation import Conversation, Facts
from edgemm.errors import UsageError
from edgemm.events import Note
from edgemm.sessions import Sessions, State

FOREIGN = (None, True, 7, -1, 1.5, 10**30, "x", "\ud800", [], [7], [[]], [[1, 2, 3, 4]], {}, {"a": 1}, [{"name": 1}])


@pytest.fixture
def sessions() -> Sessions:
    return Sessions()


def imported(sessions: Sessions, model: Recorder, details: dict[str, Any], **changes: Any) -> Conversation:
    """A chat of two questions and answers, copied with `details` in the place of everybody's."""
    chat = opened(sessions, Recorder(ANSWERS), top_logprobs=2)
    finish(chat.send("a"))
    finish(chat.send("b"))
    turns = [replace(turn, details=turn.details | details, **changes) for turn in chat.turns]
    return reopened(sessions, sessions.insert(chat.info, turns).id, model)


DAMAGED = [
    {"temperature": "hot"},
    {"what": 1},
    {"policy": []},
    {"system": 3},
    {"seed": {}},
    {"schema": "["},
    {"schema": "[" * 50_000},
    {"top_k": 10**400},
    {"max_tokens": True},
]


@pytest.mark.parametrize("settings", DAMAGED)
def test_damaged_settings_give_the_defaults_and_a_line_that_says_so(sessions: Sessions, settings: Any) -> None:
    chat = reopened(sessions, sessions.create("fake", settings=settings).id)
    assert chat.settings == ChatSettings()
    assert "the settings of this chat are damaged" in chat.problem
    assert "\n" not in chat.problem
    finish(chat.send("a"))
    assert sessions.chat(chat.info.id).settings == settings  # nobody asked to change them
    chat.configure(ChatSettings(system="be kind"))
    assert (chat.problem, chat.settings.system) == ("", "be kind")
    assert reopened(sessions, chat.info.id).problem == ""


@pytest.mark.parametrize("key", [context.KEY, context.ATTACHMENTS, TOKENS, "figures", "model", "sampling", "earlier"])
def test_details_of_wrong_types_are_as_if_they_were_not_there(sessions: Sessions, key: str) -> None:
    for value in FOREIGN:
        chat = imported(sessions, model := Recorder(ANSWERS), {key: value, "thinking": value})
        finish(chat.send("c"))
        assert [m["content"] for m in model.prompts[-1]] == ["a", ANSWERS[0], "b", ANSWERS[1], "c"]
        answer = chat.branch()[1].id
        finish(chat.resume(answer))
        finish(chat.regenerate(answer))
        finish(chat.edit(chat.branch()[0].id, "d"))
        assert chat.turn(answer).text.startswith(ANSWERS[0])
        assert isinstance(chat.plan("e"), context.Plan)


@pytest.mark.parametrize(
    "rows",
    [
        [[0, "one", 0.0]],
        [[0, "one", 0.0, 7]],
        [[0, "one", 0.0, [[1, 2, 3]]]],
        [["0", "one", 0.0, []]],
        [[0, 1, 0.0, []]],
        [[0, "one", None, []]],
        [[0, "one", 0.0, []]],  # the other tokens are missing
        [[5, "five", 0.0, [["six", 0.0, 6]]]] * 4,  # other tokens than those of the answer
        *FOREIGN,
    ],
)
def test_a_branch_at_a_token_of_damaged_rows_is_refused(sessions: Sessions, rows: Any) -> None:
    chat = imported(sessions, Recorder(ANSWERS), {TOKENS: rows})
    answer = chat.branch()[1]
    assert token_rows(answer) == []
    for place, token in itertools.product((-1, 0, 99), (0, 6)):
        with pytest.raises(UsageError, match="no such alternative"):
            finish(chat.fork(answer.id, place, token))
    assert len(chat.turns) == 4


@pytest.mark.parametrize("tokens", [(-1,), (2**31 - 1,), (10_000, 0)])
def test_tokens_that_the_model_does_not_have_are_never_given_to_it(sessions: Sessions, tokens: tuple[int, ...]) -> None:
    chat = imported(sessions, model := Recorder(["and more"]), {}, tokens=tokens)
    finish(chat.resume(last(chat).id))
    assert last(chat).text == f"{ANSWERS[1]}and more"
    assert bytes(model.asked[-1][0]).decode().endswith(f"assistant: {ANSWERS[1]}")


def test_the_answer_of_another_model_is_gone_on_with_by_its_text(sessions: Sessions) -> None:
    chat = opened(sessions, Recorder(ANSWERS), max_tokens=2)
    finish(chat.send("a"))
    answer = last(chat).id
    other = Conversation(sessions, chat.info.id, model := Recorder(["and more"]), Facts("other", "ff00"))
    finish(other.resume(answer))
    assert last(other).text == "one twoand more"
    assert bytes(model.asked[-1][0]).decode().endswith("assistant: one two")
    assert last(other).details["earlier"][0]["model"]["model"] == "fake"
    finish(other.resume(answer))  # now all tokens are its own
    assert model.asked[-1][0] == [*model.asked[0][0], 0, 1]


def test_a_branch_at_a_token_of_another_model_goes_on_with_the_text(sessions: Sessions) -> None:
    chat = opened(sessions, Recorder(ANSWERS), top_logprobs=2)
    finish(chat.send("a"))
    model = Recorder(["and more"])
    other = Conversation(sessions, chat.info.id, model, Facts("other", "ff00"))
    alternative = token_rows(last(chat))[1][3][1]
    finish(other.fork(last(chat).id, 1, alternative[2]))
    assert bytes(model.asked[-1][0]).decode().endswith(f"assistant: one{alternative[0]}")
    assert last(other).text == f"one{alternative[0]}and more"


def test_thoughts_alone_of_another_model_are_kept_beside_a_new_answer(sessions: Sessions) -> None:
    chat = opened(sessions, Recorder(["<think>hm hm"]))
    finish(chat.send("a"))
    old = last(chat)
    other = Conversation(sessions, chat.info.id, Recorder(["yes"]), Facts("other"))
    finish(other.resume(old.id))
    assert other.turn(old.id) == old
    assert [turn.text for turn in other.siblings(old.id)] == ["", "yes"]


def test_a_rewritten_answer_is_gone_on_with_again_and_again(sessions: Sessions) -> None:
    model = Recorder(["one two", "three four"])
    chat = opened(sessions, model, max_tokens=1)
    finish(chat.send("a"))
    mine = chat.rewrite(last(chat).id, "My own")
    finish(chat.resume(mine.id))
    finish(chat.resume(mine.id))
    assert last(chat).text == "My ownthreeone"
    assert bytes(model.asked[-1][0][:-1]).decode().endswith("assistant: My own")
    assert model.asked[-1][0][-1] == 0  # the token that came in between


def test_lone_surrogates_become_question_marks_wherever_they_come_from(sessions: Sessions) -> None:
    model = Recorder(ANSWERS)
    chat = opened(sessions, model, system="be \udc80 kind")
    plan = chat.plan("what \udcff?")
    file = Attachment("\udcfe.txt", Kind.TEXT, "body", 4, "ab")
    finish(chat.send("what \udcff?", [file]))
    assert chat.branch()[0].text == "what ??"
    assert chat.info.title == "what ?? ?.txt"
    assert plan.fits
    finish(chat.edit(chat.branch()[0].id, "\ud800"))
    finish(chat.resume(chat.rewrite(last(chat).id, "\ud800").id))
    assert last(chat).text == "?" + ANSWERS[2]


def test_a_copy_of_a_chat_leaves_out_the_same_turns(sessions: Sessions) -> None:
    for _ in range(3):
        finish(opened(sessions).send("so that ids differ"))
    model = Recorder(["y" * 150, "y" * 150, "y" * 150, "they met", "z"], context=1200)
    chat = opened(sessions, model, policy=Policy.SUMMARISE)
    for i in range(4):
        finish(chat.send(f"{i} " + "x" * 120))
    text = transcripts.to_json(chat.info, chat.turns)
    elsewhere = Sessions()
    copy = reopened(elsewhere, transcripts.from_json(elsewhere, text).id, Recorder(ANSWERS))
    assert [turn.text for turn in context.kept(copy.branch())[0]] == [
        turn.text for turn in context.kept(chat.branch())[0]
    ]
    assert context.kept(copy.branch())[1] == "they met"


def test_a_tree_that_no_conversation_makes_can_be_used(sessions: Sessions) -> None:
    info = sessions.create("fake")
    first = sessions.add(info.id, None, "assistant", "hello")
    second = sessions.add(info.id, first.id, "assistant", "again")
    third = sessions.add(info.id, second.id, "user", "a")
    sessions.add(info.id, third.id, "user", "b")
    chat = reopened(sessions, info.id, model := Recorder(ANSWERS))
    finish(chat.send("c"))
    assert model.prompts[-1] == [
        {"role": "assistant", "content": "hello\n\nagain"},
        {"role": "user", "content": "a\n\nb\n\nc"},
    ]
    for act in (chat.regenerate, chat.resume):
        for message in (first.id, second.id):
            with pytest.raises(UsageError):
                finish(act(message))
    assert [turn.state for turn in chat.turns] == [State.DONE] * 6


def test_every_wrong_message_is_refused_before_anything_is_stored(sessions: Sessions) -> None:
    chat = opened(sessions)
    finish(chat.send("a"))
    question, answer = (turn.id for turn in chat.branch())
    finish(opened(sessions).send("another chat"))
    before = sessions.turns(chat.info.id)
    for message in (0, -1, 99, question + 2):
        for act in (chat.regenerate, chat.resume, lambda m: chat.edit(m, "x"), lambda m: chat.fork(m, 0, 0)):
            with pytest.raises(UsageError):
                finish(act(message))
        for do in (chat.choose, lambda m: chat.rewrite(m, "x"), chat.siblings, chat.turn):
            with pytest.raises(UsageError):
                do(message)
    with pytest.raises(UsageError, match="is no question"):
        finish(chat.edit(answer, "x"))
    with pytest.raises(UsageError, match="is no answer"):
        finish(chat.resume(question))
    assert sessions.turns(chat.info.id) == before


def test_a_prompt_note_of_the_model_is_told(sessions: Sessions) -> None:
    class Plain(Recorder):
        def prompt(self, messages: Any) -> Any:
            return replace(super().prompt(messages), note="the model has no chat template")

    chat = opened(sessions, Plain(ANSWERS))
    assert Note("the model has no chat template") in finish(chat.send("a"))
    assert texts(chat) == ["a", ANSWERS[0]]


def test_what_is_kept_with_an_answer_is_plain_json(sessions: Sessions) -> None:
    chat = opened(sessions, top_logprobs=5)
    finish(chat.send("a"))
    details = last(chat).details
    assert json.loads(json.dumps(details, allow_nan=False)) == details
    assert details == sessions.turns(chat.info.id)[-1].details
