"""The checkpoint's own answer: a plain numpy forward pass in float32, one text or picture at a time, without padding.

It interprets a row of architectures/ by itself and shares no code with the graph builder, so that a mistake in either
shows. It knows no ONNX, no quantization, no tokenizer and no picture files. A layer's weights are read once for all
items, used, and let go. Equations: Vaswani et al. 2017 (attention), Su et al. 2021 (rotary positions), Shazeer 2020
(gates), Raffel et al. 2020 (relative positions), Dosovitskiy et al. 2020 (patches), Touvron et al. 2021 (layer scale).
"""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial, reduce

import numpy as np

from converters.architectures import Config, onnx_row
from converters.checkpoint import Array, Checkpoint
from converters.cores import each
from converters.encoder import Encoder, Head, Sizes, Weights, read_sizes
from converters.positions import relative_buckets, resized_positions
from edgemm.errors import Unsupported

Item = Sequence[int] | Array  # token ids, or pixels
Rows = Sequence[Sequence[int]]
Step = Callable[[Array], Array]  # a part of the model, with its weights
_OLD_END = 2  # CLIP's first config.json files name a wrong end token; the real one has the highest id
_DENSE = re.compile(r"(\d_Dense\.linear)\.weight")


class Reference:
    """One encoder of a checkpoint. An item is a row of token ids, or pixels: float32 (channels, height, width).

    Every method raises `BadFile` when the checkpoint lacks a tensor that the row names.
    """

    def __init__(self, weights: Weights, sizes: Sizes, config: Config) -> None:
        self._weights, self._row, self._sizes, self._config = weights, weights.row, sizes, config
        special = (role for role in ("class_token", "distillation_token") if weights.has(role))
        self._special = [self._table(role) for role in special]  # the tokens before the patches

    def hidden(self, items: Sequence[Item], types: Rows = ()) -> list[Array]:
        """float32 (tokens, hidden) for each item: the last hidden states. `types` are token types; without: all 0."""
        norm = self._norm("final_norm")
        return [norm(x) for x in self._encoded(items, types)]

    def embed(self, items: Sequence[Item], pooling: str, dense: Sequence[str] = (), *, normalize: bool) -> Array:
        """float32 (items, dimensions). `pooling` is "mean", "cls", "last", "eos" or "probe".

        Behind it come the row's projection, then the modules `dense` of the checkpoint, such as "2_Dense.linear".
        """
        pool = self._pooling(pooling)
        vectors = np.stack([pool(x, item) for x, item in zip(self.hidden(items), items, strict=True)])
        if self._weights.has("projection"):
            vectors = self._linear("projection")(vectors)
        for name in dense:
            vectors = _affine(*self._module(name), vectors)
        if normalize:
            vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.float32(1e-12))
        return vectors

    def logits(self, items: Sequence[Item], head: Head, types: Rows = (), positions: Rows = ()) -> list[Array]:
        """float32 for each item: (labels,), or (tokens, labels) where the head looks at every token.

        A "masked" head gives (positions, vocabulary), for the `positions` that are asked for in each item.
        """
        states = self._encoded(items, types) if head.before_norm else self.hidden(items, types)
        if head.pool == "masked":
            states = [x[list(asked)] for x, asked in zip(states, positions, strict=True)]
        pool, transform, outputs = self._pooling(head.pool), self._transform(head), self._outputs(head)
        found = []
        for x, item in zip(states, items, strict=True):
            # Where there are two outputs, the second one reads the next token (DeiT's distillation token).
            parts = [output(transform(pool(x[token:], item))) for token, output in enumerate(outputs)]
            found.append(np.asarray(sum(parts) / len(parts), np.float32))
        return found

    def _encoded(self, items: Sequence[Item], types: Rows) -> list[Array]:
        """Everything before the final norm. Items go through a layer together, so that it is read once."""
        states = self._pictures(items) if self._weights.has("patches") else self._texts(items, types)
        states = each(self._norm("embedding_norm"), states)
        if self._weights.has("embedding_projection"):
            states = each(self._linear("embedding_projection"), states)
        for index in range(self._sizes.layers):
            states = each(self._layer(index), states)
        return states

    def _texts(self, items: Sequence[Item], types: Rows) -> list[Array]:
        words = self._table("words")
        states = [words[np.asarray(item, np.int64)] for item in items]
        if self._weights.has("positions"):
            positions = self._table("positions")[self._row.skipped_positions :]
            states = [x + positions[: len(x)] for x in states]
        if self._weights.has("types"):
            table, rows = self._table("types"), types or [[0] * len(x) for x in states]
            states = [x + table[list(row)] for x, row in zip(states, rows, strict=True)]
        return states

    def _pictures(self, items: Sequence[Item]) -> list[Array]:
        weight, bias = self._weights.array("patches", part="weight"), self._weights.bias("patches")
        positions, states = self._table("positions"), []
        for pixels in map(np.asarray, items):
            patches, grid = _patches(pixels, self._sizes.patch, channels_first=weight.ndim == 4)
            tokens = [*self._special, _affine(weight.reshape(len(weight), -1), bias, patches)]
            states.append(np.concatenate(tokens) + self._stretched(positions, grid))
        return states

    def _stretched(self, positions: Array, grid: tuple[int, int]) -> Array:
        """Learned positions for a `grid` of patches: bicubic, or antialiased where the encoder has no size."""
        if self._sizes.image:
            return resized_positions(positions, len(self._special), grid)
        side = math.isqrt(len(positions))
        rows, columns = (_triangles(side, size) for size in grid)
        found = np.einsum("ai,bj,ijh->abh", rows, columns, positions.reshape(side, side, -1))
        return np.asarray(found.reshape(math.prod(grid), -1), np.float32)

    def _layer(self, index: int) -> Step:
        attention, feed_forward = self._attention(index), self._feed_forward(index)
        first, second = self._norm("attention_norm", index), self._norm("output_norm", index)
        if self._row.norm == "post":
            return lambda x: second((y := first(x + attention(x))) + feed_forward(y))
        return lambda x: (y := x + attention(first(x))) + feed_forward(second(y))

    def _attention(self, index: int) -> Step:
        heads = partial(_heads, self._sizes.heads)
        merged = _split(*self._pair("qkv", index), 3) if self._weights.has("qkv") else None
        project = merged or [self._linear(role, index) for role in ("query", "key", "value")]
        output = self._linear("attention_output", index, scale="attention_scale")
        base, window = self._row.rotary(self._config, index), self._row.window(self._config, index)
        relative = self._table("relative") if self._weights.has("relative") else None

        def attention(x: Array) -> Array:
            query, key, value = (heads(part(x)) for part in project)
            if base:
                query, key = _rotated(query, base), _rotated(key, base)
            bias = _reach(len(x), window, self._row.causal)
            if relative is not None:
                bias = bias + relative[relative_buckets(len(x), len(relative))].transpose(2, 0, 1)
            return output(_attended(query, key, value, bias))

        return attention

    def _feed_forward(self, index: int) -> Step:
        weights, linear = self._weights, partial(self._linear, layer=index)
        merged = weights.has("gate_up")
        end = "gated_down" if merged and "gated_down" in self._row.tensors else "down"
        down = linear(end, scale="output_scale")
        if not merged and not weights.has("gate"):
            plain, activate = linear("up"), ACTIVATIONS[self._sizes.activation]
            return lambda x: down(activate(plain(x)))
        gate, up = _split(*self._pair("gate_up", index), 2) if merged else (linear("gate"), linear("up"))
        gated = ACTIVATIONS[self._row.gate or self._sizes.activation]
        return lambda x: down(gated(gate(x)) * up(x))

    def _pooling(self, pool: str) -> Callable[[Array, Item], Array]:
        """What makes (dimensions,) of an item's (tokens, hidden), or leaves them as they are."""
        if pool == "classifier_pooling":
            pool = str(self._config.get(pool, "cls"))
        if pool == "probe":
            probe = self._probe()
            return lambda x, _: probe(x)
        patches, end = slice(len(self._special), None), self._config.get("eos_token_id")
        pools: dict[str, Callable[[Array, Item], Array]] = {
            "first": lambda x, _: x[0],
            "last": lambda x, _: x[-1],
            "eos": lambda x, ids: x[np.argmax(ids if end == _OLD_END else np.asarray(ids) == end)],
            "mean": lambda x, _: x.mean(axis=0),
            "patches": lambda x, _: x[patches].mean(axis=0),
            "first and patches": lambda x, _: np.concatenate([x[0], x[patches].mean(axis=0)]),
            "tokens": lambda x, _: x,
        }
        return pools[{"cls": "first", "all": "mean", "masked": "tokens"}.get(pool, pool)]

    def _probe(self) -> Step:
        """Pooling by a learned query, then a residual feed-forward block (Zhai et al. 2022)."""
        heads, activate = partial(_heads, self._sizes.heads), ACTIVATIONS[self._sizes.activation]
        name = self._weights.name("probe_in")
        query, key, value = _split(self._weights.tensor(f"{name}_weight"), self._weights.tensor(f"{name}_bias"), 3)
        output, norm = self._linear("probe_output"), self._norm("probe_norm")
        up, down = self._linear("probe_up"), self._linear("probe_down")
        asked = heads(query(self._table("probe")))

        def probe(x: Array) -> Array:
            found = output(_attended(asked, heads(key(x)), heads(value(x)), np.zeros(1, np.float32)))
            return np.asarray((found + down(activate(up(norm(found)))))[0], np.float32)

        return probe

    def _outputs(self, head: Head) -> list[Step]:
        if not head.tied:
            return [partial(_affine, *self._module(name)) for name in head.output]
        own = f"{head.output[0]}.weight"
        weight = self._weights.tensor(own) if self._weights.shape(own) else self._table("words")
        return [partial(_affine, weight, self._weights.tensor(head.bias))]

    def _transform(self, head: Head) -> Step:
        """What a head does before its output."""
        steps: list[Step] = []
        if head.dense:
            steps.append(partial(_affine, *self._module(head.dense)))
            steps.append(ACTIVATIONS[head.activation or self._sizes.activation])
        if head.norm:
            steps.append(partial(_layer_norm, self._sizes.epsilon, *self._module(head.norm)))
        return lambda x: reduce(lambda y, step: step(y), steps, x)

    def _module(self, name: str) -> tuple[Array, Array | None]:
        """Weight and bias of a module behind the encoder; whether it has a bias, the checkpoint says."""
        has_bias = bool(self._weights.shape(f"{name}.bias"))
        return self._weights.tensor(f"{name}.weight"), self._weights.tensor(f"{name}.bias") if has_bias else None

    def _linear(self, role: str, layer: int = 0, scale: str = "") -> Step:
        """A product and its bias; what joins a residual may have a `scale` for each channel."""
        linear = partial(_affine, *self._pair(role, layer))
        if not self._weights.has(scale):
            return linear
        factors = self._weights.array(scale, layer)
        return lambda x: linear(x) * factors

    def _norm(self, role: str, layer: int = 0) -> Step:
        if not self._weights.has(role) or (role == "attention_norm" and layer in self._row.unnormed):
            return lambda x: x
        return partial(_layer_norm, self._sizes.epsilon, *self._pair(role, layer))

    def _pair(self, role: str, layer: int = 0) -> tuple[Array, Array | None]:
        return self._weights.array(role, layer, "weight"), self._weights.bias(role, layer)

    def _table(self, role: str) -> Array:
        """float32 (rows, hidden): an embedding, or a parameter of any shape that ends so."""
        is_parameter = bool(self._weights.shape(self._weights.name(role)))
        found = self._weights.array(role, part="" if is_parameter else "weight")
        return found.reshape(-1, found.shape[-1])


