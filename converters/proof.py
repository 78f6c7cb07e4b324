"""Facts of a finished GGUF file beside its likeness: speed, memory, and what transformers itself computes.

Speeds are those of this machine at this moment; they stand in the report with the machine's name.
"""

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from converters import judge, oracle
from converters.architectures import gguf_row
from converters.calibrate import HELD_OUT
from converters.gguf_file import header
from converters.gguf_prepare import Job
from converters.judge import Metrics, Pair, divergence, log_softmax
from converters.verify import similarity
from edgemm import guard
from edgemm.backends import Sampling
from edgemm.backends.worker import LoadOptions, Worker
from edgemm.errors import BelowFloor, MissingExtra
from edgemm.events import Done

_SPEED_PROMPT, _SPEED_TOKENS = 128, 32
_ORACLE_WEIGHTS = 2_000_000_000  # above, transformers needs more memory than a laptop has
_ORACLE_PAIRS, _ORACLE_TOKENS = 4, 64
_LEAST_TRUST, _MOST_DIVERGENCE, _MOST_ERROR = 0.999, 0.01, 0.02


def memory_beside_weights(job: Job, context: int) -> int:
    """Bytes of KV cache and compute buffers for `context` tokens."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "header.gguf"
        path.write_bytes(header(job.settings, []))
        read = guard.read_gguf(path)
        return guard.memory_needed(read, context) - read.file_bytes


def speed(model: Path, job: Job, threads: int = 0) -> Metrics:
    """Load time, tokens a second and memory of the child that holds the model."""
    rows = job.rows(HELD_OUT, model)
    started = time.perf_counter()
    with Worker(model, LoadOptions(embedding=job.task != "chat", threads=threads)) as worker:
        loaded = time.perf_counter()
        if job.task != "chat":
            worker.encode(rows)
            rate = sum(map(len, rows)) / (time.perf_counter() - loaded)
            return _facts(loaded - started, rate, worker)
        prompt = max(rows, key=len)[: min(_SPEED_PROMPT, worker.info.context - _SPEED_TOKENS - 1)]
        events = list(worker.generate(prompt, Sampling(max_tokens=_SPEED_TOKENS, temperature=0)))
        done = next(event for event in reversed(events) if isinstance(event, Done))
        facts = _facts(loaded - started, done.tokens_per_second, worker)
        return facts | {"prefill_tokens_per_second": round(len(prompt) / max(1e-9, done.prefill_seconds), 1)}


def _facts(load: float, rate: float, worker: Worker) -> Metrics:
    return {
        "load_seconds": round(load, 3),
        "tokens_per_second": round(rate, 1),
        "memory_bytes": float(worker.memory()),
    }


def transformers(model: Path, job: Job, pairs: Sequence[Pair]) -> tuple[Metrics, str]:
    """How far `model`, a high-precision build, is from transformers; or no figures, and why.

    Raises `BelowFloor` when it is too far: then edgemm reads this checkpoint wrongly.
    """
    assert job.checkpoint is not None
    if not oracle.available():
        return {}, "not compared with transformers: it is not installed"
    if job.blueprint.weights > _ORACLE_WEIGHTS:
        return {}, "not compared with transformers: the checkpoint is too large for it on a laptop"
    chosen = [(text[:_ORACLE_TOKENS], answer[:_ORACLE_TOKENS]) for text, answer in pairs[:_ORACLE_PAIRS]]
    try:
        measure = {"embed": _embedded, "classify": _labelled}.get(job.task, _predicted)
        figures = measure(model, job, chosen)
    except MissingExtra as error:
        return {}, f"not compared with transformers: {error.why}"
    most = {"transformers_divergence": _MOST_DIVERGENCE, "transformers_label_error": _MOST_ERROR}
    least = figures.get("transformers_cosine_min", 1.0)
    if least < _LEAST_TRUST or any(figures.get(name, 0.0) > limit for name, limit in most.items()):
        why = f"transformers computes something else ({', '.join(f'{k} {v:.5f}' for k, v in figures.items())})"
        raise BelowFloor(job.checkpoint.folder, why, "report this checkpoint: edgemm reads it wrongly")
    return figures, ""


def _embedded(model: Path, job: Job, pairs: Sequence[Pair]) -> Metrics:
    assert job.checkpoint is not None
    rows = [text for text, _ in pairs]
    theirs = oracle.vectors(job.checkpoint, rows)
    return {"transformers_cosine_min": similarity(judge.embed(model, rows, exact=True), theirs)["cosine_min"]}


def _labelled(model: Path, job: Job, pairs: Sequence[Pair]) -> Metrics:
    """The largest difference of a label's score, as a share of the largest score."""
    assert job.checkpoint is not None
    theirs = np.concatenate(oracle.logits(job.checkpoint, pairs))
    if gguf_row(job.checkpoint.model_type, job.checkpoint.folder).shares:
        theirs = np.exp(log_softmax(theirs))
    off = np.abs(judge.embed(model, [text for text, _ in pairs], exact=True) - theirs).max()
    return {"transformers_label_error": float(off / max(1.0, np.abs(theirs).max()))}


def _predicted(model: Path, job: Job, pairs: Sequence[Pair]) -> Metrics:
    """The mean divergence of next-token distributions."""
    assert job.checkpoint is not None
    theirs = oracle.logits(job.checkpoint, pairs)
    with Worker(model, LoadOptions(exact=True)) as worker:
        ours = [np.concatenate(list(worker.score(text, answer))) for text, answer in pairs]
    p, q = log_softmax(np.concatenate(theirs)), log_softmax(np.concatenate(ours))
    return {"transformers_divergence": float(max(0.0, divergence(p, q).mean()))}
