"""A chat of the store and its model: nothing said is lost, and every way on makes a branch."""

from pathlib import Path

import pytest
from scripted import ANSWERS, Recorder, finish, last, opened, reopened, texts

from edgemm import context
from edgemm.answer import TOKENS, Begun, Ended, Grown
from edgemm.attachments import Attachment, Kind
from edgemm.chat_settings import ChatSettings, Policy
from edgemm.conversation import Conversation, Facts
from edgemm.errors import PromptTooLong, UsageError
from edgemm.events import Note, Progress
from edgemm.sessions import Sessions, State

FILE = Attachment("n.txt", Kind.TEXT, "body", 4, "ab")


@pytest.fixture
def sessions() -> Sessions:
    return Sessions()


def test_question_and_answer_are_stored_with_what_made_them(sessions: Sessions) -> None:
    chat = opened(sessions, temperature=0.5, max_tokens=99)
    events = finish(chat.send("hello there"))
    assert [type(e) for e in events] == [Begun, Progress, Grown, Grown, Ended]
    assert events[-2] == Grown("one two three four", "")
    question, answer = sessions.turns(chat.info.id)
    assert (question.text, question.state) == ("hello there", State.DONE)
    assert (answer.text, answer.state, answer.tokens) == ("one two three four", State.DONE, (0, 1, 2, 3))
    assert answer.details["sampling"]["temperature"] == 0.5
    assert isinstance(answer.details["sampling"]["seed"], int)
    assert answer.details["model"] == {"model": "fake", "sha256": "00ff", "template": "", "backend": ""}
    assert answer.details["figures"]["generated_tokens"] == 4
    assert chat.info.title == "hello there"


def test_the_next_question_carries_what_was_said(sessions: Sessions) -> None:
    model = Recorder(ANSWERS)
    chat = opened(sessions, model, system="be kind")
    finish(chat.send("a"))
    finish(chat.send("b"))
    assert [m["content"] for m in model.prompts[-1]] == ["be kind", "a", "one two three four", "b"]


def test_to_answer_again_and_to_edit_make_versions_and_lose_nothing(sessions: Sessions) -> None:
    chat = opened(sessions)
    finish(chat.send("a"))
    question, answer = chat.branch()
    finish(chat.regenerate(answer.id))
    assert texts(chat) == ["a", "alpha beta"]
    assert [turn.text for turn in chat.siblings(answer.id)] == ["one two three four", "alpha beta"]
    finish(chat.edit(question.id, "b"))
    assert texts(chat) == ["b", "final"]
    chat.choose(question.id)
    assert texts(chat) == ["a", "alpha beta"]
    chat.choose(answer.id)
    assert texts(chat) == ["a", "one two three four"]
    assert len(chat.turns) == 5


def test_an_answer_can_be_rewritten_and_gone_on_with(sessions: Sessions) -> None:
    model = Recorder(ANSWERS)
    chat = opened(sessions, model)
    finish(chat.send("a"))
    mine = chat.rewrite(chat.branch()[-1].id, "My own beginning")
    finish(chat.resume(mine.id))
    assert texts(chat) == ["a", "My own beginningalpha beta"]
    assert bytes(model.asked[-1][0]).decode().endswith("assistant: My own beginning")


def test_a_branch_begins_at_another_token(sessions: Sessions) -> None:
    model = Recorder(ANSWERS)
    chat = opened(sessions, model, top_logprobs=3)
    finish(chat.send("a"))
    answer = chat.branch()[-1]
    rows = answer.details[TOKENS]
    assert [row[1] for row in rows] == ["one", " two", " three", " four"]
    other = rows[1][3][1]
    finish(chat.fork(answer.id, 1, other[2]))
    assert texts(chat)[-1] == f"one{other[0]}alpha beta"
    assert model.asked[-1][0][-2:] == [rows[0][0], other[2]]
    assert len(chat.siblings(answer.id)) == 2
    with pytest.raises(UsageError, match="no such alternative"):
        finish(chat.fork(answer.id, 99, 1))


def test_reasoning_is_kept_apart_and_not_sent_again(sessions: Sessions) -> None:
    model = Recorder(["<think> hm hm </think> done", "ok"])
    chat = opened(sessions, model)
    finish(chat.send("a"))
    answer = chat.branch()[-1]
    assert (answer.reasoning, answer.text.strip()) == ("hm hm", "done")
    finish(chat.send("b"))
    assert "hm" not in str(model.prompts[-1])


