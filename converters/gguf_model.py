"""From a checkpoint and its architecture row to a `Blueprint`: the settings and the tensors of a GGUF file to be.

Only headers are read here, so a blueprint is cheap: names, shapes and sizes are known before the first weight is
looked at. Every tensor of the checkpoint is either carried, named as not needed by the row, or refused.
It knows no storage type and writes nothing.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from converters.architectures import Config, GGUFArchitecture, Module, gguf_row
from converters.architectures._decoder import CONTEXT
from converters.checkpoint import Array, Checkpoint
from converters.gguf_file import Settings, setting
from converters.gguf_vocab import token_ids
from converters.operations import KEEP, Operation, Rows, Shape, Sizes
from edgemm.errors import BadFile, Unsupported

POOLING = {"mean": 1, "cls": 2, "last": 3, "rank": 4}  # enum llama_pooling_type
_FIX = "the files do not belong together: download them again"
_POSITIONS = "position_embd."
_SMALL = (_POSITIONS, "token_types.", "attn_rel_b.")  # used as they are, not in a product: kept in f32


@dataclass(frozen=True, slots=True)
class Source:
    """Where the rows of a tensor come from: `read(start, stop)` gives float32 rows, before any operation.

    `dtype` is the type in the source ("BF16", "F32", ..., or a ggml type); `rows` its first axis.
    """

    read: Callable[[int, int], Array]
    rows: int
    dtype: str


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor of the file to be: `shape` in numpy order, and what turns the source's rows into its own."""

    name: str
    shape: Shape
    source: Source
    operation: Operation = KEEP

    @property
    def weights(self) -> int:
        return int(np.prod(self.shape))

    @property
    def is_position(self) -> bool:
        """Learned positions: f16 keeps them, a budget does not spend more on them."""
        return self.name.startswith(_POSITIONS)

    @property
    def is_matrix(self) -> bool:
        """Whether it may be quantized."""
        norm = "norm" in self.name
        return (
            len(self.shape) == 2
            and self.name.endswith(".weight")
            and not norm
            and not any(s in self.name for s in _SMALL)
        )


@dataclass(frozen=True)
class Blueprint:
    """A GGUF file to be. `settings` without vocabulary and quantization; `sizes` is what the operations need."""

    architecture: str
    settings: Settings
    tensors: list[Tensor]
    sizes: Sizes
    task: str
    notes: list[str] = field(default_factory=list)

    @property
    def weights(self) -> int:
        return sum(tensor.weights for tensor in self.tensors)

    @property
    def vocabulary_rows(self) -> int:
        return next(tensor.shape[0] for tensor in self.tensors if tensor.name == "token_embd.weight")

    @property
    def tied(self) -> bool:
        """The embedding is the output matrix too."""
        return bool(self.sizes["tied"])


def blueprint(checkpoint: Checkpoint) -> Blueprint:
    """Raises `Unsupported` or `BadFile`, naming the setting or the tensor."""
    row = gguf_row(checkpoint.model_type, checkpoint.folder)
    return _Builder(checkpoint, row).build()


