"""The index of the user's folders: chunks of their files, found by words and by vectors, in one SQLite file.

It is told what is in a file and what its vectors are; it reads no document and runs no model.
"""

from edgemm.index.database import REPAIR
from edgemm.index.pages import Mask
from edgemm.index.records import (
    Chunk,
    FileFacts,
    FileState,
    Known,
    Medium,
    Model,
    ModelState,
    ModelStatus,
    Passage,
    Pending,
    Root,
    RootStatus,
    Scope,
    Status,
)
from edgemm.index.store import Store, default_path, rebuild

__all__ = [
    "REPAIR",
    "Chunk",
    "FileFacts",
    "FileState",
    "Known",
    "Mask",
    "Medium",
    "Model",
    "ModelState",
    "ModelStatus",
    "Passage",
    "Pending",
    "Root",
    "RootStatus",
    "Scope",
    "Status",
    "Store",
    "default_path",
    "rebuild",
]
