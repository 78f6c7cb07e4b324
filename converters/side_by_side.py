"""Two GGUF chat models of one vocabulary side by side: how far the second is from the first, and what it costs.

Both read the same text in step. It judges nothing: which of them is better for a laptop is the user's to say.
"""

from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converters.calibrate import HELD_OUT
from converters.judge import WINDOW, ChatJudge, windows
from edgemm import guard, terminal
from edgemm.backends import Sampling
from edgemm.backends.worker import LoadOptions, Worker
from edgemm.errors import UsageError, disk_errors
from edgemm.events import Done, Note, Progress, Token
from edgemm.guard.gguf import ENCODERS
from edgemm.package import MANIFEST

if TYPE_CHECKING:
    from rich.table import Table

Figures = dict[str, Any]
_CONTINUE = 64
_TEXT = 1 << 16  # characters of a user's text


def side_by_side(a: Path, b: Path, text: Path | None, prompt: str) -> Iterator[Progress | Note | Figures]:
    """The last event are the figures: "a" and "b" with their size, speed and memory, and the distance of b from a.

    Raises `UsageError` when the two do not have the same vocabulary, or do not continue text.
    """
    ours, theirs = guard.check_gguf(a), guard.check_gguf(b)
    _check(ours, theirs)
    held_out = "\n".join(HELD_OUT)
    if text is not None:
        with disk_errors(text), open(text, encoding="utf-8", errors="replace") as file:
            held_out = file.read(_TEXT)
    found: Figures = {}
    continued: dict[str, list[int]] = {}
    for side, path, header in (("a", a, ours), ("b", b, theirs)):
        yield Progress("compare: speed", int(side == "b"), 2, "models")
        found[side], continued[side], ids = _measure(path, header, held_out, prompt)
    first = [ids[0]] if ids and ids[0] == ours.metadata.get("tokenizer.ggml.bos_token_id") else []
    if not ids[len(first) :]:
        raise UsageError("--text", "there is no text in it", "give a file with some, or leave it out")
    size = min(WINDOW, ours.context_length, theirs.context_length)
    pairs = windows([ids[len(first) :]], first, size)
    if ours.architecture == "t5":  # what the encoder reads is scored by the decoder
        pairs = [(tokens, tokens) for tokens, _ in pairs]
    judged = yield from ChatJudge(a, pairs, size).run(b, "compare")
    judged.pop("loss")
    both = zip_longest(continued["a"], continued["b"])
    different = next((i for i, (x, y) in enumerate(both) if x != y), None)
    yield found | {"distance": judged, "first_different_token": different, "continued_tokens": len(continued["a"])}


def _check(a: guard.GGUFHeader, b: guard.GGUFHeader) -> None:
    for header in (a, b):
        if header.architecture in ENCODERS:
            fix = "compare embedding models by their report cards"
            raise UsageError(header.path.name, f"is no chat model ({header.architecture})", fix)
    tokens = "tokenizer.ggml.tokens"
    if a.metadata[tokens] != b.metadata[tokens]:
        raise UsageError(b.path.name, f"has another vocabulary than {a.path.name}", "compare builds of the same model")


def _measure(path: Path, header: guard.GGUFHeader, text: str, prompt: str) -> tuple[Figures, list[int], list[int]]:
    with Worker(path, LoadOptions()) as worker:
        ids = worker.tokenize(text, add_special=True)
        start = worker.tokenize(prompt, add_special=True)
        events = list(worker.generate(start, Sampling(max_tokens=_CONTINUE, temperature=0)))
        done = next(event for event in reversed(events) if isinstance(event, Done))
        facts = {
            "model": path.parent.name if (path.parent / MANIFEST).is_file() else path.name,
            "bytes": header.file_bytes,
            "bits_per_weight": header.bits_per_weight,
            "tokens_per_second": round(done.tokens_per_second, 1),
            "memory_bytes": worker.memory(),
        }
    return facts, [event.id for event in events if isinstance(event, Token) and event.id >= 0], ids


def table(found: Figures) -> "Table":
    from rich.table import Table

    shown = Table("", "A", "B", title="B compared with A", title_justify="left")
    a, b = found["a"], found["b"]
    shown.add_row("model", terminal.safe(a["model"]), terminal.safe(b["model"]))
    for label, key in (("size", "bytes"), ("peak memory", "memory_bytes")):
        shown.add_row(label, terminal.human_bytes(a[key]), terminal.human_bytes(b[key]))
    shown.add_row("bits per weight", f"{a['bits_per_weight']:.2f}", f"{b['bits_per_weight']:.2f}")
    shown.add_row("tokens/s", f"{a['tokens_per_second']:.1f}", f"{b['tokens_per_second']:.1f}")
    distance, different = found["distance"], found["first_different_token"]
    shown.add_row("divergence, mean (nats)", "", f"{distance['divergence_mean']:.5f}")
    shown.add_row("divergence, 99.9 % below", "", f"{distance['divergence_999']:.4f}")
    shown.add_row("same likeliest token", "", f"{100 * distance['same_top_token']:.1f} %")
    shown.add_row("perplexity, B / A", "", f"{distance['perplexity_ratio']:.4f}")
    shown.add_row("first different token", "", "none" if different is None else str(different))
    return shown