def test_what_does_not_fit_is_refused_with_both_numbers_and_nothing_is_stored(sessions: Sessions) -> None:
    chat = opened(sessions, Recorder(ANSWERS, context=400))
    with pytest.raises(PromptTooLong, match=r"has 1,\d\d\d tokens .* 300 fit"):
        finish(chat.send("x" * 1000))
    assert sessions.turns(chat.info.id) == []


def test_dropped_turns_stay_dropped_so_that_the_prefix_is_the_same(sessions: Sessions) -> None:
    model = Recorder(["y" * 60], context=400)
    chat = opened(sessions, model, policy=Policy.DROP)
    notes = []
    for i in range(6):
        notes += [e.text for e in finish(chat.send(f"{i} " + "x" * 40)) if isinstance(e, Note)]
    assert any("left out" in note for note in notes)
    firsts = [prompts[0]["content"][:2] for prompts in model.prompts if len(prompts) > 1]
    assert len(set(firsts[-2:])) == 1
    assert len(chat.branch()) == 12  # all of it is still in the store


def test_a_summary_stands_for_what_is_left_out(sessions: Sessions) -> None:
    model = Recorder(["y" * 150, "y" * 150, "y" * 150, "they talked about x", "z"], context=1200)
    chat = opened(sessions, model, policy=Policy.SUMMARISE)
    for i in range(4):
        finish(chat.send(f"{i} " + "x" * 120))
    cut = chat.branch()[-2].details[context.KEY]
    assert cut["summary"] == "they talked about x"
    assert model.prompts[-1][0] == {"role": "system", "content": "Earlier in this conversation: they talked about x"}


def test_one_question_may_have_another_policy(sessions: Sessions) -> None:
    chat = opened(sessions, Recorder(["y" * 60], context=400))
    for i in range(2):
        finish(chat.send(f"{i} " + "x" * 40))
    plan = chat.plan("x" * 80)
    assert plan.dropped
    assert not plan.fits
    with pytest.raises(PromptTooLong, match="oldest messages"):
        finish(chat.send("x" * 80))
    finish(chat.send("x" * 80, policy=Policy.DROP))
    assert chat.settings.policy is Policy.REFUSE


def test_files_go_with_a_question_and_pictures_are_refused(sessions: Sessions) -> None:
    model = Recorder(ANSWERS)
    chat = opened(sessions, model)
    finish(chat.send("what?", [FILE]))
    assert "File n.txt:\n```\nbody\n```\n\nwhat?" in model.prompts[-1][0]["content"]
    assert chat.branch()[0].text == "what?"
    with pytest.raises(UsageError, match="picture"):
        finish(chat.send("and?", [Attachment("p.png", Kind.IMAGE, "", 4, "ab")]))


def test_two_windows_on_one_chat_make_two_branches(tmp_path: Path) -> None:
    with Sessions(tmp_path / "c.sqlite") as one, Sessions(tmp_path / "c.sqlite") as two:
        first = opened(one)
        finish(first.send("a"))
        second = Conversation(two, first.info.id, Recorder(ANSWERS), Facts("fake"))
        finish(second.send("from two"))
        notes = [e.text for e in finish(first.send("from one")) if isinstance(e, Note)]
        assert any("another window" in note for note in notes)
        assert texts(first)[-2] == "from one"
        assert {turn.text for turn in one.turns(first.info.id)} >= {"from one", "from two"}
        second.changed_elsewhere()
        assert texts(second)[-2] == "from two"


def test_a_window_stays_on_its_branch_whatever_another_one_does(tmp_path: Path) -> None:
    with Sessions(tmp_path / "c.sqlite") as one, Sessions(tmp_path / "c.sqlite") as two:
        first = opened(one)
        finish(first.send("a"))
        mine = texts(first)
        second = reopened(two, first.info.id)
        finish(second.send("from two"))
        assert first.changed_elsewhere()
        assert not first.changed_elsewhere()
        assert texts(first) == mine
        first.rename("mine")
        assert texts(first) == mine
        assert len(first.turns) == 4
        second.configure(ChatSettings(temperature=1.0))
        assert first.changed_elsewhere()
        assert first.settings.temperature == 1.0


def test_what_another_chat_writes_is_no_change_of_this_one(tmp_path: Path) -> None:
    with Sessions(tmp_path / "c.sqlite") as one, Sessions(tmp_path / "c.sqlite") as two:
        first, other = opened(one), opened(two)
        finish(other.send("a"))
        assert not first.changed_elsewhere()
        assert not [e for e in finish(first.send("b")) if isinstance(e, Note)]


