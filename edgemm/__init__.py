"""edgemm: run small, verified models offline on a laptop.

The public names live here and are loaded when first used, so that `import edgemm` costs nothing:
neither onnxruntime nor llama_cpp nor textual is imported by it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "Chat": "edgemm.chat",
    "Classifier": "edgemm.classify",
    "EdgemmError": "edgemm.errors",
    "Embedder": "edgemm.embed",
    "Index": "edgemm.library",
    "VisionModel": "edgemm.vision",
    "fuse": "edgemm.fusion",
    "open_model": "edgemm.models",
}

__all__ = ["Chat", "Classifier", "EdgemmError", "Embedder", "Index", "VisionModel", "fuse", "open_model"]

if TYPE_CHECKING:
    from edgemm.chat import Chat
    from edgemm.classify import Classifier
    from edgemm.embed import Embedder
    from edgemm.errors import EdgemmError
    from edgemm.fusion import fuse
    from edgemm.library import Index
    from edgemm.models import open_model
    from edgemm.vision import VisionModel


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'edgemm' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
