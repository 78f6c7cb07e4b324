"""A conversation on the scripted model: the transcript is the truth, and a stopped answer is kept."""

import pytest

from edgemm.backends import Sampling
from edgemm.backends.fake import FakeGenerator
from edgemm.chat import Chat
from edgemm.errors import PromptTooLong
from edgemm.events import Done, Token


def test_ask_keeps_question_and_answer() -> None:
    chat = Chat(FakeGenerator(["Paris.", "Rome."]), system="Be brief.")
    assert chat.ask("France?") == "Paris."
    assert chat.ask("Italy?") == "Rome."
    assert [m["role"] for m in chat.messages] == ["system", "user", "assistant", "user", "assistant"]
    assert chat.messages[-1]["content"] == "Rome."


def test_a_closed_stream_keeps_what_arrived() -> None:
    chat = Chat(FakeGenerator(["one two three four"]))
    stream = chat.send("count")
    first = next(event for event in stream if isinstance(event, Token))
    stream.close()  # type: ignore[attr-defined]
    assert chat.messages[-1] == {"role": "assistant", "content": first.text}


def test_stop_ends_with_cancelled() -> None:
    chat = Chat(FakeGenerator(["one two three four five six"]))
    events = []
    for event in chat.send("count"):
        events.append(event)
        if isinstance(event, Token):
            chat.stop()
    assert isinstance(events[-1], Done)
    assert events[-1].reason == "cancelled"
    assert chat.messages[-1]["content"].startswith("one")


def test_a_refused_prompt_adds_nothing() -> None:
    chat = Chat(FakeGenerator(["x"], context=8))
    with pytest.raises(PromptTooLong):
        chat.ask("word " * 100)
    assert chat.messages == []


def test_max_tokens_ends_with_length() -> None:
    chat = Chat(FakeGenerator(["one two three four"]), sampling=Sampling(max_tokens=2))
    done = list(chat.send("count"))[-1]
    assert isinstance(done, Done)
    assert (done.reason, done.generated_tokens) == ("length", 2)


def test_restart_forgets() -> None:
    chat = Chat(FakeGenerator(["a"]))
    chat.ask("q")
    chat.restart()
    assert chat.messages == []
