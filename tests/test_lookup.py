"""Drafts looked up in the text: the right tokens, only where they pay, and no other answer than without them."""

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import tiny_gguf

from edgemm.backends import Sampling
from edgemm.backends.lookup import Costs, Lookup
from edgemm.backends.worker import Worker
from edgemm.events import Done, Token

TEXT = (
    "The ferry leaves the harbour at half past seven every morning, except on Sundays, when it leaves at "
    "nine. Tickets are sold on board, and cost four pounds for a grown person and two for a child. Dogs "
    "travel free, but they must be kept on a lead. In winter, when the sea is rough, the captain may decide "
    "to stay in the harbour."
)
GREEDY = Sampling(max_tokens=100, temperature=0, repetition_penalty=1.0)
NEARLY = replace(GREEDY, temperature=1e-4, seed=1)  # the likeliest token each time, as when greedy, but drafted


def measured(slope: float) -> Costs:
    """Costs of a machine on which every token more costs `slope` single tokens."""
    costs = Costs()
    for size in range(1, 10):
        for _ in range(4):
            costs.measure(size, 0.01 * (1 + slope * (size - 1)))
    return costs


def test_what_followed_the_last_tokens_before_is_the_draft() -> None:
    lookup = Lookup([1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3], measured(0.0), most=4)
    assert lookup.draft(100) == [4, 5, 6, 7]
    assert lookup.draft(2) == [4, 5]
    assert lookup.draft(0) == lookup.draft(-1) == []
    assert lookup.drafted == 6


def test_nothing_in_common_gives_no_draft() -> None:
    assert Lookup([1, 2, 3, 4, 5, 6], measured(0.0), most=4).draft(4) == []
    assert Lookup([], measured(0.0), most=4).draft(4) == []


def test_the_place_with_the_most_tokens_in_common_wins_over_the_newest() -> None:
    text = [7, 8, 1, 2, 3, 50, 51, 9, 9, 1, 2, 3, 60, 61, 7, 8, 1, 2, 3]
    assert Lookup(text, measured(0.0), most=2).draft(2) == [50, 51]
    assert Lookup([*text[:-5], 4, 4, 1, 2, 3], measured(0.0), most=2).draft(2) == [60, 61]


def test_a_draft_behind_the_end_of_the_text_goes_on_with_itself() -> None:
    assert Lookup([1, 2, 3, 4, 1, 2, 3], measured(0.0), most=8).draft(8) == [4, 1, 2, 3, 4, 1, 2, 3]


def test_the_answer_itself_is_looked_up() -> None:
    lookup = Lookup([100], measured(0.0), most=3)
    for token in (1, 2, 3, 4, 5, 6, 1, 2, 3):
        lookup.add(token)
    assert lookup.draft(3) == [4, 5, 6]


def test_nothing_is_drafted_before_single_tokens_were_measured() -> None:
    costs = Costs()
    lookup = Lookup([1, 2, 3, 4, 5, 1, 2, 3], costs, most=4)
    assert lookup.draft(4) == []
    for _ in range(4):
        costs.measure(1, 0.01)
        costs.measure(5, 0.01)
    assert lookup.draft(4)


def test_a_batch_is_never_so_long_that_a_cancel_would_wait() -> None:
    costs = Costs()
    for _ in range(4):
        costs.measure(1, 0.2)
        costs.measure(3, 0.25)
        costs.measure(9, 0.5)
    assert len(Lookup(list(range(30)) * 2, costs, most=8).draft(8)) < 8


def test_a_machine_on_which_batches_do_not_pay_never_drafts() -> None:
    period = list(range(50))
    lookup = Lookup(period, measured(1.0), most=8)
    for token in period * 4:
        lookup.add(token)
        assert lookup.draft(8) == []


def test_a_right_run_lengthens_the_drafts_and_misses_end_them() -> None:
    period = list(range(40))
    lookup = Lookup(period, measured(0.5), most=8)
    for token in period[:30]:
        lookup.add(token)
    assert lookup.draft(8) == list(range(30, 38))
    wrong = Lookup([], measured(0.5), most=8)
    tokens = random.Random(1).choices(range(1000), k=600)
    for _ in range(60):  # the same three tokens, and never the same one behind them
        for token in (1, 2, 3, tokens.pop()):
            wrong.add(token)
    for token in (1, 2, 3):
        wrong.add(token)
    assert wrong.draft(8) == []


