"""A message as the transcript shows it, and the blocks that it is made of. It knows no widget and no width."""

from dataclasses import dataclass

from textual.content import Content

from edgemm.terminal import safe
from edgemm.tui import flat
from edgemm.tui.flat import BAR, Block, Kind

MARKDOWN, SHOWN = 64 << 10, 512 << 10  # characters: longer ones are shown as typed, and not to their end
LABELS = {"user": "You", "assistant": "Assistant", "system": "System"}
THOUGHTS = 2000  # characters of a running reasoning that are shown, its last ones


@dataclass(frozen=True, slots=True)
class Entry:
    """One message. `branch`: which of how many siblings it is, from 1. `figures`: one line such as "81 tokens, 28/s".

    `sources`: passages of documents that an answer cites. `name` stands instead of the role's label, for example the
    model's name.
    """

    id: int
    role: str
    text: str
    reasoning: str = ""
    figures: str = ""
    branch: tuple[int, int] = (1, 1)
    notes: tuple[str, ...] = ()
    attachments: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    name: str = ""


def label(entry: Entry) -> list[Block]:
    """Who speaks, on which branch, and what was attached."""
    number, count = entry.branch
    mark = f"  ‹ {number}/{count} ›" if count > 1 else ""
    style = "bold $text-primary" if entry.role == "user" else "bold $text-secondary"
    who = _line(entry.name or LABELS.get(entry.role, entry.role), style).content + Content.styled(mark, "dim")
    chips = " ".join(f"[{name}]" for name in entry.attachments)
    return [Block(Kind.TEXT, who, gap=False), *([_line(chips, "$text-accent")] if chips else [])]


def thought(reasoning: str, mark: str, tense: str) -> Block:
    """The one line that stands for the reasoning, such as "▸ thought for 12 words"."""
    count = len(reasoning.split())
    return _line(f"{mark} {tense} {count:,} word{'s' * (count != 1)}", "dim")


def thoughts(text: str) -> Block:
    """The reasoning itself."""
    return Block(Kind.TEXT, Content.styled(safe(text.strip("\n")), "dim"), first=BAR, rest=BAR, gap=False)


def waiting() -> Block:
    """What stands for an answer of which nothing has arrived."""
    return _line("…", "dim")


def body(entry: Entry) -> list[Block]:
    """The text: Markdown from a model, as typed from anyone else, and as typed where it is very long."""
    if entry.role == "assistant" and len(entry.text) <= MARKDOWN:
        return flat.blocks(entry.text)
    shown = flat.plain(entry.text[:SHOWN])
    more = len(entry.text) - SHOWN
    if more > 0:
        shown.append(_line(f"… and {more:,} characters that are not shown here; a copy of the message has them", "dim"))
    return shown


def after(entry: Entry) -> list[Block]:
    """Sources, notes and figures."""
    sources = [_line(source, "$text-accent") for source in entry.sources]
    notes = [_line(f"! {note}", "$text-warning") for note in entry.notes]
    return [*sources, *notes, *([_line(entry.figures, "dim")] if entry.figures else [])]


def _line(text: str, style: str) -> Block:
    return Block(Kind.TEXT, Content.styled(safe(" ".join(text.split())), style), gap=False)
