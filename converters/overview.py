"""What can be converted to what: the rows of architectures/ and recipe.py as Markdown tables, for README and --list.

It only reads rows; what a row means is said in architectures/__init__.py and recipe.py.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from converters.architectures import GGUFArchitecture, gguf_row, onnx_row, summary, supported
from converters.encoder import Towers
from converters.recipe import RECIPES

_YES, _NO = "yes", "-"
_HYPHENATED = {"xlm_roberta": "xlm-roberta"}  # files that cannot have the name of their model type


def architectures() -> str:
    """A line for each model type: what its checkpoints can become."""
    head = [
        "| `model_type` | models | GGUF: chat | GGUF: embed | GGUF: classify, rerank | ONNX |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    return "\n".join([*head, *(_line(name) for name in supported())])


def targets() -> str:
    """A line for each target."""
    head = ["| target | how the weights are stored |", "| --- | --- |"]
    rows = [f"| `{recipe.target}` | {recipe.scheme} |" for recipe in RECIPES.values()]
    return "\n".join([*head, *rows, "| `gguf` with a budget | a type for each tensor, chosen by measured error |"])


def _line(name: str) -> str:
    cells = [f"`{_HYPHENATED.get(name, name)}`", _family(name)]
    cells += _tasks(gguf_row(name, Path())) if name in supported("gguf") else [_NO] * 3
    return "| " + " | ".join([*cells, ", ".join(onnx_tasks(name)) or _NO]) + " |"


def onnx_tasks(name: str) -> list[str]:
    """The tasks that our own ONNX graphs of this family have."""
    if name not in supported("onnx"):
        return []
    row = onnx_row(name, Path())
    if isinstance(row, Towers):
        return ["image-text", "image-embed", *row.vision.heads]
    if "patches" in row.tensors:
        return ["image-embed", *row.heads]
    more = ["rerank"] if "classify" in row.heads else []
    return ["embed", *row.heads, *more]


def _tasks(row: GGUFArchitecture) -> Iterator[str]:
    """Chat, embeddings, labels. A model with a decoder beside its encoder gives no embedding of a text."""
    two_parts = any("{j}" in module.gguf for module in row.modules)
    yield _NO if row.encoder else _YES
    yield _NO if two_parts else _YES
    yield _YES if row.heads.keys() & {"classify", "rerank"} else _NO


def _family(name: str) -> str:
    """The beginning of the file's first sentence."""
    return re.split(r" \(|: ", summary(name))[0]