def test_costs_are_medians_and_unknown_sizes_are_told_from_the_nearest() -> None:
    costs = Costs()
    for seconds in (0.01, 0.01, 5.0, 0.01):
        costs.measure(1, seconds)
    assert costs.known
    assert costs.of(1) == 1
    assert 2 < costs.of(5) < costs.of(9) < 9
    costs.measure(5, 0.02)
    assert costs.of(5) == pytest.approx(2.0)
    assert costs.of(3) == pytest.approx(1.5)
    assert 2.0 < costs.of(9) < 9
    costs.measure(9, 0.03)
    assert costs.of(7) == pytest.approx(2.5)


def test_a_batch_that_was_dear_once_is_tried_again_by_the_next_answer() -> None:
    costs = Costs()
    for _ in range(4):
        costs.measure(1, 0.01)
    text = list(range(30)) * 2
    lookup = Lookup(text, costs, most=8)
    usual = lookup.draft(8)
    for size in range(2, 10):
        costs.measure(size, 1.0)
    assert lookup.draft(8) == []
    assert Lookup(text, costs, most=8).draft(8) == usual == list(range(len(usual)))
    assert usual


def test_without_drafts_nothing_is_kept() -> None:
    lookup = Lookup([1, 2, 3] * 50, measured(0.0), most=0)
    lookup.add(1)
    assert lookup.draft(8) == []


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    with Worker(tiny_gguf.write(tmp_path_factory.mktemp("gguf") / "tiny.gguf")) as worker:
        yield worker


def run(worker: Worker, prompt: list[int], sampling: Sampling) -> tuple[list[int], Done]:
    *events, done = worker.generate(prompt, sampling)
    assert isinstance(done, Done)
    return [e.id for e in events if isinstance(e, Token)], done


@pytest.mark.parametrize("most", [1, 2, 3, 50, 240, 500])
def test_a_draft_changes_neither_the_tokens_nor_their_number(worker: Worker, most: int) -> None:
    prompt = worker.tokenize("the cat sat on the mat and the cat sat on the mat")
    plain, off = run(worker, prompt, replace(NEARLY, max_tokens=most, draft=0))
    guessed, on = run(worker, prompt, replace(NEARLY, max_tokens=most))
    assert guessed == plain
    assert (on.reason, on.generated_tokens) == (off.reason, off.generated_tokens)
    assert off.drafted == off.accepted == 0
    assert on.accepted <= on.drafted


@pytest.fixture(scope="module")
def quoting(smollm2: Path) -> Iterator[tuple[Worker, list[int]]]:
    """A model, and a prompt whose answer stands in it."""
    with Worker(smollm2) as worker:
        messages = [("user", f"Repeat word for word:\n\n{TEXT}"), ("assistant", TEXT), ("user", "Repeat it once more.")]
        yield worker, worker.prompt([{"role": role, "content": text} for role, text in messages]).tokens


def drafted(worker: Worker, prompt: list[int], sampling: Sampling) -> tuple[list[Token], Done]:
    """The first of a few answers that was drafted: the first ones measure what a batch costs."""
    for _ in range(5):
        *events, done = worker.generate(prompt, sampling)
        assert isinstance(done, Done)
        if done.drafted > 20:
            break
    return [e for e in events if isinstance(e, Token) and e.id >= 0], done


@pytest.mark.starter
def test_an_answer_that_quotes_is_drafted(quoting: tuple[Worker, list[int]]) -> None:
    _, done = drafted(*quoting, NEARLY)
    assert 20 < done.accepted <= done.drafted
    assert done.accepted > 0.5 * done.drafted


@pytest.mark.starter
def test_each_drafted_token_is_chosen_by_its_own_output(quoting: tuple[Worker, list[int]]) -> None:
    said, done = drafted(*quoting, replace(NEARLY, top_logprobs=2))
    assert done.accepted > 20
    assert all(token.top[0][2] == token.id for token in said)


@pytest.mark.starter
def test_rejected_drafts_leave_nothing_in_the_cache(quoting: tuple[Worker, list[int]]) -> None:
    """The next request reuses exactly the prompt and the tokens that were said."""
    worker, prompt = quoting
    said, done = drafted(worker, prompt, replace(NEARLY, temperature=1.0))
    _, after = run(worker, [*prompt, *(token.id for token in said), 5], replace(GREEDY, max_tokens=1))
    assert done.accepted < done.drafted
    assert after.reused_tokens == len(prompt) + len(said)


@pytest.mark.starter
def test_a_greedy_answer_is_never_drafted(quoting: tuple[Worker, list[int]]) -> None:
    worker, prompt = quoting
    run(worker, prompt, replace(GREEDY, max_tokens=1))  # both that follow read the prompt from the same cache
    plain, _ = run(worker, prompt, replace(GREEDY, draft=0))
    greedy, done = run(worker, prompt, GREEDY)
    assert greedy == plain
    assert done.drafted == 0