class _Builder:
    def __init__(self, checkpoint: Checkpoint, row: GGUFArchitecture) -> None:
        self._checkpoint, self._row = checkpoint, row
        path = checkpoint.folder / "config.json"
        values = Config(checkpoint.config, path).section(row.section).values if row.section else checkpoint.config
        self._config = Config(row.defaults | {k: v for k, v in values.items() if v is not None}, path)
        self._names = {self._stripped(name): name for name in checkpoint.tensors}
        known = checkpoint.task in (*row.heads, "rerank") or (checkpoint.task == "chat" and not row.encoder)
        self._task = checkpoint.task if known or checkpoint.task == "classify" else "embed"
        self._heads = row.heads.get(self._task, ())
        self._carried: set[str] = set()

    def build(self) -> Blueprint:
        self._check_settings()
        name = self._row.name if isinstance(self._row.name, str) else self._row.name(self._config)
        keys = {key.name: value for key in self._row.keys if (value := key.value(self._config)) is not None}
        tied = self._tied()
        sizes = _sizes(keys) | {"tied": int(tied)} | self._answers()
        tensors = list(self._tensors(keys, sizes, tied))
        self._check_nothing_is_lost()
        settings: Settings = {f"{name}.{key}": setting(value) for key, value in keys.items()}
        settings |= {f"{name}.{key}": setting(value) for key, value in self._task_keys(tensors).items()}
        general: Settings = {
            "general.architecture": setting(name),
            "general.name": setting(self._checkpoint.folder.name),
        }
        task = "classify" if self._task == "rerank" else self._task
        return Blueprint(name, general | settings, tensors, sizes, task, list(self._notes(keys)))

    def _stripped(self, name: str) -> str:
        """The name without the model's prefix, and with today's names of old layer norms."""
        prefix = next((p for p in self._row.strip if name.startswith(p)), "")
        name = name.removeprefix(prefix)
        return re.sub(r"\.beta$", ".bias", re.sub(r"\.gamma$", ".weight", name)) if self._row.encoder else name

    def _check_settings(self) -> None:
        if self._task in ("classify", "rerank") and not self._heads:
            raise self._config.unsupported("a classifier of this family has no llama.cpp graph")
        for key, allowed in self._row.only.items():
            value = self._config.get(key, allowed[0])
            if value not in allowed:
                raise self._config.unsupported(f"{key} is {value!r}; llama.cpp's graph needs {allowed[0]!r}")
        self._row.check(self._config)

    @property
    def _output(self) -> Module | None:
        return next((m for m in self._row.modules if m.gguf == "output"), None)

    def _answers(self) -> Sizes:
        """The ids of the tokens whose rows a reranker's head is made of."""
        wanted = [
            name for module in self._heads if isinstance(module.operation, Rows) for name in module.operation.names
        ]
        return token_ids(self._checkpoint, wanted) if wanted else {}

    def _tied(self) -> bool:
        output = self._output
        if output is None or self._task not in ("chat", "rerank"):
            return True
        said = self._checkpoint.config.get("tie_word_embeddings", self._config.get("tie_word_embeddings"))
        there = f"{output.checkpoint}.weight" in self._names
        if said is False and not there:
            self._checkpoint.entry(f"{output.checkpoint}.weight")  # raises, and names it
        return not there or said is True

    def _tensors(self, keys: dict[str, Any], sizes: Sizes, tied: bool) -> Iterator[Tensor]:
        for module in (*self._row.modules, *self._heads):
            if module.gguf == "output" and (self._task != "chat" or (tied and not self._row.untied)):
                continue
            again = tied and self._output is not None and module.checkpoint == self._output.checkpoint
            place = self._embedding if again else module.checkpoint
            for layer in _layers(module, keys):
                yield from self._parts(module, layer, place.format(i=layer, j=layer), sizes)
        for name, array in self._row.extra(self._config).items():
            yield Tensor(name, array.shape, Source(lambda a, b, array=array: array[a:b], len(array), "F32"))  # type: ignore[misc]

    @property
    def _embedding(self) -> str:
        return next(m.checkpoint for m in self._row.modules if m.gguf == "token_embd")

    def _parts(self, module: Module, layer: str, checkpoint: str, sizes: Sizes) -> Iterator[Tensor]:
        for part in ("weight", "bias") if module.bias else ("weight",):
            full = self._names.get(f"{checkpoint}.{part}")
            if full is None:
                if part == "weight" and not module.optional:
                    self._checkpoint.entry(f"{checkpoint}.weight")  # raises, and names it
                continue
            self._carried.add(full)
            yield self._tensor(module, part, f"{module.gguf.format(i=layer, j=layer)}.{part}", full, sizes)

    def _tensor(self, module: Module, part: str, name: str, full: str, sizes: Sizes) -> Tensor:
        entry = self._checkpoint.tensors[full]
        shape = module.operation.shape(entry.shape) if entry.shape else ()
        dims = module.dims if part == "weight" else module.dims[:1]
        expected = tuple(
            sizes.get(letter) or (shape[axis] if axis < len(shape) else 0) for axis, letter in enumerate(dims)
        )
        if shape != expected:
            why = f"{full} has the shape {list(entry.shape)}, config.json says {list(expected)}"
            raise BadFile(self._checkpoint.folder, why, _FIX)
        if "v" in dims:
            sizes.setdefault("v", shape[0])

        def read(start: int, stop: int) -> Array:
            return self._checkpoint.read_rows(full, start, stop)

        return Tensor(name, shape, Source(read, entry.shape[0], entry.dtype), module.operation)

    def _check_nothing_is_lost(self) -> None:
        ignored = [re.compile(pattern) for pattern in self._row.ignored]
        tied = [f"{m.checkpoint}.weight" for m in self._row.modules if m.gguf == "output"]
        for short, full in self._names.items():
            needless = short in tied or any(pattern.search(text) for pattern in ignored for text in (short, full))
            if full not in self._carried and not needless:
                why = f"the tensor {full[:80]} has no place in llama.cpp's graph: it would be lost"
                raise Unsupported(self._checkpoint.folder, why, "use another model; this one is not what it says")

    def _task_keys(self, tensors: list[Tensor]) -> dict[str, Any]:
        keys: dict[str, Any] = {}
        if self._row.encoder:
            keys["attention.causal"] = False
        if self._task == "embed":
            keys["pooling_type"] = POOLING[self._checkpoint.pooling]
        if self._task in ("classify", "rerank"):
            keys |= {"pooling_type": POOLING["rank"], "classifier.output_labels": self._labels(tensors)}
        for tensor in tensors:
            if tensor.name in ("dense_2.weight", "dense_3.weight"):
                place = tensor.name.removesuffix(".weight")
                keys |= {f"{place}_feat_out": tensor.shape[0], f"{place}_feat_in": tensor.shape[1]}
        return keys

    def _labels(self, tensors: list[Tensor]) -> list[str]:
        count = next((t.shape[0] for t in tensors if t.name == "cls.output.weight"), 0)
        if self._task == "rerank":
            return list(next(m.operation.names for m in self._heads if isinstance(m.operation, Rows)))
        names = self._config.section("id2label")
        return [str(names.get(str(i), f"LABEL_{i}")) for i in range(count)]

    def _notes(self, keys: dict[str, Any]) -> Iterator[str]:
        sliding = self._config.get("sliding_window")
        if (
            sliding is not None
            and any(key is CONTEXT for key in self._row.keys)
            and self._config.get("use_sliding_window", True)
        ):
            yield f"the context ends at its sliding window, {sliding} tokens: llama.cpp's graph has none"
        if keys.get("rope.scaling.type") == "longrope":
            long = keys["rope.scaling.original_context_length"]
            yield f"with a context of more than {long} tokens llama.cpp takes the long factors for short texts too"
        if self._row.shares and self._heads and self._task != "embed":
            yield "llama.cpp's label scores of this family are shares that add up to 1"
        if self._row.section:
            yield "the picture part is left out"


def _layers(module: Module, keys: dict[str, Any]) -> list[str]:
    for mark, key in (("{i}", "block_count"), ("{j}", "decoder_block_count")):
        if mark in module.gguf:
            return [str(layer) for layer in range(keys[key])]
    return [""]


def _sizes(keys: dict[str, Any]) -> Sizes:
    """The letters of `Module.dims`, and what operations ask for."""
    width, heads = keys["embedding_length"], keys["attention.head_count"]
    kv = keys.get("attention.head_count_kv", heads)
    head = keys.get("attention.key_length", width // heads)
    sizes = {"h": width, "f": keys["feed_forward_length"], "F": 2 * keys["feed_forward_length"], "d": head, "n": heads}
    sizes |= {"q": heads * head, "k": kv * head, "Q": (heads + 2 * kv) * head, "p": keys["context_length"]}
    return sizes | {"heads": heads, "kv_heads": kv}
