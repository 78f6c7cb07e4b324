"""manifest.json as typed data: what a package is, how its model is fed, and how it was made.

Every key is a field of a dataclass here; an unknown, missing or mistyped one is a `BadFile` that names it, so that a
package is never half understood. It knows no folder and reads no model. The format is described in
quantized/README.md.
"""

import json
from dataclasses import dataclass, field, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from edgemm.errors import BadFile, disk_errors

SCHEMA = 1
TASKS = (
    "chat",
    "embed",
    "fill-mask",
    "classify",
    "token-classify",
    "next-sentence",
    "question-answering",
    "rerank",
    "image-embed",
    "image-classify",
    "image-text",
)
_MAX_BYTES = 4 << 20
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A file of the package: POSIX `path` relative to the folder, size in bytes, sha256 in hex."""

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Source:
    """The checkpoint that the package was made from; `sha256` has one entry for each file read."""

    id: str
    revision: str = ""
    licence: str = ""
    sha256: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Quantization:
    """`recipe` is a target such as "onnx-int8"; `kept` names what stays in higher precision."""

    recipe: str
    bits_per_weight: float = 0.0
    scheme: str = ""
    kept: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ImageInputs:
    """How pixels become a tensor, in this order: resize, centre crop, rescale, normalize.

    `height` and `width` (pixels) and `channels` are what the model gets. `resize` is `(side,)` for the shorter side,
    `(height, width)` for both, or empty; `resample` a filter of Pillow ("nearest", "bilinear", "bicubic", "lanczos",
    "box", "hamming"). `mean` and `std`: one value for each channel, empty for none. With `max_patches` the picture
    keeps its shape instead: both sides become multiples of `patch` and hold at most so many patches.
    """

    height: int
    width: int
    channels: int = 3
    resize: tuple[int, ...] = ()
    resample: str = "bicubic"
    crop: bool = False
    rescale: float = 1 / 255
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    patch: int = 0
    max_patches: int = 0


@dataclass(frozen=True, slots=True)
class Inputs:
    """How an encoder is fed: `pooling` is "mean", "cls" or "last"; prefixes are put before the text.

    `matryoshka`: the first values of a vector are a vector too. `token_types`: the second text of a pair has a type of
    its own. `pad_to`: every text is padded with `pad_id` to so many tokens; 0: to its batch. `mask_token` is what a
    fill-mask model fills.
    """

    max_tokens: int
    pooling: str = "mean"
    normalize: bool = True
    dimensions: int = 0
    query_prefix: str = ""
    document_prefix: str = ""
    matryoshka: bool = False
    token_types: bool = False
    pad_to: int = 0
    pad_id: int = 0
    mask_token: str = ""
    image: ImageInputs | None = None


@dataclass(frozen=True, slots=True)
class ZeroShot:
    """How a text and an image that share a space are scored: `scores` of scale * cosine + bias.

    `template` makes a caption of a label, which stands for {}.
    """

    scale: float
    bias: float = 0.0
    scores: str = "softmax"
    template: str = "a photo of a {}"


@dataclass(frozen=True, slots=True)
class ChatFormat:
    """`context` is the trained length in tokens; `stop` are texts that end an answer beside the end token.

    `tokenizer` is "gguf", or "tokenizer.json" where llama.cpp does not split text as the model was trained.
    """

    context: int
    stop: tuple[str, ...] = ()
    tokenizer: str = "gguf"


@dataclass(frozen=True, slots=True)
class Check:
    """A fixed input: its token ids and the first values of its output, so that a swapped part is noticed."""

    text: str
    tokens: tuple[int, ...]
    output: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class ReportSummary:
    passed: bool
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MadeBy:
    version: str
    command: str = ""


@dataclass(frozen=True, slots=True)
class Manifest:
    """manifest.json. `task` is one of `TASKS`; `architecture` the checkpoint's model_type.

    `labels` are the names of a classifier's outputs, `scores` says what makes shares of them: "softmax", "sigmoid", or
    "" when they are what the model means.
    """

    name: str
    task: str
    architecture: str
    source: Source
    quantization: Quantization
    made_by: MadeBy
    schema: int = SCHEMA
    files: tuple[FileEntry, ...] = ()
    inputs: Inputs | None = None
    chat: ChatFormat | None = None
    labels: tuple[str, ...] = ()
    scores: str = ""
    zero_shot: ZeroShot | None = None
    check: Check | None = None
    report: ReportSummary | None = None

    @property
    def bytes(self) -> int:
        return sum(entry.bytes for entry in self.files)


def decode(kind: type[_T], data: Any, path: Path) -> _T:
    """Build dataclass `kind` from JSON `data`; an unknown, missing or mistyped key is a `BadFile` that names it."""
    if not isinstance(data, dict):
        raise _mistyped(path, kind.__name__, data)
    hints = get_type_hints(kind)
    unknown = sorted(set(data) - set(hints))
    if unknown:
        raise BadFile(path, f"unknown key {unknown[0]!r} in {kind.__name__}", "update edgemm or convert again")
    try:
        return kind(**{key: _value(hints[key], value, path, key) for key, value in data.items()})
    except TypeError as error:
        raise BadFile(path, f"{kind.__name__}: {error}", "convert or pull the model again") from error


def _value(hint: Any, value: Any, path: Path, key: str) -> Any:
    """`value` as the type `hint`, which is a dataclass, a scalar, tuple[X, ...], dict[str, X] or X | None."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is UnionType:
        return None if value is None else _value(next(a for a in args if a is not NoneType), value, path, key)
    if is_dataclass(hint):
        return decode(hint, value, path)  # type: ignore[arg-type]
    if origin is tuple and isinstance(value, list):
        return tuple(_value(args[0], item, path, key) for item in value)
    if origin is dict and isinstance(value, dict):
        return {str(k): _value(args[1], v, path, key) for k, v in value.items()}
    if hint is float and type(value) is int:
        return float(value)
    if origin is None and type(value) is hint:
        return value
    raise _mistyped(path, key, value)


def _mistyped(path: Path, key: str, value: Any) -> BadFile:
    return BadFile(path, f"{key} has the wrong type ({type(value).__name__})", "convert or pull the model again")


def read_json(path: Path) -> Any:
    with disk_errors(path):
        if path.stat().st_size > _MAX_BYTES:
            raise BadFile(path, f"larger than {_MAX_BYTES} bytes", "convert or pull the model again")
        raw = path.read_bytes()
    try:
        return json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise BadFile(path, f"not valid JSON ({error})", "convert or pull the model again") from error
