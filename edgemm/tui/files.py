"""Which files the prompt can name: those below a folder, those of one folder, and those dragged into the terminal.

Every search is bounded, follows no link to a folder, and stays below the working directory or the home folder unless
an absolute path was typed. No network path is touched. It lists names, and never opens a file.
"""

import os
import shlex
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

from edgemm.tui.folding import one_line

LIMIT = 5000
_MAX_DROPPED = 8192
_MADE_BY_TOOLS = frozenset(
    "__pycache__ node_modules bower_components venv env dist build target out vendor coverage htmlcov".split()
)


@dataclass(frozen=True, slots=True)
class Found:
    """A file or folder: `shown` is relative to where the search began, with "/", and safe to draw.

    `late`: hidden, or made by a tool, or below such a folder.
    """

    shown: str
    path: str
    is_folder: bool
    late: bool


@dataclass(frozen=True, slots=True)
class Place:
    """Where to look: `typed` is the part of the query that names `folder`, `rest` is matched with what is found."""

    folder: Path
    typed: str
    rest: str
    deep: bool


def place(query: str, cwd: Path, house: Path) -> Place | None:
    """The folder that a query such as "src/ma", "~/no" (below `house`) or "/etc/ho" looks into.

    None: it may not look there.
    """
    query = query.replace("\\", "/") if os.name == "nt" else query
    head, slash, rest = query.rpartition("/")
    typed = head + slash
    if _is_network(query):
        return None
    if head == "~" or head.startswith("~/"):
        return Place(house / head[2:], typed, rest, deep=False)
    if typed and Path(typed).is_absolute():
        return Place(Path(typed), typed, rest, deep=False)
    folder = cwd / typed
    return Place(folder, typed, rest, ".." not in head.split("/")) if _below(folder, cwd, house) else None


def home(otherwise: Path) -> Path:
    """The user's folder, or `otherwise` for a user without one."""
    try:
        return Path.home()
    except RuntimeError:
        return otherwise


def listed(where: Place, stop: Callable[[], bool]) -> list[Found]:
    """What is found there, at most 5,000 entries, what is `late` last. An unreadable folder is empty."""
    if where.deep:
        return scan(where.folder, stop=stop)
    return sorted(_entries(str(where.folder), "", LIMIT, late=False), key=_order)


def scan(root: Path, limit: int = LIMIT, stop: Callable[[], bool] = lambda: False) -> list[Found]:
    """Everything below `root`, folder by folder from the top, at most `limit` entries, what is `late` last."""
    found: list[Found] = []
    near, far = deque([(str(root), "")]), deque[tuple[str, str]]()
    while (near or far) and len(found) < limit and not stop():
        late = not near
        path, shown = near.popleft() if near else far.popleft()
        entries = sorted(_entries(path, shown, limit - len(found), late), key=_order)
        for entry in entries:
            if entry.is_folder and not Path(entry.path).is_symlink():
                (far if entry.late else near).append((entry.path, entry.shown))
        found += entries
    return sorted(found, key=lambda entry: entry.late)


def dropped(text: str) -> list[Path]:
    """The files that `text` names, if it holds nothing but absolute paths of files as terminals paste dragged ones.

    Understood are quotes, backslashes, file:// and several paths; anything else gives an empty list.
    """
    text = text.strip()
    if not text or len(text) > _MAX_DROPPED or "\0" in text:
        return []
    for words in (text.splitlines(), _split(text)):
        files = [_file(word.strip()) for word in words]
        if files and all(files):
            return [file for file in files if file]
    return []


def _entries(folder: str, prefix: str, limit: int, late: bool) -> Iterator[Found]:
    try:
        with os.scandir(folder) as listing:
            for entry in islice(listing, limit):
                hidden = late or entry.name.startswith(".") or entry.name in _MADE_BY_TOOLS
                yield Found(prefix + one_line(entry.name) + "/" * entry.is_dir(), entry.path, entry.is_dir(), hidden)
    except OSError:
        return


def _order(entry: Found) -> tuple[bool, str]:
    return entry.late, entry.shown.casefold()


def _below(folder: Path, *roots: Path) -> bool:
    real = folder.resolve()
    return any(real.is_relative_to(root.resolve()) for root in roots)


def _is_network(path: str) -> bool:
    return path.replace("\\", "/").startswith("//")


def _split(text: str) -> list[str]:
    try:
        return shlex.split(text, posix=os.name != "nt")
    except ValueError:
        return []


def _file(word: str) -> Path | None:
    if len(word) > 1 and word[0] == word[-1] and word[0] in "'\"":
        word = word[1:-1]
    try:
        if word.lower().startswith("file:"):
            word = _from_url(word)
        path = Path(word).expanduser() if word.startswith("~/") else Path(word)
        return path if path.is_absolute() and not _is_network(word) and path.is_file() else None
    except (OSError, ValueError, RuntimeError):
        return None


def _from_url(url: str) -> str:
    parts = urlsplit(url)
    local = parts.netloc in ("", "localhost")
    return (url2pathname(parts.path) if os.name == "nt" else unquote(parts.path)) if local else ""
