"""Log-probabilities of the likeliest tokens: those of the whole distribution, cheaply, and only when asked for."""

from collections.abc import Iterator

import numpy as np
import pytest
import tiny_gguf

from edgemm.backends import Sampling
from edgemm.backends.logprobs import likeliest
from edgemm.backends.worker import Worker
from edgemm.events import Token


def reference(logits: "np.ndarray[tuple[int], np.dtype[np.float32]]") -> "np.ndarray":  # type: ignore[type-arg]
    wide = logits.astype(np.float64)
    return wide - wide.max() - np.log(np.exp(wide - wide.max()).sum())


@pytest.mark.parametrize("size", [1, 5, 63, 64, 65, 1000, 49152, 49157])
def test_the_likeliest_are_those_of_a_full_sort(size: int) -> None:
    logits = np.random.default_rng(size).normal(0, 5, size).astype(np.float32)
    logprob, top = likeliest(logits, size // 2, 5)
    expected = reference(logits)
    assert [token for token, _ in top] == np.argsort(-expected, kind="stable")[:5].tolist()
    assert [share for _, share in top] == pytest.approx([expected[token] for token, _ in top], abs=1e-4)
    assert logprob == pytest.approx(expected[size // 2], abs=1e-4)


def test_equal_ones_are_told_apart_by_their_place() -> None:
    logits = np.zeros(640, np.float32)
    logits[[300, 20, 500]] = [7, 9, 7]
    assert [token for token, _ in likeliest(logits, 0, 4)[1]] == [20, 300, 500, 0]


def test_masked_tokens_do_no_harm() -> None:
    logits = np.full(200, -np.inf, np.float32)
    logits[7] = 3
    logprob, top = likeliest(logits, 7, 3)
    assert logprob == 0
    assert top[0] == (7, 0.0)


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    with Worker(tiny_gguf.write(tmp_path_factory.mktemp("gguf") / "tiny.gguf")) as worker:
        yield worker


def test_tokens_come_with_them_when_asked(worker: Worker) -> None:
    prompt = worker.tokenize("hello")
    sampling = Sampling(max_tokens=1, temperature=0, repetition_penalty=1.0, top_logprobs=4)
    [token] = [e for e in worker.generate(prompt, sampling) if isinstance(e, Token) and e.id >= 0]
    worker_logits = [e for e in worker.generate(prompt, Sampling(max_tokens=0)) if isinstance(e, Token)]
    assert worker_logits == []
    expected = reference(worker.logits())
    assert [number for _, _, number in token.top] == np.argsort(-expected)[:4].tolist()
    assert token.logprob == pytest.approx(expected[token.id], abs=1e-4)
    assert token.top[0] == (token.top[0][0], token.logprob, token.id)
    letters = tiny_gguf.vocabulary()[0]
    assert all(text == letters[number] or not letters[number].isascii() for text, _, number in token.top)


def test_penalty_and_temperature_do_not_change_them(worker: Worker) -> None:
    prompt = worker.tokenize("the cat")
    tops = []
    for sampling in (
        Sampling(max_tokens=1, temperature=0, repetition_penalty=1.0, top_logprobs=5),
        Sampling(max_tokens=1, temperature=3.0, repetition_penalty=2.0, seed=1, top_logprobs=5),
    ):
        tops += [e.top for e in worker.generate(prompt, sampling) if isinstance(e, Token)][:1]
    (_, first, number), (_, second, same) = tops[0][0], tops[1][0]
    assert number == same
    assert first == pytest.approx(second, abs=1e-3)


def test_nothing_is_computed_unless_asked(worker: Worker) -> None:
    events = list(worker.generate(worker.tokenize("hello"), Sampling(max_tokens=3)))
    assert all(e.logprob is None and e.top == () for e in events if isinstance(e, Token))