@dataclass(frozen=True, slots=True)
class Embedder:
    """A text encoder with the pooling, projections and normalization that its checkpoint names."""

    reference: Reference
    checkpoint: Checkpoint

    def embed(self, rows: Rows) -> Array:
        """float32 (len(rows), dimensions)."""
        dense = sorted(found[1] for name in self.checkpoint.tensors if (found := _DENSE.fullmatch(name)))
        return self.reference.embed(rows, self.checkpoint.pooling, dense, normalize=self.checkpoint.normalize)


def numpy_reference(checkpoint: Checkpoint) -> Embedder:
    """The forward pass of a text encoder. Raises `Unsupported` for a family or a setting without one, and `BadFile`."""
    row = onnx_row(checkpoint.model_type, checkpoint.folder)
    if not isinstance(row, Encoder) or "words" not in row.tensors:
        raise Unsupported(checkpoint.folder, f"{checkpoint.model_type} is no text encoder", "convert it to onnx-int8")
    sizes, config = read_sizes(row, checkpoint.config, checkpoint.folder)
    weights = Weights(row, checkpoint, config)
    weights.check(sizes)
    return Embedder(Reference(weights, sizes, config), checkpoint)


def _affine(weight: Array, bias: Array | None, x: Array) -> Array:
    product = x @ weight.T
    return np.asarray(product if bias is None else product + bias, np.float32)