def test_a_chat_that_another_window_deletes_says_so(tmp_path: Path) -> None:
    with Sessions(tmp_path / "c.sqlite") as one, Sessions(tmp_path / "c.sqlite") as two:
        chat = opened(one)
        finish(chat.send("a"))
        two.delete(chat.info.id)
        with pytest.raises(UsageError, match="deleted"):
            finish(chat.send("b"))


def test_an_answer_that_another_window_writes_is_not_gone_on_with(tmp_path: Path) -> None:
    with Sessions(tmp_path / "c.sqlite") as one, Sessions(tmp_path / "c.sqlite") as two:
        first = opened(one)
        events = first.send("a")
        assert isinstance(next(events), Begun)
        second = reopened(two, first.info.id)
        with pytest.raises(UsageError, match="another window"):
            finish(second.resume(last(second).id))
        finish(events)
        second.changed_elsewhere()
        assert texts(second) == ["a", ANSWERS[0]]


def test_what_another_window_added_to_an_answer_is_gone_on_with(tmp_path: Path) -> None:
    with Sessions(tmp_path / "c.sqlite") as one, Sessions(tmp_path / "c.sqlite") as two:
        first = opened(one, max_tokens=2)
        finish(first.send("a"))
        answer = last(first).id
        second = reopened(two, first.info.id)
        finish(first.resume(answer))
        finish(second.resume(answer))
        assert texts(second) == ["a", "one twoalpha betaone two"]


def test_the_seed_of_an_answer_is_kept_and_given_to_the_model(sessions: Sessions) -> None:
    model = Recorder(ANSWERS)
    chat = opened(sessions, model)
    for _ in range(2):
        finish(chat.send("a"))
        assert last(chat).details["sampling"]["seed"] == model.asked[-1][1].seed
    assert model.asked[0][1].seed != model.asked[1][1].seed
    chat.configure(ChatSettings(seed=7))
    finish(chat.regenerate(last(chat).id))
    assert model.asked[-1][1].seed == 7


def test_how_the_parts_of_an_answer_came_about_is_kept(sessions: Sessions) -> None:
    model = Recorder(ANSWERS)
    chat = opened(sessions, model, max_tokens=2)
    finish(chat.send("a"))
    finish(chat.resume(last(chat).id))
    finish(chat.resume(last(chat).id))
    earlier = last(chat).details["earlier"]
    assert [part["tokens"] for part in earlier] == [2, 4]
    assert [part["sampling"]["seed"] for part in earlier] == [asked[1].seed for asked in model.asked[:2]]
    assert last(chat).details["sampling"]["seed"] == model.asked[2][1].seed


def test_a_title_is_the_beginning_of_the_first_question(sessions: Sessions) -> None:
    chat = opened(sessions)
    finish(chat.send("  What\n is   this?  "))
    assert chat.info.title == "What is this?"
    finish(chat.send("and that?"))
    assert chat.info.title == "What is this?"
    chat.rename("mine")
    assert chat.info.title == "mine"
    long = opened(sessions)
    finish(long.send("word " * 100))
    assert len(long.info.title) <= 48
    assert long.info.title.endswith("word…")
    mute = opened(sessions)
    finish(mute.send("", [FILE]))
    assert mute.info.title == "n.txt"


def test_an_edited_question_keeps_its_files_and_gets_more(sessions: Sessions) -> None:
    model = Recorder(ANSWERS)
    chat = opened(sessions, model)
    finish(chat.send("a", [FILE]))
    question = chat.branch()[0]
    more = Attachment("m.txt", Kind.TEXT, "more", 4, "cd")
    plan = chat.plan("b", [more], question.id)
    finish(chat.edit(question.id, "b", attached=[more]))
    assert context.attachments(chat.branch()[0]) == [FILE, more]
    assert plan.tokens == len(model.asked[-1][0])


def test_a_plan_counts_what_is_sent(sessions: Sessions) -> None:
    model = Recorder(["answer", ""])
    chat = opened(sessions, model, system="be kind")
    for text in ("a", "b", "c"):  # every other answer is empty, so that two questions go as one
        plan = chat.plan(text, [FILE])
        finish(chat.send(text, [FILE]))
        assert plan.tokens == len(model.asked[-1][0])


def test_a_question_that_is_too_long_alone_is_told_from_a_full_context(sessions: Sessions) -> None:
    chat = opened(sessions, Recorder(["y" * 60], context=400))
    for i in range(2):
        finish(chat.send(f"{i} " + "x" * 40))
    stored = sessions.turns(chat.info.id)
    with pytest.raises(PromptTooLong, match=r"has \d+ tokens with the conversation before it, 300 fit .* 2 oldest"):
        finish(chat.send("x" * 80))
    for policy in Policy:
        with pytest.raises(PromptTooLong, match=r"has 6\d\d tokens with the system prompt, 300 fit .* shorten it"):
            finish(chat.send("x" * 600, policy=policy))
    assert sessions.turns(chat.info.id) == stored


