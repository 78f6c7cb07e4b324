"""What of a long conversation goes to the model, by the policy of the user."""

import pytest

from edgemm import context
from edgemm.attachments import Attachment, Kind
from edgemm.chat_settings import Policy
from edgemm.errors import UsageError
from edgemm.prompt import Message
from edgemm.sessions import State, Turn


def turn(number: int, role: str, text: str, **details: object) -> Turn:
    return Turn(number, 1, number - 1 or None, role, text, "", State.DONE, (), dict(details), 0.0)


def talk(pairs: int) -> list[Turn]:
    return [turn(i + 1, ("user", "assistant")[i % 2], f"{i:03} " + "x" * 96) for i in range(2 * pairs)]


def count(messages: list[Message]) -> int:
    """A token a character, and ten for each message."""
    return sum(len(m["content"]) + 10 for m in messages)


QUESTION: Message = {"role": "user", "content": "why?"}


def test_what_fits_goes_whole() -> None:
    plan = context.plan("be kind", talk(2), QUESTION, 1000, Policy.REFUSE, count)
    assert plan.fits
    assert not plan.dropped
    assert plan.tokens == 4 * 110 + 17 + 14


def test_to_refuse_says_what_would_go_and_counts_everything() -> None:
    plan = context.plan("", talk(10), QUESTION, 1000, Policy.REFUSE, count)
    assert not plan.fits
    assert plan.tokens == 20 * 110 + 14
    assert [t.id for t in plan.dropped] == list(range(1, len(plan.dropped) + 1))
    assert len(plan.dropped) % 2 == 0


def test_dropping_leaves_room_for_the_next_questions() -> None:
    plan = context.plan("", talk(10), QUESTION, 1000, Policy.DROP, count)
    assert plan.fits
    assert plan.tokens <= 750
    assert len(plan.dropped) == 14
    assert count([*context.messages("", "", talk(10)[12:]), QUESTION]) > 750  # no fewer would do


def test_a_question_that_is_too_long_alone_does_not_fit() -> None:
    long: Message = {"role": "user", "content": "y" * 2000}
    for turns in ([], talk(3)):
        plan = context.plan("", turns, long, 1000, Policy.DROP, count)
        assert not plan.fits
        assert plan.tokens > 1000


def test_a_cut_holds_for_the_questions_after_it() -> None:
    turns = [*talk(3), turn(7, "user", "now", **{context.KEY: context.cut(4, "they met")})]
    sent, summary = context.kept(turns)
    assert [t.id for t in sent] == [5, 6, 7]
    messages = context.messages("be kind", summary, sent)
    assert messages[0] == {"role": "system", "content": "be kind\n\nEarlier in this conversation: they met"}
    assert [m["role"] for m in messages[1:]] == ["user", "assistant", "user"]


CUTS = [7, "x", [], {"left_out": "x"}, {"summary": "s"}, {"left_out": None, "summary": 3}, None]
IMPOSSIBLE = [context.cut(count, "s") for count in (-1, 0, 1, 3, 10**30)]  # 1: an answer cannot come first


@pytest.mark.parametrize("cut", [*CUTS, *IMPOSSIBLE])
def test_a_damaged_cut_is_none(cut: object) -> None:
    turns = [turn(1, "user", "a"), turn(2, "assistant", "b"), turn(3, "user", "c", **{context.KEY: cut})]
    assert context.kept(turns) == (turns, "")


@pytest.mark.parametrize("files", [7, ["x"], [{"name": "a"}], [{"kind": "text", "evil": 1}], {"a": 1}, None])
def test_damaged_attachments_are_none(files: object) -> None:
    assert context.content(turn(1, "user", "hello", **{context.ATTACHMENTS: files})) == "hello"


def test_an_older_cut_holds_where_a_newer_one_is_damaged() -> None:
    turns = [*talk(3), turn(7, "user", "c", **{context.KEY: {"left_out": []}})]
    turns[4] = turn(5, "user", "b", **{context.KEY: context.cut(2, "they met")})
    assert context.kept(turns) == (turns[2:], "they met")


def test_whatever_is_no_text_becomes_a_question_mark() -> None:
    [system, user] = context.messages("\udc80", "", [], "\ud800x")
    assert (system["content"], user["content"]) == ("?", "?x")


def test_a_plan_counts_a_question_without_an_answer_and_the_next_one_as_they_are_sent() -> None:
    turns = [turn(1, "user", "a"), turn(2, "assistant", "")]
    assert context.plan("", turns, QUESTION, 100, Policy.REFUSE, count).tokens == len("a\n\nwhy?") + 10


def test_a_plan_says_how_long_a_question_is_alone() -> None:
    for policy in Policy:
        assert context.plan("", talk(10), QUESTION, 1000, policy, count).alone == 14


def test_roles_alternate_when_an_answer_never_came() -> None:
    turns = [turn(1, "user", "a"), turn(2, "assistant", ""), turn(3, "user", "b")]
    assert context.messages("", "", turns) == [{"role": "user", "content": "a\n\nb"}]


def test_a_file_stands_before_the_question_in_a_fence_that_it_cannot_close() -> None:
    text = context.asked("what is it?", [Attachment("n.md", Kind.TEXT, "a\n```\nb", 7, "0")])
    assert text.startswith("File n.md:\n````\n")
    assert text.endswith("````\n\nwhat is it?")


def test_a_quarter_of_the_context_at_most_is_kept_for_the_answer() -> None:
    assert context.room(4096, 512) == 3584
    assert context.room(1024, 512) == 768
    assert context.room(2, 10_000) == 1


def test_as_many_turns_as_fit_are_summarised_at_once() -> None:
    turns = talk(3)
    whole, rest = context.to_summarise("", "", turns, 2000, count)
    assert (len(whole), len(rest)) == (7, 0)
    part, rest = context.to_summarise("", "they met", turns, 700, count)
    assert [m["role"] for m in part] == ["system", "user", "assistant", "user", "assistant", "user"]
    assert [each.id for each in rest] == [5, 6]
    with pytest.raises(UsageError, match=r"takes 3\d\d tokens, 300 fit; nothing was sent"):
        context.to_summarise("", "", turns, 300, count)
