"""How passages that were found are shown: for eyes with links and marked words, for pipes in columns, as JSON.

It knows no index and no model.
"""

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from edgemm import terminal
from edgemm.search import Hit, place
from edgemm.snippets import MARK, UNMARK

_CONTROLS = {ord("\t"): "\u2409", ord("\n"): "\u240a"}  # shown as pictures, as `safe` shows the others


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
            where, score = place(hit.chunk).shown(), f"{hit.score:.4f}"
            columns = (str(hit.chunk.path), where, score, *([_why(hit)] * explain), plain(hit))
            sys.stdout.write("\t".join(map(in_line, columns)) + "\n")
        sys.stdout.flush()


def plain(hit: Hit) -> str:
    """The snippet without its marks."""
    return hit.snippet.replace(MARK, "").replace(UNMARK, "")


def parts(hit: Hit) -> str:
    """Which ranking put it where, such as "words 1. (0.72), meaning 3. (0.62)"."""
    return ", ".join(f"{part} {standing.rank}. ({standing.score:.3g})" for part, standing in hit.parts.items())


def in_line(text: str) -> str:
    """Safe, and without line ends and tabs: no file name adds a line or a column. Its blanks stay as they are."""
    return terminal.safe(text).translate(_CONTROLS)


def short(path: Path) -> str:
    """From the current folder or from home, where that is shorter."""
    for base, prefix in ((Path.cwd, ""), (Path.home, f"~{os.sep}")):
        with suppress(OSError, RuntimeError):  # the current folder may be gone, and a user without a home
            if path.is_relative_to(base()):
                return prefix + str(path.relative_to(base()))
    return str(path)


def _draw(hits: Sequence[Hit], explain: bool) -> None:
    from rich.style import Style
    from rich.text import Text

    console = terminal.console()
    for number, hit in enumerate(hits, 1):
        link = None if os.environ.get("NO_COLOR") else hit.chunk.path.as_uri()  # percent-encoded: it holds no escape
        head = Text.assemble((f"{number} ", "bold"), (in_line(short(hit.chunk.path)), Style(bold=True, link=link)))
        rest = [place(hit.chunk).shown(), *(["taken " + hit.chunk.taken] if hit.chunk.taken else [])]
        head.append(in_line("".join(f", {each}" for each in rest if each)))
        if hit.chunk.heading:
            head.append(in_line(" · " + " > ".join(hit.chunk.heading)), "dim")
        console.print(head)
        if hit.snippet:
            console.print(Text("  ").append_text(_marked(hit.snippet)))
        if hit.copies:
            console.print(Text(in_line(f"  also in {', '.join(short(Path(copy)) for copy in hit.copies)}"), "dim"))
        if explain:
            console.print(Text(f"  {_why(hit)}", "dim"))


def _marked(snippet: str) -> Any:
    from rich.text import Text

    text = Text()
    for number, piece in enumerate(snippet.split(MARK)):
        match, _, rest = piece.rpartition(UNMARK) if number else ("", "", piece)
        text.append(in_line(match), "bold reverse" if os.environ.get("NO_COLOR") else "bold yellow")
        text.append(in_line(rest))
    return text


def _why(hit: Hit) -> str:
    return f"{hit.score:.4f} from {parts(hit)}"


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
