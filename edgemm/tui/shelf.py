"""The chat models that can be chosen: those of the store, damaged ones with the reason, and those to download.

Plain data for the models screen: rows, a filter, and a line of text for each row. It loads no model, opens no socket
and knows no widget.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from edgemm import catalog, fit, package, paths
from edgemm.catalog import Hub
from edgemm.errors import EdgemmError
from edgemm.fit import Fit, Verdict
from edgemm.manifest import Manifest, read_json
from edgemm.package import Package
from edgemm.terminal import human_bytes, safe

MAX_CARD = 256 << 10  # bytes of a report card that are shown
_WEIGHTS = re.compile(r"(?i)(?:^|[-._])((?:i?q[2-8]_\w+|q[2-8]|bf16|f16|f32))(?=$|[-._])")


class State(StrEnum):
    READY = "ready"
    DAMAGED = "damaged"
    REMOTE = "to download"


@dataclass(frozen=True, slots=True)
class Row:
    """A chat model. `bytes` on disk or to download; `context` trained tokens, 0: not known; `speed` tokens a second.

    `passed` None: there is no report. `fit` None: not computed yet. `reason` says what is wrong with a damaged one.
    """

    name: str
    state: State
    bytes: int = 0
    weights: str = ""
    context: int = 0
    licence: str = ""
    source: str = ""
    fit: Fit | None = None
    speed: float | None = None
    passed: bool | None = None
    reason: str = ""


def stock(speeds: Mapping[str, float]) -> list[Row]:
    """Every row, without its verdict: no model file is opened. Those that are here first."""
    package.recover()
    root = paths.store()
    folders = sorted(p for p in root.iterdir() if (p / package.MANIFEST).is_file()) if root.is_dir() else []
    here = [row for row in map(_row, folders) if row is not None]
    names = {row.name for row in here}
    remote = (row for row in catalog.ROWS.values() if row.task == "chat" and row.name not in names)
    ready = [replace(row, speed=speeds.get(row.name)) for row in here if row.state is State.READY]
    damaged = [row for row in here if row.state is State.DAMAGED]
    return ready + damaged + sorted(map(_remote, remote), key=lambda row: row.bytes)


def weighed(row: Row, free: int) -> Row:
    """`row` with the verdict for `free` bytes of memory; one whose model file the guard refuses becomes damaged."""
    try:
        if row.state is State.REMOTE:
            return replace(row, fit=fit.fit_download(catalog.find(row.name), free))
        if row.state is State.READY:
            return replace(row, fit=fit.fit(package.read_package(paths.store() / row.name), free=free))
    except (EdgemmError, OSError) as error:
        return replace(row, state=State.DAMAGED, reason=_reason(error))
    return row


def can_fetch(row: Row) -> bool:
    """Whether the row can be downloaded: it is not here, or it is damaged and the catalog knows it."""
    return row.state is not State.READY and row.name in catalog.ROWS


def matching(rows: Sequence[Row], query: str) -> list[Row]:
    """The rows that hold every word of `query`, in their order."""
    words = query.lower().split()
    return [row for row in rows if all(word in _searched(row) for word in words)]


def card(row: Row) -> str:
    """The report card as Markdown: the package's own, else what is known about the model."""
    if row.state is State.READY:
        with suppress(OSError), open(paths.store() / row.name / package.CARD, "rb") as file:
            return safe(file.read(MAX_CARD).decode("utf-8", "replace"))
    lines = [f"# {row.name}", "", *(f"- {name}: {value}" for name, value in _facts(row) if value)]
    return safe("\n".join(lines))


def sentence(row: Row) -> str:
    """What the verdict rests on, in one line."""
    if row.state is State.DAMAGED:
        return row.reason
    if row.fit is None:
        return "reading the model's header"
    found = row.fit
    tokens = found.context or min(row.context or fit.DEFAULT_CONTEXT, fit.DEFAULT_CONTEXT)
    cache = f" (KV cache {human_bytes(found.kv_bytes)})" if found.kv_bytes else ""
    takes = f"about {human_bytes(found.bytes)} with {tokens:,} tokens{cache}"
    return f"{found.verdict}: {takes}, {human_bytes(found.free)} free"