def _split(weight: Array, bias: Array | None, count: int) -> list[Step]:
    """The products that were merged into one."""
    biases = [None] * count if bias is None else np.split(bias, count)
    return [partial(_affine, *pair) for pair in zip(np.split(weight, count), biases, strict=True)]


def _layer_norm(epsilon: float, weight: Array, bias: Array | None, x: Array) -> Array:
    centred = x - x.mean(axis=-1, keepdims=True)
    scaled = centred / np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + epsilon) * weight
    return np.asarray(scaled if bias is None else scaled + bias, np.float32)


def _heads(heads: int, x: Array) -> Array:
    """(tokens, hidden) to (heads, tokens, size)."""
    return x.reshape(len(x), heads, -1).swapaxes(0, 1)


def _attended(query: Array, key: Array, value: Array, bias: Array) -> Array:
    """(queries, hidden) from (heads, tokens, size); `bias` is added to the scores."""
    scores = query @ key.swapaxes(1, 2) / math.sqrt(query.shape[-1]) + bias
    shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
    mixed = shares @ value / shares.sum(axis=-1, keepdims=True)
    return np.asarray(mixed.swapaxes(0, 1).reshape(query.shape[1], -1), np.float32)


def _reach(tokens: int, window: float, causal: bool) -> Array:
    """float32 (tokens, tokens): 0 where a query sees a key, else -inf."""
    steps = np.arange(tokens)
    ahead = steps[None, :] - steps[:, None]
    hidden = (abs(ahead) > window if window else ahead > tokens) | (causal & (ahead > 0))
    return np.where(hidden, np.float32(-np.inf), np.float32(0))


