"""What a row of architectures/ says about an encoder for our own ONNX graphs, and its weights by role.

A row is data: which settings config.json has, what the tensors are called, and which of a few known parts the encoder
is made of. The graph is built from it in onnx_encoder.py, and computed a second time, independently, in reference.py.
Nothing here knows ONNX.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from converters.architectures import Config
from converters.checkpoint import Array, Checkpoint
from edgemm.errors import BadFile, Unsupported

ACTIVATIONS = ("gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "quick_gelu", "silu", "tanh")
_FIX = "the files do not belong together: download them again"


@dataclass(frozen=True, slots=True)
class Head:
    """What stands behind the encoder: pool, then dense, activation, norm, and the output matrix, each optional.

    `pool`: "first", "mean", "tokens" (each of them), "masked" (those that are asked for), "patches" (the mean of an
    image's patches), "first and patches" (both, side by side) or "all" (the mean of every token). The others are names
    of modules. `output` may be several modules, whose results are averaged. `tied`: without an output matrix of its
    own, the word table is it; `bias` is then the name of the tensor. `activation` "" is that of the encoder.
    `before_norm`: pools what the final norm has not seen.
    """

    pool: str
    output: tuple[str, ...] = ()
    dense: str = ""
    activation: str = ""
    norm: str = ""
    tied: bool = False
    bias: str = ""
    before_norm: bool = False


def _same(_: Config, layer: int) -> str:
    return str(layer)


def _none(_: Config, __: int) -> float:
    return 0


def _fine(_: Config) -> None:
    return None


@dataclass(frozen=True, slots=True)
class Encoder:
    """An encoder as the graph sees it.

    `sizes` maps the fields of `Sizes` to names in config.json, `defaults` are what transformers fills in (by their
    names), `only` the values that the graph can do, `check` refuses what takes a closer look. `section` is the part of
    config.json that holds the settings.
    `tensors` maps roles to modules or tensors, `{i}` is the layer as `layer` names it; `prefixes` are tried in turn.
    A role that is not there is a part that the encoder does not have:
    - words, positions, types, embedding_norm, embedding_projection; patches, class_token, distillation_token
    - query, key, value or qkv; attention_output, attention_norm, attention_scale (of the residual)
    - up, down, gate or gate_up (both in one, the gate first), gated_down; output_norm, output_scale
    - relative (a bias for each distance), final_norm; probe and its parts (attention pooling)
    `norm` is "post" or "pre"; `unbiased` are roles without a bias, `optional` those that some checkpoints lack;
    `unnormed` layers have no attention norm; `skipped_positions` rows of the position table are never used, `longest`
    is what was trained; `causal` attention looks back alone.
    `rotary` gives the base of a layer's rotary positions (0: none), `window` how far a layer's attention reaches.
    `gate` is the activation of the gate, where it is not the encoder's. `heads` by task, `special` ones by the
    checkpoint's class.
    `pooling` is what this family's own embedding is, where nothing else says it; "eos" is the first end token (the
    highest id where config.json has the end token 2, as CLIP's first files wrongly have).
    A row without the size `image` takes pictures of any shape: its patches are a linear layer over (row, column,
    colour), its positions are stretched with antialiasing. `probe_in` names tensors, `..._weight` and `..._bias`.
    """

    sizes: dict[str, str]
    tensors: dict[str, str]
    defaults: dict[str, Any] = field(default_factory=dict)
    prefixes: tuple[str, ...] = ("",)
    section: str = ""
    norm: str = "post"
    unbiased: frozenset[str] = frozenset()
    optional: frozenset[str] = frozenset()
    unnormed: tuple[int, ...] = ()
    skipped_positions: int = 0
    longest: int = 1 << 30
    causal: bool = False
    masked: bool = True
    rotary: Callable[[Config, int], float] = _none
    window: Callable[[Config, int], float] = _none
    layer: Callable[[Config, int], str] = _same
    gate: str = ""
    pooling: str = "mean"
    heads: dict[str, Head] = field(default_factory=dict)
    special: dict[str, Head] = field(default_factory=dict)
    only: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    check: Callable[[Config], None] = _fine


@dataclass(frozen=True, slots=True)
class Towers:
    """A text and an image encoder with a joint space; `scores` makes shares of their products."""

    text: Encoder
    vision: Encoder
    scores: str
    pad_to_window: bool = False


@dataclass(frozen=True, slots=True)
class Sizes:
    """Sizes of one checkpoint. `positions` are rows of the table; an image has `image` x `image` pixels."""

    hidden: int
    layers: int
    heads: int
    epsilon: float
    activation: str
    feed_forward: int = 0
    vocabulary: int = 0
    embedding: int = 0
    positions: int = 0
    token_types: int = 1
    image: int = 0
    patch: int = 0
    channels: int = 3

    @property
    def head(self) -> int:
        return self.hidden // self.heads


def read_sizes(row: Encoder, values: dict[str, Any], folder: Any) -> tuple[Sizes, Config]:
    """Sizes and settings. Raises `BadFile` for a missing or absurd one, `Unsupported` for what the graph cannot do."""
    path = folder / "config.json"
    section = Config(values, path).section(row.section).values if row.section in values else values
    config = Config(row.defaults | {k: v for k, v in section.items() if v is not None}, path)
    found: dict[str, Any] = {}
    for name, key in row.sizes.items():
        if name == "activation":
            found[name] = config.get(key)
        elif name == "epsilon":
            found[name] = config.number(key)
        else:
            found[name] = config.integer(key)
    sizes = Sizes(**found)
    if sizes.hidden % sizes.heads:
        raise BadFile(path, f"hidden size {sizes.hidden} is no multiple of {sizes.heads} heads", "check config.json")
    if sizes.activation not in ACTIVATIONS:
        raise Unsupported(path, f"activation {sizes.activation!r}", f"known: {', '.join(ACTIVATIONS)}")
    for key, good in row.only.items():
        if (value := config.get(key, good[0])) not in good:
            raise Unsupported(path, f"{key} is {value!r}, our graph does {good}", "use a model without it")
    row.check(config)
    return sizes, config


class Weights:
    """A checkpoint's arrays by role, float32. `matrix` gives (inputs, outputs), as a graph multiplies."""

    def __init__(self, row: Encoder, checkpoint: Checkpoint, config: Config) -> None:
        self.row, self.checkpoint, self.config = row, checkpoint, config

    def has(self, role: str) -> bool:
        """Whether the encoder has this part; of an optional one the checkpoint decides."""
        if role not in self.row.tensors:
            return False
        name = self.name(role)
        return role not in self.row.optional or bool(self.shape(name) or self.shape(f"{name}.weight"))

    def name(self, role: str, layer: int = 0) -> str:
        """The module or tensor of `role`, as the row calls it."""
        return self.row.tensors[role].format(i=self.row.layer(self.config, layer))

    def find(self, name: str) -> str | None:
        """The full name in the checkpoint of the tensor `name`; old checkpoints say gamma and beta."""
        old = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
        candidates = (prefix + n for n in (name, old) for prefix in self.row.prefixes)
        return next((c for c in candidates if c in self.checkpoint.tensors), None)

    def tensor(self, name: str) -> Array:
        """Raises `BadFile` when it is missing."""
        full = self.find(name) or name
        return self.checkpoint.read(full)

    def shape(self, name: str) -> tuple[int, ...]:
        full = self.find(name)
        return self.checkpoint.tensors[full].shape if full else ()

    def array(self, role: str, layer: int = 0, part: str = "") -> Array:
        """The tensor of `role`; `part` is "weight" or "bias" where the role names a module with both."""
        return self.tensor(self.name(role, layer) + (f".{part}" if part else ""))

    def matrix(self, role: str, layer: int = 0) -> Array:
        return self.array(role, layer, "weight").T

    def bias(self, role: str, layer: int = 0) -> Array | None:
        return None if role in self.row.unbiased else self.array(role, layer, "bias")

    def check(self, sizes: Sizes) -> None:
        """Raise `BadFile` when a shape differs from what config.json says."""
        expected = _shapes(self.row, sizes)
        for role, shape in expected.items():
            if not self.has(role):
                continue
            layers = range(sizes.layers) if "{i}" in self.row.tensors[role] else (0,)
            for layer in layers:
                name = self.name(role, layer)
                found = self.shape(f"{name}.weight") or self.shape(name)
                if found != shape:
                    where = f"{role} of layer {layer}" if len(layers) > 1 else role
                    why = f"{where} has the shape {list(found)}, config.json says {list(shape)}"
                    raise BadFile(self.checkpoint.folder, why, _FIX)


def _shapes(row: Encoder, sizes: Sizes) -> dict[str, tuple[int, ...]]:
    h, ff, e = sizes.hidden, sizes.feed_forward, sizes.embedding or sizes.hidden
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys(("query", "key", "value", "attention_output"), (h, h))
    shapes["qkv"] = (3 * h, h)
    if ff:
        shapes |= {"up": (ff, h), "gate": (ff, h), "gate_up": (2 * ff, h), "down": (h, ff)}
    shapes |= {"words": (sizes.vocabulary, e), "types": (sizes.token_types, e), "embedding_projection": (h, e)}
    if "words" in row.tensors and sizes.positions:
        shapes["positions"] = (sizes.positions, e)
    if sizes.patch:
        square = (sizes.channels, sizes.patch, sizes.patch)
        shapes["patches"] = (h, *square) if sizes.image else (h, math.prod(square))
    return shapes


def concatenated(parts: list[Array | None], width: int) -> Array | None:
    """Biases of a merged product; where only some have one, the others are 0."""
    if all(part is None for part in parts):
        return None
    return np.concatenate([np.zeros(width, np.float32) if part is None else part for part in parts])
