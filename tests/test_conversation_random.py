"""Whatever is done with a chat, in whatever order: its branch is valid, and nothing that was said disappears."""

from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from scripted import Recorder, close_after, last, reopened

from edgemm.answer import Begun, Ended, Grown, token_rows
from edgemm.chat_settings import ChatSettings, Policy
from edgemm.conversation import Conversation
from edgemm.errors import ModelStopped, PromptTooLong, UsageError
from edgemm.sessions import Sessions, State, Turn

ANSWERS = ["one two three", "<think>hm ho</think> yes", "ho </think> no", "", "a < b"]
TEXT = st.text(max_size=30)
PICK = st.integers(0, 10**6)


class Chats(RuleBasedStateMachine):
    """Two windows on one chat. What a window was told is written down, and looked up in the store."""

    @initialize(policy=st.sampled_from(Policy), top=st.sampled_from([0, 2]))
    def open(self, policy: Policy, top: int) -> None:
        self.sessions = Sessions()
        values = ChatSettings(policy=policy, top_logprobs=top, max_tokens=3)
        self.chat = self.sessions.create("fake", settings=values.to_json()).id
        self.model = Recorder(ANSWERS, context=260)
        self.windows = [reopened(self.sessions, self.chat, self.model) for _ in range(2)]
        self.said: dict[int, tuple[str, str]] = {}  # by message: the shortest text and reasoning that must be there

    @rule(text=TEXT, way=st.sampled_from(["finish", "close", "stop", "die"]), window=st.integers(0, 1))
    def send(self, text: str, way: str, window: int) -> None:
        chat = self.windows[window]
        before = [turn.id for turn in chat.branch()]
        if self.work(chat, chat.send(text), way):
            assert [turn.id for turn in chat.branch()][: len(before)] == before
            assert len(chat.branch()) == len(before) + 2

    @rule(text=TEXT, pick=PICK, window=st.integers(0, 1))
    def edit(self, text: str, pick: int, window: int) -> None:
        if question := self.some(window, pick, "user"):
            chat = self.windows[window]
            if self.work(chat, chat.edit(question.id, text)):
                assert question.id not in {turn.id for turn in chat.branch()}
                assert len(chat.siblings(question.id)) >= 2

    @rule(pick=PICK, way=st.sampled_from(["finish", "close", "stop", "die"]), window=st.integers(0, 1))
    def regenerate(self, pick: int, way: str, window: int) -> None:
        if turn := self.some(window, pick):
            chat = self.windows[window]
            if self.work(chat, chat.regenerate(turn.id), way):
                assert last(chat).parent == (turn.id if turn.role == "user" else turn.parent)

    @rule(pick=PICK, way=st.sampled_from(["finish", "close", "die"]), window=st.integers(0, 1))
    def resume(self, pick: int, way: str, window: int) -> None:
        if answer := self.some(window, pick, "assistant"):
            chat = self.windows[window]
            tokens = self.sessions.turn(answer.id).tokens
            if self.work(chat, chat.resume(answer.id), way):
                assert chat.turn(answer.id).tokens[: len(tokens)] == tokens
                assert answer.id in {turn.id for turn in chat.branch()}

    @rule(pick=PICK, text=TEXT, window=st.integers(0, 1))
    def rewrite(self, pick: int, text: str, window: int) -> None:
        if answer := self.some(window, pick, "assistant"):
            mine = self.windows[window].rewrite(answer.id, text)
            assert last(self.windows[window]) == mine
            self.said[mine.id] = (mine.text, "")

    @rule(pick=PICK, place=st.integers(0, 3), rank=st.integers(0, 1), window=st.integers(0, 1))
    def fork(self, pick: int, place: int, rank: int, window: int) -> None:
        if (answer := self.some(window, pick, "assistant")) and len(rows := token_rows(answer)) > place:
            token = rows[place][3][rank][2]
            chat = self.windows[window]
            if self.work(chat, chat.fork(answer.id, place, token)):
                assert last(chat).tokens[: place + 1] == (*answer.tokens[:place], token)

    @rule(pick=PICK, window=st.integers(0, 1))
    def choose(self, pick: int, window: int) -> None:
        if turn := self.some(window, pick):
            self.windows[window].choose(turn.id)
            assert turn.id in {each.id for each in self.windows[window].branch()}

    @rule(window=st.integers(0, 1))
    def open_again(self, window: int) -> None:
        self.windows[window] = reopened(self.sessions, self.chat, self.model)

    @rule(policy=st.sampled_from(Policy), window=st.integers(0, 1))
    def configure(self, policy: Policy, window: int) -> None:
        self.windows[window].configure(ChatSettings(policy=policy, top_logprobs=2, max_tokens=3))

    @invariant()
    def every_branch_is_a_path_to_its_leaf(self) -> None:
        for chat in self.windows:
            path = chat.branch()
            assert [turn.parent for turn in path] == [None, *(turn.id for turn in path)][: len(path)]
            assert (path[-1].id if path else None) == chat.info.leaf
            assert [turn.role for turn in path] == ["user", "assistant"] * (len(path) // 2)

    @invariant()
    def everything_that_was_told_is_in_the_store(self) -> None:
        turns = {turn.id: turn for turn in self.sessions.turns(self.chat)}
        assert turns.keys() == self.said.keys()
        for message, (text, reasoning) in self.said.items():
            together = turns[message].reasoning + turns[message].text  # an end of thoughts moves the one to the other
            assert all(word in together for word in [*text.split(), *reasoning.split()])
        assert State.STREAMING not in {turn.state for turn in turns.values()}

    @invariant()
    def both_windows_hold_only_what_is_stored(self) -> None:
        stored = {turn.id: turn for turn in self.sessions.turns(self.chat)}
        for chat in self.windows:
            assert {turn.id for turn in chat.turns} <= stored.keys()

    def some(self, window: int, pick: int, role: str = "") -> Turn | None:
        found = [turn for turn in self.windows[window].turns if role in ("", turn.role)]
        return found[pick % len(found)] if found else None

    def work(self, chat: Conversation, events: Any, way: str = "finish") -> bool:
        """Let it work, and end it in some way; False: it was refused, and nothing was stored."""
        if way == "die":
            self.model._die_after = 1
        before = self.sessions.turns(self.chat)
        try:
            if way == "close":
                close_after(self.told(events), 1)
                events.close()
            else:
                for event in self.told(events):
                    if way == "stop" and isinstance(event, Grown):
                        chat.stop()
            return True
        except (PromptTooLong, UsageError):
            assert self.sessions.turns(self.chat) == before
            return False
        except ModelStopped:
            return self.sessions.turns(self.chat) != before  # a summary may be what it died of
        finally:
            self.model._die_after = None

    def told(self, events: Any) -> Any:
        for event in events:
            match event:
                case Begun(question, answer):
                    self.said[question.id] = (question.text, "")
                    self.said.setdefault(answer.id, ("", ""))
                    at = answer.id
                case Grown(text, reasoning):
                    self.said[at] = (text, reasoning)
                case Ended(answer):
                    self.said[answer.id] = (answer.text, answer.reasoning)
                    assert answer == self.sessions.turn(answer.id)
            yield event


TestAnyOrder = Chats.TestCase
TestAnyOrder.settings = settings(
    max_examples=150, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)


def test_the_machine_itself_can_find_a_loss() -> None:
    machine = Chats()
    machine.open(Policy.REFUSE, 0)
    machine.send("a", "finish", 0)
    machine.everything_that_was_told_is_in_the_store()
    [_, answer] = machine.sessions.turns(machine.chat)
    machine.sessions.finish(answer.id, State.DONE, "one two")
    with pytest.raises(AssertionError):
        machine.everything_that_was_told_is_in_the_store()