def _rotated(x: Array, base: float) -> Array:
    """Channel i and i + size / 2 of each head, turned by the position times base ** (-2 i / size)."""
    half = x.shape[-1] // 2
    angles = np.arange(x.shape[1])[:, None] * base ** (-np.arange(half) / half)
    cos, sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
    left, right = x[..., :half], x[..., half:]
    return np.concatenate([left * cos - right * sin, right * cos + left * sin], axis=-1)


def _patches(pixels: Array, patch: int, *, channels_first: bool) -> tuple[Array, tuple[int, int]]:
    """float32 (patches, values) and the grid. The values of a patch are in the order of a convolution, or by pixel."""
    channels, rows, columns = pixels.shape[0], pixels.shape[1] // patch, pixels.shape[2] // patch
    whole = pixels[:, : rows * patch, : columns * patch].reshape(channels, rows, patch, columns, patch)
    order = (1, 3, 0, 2, 4) if channels_first else (1, 3, 2, 4, 0)
    return whole.transpose(order).reshape(rows * columns, -1).astype(np.float32), (rows, columns)


def _triangles(old: int, new: int) -> Array:
    """float32 (new, old): the weights of a linear resize that takes in every old point when it shrinks (antialias)."""
    scale = old / new
    centres = (np.arange(new) + 0.5) * scale
    distances = np.abs(np.arange(old) + 0.5 - centres[:, None]) / max(scale, 1.0)
    weights = np.maximum(1 - distances, 0)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), np.float32)


def _erf(x: Array) -> Array:
    """Abramowitz and Stegun 7.1.26: at most 1.5e-7 off."""
    t = 1 / (1 + 0.3275911 * np.abs(x))
    series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    return np.asarray(np.sign(x) * (1 - series * np.exp(-x * x)), np.float32)


ACTIVATIONS: dict[str, Step] = {
    "gelu": lambda x: 0.5 * x * (1 + _erf(x / math.sqrt(2))),
    "gelu_new": lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x))),
    "quick_gelu": lambda x: 0.5 * x * (1 + np.tanh(0.851 * x)),  # x sigmoid(1.702 x)
    "silu": lambda x: 0.5 * x * (1 + np.tanh(0.5 * x)),  # x sigmoid(x)
    "relu": lambda x: np.maximum(x, 0),
    "tanh": np.tanh,
}
ACTIVATIONS["gelu_pytorch_tanh"] = ACTIVATIONS["gelu_new"]
