"""What the builds of a model are run on: texts as token ids, and the judges that compare builds on them.

Chats read running text in windows, encoders one text after the other; a model with an encoder beside its decoder reads
a text and repeats it. It knows no recipe and no floor.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from converters import judge
from converters.gguf_prepare import Job
from converters.judge import ChatJudge, EmbedJudge, Judge, Pair, ProbeJudge
from edgemm.events import Progress, Work

_PROBE_TOKENS, _PROBE_BYTES = (
    512,
    256 << 20,
)  # what a probe reads: so many tokens, and log-probabilities of so many bytes
_LEAST_CONTEXT = 16


def pairs(job: Job, texts: Sequence[str], model: Path) -> list[Pair]:
    """What is run: rows for encoders, windows of running text for chats."""
    rows = job.rows(texts, model)
    if job.task != "chat":
        return [(row, ()) for row in rows]
    if job.blueprint.architecture == "t5":
        return [(row, row) for row in rows]
    first = [job.bos] if job.bos >= 0 else []
    bodies = [row[len(first) :] if row[: len(first)] == first else row for row in rows]
    return judge.windows(bodies, first, min(judge.WINDOW, job.context))


def full_judge(job: Job, reference: Path, texts: Sequence[str]) -> Work[Judge]:
    """A judge that compares with `reference` on all of `texts`."""
    found = pairs(job, texts, reference)
    if job.task == "chat":
        return ChatJudge(reference, found, _context(job, found))
    yield Progress("compare: reference", 0, len(found), "texts")
    rows = [text for text, _ in found]
    return EmbedJudge(judge.embed(reference, rows, exact=True), rows, job.task == "classify")


def probe_judge(job: Job, reference: Path, texts: Sequence[str]) -> Work[Judge]:
    """A judge for many builds: on the beginning of `texts`, and the reference is read only once."""
    if job.task != "chat":
        return (yield from full_judge(job, reference, texts))
    most = min(_PROBE_TOKENS, _PROBE_BYTES // (4 * job.blueprint.vocabulary_rows))
    chosen = list(_beginning(pairs(job, texts, reference), most))
    yield Progress("measure: reference", 0, len(chosen), "texts")
    context = _context(job, chosen)
    return ProbeJudge(judge.log_probabilities(reference, chosen, context), chosen, context)


def _beginning(found: Sequence[Pair], tokens: int) -> Iterator[Pair]:
    """Pairs in which about `tokens` tokens are scored."""
    for text, answer in found:
        if tokens <= 0:
            return
        yield (text, answer[:tokens]) if answer else (text[:tokens], ())
        tokens -= len(answer or text)


def _context(job: Job, found: Sequence[Pair]) -> int:
    longest = max(max(len(text), len(answer)) for text, answer in found)
    return min(job.context, max(longest, _LEAST_CONTEXT))