def verdict(row: Row) -> str:
    """The verdict in a word or two."""
    if row.state is State.DAMAGED:
        return "damaged"
    if row.fit is None:
        return "…"
    if row.fit.verdict is Verdict.SHORTER:
        return f"fits {thousands(row.fit.context)}"
    return "fits" if row.fit.verdict is Verdict.FITS else "too big"


def thousands(tokens: int) -> str:
    """8192 -> "8k"; 0 -> ""."""
    if not tokens:
        return ""
    return f"{tokens >> 10}k" if tokens >= 1024 else str(tokens)


def _row(folder: Path) -> Row | None:
    """None for a package that is no chat model."""
    try:
        found = package.read_package(folder)
        if found.manifest.task != "chat":
            return None
        damage = _damage(found)
    except (EdgemmError, OSError) as error:
        return Row(folder.name, State.DAMAGED, reason=_reason(error)) if _may_chat(folder) else None
    row = _facts_of(folder.name, found.manifest)
    return replace(row, state=State.DAMAGED, reason=damage) if damage else row


def _facts_of(name: str, manifest: Manifest) -> Row:
    model = next((e.path for e in manifest.files if e.path.endswith((".gguf", ".onnx"))), "")
    return Row(
        name,
        State.READY,
        manifest.bytes,
        weights(manifest.quantization.recipe, model, manifest.quantization.bits_per_weight),
        manifest.chat.context if manifest.chat else 0,
        manifest.source.licence,
        manifest.source.id,
        passed=manifest.report.passed if manifest.report else None,
    )


def weights(recipe: str, file: str, bits: float = 0.0) -> str:
    """How the weights are stored, as short as can be: "q4_k_m", "int8", "5.7 bit"; `file` is the model's file name."""
    kind, _, rest = recipe.partition("-")
    if kind in ("gguf", "onnx") and rest:
        return rest
    found = _WEIGHTS.findall(Path(file).stem)
    if found:
        return str(found[-1]).lower()
    return f"{bits:.1f} bit" if bits else ""


def _remote(row: catalog.Row) -> Row:
    source = row.source
    file = source.file if isinstance(source, Hub) else next(iter(source.members))
    return Row(row.name, State.REMOTE, row.download_bytes, weights("", file), 0, row.licence, row.identity)


def _damage(found: Package) -> str:
    """What is wrong with the files by their sizes; empty when nothing is. Bytes are compared when a model is opened."""
    for entry in found.manifest.files:
        path = found.path / entry.path
        size = path.stat().st_size if path.is_file() else -1
        if size != entry.bytes:
            fact = f"has {size} bytes instead of {entry.bytes}" if size >= 0 else "is missing"
            return f"{entry.path} {fact} — pull or convert it again"
    return "" if found.file(".gguf") or found.file(".onnx") else "it holds no model file — pull or convert it again"


def _may_chat(folder: Path) -> bool:
    """Whether a damaged package may be a chat model: all that its manifest does not say to be another."""
    with suppress(EdgemmError, OSError):
        data = read_json(folder / package.MANIFEST)
        return not isinstance(data, dict) or data.get("task", "chat") == "chat"
    return True


def _searched(row: Row) -> str:
    return f"{row.name} {row.weights} {row.licence} {row.state} {row.source}".lower()


def _facts(row: Row) -> Iterator[tuple[str, str]]:
    known = catalog.ROWS.get(row.name)
    yield "state", row.state
    yield "what is wrong", row.reason
    yield "about", known.about if known else ""
    yield "parameters", f"{known.parameters / 1e6:,.0f} M" if known else ""
    yield "source", row.source
    yield "licence", row.licence
    yield "size", human_bytes(row.bytes) if row.bytes else ""
    yield "weights", row.weights
    yield "trained context", f"{row.context:,} tokens" if row.context else ""
    yield "memory", sentence(row) if row.fit else ""
    yield "report", "none: it is used as it was published" if row.state is State.READY else ""


def _reason(error: EdgemmError | OSError) -> str:
    return f"{error.why} — {error.fix}" if isinstance(error, EdgemmError) else str(error)
