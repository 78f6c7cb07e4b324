"""The architectures with a builder of ours: the file's name is the checkpoint's `model_type`.

A file holds rows of data: `GGUF` says how llama.cpp wants this family, `ONNX` what our own graph needs. A row says
which settings config.json has and what the tensors are called; it holds no graph, no quantization and no file.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from converters.checkpoint import Array, Checkpoint
from converters.operations import KEEP, Operation
from edgemm.errors import BadFile, Unsupported

ACTIVATIONS = ("gelu", "gelu_new", "relu")
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


@dataclass(frozen=True, slots=True)
class Encoder:
    """A post-norm transformer encoder, as our ONNX graph and the numpy reference see it.

    `keys` and `defaults` map our names to those of config.json; `tensors` maps roles to tensor names, with `{i}`
    for the layer. `prefixes` are tried in turn before every name.
    """

    keys: dict[str, str]
    defaults: dict[str, Any]
    tensors: dict[str, str]
    prefixes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class EncoderConfig:
    """Sizes of one checkpoint. `positions` is the longest input in tokens."""

    vocabulary: int
    hidden: int
    layers: int
    heads: int
    feed_forward: int
    positions: int
    token_types: int
    epsilon: float
    activation: str


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


def architecture(model_type: str, folder: Path) -> Encoder:
    """The row of `model_type` for onnxruntime. Raises `Unsupported`, naming what there is."""
    return _row(model_type, "onnx", folder / "config.json")  # type: ignore[no-any-return]


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


def read_config(row: Encoder, config: dict[str, Any], path: Path) -> EncoderConfig:
    """The sizes of a checkpoint. Raises `BadFile` for a missing or absurd one, `Unsupported` for a strange setting."""
    values: dict[str, Any] = {name: config.get(key, row.defaults.get(name)) for name, key in row.keys.items()}
    for name, value in values.items():
        kind: type = {"epsilon": float, "activation": str}.get(name, int)
        good = isinstance(value, kind) and not isinstance(value, bool)
        good = good and (kind is not int or 0 < int(value) < 1 << 24)
        if not good:
            raise BadFile(path, f"{row.keys[name]} is {value!r}", "check config.json, or download it again")
    sizes = EncoderConfig(**values)
    if sizes.hidden % sizes.heads:
        raise BadFile(path, f"hidden size {sizes.hidden} is no multiple of {sizes.heads} heads", "check config.json")
    if sizes.activation not in ACTIVATIONS:
        raise Unsupported(path, f"activation {sizes.activation!r}", f"known: {', '.join(ACTIVATIONS)}")
    if config.get("position_embedding_type", "absolute") != "absolute":
        raise Unsupported(path, "relative position embeddings", "use a model with absolute positions")
    return sizes


class Weights:
    """A checkpoint's arrays by role, float32. `matrix` gives (inputs, outputs), as a graph multiplies."""

    def __init__(self, row: Encoder, checkpoint: Checkpoint) -> None:
        self._row, self._checkpoint = row, checkpoint

    def array(self, role: str, layer: int = 0, part: str = "") -> Array:
        """The tensor of `role`; `part` is "weight" or "bias" where the role names a layer with both."""
        name = self._row.tensors[role].format(i=layer) + (f".{part}" if part else "")
        old = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
        for candidate in (prefix + n for n in (name, old) for prefix in self._row.prefixes):
            if candidate in self._checkpoint.tensors:
                return self._checkpoint.read(candidate)
        return self._checkpoint.read(name)  # raises, and names what is missing

    def matrix(self, role: str, layer: int) -> Array:
        return self.array(role, layer, "weight").T

    def bias(self, role: str, layer: int) -> Array:
        return self.array(role, layer, "bias")

    def check(self, sizes: EncoderConfig) -> None:
        """Raise `BadFile` when a shape differs from what config.json says."""
        h, ff = sizes.hidden, sizes.feed_forward
        expected = {
            "words": (sizes.vocabulary, h),
            "positions": (sizes.positions, h),
            "types": (sizes.token_types, h),
        }
        found = {role: self._shape(role) for role in expected}
        for layer in range(sizes.layers):
            shapes = dict.fromkeys(("query", "key", "value", "attention_output"), (h, h)) | {
                "up": (ff, h),
                "down": (h, ff),
            }
            for role, shape in shapes.items():
                expected[f"{role} of layer {layer}"] = shape
                found[f"{role} of layer {layer}"] = self._shape(role, layer, "weight")
        for role, shape in expected.items():
            if found[role] != shape:
                why = f"{role} has the shape {list(found[role])}, config.json says {list(shape)}"
                raise BadFile(self._checkpoint.folder, why, "the files do not belong together: download them again")

    def _shape(self, role: str, layer: int = 0, part: str = "") -> tuple[int, ...]:
        name = self._row.tensors[role].format(i=layer) + (f".{part}" if part else "")
        entries = (self._checkpoint.tensors.get(prefix + name) for prefix in self._row.prefixes)
        return next((entry.shape for entry in entries if entry is not None), ())
