"""The messages of a chat as a tree: the branch to a leaf, the siblings of a message, the newest leaf below it.

Pure functions over a list of `Turn`s. A parent always has the smaller id, so no list can send them in circles.
"""

from collections.abc import Sequence

from edgemm.errors import UsageError
from edgemm.sessions.records import Turn


def branch(turns: Sequence[Turn], leaf: int | None) -> list[Turn]:
    """From the first message to `leaf`; empty for None. Raises `UsageError` for a message that is not there."""
    if leaf is None:
        return []
    known = {turn.id: turn for turn in turns}
    path = [_find(known, leaf)]
    while (parent := path[-1].parent) is not None and parent < path[-1].id:
        path.append(_find(known, parent))
    return path[::-1]


def siblings(turns: Sequence[Turn], message: int) -> list[Turn]:
    """The messages with the same parent, itself included, oldest first. Raises `UsageError`."""
    parent = _find({turn.id: turn for turn in turns}, message).parent
    return sorted((turn for turn in turns if turn.parent == parent), key=lambda turn: turn.id)


def leaf_below(turns: Sequence[Turn], message: int) -> int:
    """The newest message at or below `message`, which is a leaf. Raises `UsageError`."""
    below = {_find({turn.id: turn for turn in turns}, message).id}
    for turn in sorted(turns, key=lambda turn: turn.id):
        if turn.parent in below:
            below.add(turn.id)
    return max(below)


def _find(known: dict[int, Turn], message: int) -> Turn:
    if message not in known:
        raise UsageError(f"message {message}", "is not in this chat", "open the chat again")
    return known[message]
