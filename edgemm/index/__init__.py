"""The index of the user's folders: chunks of their files, found by words and by vectors, in one SQLite file.

It is told what is in a file and what its vectors are; it reads no document and runs no model.
"""

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
from edgemm.index.store import Index, default_path, rebuild

__all__ = [
    "Chunk",
    "FileFacts",
    "FileState",
    "Index",
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
    "default_path",
    "rebuild",
]
