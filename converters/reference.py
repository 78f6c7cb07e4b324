"""The checkpoint's own answer: a plain numpy forward pass in float32, one text at a time, without padding.

It shares no code with the graph builders, so that a mistake in one of them shows. It is also where calibration
looks at activations. Equations: Vaswani et al. 2017 and Devlin et al. 2018 (post-norm encoder).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from converters.architectures import EncoderConfig, Weights, architecture, read_config
from converters.checkpoint import Array, Checkpoint

Observer = Callable[[str, int, Array], None]


class Reference:
    """Embeds token ids with the weights as they are in the checkpoint. Holds them all, as float32."""

    def __init__(self, weights: Weights, sizes: EncoderConfig, pooling: str, normalize: bool) -> None:
        self._sizes, self._pooling, self._normalize = sizes, pooling, normalize
        self._words, self._positions = weights.array("words"), weights.array("positions")
        self._type = weights.array("types")[0]
        self._norm = _pair(weights, "embedding_norm", 0)
        self._layers = [_Layer.read(weights, i) for i in range(sizes.layers)]

    def embed(self, rows: Sequence[Sequence[int]], observe: Observer | None = None) -> Array:
        """float32 (len(rows), hidden). `observe(role, layer, x)` sees the input of every linear layer."""
        return np.stack([self._embed(row, observe or _ignore) for row in rows])

    def _embed(self, row: Sequence[int], observe: Observer) -> Array:
        x = self._words[np.array(row)] + self._positions[: len(row)] + self._type
        x = self._layer_norm(x, self._norm)
        for index, layer in enumerate(self._layers):
            x = self._forward(x, layer, index, observe)
        vector = x[0] if self._pooling == "cls" else x.mean(axis=0)
        return np.asarray(vector / np.linalg.norm(vector) if self._normalize else vector, np.float32)

    def _forward(self, x: Array, layer: "_Layer", index: int, observe: Observer) -> Array:
        observe("qkv", index, x)
        context = self._attention(x, layer)
        observe("attention_output", index, context)
        x = self._layer_norm(_linear(context, layer.attention_output) + x, layer.attention_norm)
        observe("up", index, x)
        activated = ACTIVATIONS[self._sizes.activation](_linear(x, layer.up))
        observe("down", index, activated)
        return self._layer_norm(_linear(activated, layer.down) + x, layer.output_norm)

    def _attention(self, x: Array, layer: "_Layer") -> Array:
        heads, size = self._sizes.heads, self._sizes.hidden // self._sizes.heads
        query, key, value = (
            _linear(x, pair).reshape(len(x), heads, size).swapaxes(0, 1)
            for pair in (layer.query, layer.key, layer.value)
        )
        scores = query @ key.swapaxes(1, 2) / np.float32(np.sqrt(size))
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        return np.asarray((weights @ value).swapaxes(0, 1).reshape(len(x), -1), np.float32)

    def _layer_norm(self, x: Array, pair: "_Pair") -> Array:
        centred = x - x.mean(axis=-1, keepdims=True)
        variance = (centred**2).mean(axis=-1, keepdims=True)
        return np.asarray(centred / np.sqrt(variance + self._sizes.epsilon) * pair[0] + pair[1], np.float32)


_Pair = tuple[Array, Array]


@dataclass(frozen=True, slots=True)
class _Layer:
    """Weight (outputs, inputs) and bias of each part of a layer."""

    query: _Pair
    key: _Pair
    value: _Pair
    attention_output: _Pair
    attention_norm: _Pair
    up: _Pair
    down: _Pair
    output_norm: _Pair

    @classmethod
    def read(cls, weights: Weights, layer: int) -> "_Layer":
        return cls(**{role: _pair(weights, role, layer) for role in cls.__dataclass_fields__})


def channel_maxima(reference: Reference, rows: Sequence[Sequence[int]]) -> dict[tuple[str, int], Array]:
    """The largest |x| of each input channel of every linear layer over `rows`."""
    maxima: dict[tuple[str, int], Array] = {}

    def observe(role: str, layer: int, x: Array) -> None:
        largest = np.abs(x).max(axis=0)
        maxima[role, layer] = np.maximum(maxima.get((role, layer), np.float32(0)), largest)

    reference.embed(rows, observe)
    return maxima


def _pair(weights: Weights, role: str, layer: int) -> _Pair:
    return weights.array(role, layer, "weight"), weights.array(role, layer, "bias")


def _linear(x: Array, pair: _Pair) -> Array:
    return np.asarray(x @ pair[0].T + pair[1], np.float32)


def _erf(x: Array) -> Array:
    """Abramowitz and Stegun 7.1.26: at most 1.5e-7 off."""
    t = 1 / (1 + 0.3275911 * np.abs(x))
    series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    return np.asarray(np.sign(x) * (1 - series * np.exp(-x * x)), np.float32)


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "gelu": lambda x: np.asarray(0.5 * x * (1 + _erf(x / np.float32(np.sqrt(2)))), np.float32),
    "gelu_new": lambda x: np.asarray(0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))), np.float32),
    "relu": lambda x: np.maximum(x, 0),
}


def _ignore(_role: str, _layer: int, _x: Array) -> None:
    """Nobody looks at the activations."""


def numpy_reference(checkpoint: Checkpoint) -> Reference:
    """The forward pass of `checkpoint`. Raises `Unsupported` for a family without one."""
    row = architecture(checkpoint.model_type, checkpoint.folder)
    sizes = read_config(row, checkpoint.config, checkpoint.folder / "config.json")
    return Reference(Weights(row, checkpoint), sizes, checkpoint.pooling, checkpoint.normalize)
