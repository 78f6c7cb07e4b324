"""The architectures with a builder of ours: the file's name is the checkpoint's `model_type`.

A row says which settings config.json has and what the tensors are called; it holds no graph and no format.
"""

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from converters.checkpoint import Array, Checkpoint
from edgemm.errors import BadFile, Unsupported

ACTIVATIONS = ("gelu", "gelu_new", "relu")


@dataclass(frozen=True, slots=True)
class Encoder:
    """A post-norm transformer encoder.

    `keys` and `defaults` map our names to those of config.json; `tensors` maps roles to tensor names, with `{i}`
    for the layer. `prefixes` are tried in turn before every name; `drop` are the parts that pooling does not need.
    """

    keys: dict[str, str]
    defaults: dict[str, Any]
    tensors: dict[str, str]
    prefixes: tuple[str, ...]
    gguf: str


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


def supported() -> list[str]:
    return sorted(p.stem for p in Path(__file__).parent.glob("*.py") if not p.stem.startswith("_"))


def architecture(model_type: str, folder: Path) -> Encoder:
    """The row of `model_type`. Raises `Unsupported`, naming what there is."""
    name = model_type.replace("-", "_")
    if name not in supported():
        raise Unsupported(
            folder / "config.json",
            f"architecture {model_type[:40]!r} has no builder; supported: {', '.join(supported())}",
            "other architectures need the extra: pip install 'edgemm[export]' (not used by this version yet)",
        )
    row: Encoder = import_module(f"{__name__}.{name}").ARCHITECTURE
    return row


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
