"""Chats that survive: every message of every branch in one SQLite file, found again by its words.

The transcript is the truth; whatever else is kept of a chat can be made from it. Nothing here runs a model.
"""

from edgemm.sessions.records import ChatInfo, Hit, State, Turn
from edgemm.sessions.store import Sessions, default_path
from edgemm.sessions.tree import branch, leaf_below, siblings

__all__ = [
    "ChatInfo",
    "Hit",
    "Sessions",
    "State",
    "Turn",
    "branch",
    "default_path",
    "leaf_below",
    "siblings",
]
