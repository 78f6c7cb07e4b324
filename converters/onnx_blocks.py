"""What every part of an encoder's ONNX graph is made of: linear layers, norms, activations, attention.

Each method adds nodes to one graph and returns the name of their result. It knows weights by their roles, and neither
what goes into an encoder nor what comes out of it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from onnx import TensorProto

from converters.architectures import Config
from converters.checkpoint import Array
from converters.encoder import Sizes, Weights, concatenated
from converters.onnx_graph import Graph

MASKED = -1e4  # added to the scores of padding: exp() of it is exactly 0 in float32
_GELU = {"gelu": "none", "gelu_new": "tanh", "gelu_pytorch_tanh": "tanh"}
_SIMPLE = {"relu": "Relu", "tanh": "Tanh"}


@dataclass(slots=True)
class Blocks:
    """Adds to `graph`. `batch`: the name of batch and length, int64 (2,), once they are known."""

    weights: Weights
    sizes: Sizes
    config: Config
    graph: Graph = field(default_factory=Graph)
    batch: str = ""

    def layer(self, hidden: str, bias: str, layer: int) -> str:
        g, w = self.graph, self.weights
        pre = w.row.norm == "pre"
        x = hidden if not pre or layer in w.row.unnormed else self.norm(hidden, "attention_norm", layer)
        attended = self.linear(self._attention(x, bias, layer), "attention_output", layer)
        hidden = g.add("Add", self._scaled(attended, "attention_scale", layer), hidden)
        hidden = hidden if pre else self.norm(hidden, "attention_norm", layer)
        x = self.norm(hidden, "output_norm", layer) if pre else hidden
        down = self.linear(self._feed_forward(x, layer), "down" if w.has("down") else "gated_down", layer)
        hidden = g.add("Add", self._scaled(down, "output_scale", layer), hidden)
        return hidden if pre else self.norm(hidden, "output_norm", layer)

    def _scaled(self, x: str, role: str, layer: int) -> str:
        if not self.weights.has(role):
            return x
        return self.graph.add("Mul", x, self.graph.constant(self.weights.array(role, layer)))

    def _feed_forward(self, x: str, layer: int) -> str:
        w = self.weights
        if w.has("gate_up"):
            gate, up = self.graph.split(self.linear(x, "gate_up", layer), 2)
            return self.graph.add("Mul", self.activation(gate, w.row.gate or self.sizes.activation), up)
        up = self.linear(x, "up", layer)
        if w.has("gate"):
            gate = self.activation(self.linear(x, "gate", layer), w.row.gate or self.sizes.activation)
            return self.graph.add("Mul", gate, up)
        return self.activation(up, self.sizes.activation)

    def _attention(self, x: str, bias: str, layer: int) -> str:
        g, heads, size = self.graph, self.sizes.heads, self.sizes.head
        shape = g.shared("heads", lambda: g.add("Concat", self.batch, g.ints(3, heads, size), axis=0))
        parts = g.add("Transpose", g.add("Reshape", self._qkv(x, layer), shape), perm=[2, 0, 3, 1, 4])
        query, key, value = (g.add("Gather", parts, g.index(i), axis=0) for i in range(3))
        if base := self.weights.row.rotary(self.config, layer):
            query, key = self._rotated(query, base), self._rotated(key, base)
        return self.attend(query, key, value, bias)

    def attend(self, query: str, key: str, value: str, bias: str) -> str:
        """Softmax attention over (batch, heads, length, head size); gives (batch x length, hidden)."""
        g = self.graph
        scaled = g.add("Mul", query, g.number(self.sizes.head**-0.5))
        scores = g.add("MatMul", scaled, g.add("Transpose", key, perm=[0, 1, 3, 2]))
        if bias:
            scores = g.add("Add", scores, bias)
        context = g.add("MatMul", g.add("Softmax", scores, axis=-1), value)
        return g.add("Reshape", g.add("Transpose", context, perm=[0, 2, 1, 3]), g.ints(-1, self.sizes.hidden))

    def _qkv(self, x: str, layer: int) -> str:
        if self.weights.has("qkv"):
            return self.linear(x, "qkv", layer)
        w, roles = self.weights, ("query", "key", "value")
        name = self._shared_name("qkv", "query", layer)

        def weight() -> Array:
            return np.concatenate([w.matrix(role, layer) for role in roles], axis=1)

        def bias() -> Array | None:
            return concatenated([w.bias(role, layer) for role in roles], self.sizes.hidden)

        return self._shared_product(x, f"layers.{layer}.qkv", name, weight, bias)

    def _rotated(self, x: str, base: float) -> str:
        """Su et al. 2021, the two halves of a head as pairs."""
        g = self.graph
        cos, sin = (g.shared(f"{name} {base}", partial(self._angles, name, base)) for name in ("Cos", "Sin"))
        first, second = g.split(x, 2)
        rotated = (
            g.add("Sub", g.add("Mul", first, cos), g.add("Mul", second, sin)),
            g.add("Add", g.add("Mul", second, cos), g.add("Mul", first, sin)),
        )
        return g.add("Concat", *rotated, axis=-1)

    def _angles(self, function: str, base: float) -> str:
        g, size = self.graph, self.sizes.head
        steps = g.shared("float steps", lambda: g.add("Cast", self.steps(), to=TensorProto.FLOAT, exact=True))
        frequency = 1.0 / base ** (np.arange(0, size, 2, dtype=np.float32) / np.float32(size))
        angle = g.add("Mul", g.add("Unsqueeze", steps, g.ints(1), exact=True), g.constant(frequency), exact=True)
        return g.add(function, angle, exact=True)

    def linear(self, x: str, role: str, layer: int = 0) -> str:
        """x @ weight + bias of the module of `role`; a weight that several layers share is stored once."""
        w, name = self.weights, self._shared_name(role, role, layer)
        label = f"layers.{layer}.{role}" if "{i}" in w.row.tensors[role] else role
        return self._shared_product(x, label, name, lambda: w.matrix(role, layer), lambda: w.bias(role, layer))

    def _shared_name(self, role: str, source: str, layer: int) -> str:
        return f"{role} of {self.weights.name(source, layer)}"

    def _shared_product(
        self, x: str, label: str, name: str, weight: Callable[[], Array], bias: Callable[[], Array | None]
    ) -> str:
        g = self.graph
        if name not in g.constants:
            g.constant(weight(), name)
            if (value := bias()) is not None:
                g.constant(value, f"{name} bias")
        product = g.add("MatMul", x, name, name=label)
        return g.add("Add", product, f"{name} bias") if f"{name} bias" in g.constants else product

    def product(self, x: str, label: str, weight: Array, bias: Array | None) -> str:
        return self._shared_product(x, label, label, lambda: weight, lambda: bias)

    def norm(self, x: str, role: str, layer: int = 0) -> str:
        w = self.weights
        parts = ("weight",) if role in w.row.unbiased else ("weight", "bias")
        return self.norm_of(x, *(w.array(role, layer, part) for part in parts))

    def norm_of(self, x: str, *parts: Array) -> str:
        constants = [self.graph.constant(part) for part in parts]
        return self.graph.add("LayerNormalization", x, *constants, axis=-1, epsilon=self.sizes.epsilon)

    def activation(self, x: str, name: str) -> str:
        g = self.graph
        if name in _GELU:
            return g.add("Gelu", x, approximate=_GELU[name])
        if name in _SIMPLE:
            return g.add(_SIMPLE[name], x)
        slope = 1.702 if name == "quick_gelu" else 1.0  # Hendrycks and Gimpel 2016; with 1 it is SiLU
        scaled = x if slope == 1.0 else g.add("Mul", x, g.number(slope))
        return g.add("Mul", x, g.add("Sigmoid", scaled))

    def maybe(self, name: str) -> Array | None:
        return self.weights.tensor(name) if self.weights.find(name) else None

    def length(self) -> str:
        """int64 (1,): tokens of the longest text of the batch."""
        g = self.graph
        return g.shared("length", lambda: g.add("Gather", g.add("Shape", "input_ids"), g.ints(1)))

    def mask(self) -> str:
        g = self.graph
        return g.shared("mask", lambda: g.add("Cast", "attention_mask", to=TensorProto.FLOAT))

    def steps(self) -> str:
        """int64 (length,): 0, 1, 2, ..."""
        g = self.graph
        return g.shared(
            "steps", lambda: g.add("Range", g.index(0), g.add("Squeeze", self.length(), g.ints(0)), g.index(1))
        )
