"""The architectures with a builder of ours: the file's name is the checkpoint's `model_type`.

A file holds rows of data: `GGUF` says how llama.cpp wants this family, `ONNX` what our own graph needs. A row says
which settings config.json has and what the tensors are called; it holds no graph, no quantization and no file.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from converters.checkpoint import Array
from converters.operations import KEEP, Operation
from edgemm.errors import BadFile, Unsupported

# Families that llama.cpp has no graph for. They run on onnxruntime.
ONNX_ONLY = frozenset(
    "albert mpnet electra deberta deberta-v2 gptj vit deit dinov2 clip siglip siglip2 resnet whisper".split()
)
_CHECK = "check config.json, or download the checkpoint again"
Value = int | float | bool | str | list[Any]


class Config:
    """config.json, read with care: a key that is missing or of the wrong type is a `BadFile` that names it."""

    def __init__(self, values: dict[str, Any], path: Path) -> None:
        self.values, self.path = values, path

    def get(self, name: str, default: Any = None) -> Any:
        """The value of `name`; null counts as missing."""
        value = self.values.get(name)
        return default if value is None else value

    def integer(self, name: str, default: int | None = None) -> int:
        value = self.get(name, default)
        if type(value) is not int or not 0 < value < 1 << 31:
            raise BadFile(self.path, f"{name} is {value!r}, expected a positive number", _CHECK)
        return value

    def number(self, name: str, default: float | None = None) -> float:
        value = self.get(name, default)
        if type(value) not in (int, float):
            raise BadFile(self.path, f"{name} is {value!r}, expected a number", _CHECK)
        return float(value)

    def section(self, name: str) -> "Config":
        """The nested object `name` as a `Config`; an empty one when there is none."""
        value = self.get(name, {})
        if not isinstance(value, dict):
            raise BadFile(self.path, f"{name} is {value!r}, expected an object", _CHECK)
        return Config(value, self.path)

    def unsupported(self, why: str, fix: str = "use --to onnx-int8, or another model") -> Unsupported:
        return Unsupported(self.path, why, fix)


@dataclass(frozen=True, slots=True)
class Key:
    """One setting of the GGUF header, `<architecture>.<name>`.

    `source` is the name of a number in config.json, read as `kind`, or a function of the settings; when that gives
    None, nothing is written.
    """

    name: str
    source: str | Callable[[Config], Value | None]
    default: Value | None = None
    kind: type = int

    def value(self, config: Config) -> Value | None:
        """Raises `BadFile` when config.json has no such number."""
        if not isinstance(self.source, str):
            return self.source(config)
        if self.kind is int:
            return config.integer(self.source, self.default)  # type: ignore[arg-type]
        return config.number(self.source, self.default)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Module:
    """A part with a weight and perhaps a bias. `{i}` is the layer, `{j}` the layer of a decoder beside an encoder.

    `dims` is the shape of the GGUF's weight in numpy order, a letter an axis: v vocabulary, h width, f feed-forward
    (F: twice), q and k all query and key heads together (Q: q + 2k), d one head, p positions, t token types, n heads,
    b position buckets, c classes, x anything. `bias`: whether the graph adds one.
    """

    gguf: str
    checkpoint: str
    dims: str
    operation: Operation = KEEP
    optional: bool = False
    bias: bool = True


def _nothing(_: Config) -> dict[str, Array]:
    return {}


def _fine(_: Config) -> None:
    return None


@dataclass(frozen=True, slots=True)
class GGUFArchitecture:
    """How llama.cpp wants a family: `name` is general.architecture, or a function of the settings that gives it.

    `strip` are prefixes of tensor names, the first that fits is taken off; `ignored` are patterns of tensors that the
    graph does not need; `heads` are more modules by task; `extra` makes tensors out of the settings; `only` lists the
    values that the graph can do, the first being the default, and `check` refuses what takes a closer look; `defaults`
    are the values that transformers fills in; `section` is the part of config.json that holds the settings.
    `untied`: llama.cpp wants the output matrix even where it is the embedding once more. `shares`: the graph turns
    label scores into shares that add up to 1.
    """

    name: str | Callable[[Config], str]
    keys: tuple[Key, ...]
    modules: tuple[Module, ...]
    strip: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    heads: dict[str, tuple[Module, ...]] = field(default_factory=dict)
    extra: Callable[[Config], dict[str, Array]] = _nothing
    only: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    check: Callable[[Config], None] = _fine
    defaults: dict[str, Any] = field(default_factory=dict)
    section: str = ""
    encoder: bool = False
    untied: bool = False
    shares: bool = False


def supported(format: str = "") -> list[str]:
    """The model types that have a row for "gguf" or "onnx", or for either."""
    names = sorted(p.stem for p in Path(__file__).parent.glob("*.py") if not p.stem.startswith("_"))
    return [name for name in names if not format or hasattr(_module(name), format.upper())]


def summary(name: str) -> str:
    """The first line of what a row's file says about its family."""
    return (_module(name).__doc__ or name).splitlines()[0]


def gguf_row(model_type: str, folder: Path) -> GGUFArchitecture:
    """The row of `model_type` for llama.cpp. Raises `Unsupported`, naming what else there is."""
    path = folder / "config.json"
    if model_type in ONNX_ONLY:
        raise Unsupported(path, f"llama.cpp has no graph for {model_type}", "use --to onnx-int8")
    return _row(model_type, "gguf", path)  # type: ignore[no-any-return]


def onnx_row(model_type: str, folder: Path) -> Any:
    """The `Encoder` or `Towers` of `model_type`, which may be one half of it. Raises `Unsupported`, naming what is."""
    return _row(_whole(model_type), "onnx", folder / "config.json")


def has_graph(model_type: str) -> bool:
    """Whether there is an ONNX graph of ours."""
    return _whole(model_type).replace("-", "_") in supported("onnx")


def _whole(model_type: str) -> str:
    """clip_vision_model is the half of a clip."""
    return re.sub(r"_(vision|text)_model$", "", model_type)


def _row(model_type: str, format: str, path: Path) -> Any:
    name = model_type.replace("-", "_")
    if name not in supported(format):
        raise Unsupported(
            path,
            f"architecture {model_type[:40]!r} has no {format} builder; supported: {', '.join(supported(format))}",
            "choose another target, or another model",
        )
    return getattr(_module(name), format.upper())


def _module(name: str) -> ModuleType:
    return import_module(f"{__name__}.{name}")
