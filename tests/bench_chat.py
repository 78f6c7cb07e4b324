"""Figures of a chat with SmolLM2: drafts looked up in the text, log-probabilities, and a saved KV cache, each against
the same work without it, in turns in the same run.
"""

import tempfile
import time
from dataclasses import replace
from pathlib import Path

from bench import CHAT, Result, ratio

from edgemm.backends import Sampling
from edgemm.backends.worker import LoadOptions, Worker
from edgemm.events import Done
from edgemm.models import find
from edgemm.prompt import Message

GREEDY = Sampling(max_tokens=200, temperature=0, repetition_penalty=1.0)
SAMPLED = replace(GREEDY, temperature=0.1, seed=1)
QUOTED = (
    "The ferry leaves the harbour at half past seven every morning, except on Sundays, when it leaves at "
    "nine. Tickets are sold on board, and cost four pounds for a grown person and two for a child. Dogs "
    "travel free, but they must be kept on a lead. In winter, when the sea is rough, the captain may decide "
    "to stay in the harbour; a red flag on the mast then tells travellers that they should come back the next "
    "day. The crossing takes forty minutes. There is a small cafe on the lower deck, which sells tea, bread "
    "and soup, and from the upper deck seals can often be seen on the rocks."
)
QUOTE: list[Message] = [
    {"role": "user", "content": f"Repeat word for word:\n\n{QUOTED}"},
    {"role": "assistant", "content": QUOTED},
    {"role": "user", "content": "Repeat it once more."},
]
FREE: list[Message] = [{"role": "user", "content": "Tell me a long story about the sea."}]
PREFIX = 3000  # tokens


def open_chat() -> Worker:
    path = find(CHAT).file(".gguf")
    assert path is not None
    return Worker(path, LoadOptions(context=4096))


def rate(worker: Worker, messages: list[Message], sampling: Sampling) -> float:
    """Tokens a second of one answer, its prompt read before."""
    prompt = worker.prompt(messages).tokens
    done = next(event for event in worker.generate(prompt, sampling) if isinstance(event, Done))
    return done.tokens_per_second


def speculative() -> list[Result]:
    rows = ("an answer that quotes its prompt", QUOTE, 1.3), ("an answer in free words", FREE, 0.97)
    with open_chat() as worker:
        return [_drafts(worker, *row) for row in rows]


def _drafts(worker: Worker, what: str, messages: list[Message], target: float) -> Result:
    plain = replace(SAMPLED, draft=0)
    speed = ratio(lambda: rate(worker, messages, SAMPLED), lambda: rate(worker, messages, plain), 15)
    detail = f"{speed.ours:.1f} against {speed.theirs:.1f} tokens/s, 15 pairs"
    return Result(f"{what}, with drafts / without", speed.value, target, "x", True, detail)


def logprobs() -> Result:
    """Five log-probabilities a token, against none."""
    asked = replace(GREEDY, top_logprobs=5)
    with open_chat() as worker:
        speed = ratio(lambda: rate(worker, FREE, asked), lambda: rate(worker, FREE, GREEDY), 15)
    detail = f"{speed.ours:.1f} against {speed.theirs:.1f} tokens/s, 15 pairs"
    return Result("tokens/s with 5 log-probabilities / without", speed.value, 0.97, "x", True, detail)


def resume() -> list[Result]:
    """A conversation of 3,000 tokens in a new process: restored from its file, against read again."""
    with tempfile.TemporaryDirectory() as folder, open_chat() as worker:
        path = Path(folder) / "1.kv"
        prompt = worker.tokenize(QUOTED * 40)[:PREFIX]
        one = replace(GREEDY, max_tokens=1)
        list(worker.generate(prompt, one))
        size = worker.save_state(path)

        def prefill() -> float:
            list(worker.generate([7], one))  # nothing in common with it
            return next(e for e in worker.generate(prompt, one) if isinstance(e, Done)).prefill_seconds

        def restore() -> float:
            list(worker.generate([7], one))
            started = time.perf_counter()
            assert worker.restore_state(path) >= PREFIX
            return time.perf_counter() - started

        speed = ratio(prefill, restore, repeats=5)
    detail = f"{PREFIX} tokens, {size / 1e6:.0f} MB: {1e3 * speed.theirs:.0f} ms against {speed.ours:.2f} s, 5 pairs"
    return [Result("reading a conversation again / restoring it", speed.value, 20, "x", True, detail)]


def results() -> list[Result]:
    return [*speculative(), logprobs(), *resume()]
