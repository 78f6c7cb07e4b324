"""Turns of a chat as entries of the transcript, and figures as short texts. It knows no widget and no model."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from edgemm import cite, context
from edgemm.attachments import Kind
from edgemm.events import Progress
from edgemm.sessions import State, Turn, branch, siblings
from edgemm.tui.entry import Entry

_BAR = 8  # cells of the context meter
_LONG = {
    "tokens": "{} tokens",
    "speed": "{}/s",
    "first": "first token {} s",
    "cached": "{} cached",
    "drafts": "{} drafts right",
}
_SHORT = {"speed": "{}/s", "first": "first {} s", "cached": "{} cached", "drafts": "{} drafts"}
_NOTES = {
    State.STOPPED: "stopped here — F6 goes on",
    State.FAILED: "the model stopped — F5 answers again",
    State.STREAMING: "not finished: it is being written in another window, or was when edgemm ended",
}


def entries(turns: Sequence[Turn], leaf: int | None) -> list[Entry]:
    """The open branch of a chat."""
    return [entry(turn, turns) for turn in branch(turns, leaf)]


def entry(turn: Turn, turns: Sequence[Turn]) -> Entry:
    versions = [each.id for each in siblings(turns, turn.id)]
    return Entry(
        id=turn.id,
        role=turn.role,
        text=turn.text,
        reasoning=turn.reasoning,
        figures=figures(turn.details.get("figures")),
        branch=(versions.index(turn.id) + 1, len(versions)),
        notes=tuple(_notes(turn)),
        attachments=tuple(each.name for each in context.attachments(turn) if each.kind is not Kind.QUOTE),
        sources=tuple(_sources(turn, turns)),
        name=_model(turn) if turn.role == "assistant" else "",
    )


def growing(turn: Turn, turns: Sequence[Turn], model: str) -> Entry:
    """An answer that is about to grow."""
    return replace(entry(turn, turns), notes=(), figures="", name=model)


def figures(done: Any) -> str:
    """What an answer cost: "43 tokens · 18.2/s · first token 0.4 s · 97% cached · 50% of 14 drafts right"."""
    return " · ".join(_LONG[name].format(value) for name, value in _cost(done).items())


def footer(done: Any) -> str:
    """The same for a narrow line, without what stands under the answer anyway."""
    return " · ".join(_SHORT[name].format(value) for name, value in _cost(done).items() if name in _SHORT)


def meter(used: int, total: int, draft: int = 0) -> str:
    """How full the context is: "██······ 1,174/4,096 tokens · 43 typed"."""
    share = min(1.0, used / max(1, total))
    filled = round(share * _BAR)
    typed = f" · {draft:,} typed" if draft else ""
    return f"{'█' * filled}{'·' * (_BAR - filled)} {used:,}/{total:,} tokens{typed}"


def reading(progress: Progress, seconds: float, before: int) -> str:
    """How far the prompt is read, and how long it will take: `before` tokens were read when the clock started."""
    left = ""
    if progress.done > before and progress.total > progress.done:
        left = f", {seconds * (progress.total - progress.done) / (progress.done - before):.0f} s left"
    return f"reading the prompt: {progress.done:,} of {progress.total:,} tokens{left} — Esc stops"


def at_work(answering: bool, waiting: int) -> str:
    """What is going on, and how many messages wait for it."""
    parts = ["answering — Esc stops"] * answering + [f"{waiting} waiting"] * (waiting > 0)
    return " · ".join(parts)


def _notes(turn: Turn) -> list[str]:
    found = []
    done = turn.details.get("figures")
    if isinstance(done, dict) and done.get("reason") == "length":
        found.append("cut at the longest answer or the end of the context — F6 goes on")
    elif turn.state in _NOTES and turn.role == "assistant":
        found.append(_NOTES[turn.state])
    if turn.details.get("edited"):
        found.append("edited")
    cut = turn.details.get(context.KEY)
    if isinstance(cut, dict):
        summary = cut.get("summary")
        found.append(
            f"from here on earlier messages are left out; a summary stands for them: {summary}"
            if summary
            else "from here on earlier messages are left out: the context was full"
        )
    return found


def _sources(turn: Turn, turns: Sequence[Turn]) -> list[str]:
    """Which passages of the user's documents an answer cites."""
    question = next((each for each in turns if each.id == turn.parent), None)
    if turn.role != "assistant" or turn.state is State.STREAMING or question is None:
        return []
    return cite.lines(cite.sources(turn.text, context.attachments(question)))


def _model(turn: Turn) -> str:
    model = turn.details.get("model")
    return str(model.get("model", "")) if isinstance(model, dict) else ""


def _cost(done: Any) -> dict[str, str]:
    """Figures of an answer by name; none where they are damaged, for an imported chat may hold anything."""
    try:
        tokens, seconds = int(done["generated_tokens"]), float(done["decode_seconds"])
        found = {"tokens": f"{tokens:,}"} | ({"speed": f"{tokens / seconds:.1f}"} if seconds > 0 else {})
        found["first"] = f"{float(done['prefill_seconds']):.1f}"
        found["cached"] = f"{int(done['reused_tokens']) / int(done['prompt_tokens']):.0%}"
        if drafted := int(done["drafted"]):
            found["drafts"] = f"{int(done['accepted']) / drafted:.0%} of {drafted}"
    except (TypeError, ValueError, KeyError, ArithmeticError):
        return {}
    return found
