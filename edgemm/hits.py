"""How passages that were found are shown: for eyes with links and marked words, for pipes in columns, as JSON.

It knows no index and no model.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgemm import terminal
from edgemm.documents.records import Place
from edgemm.index import Chunk
from edgemm.search import Hit
from edgemm.snippets import MARK, UNMARK


def show(hits: Sequence[Hit], *, as_json: bool, explain: bool) -> None:
    """On stdout; that nothing was found is said on stderr."""
    if as_json:
        terminal.print_json([_json(hit) for hit in hits])
    elif not hits:
        terminal.note("nothing was found")
    elif sys.stdout.isatty():
        _draw(hits, explain)
    else:
        for hit in hits:
            columns = (str(hit.chunk.path), place(hit.chunk), f"{hit.score:.4f}", *([_why(hit)] * explain), plain(hit))
            sys.stdout.write(terminal.safe("\t".join(" ".join(column.split()) for column in columns)) + "\n")
        sys.stdout.flush()


def place(chunk: Chunk) -> str:
    """ "page 3", "lines 10-24" and so on; "" for a file as a whole."""
    return Place(**chunk.place).shown()  # type: ignore[arg-type]


def plain(hit: Hit) -> str:
    """The snippet without its marks."""
    return hit.snippet.replace(MARK, "").replace(UNMARK, "")


def short(path: Path) -> str:
    """From the current folder or from home, where that is shorter."""
    for base, prefix in ((Path.cwd(), ""), (Path.home(), f"~{os.sep}")):
        if path.is_relative_to(base):
            return prefix + str(path.relative_to(base))
    return str(path)


def _draw(hits: Sequence[Hit], explain: bool) -> None:
    from rich.style import Style
    from rich.text import Text

    console = terminal.console()
    for number, hit in enumerate(hits, 1):
        link = None if os.environ.get("NO_COLOR") else hit.chunk.path.as_uri()  # percent-encoded: it holds no escape
        head = Text.assemble(
            (f"{number} ", "bold"), (terminal.safe(short(hit.chunk.path)), Style(bold=True, link=link))
        )
        rest = [place(hit.chunk), *(["taken " + hit.chunk.taken] if hit.chunk.taken else [])]
        head.append(terminal.safe("".join(f", {each}" for each in rest if each)))
        if hit.chunk.heading:
            head.append(terminal.safe(" · " + " > ".join(hit.chunk.heading)), "dim")
        console.print(head)
        if hit.snippet:
            console.print(Text("  ").append_text(_marked(hit.snippet)))
        if hit.copies:
            console.print(
                Text(terminal.safe(f"  also in {', '.join(short(Path(copy)) for copy in hit.copies)}"), "dim")
            )
        if explain:
            console.print(Text(f"  {_why(hit)}", "dim"))


def _marked(snippet: str) -> Any:
    from rich.text import Text

    text = Text()
    for number, piece in enumerate(snippet.split(MARK)):
        match, _, rest = piece.rpartition(UNMARK) if number else ("", "", piece)
        text.append(terminal.safe(match), "bold reverse" if os.environ.get("NO_COLOR") else "bold yellow")
        text.append(terminal.safe(rest))
    return text


def _why(hit: Hit) -> str:
    parts = ", ".join(f"{part} {standing.rank}. ({standing.score:.3g})" for part, standing in hit.parts.items())
    return f"{hit.score:.4f} from {parts}"


def _json(hit: Hit) -> dict[str, Any]:
    chunk = hit.chunk
    return {
        "path": str(chunk.path),
        "place": {key: value for key, value in chunk.place.items() if value},
        "heading": list(chunk.heading),
        "title": chunk.title,
        "kind": chunk.kind,
        "taken": chunk.taken,
        "text": chunk.text,
        "snippet": plain(hit),
        "score": round(hit.score, 6),
        "parts": {part: {"rank": each.rank, "score": round(each.score, 6)} for part, each in hit.parts.items()},
        "copies": list(hit.copies),
    }