def test_a_summary_that_does_not_fit_is_refused_and_nothing_is_stored(sessions: Sessions) -> None:
    long = Recorder(["y" * 150, "y" * 150, "y" * 150, "s" * 900], context=1200)
    thinker = Recorder(["y" * 150, "y" * 150, "y" * 150, "<think>hm"], context=1200)
    for model, why in ((long, r"has 1,\d\d\d tokens, 900 fit"), (thinker, "wrote none")):
        chat = opened(sessions, model, policy=Policy.SUMMARISE)
        for i in range(3):
            finish(chat.send(f"{i} " + "x" * 120))
        stored = sessions.turns(chat.info.id)
        with pytest.raises(UsageError, match=f"summary: .*{why}.*nothing was sent") as refused:
            finish(chat.send("3 " + "x" * 120))
        assert "\n" not in str(refused.value)
        assert sessions.turns(chat.info.id) == stored


@pytest.mark.parametrize("way", ["stop", "close"])
def test_a_summary_that_is_stopped_or_abandoned_stores_nothing(sessions: Sessions, way: str) -> None:
    model = Recorder(["y" * 150, "y" * 150, "y" * 150, "s " * 99], context=1200)
    chat = opened(sessions, model, policy=Policy.SUMMARISE)
    for i in range(3):
        finish(chat.send(f"{i} " + "x" * 120))
    stored = sessions.turns(chat.info.id)
    events = chat.send("3 " + "x" * 120)
    next(event for event in events if isinstance(event, Progress))
    if way == "close":
        events.close()  # type: ignore[attr-defined]
    else:
        chat.stop()
        with pytest.raises(UsageError, match="stopped"):
            finish(events)
    assert sessions.turns(chat.info.id) == stored
    assert [turn.state for turn in stored] == [State.DONE] * 6


def test_the_prompt_begins_the_same_after_a_cut(sessions: Sessions) -> None:
    model = Recorder(["y" * 30], context=600)
    chat = opened(sessions, model, policy=Policy.DROP)
    finish(chat.send("0 " + "x" * 300))
    finish(chat.send("1 " + "x" * 100))
    [question, _, *_] = chat.branch()[-2:]
    assert question.details[context.KEY] == {"left_out": 2, "summary": ""}
    for i in range(2):
        before = model.asked[-1][0]
        finish(chat.send(f"{i} x"))
        assert model.asked[-1][0][: len(before)] == before
        assert last(chat).details["figures"]["reused_tokens"] >= len(before) - 1


def test_a_cut_after_a_summary_keeps_the_summary(sessions: Sessions) -> None:
    model = Recorder(["y" * 150, "y" * 150, "y" * 150, "they met", "z" * 150], context=1200)
    chat = opened(sessions, model, policy=Policy.SUMMARISE)
    for i in range(4):
        finish(chat.send(f"{i} " + "x" * 120))
    model._answers = ["z" * 150]
    for i in range(3):
        finish(chat.send(f"{i} " + "x" * 120, policy=Policy.DROP))
    cuts = [turn.details[context.KEY] for turn in chat.branch() if context.KEY in turn.details]
    assert len(cuts) == 2
    assert cuts[0]["left_out"] < cuts[1]["left_out"]
    assert [cut["summary"] for cut in cuts] == ["they met", "they met"]
    assert model.prompts[-1][0]["content"] == "Earlier in this conversation: they met"


def test_what_does_not_fit_at_once_is_summarised_in_turns(sessions: Sessions) -> None:
    model = Recorder(["y" * 150, "y" * 150, "y" * 450, "first", "second", "z"], context=1200)
    chat = opened(sessions, model, policy=Policy.SUMMARISE)
    for i in range(3):
        finish(chat.send(f"{i} " + "x" * 120))
    finish(chat.send("3 " + "x" * 400))  # all but the question has to go, and that is too long to be read at once
    assert chat.branch()[-2].details[context.KEY] == {"left_out": 6, "summary": "second"}
    asked = [[m["content"][:2] for m in prompt] for prompt in model.prompts if "Summarise" in prompt[-1]["content"]]
    assert asked[-1] == ["Ea", "2 ", "yy", "Su"]
    assert model.prompts[-1][0]["content"] == "Earlier in this conversation: second"
    assert texts(chat)[-1] == "z"
