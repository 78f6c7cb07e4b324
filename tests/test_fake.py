"""The scripted model is like a real one where a screen can tell: pace, cancelling, reuse, death, log-probabilities."""

import threading
import time
from itertools import islice
from pathlib import Path

import pytest

from edgemm.backends import Generator, Sampling
from edgemm.backends.fake import FakeGenerator
from edgemm.errors import ModelStopped
from edgemm.events import Done, Token
from edgemm.prompt import Message

HELLO: list[Message] = [{"role": "user", "content": "hello"}]


def run(fake: Generator, messages: list[Message], sampling: Sampling | None = None) -> tuple[str, Done]:
    *events, done = fake.generate(fake.prompt(messages).tokens, sampling or Sampling())
    assert isinstance(done, Done)
    return "".join(e.text for e in events if isinstance(e, Token)), done


def test_a_conversation_that_goes_on_is_reused() -> None:
    fake = FakeGenerator(["one two", "three"])
    first, done = run(fake, HELLO)
    assert done.reused_tokens == 0
    prompt = len(fake.prompt(HELLO).tokens)
    _, done = run(fake, [*HELLO, {"role": "assistant", "content": first}, {"role": "user", "content": "more"}])
    assert done.reused_tokens == prompt + len(first)


def test_a_continuation_ends_with_the_unfinished_answer() -> None:
    fake = FakeGenerator(["x"])
    prompt = fake.continuation([*HELLO, {"role": "assistant", "content": "It is"}])
    assert prompt.tokens == fake.prompt(HELLO).tokens + fake.tokenize("It is")


def test_words_take_their_time_and_a_cancel_does_not_wait_for_them() -> None:
    fake = FakeGenerator(["a b c d"], seconds_per_token=30)
    threading.Timer(0.1, fake.cancel).start()
    started = time.monotonic()
    text, done = run(fake, HELLO)
    assert (text, done.reason) == ("", "cancelled")
    assert time.monotonic() - started < 10


def test_it_dies_once_where_the_script_says() -> None:
    fake = FakeGenerator(["a b c"], die_after=2)
    events = fake.generate([1, 2], Sampling())
    _, *said = islice(events, 3)
    with pytest.raises(ModelStopped, match="model stopped"):
        next(events)
    assert [token.text for token in said if isinstance(token, Token)] == ["a", " b"]
    assert run(fake, HELLO)[0] == "a b c"


def test_log_probabilities_come_when_asked() -> None:
    fake = FakeGenerator(["yes no"])
    tokens = [e for e in fake.generate([1, 2], Sampling(top_logprobs=3)) if isinstance(e, Token)]
    assert [len(token.top) for token in tokens] == [3, 3]
    assert all(token.top[0] == (token.text, token.logprob, token.id) for token in tokens)
    assert all(a[1] > b[1] for token in tokens for a, b in zip(token.top, token.top[1:], strict=False))
    assert all(e.top == () for e in fake.generate([1, 2], Sampling()) if isinstance(e, Token))


def test_nothing_is_saved(tmp_path: Path) -> None:
    fake = FakeGenerator(["x"])
    run(fake, HELLO)
    assert not fake.info.can_save
    assert fake.save_state(tmp_path / "1.kv") == fake.restore_state(tmp_path / "1.kv") == 0
    assert list(tmp_path.glob("*.kv")) == []
