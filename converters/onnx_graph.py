"""A post-norm encoder as an ONNX graph, straight from arrays: no torch, no exporter, no clean-up passes.

Query, key and value are one product, pooling and normalization are part of the graph, and nothing is shaped so that
onnxruntime fuses SkipLayerNormalization. How a linear layer and the embedding table are written is the caller's
choice (fp32 here, INT8 in onnx_int8.py). Operators: ONNX opset 20.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from converters.architectures import EncoderConfig, Weights
from converters.checkpoint import Array
from edgemm.errors import Unsupported, disk_errors

OPSET, IR_VERSION = 20, 10
MASKED = -1e4  # added to the scores of padding: exp() of it is exactly 0 in float32
_MAX_BYTES = 2_000_000_000  # protobuf's limit for one file


@dataclass(frozen=True, slots=True)
class Linear:
    """A linear layer: `role` is "qkv", "attention_output", "up" or "down"; weight (inputs, outputs)."""

    role: str
    layer: int
    weight: Array
    bias: Array


@dataclass(slots=True)
class Graph:
    """Nodes and constants under construction. Methods return the name of what they add."""

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)
    _shared: dict[str, str] = field(default_factory=dict)

    def constant(self, value: NDArray[Any] | np.generic) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.array(value, order="C"), name))
        return name

    def ints(self, *values: int) -> str:
        """A constant int64 vector, shared between its users."""
        return self.shared(f"ints {values}", lambda: self.constant(np.array(values, np.int64)))

    def shared(self, key: str, make: Callable[[], str]) -> str:
        """What `make` added the first time that `key` was asked for."""
        if key not in self._shared:
            self._shared[key] = make()
        return self._shared[key]

    def add(self, operator: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        name = f"n{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], domain=domain, **attributes))
        return name


WriteLinear = Callable[[Graph, str, Linear], str]
WriteTable = Callable[[Graph, str, Array], str]


def fp32_linear(graph: Graph, x: str, linear: Linear) -> str:
    return graph.add("Add", graph.add("MatMul", x, graph.constant(linear.weight)), graph.constant(linear.bias))


def fp32_table(graph: Graph, ids: str, table: Array) -> str:
    return graph.add("Gather", graph.constant(table), ids)


@dataclass(frozen=True, slots=True)
class EncoderGraph:
    """Builds the graph of one checkpoint. `linear` and `table` decide how weights are stored."""

    weights: Weights
    sizes: EncoderConfig
    pooling: str
    normalize: bool
    linear: WriteLinear = fp32_linear
    table: WriteTable = fp32_table

    def model(self) -> onnx.ModelProto:
        """Inputs `input_ids`, `attention_mask`: int64 (batch, length). Output `embedding`: float32 (batch, hidden)."""
        graph = Graph()
        mask = graph.add("Cast", "attention_mask", to=TensorProto.FLOAT)
        hidden = self._embeddings(graph)
        bias = self._mask_bias(graph, mask)
        for layer in range(self.sizes.layers):
            hidden = self._layer(graph, hidden, bias, layer)
        pooled = self._pool(graph, hidden, mask)
        if self.normalize:
            pooled = graph.add("LpNormalization", pooled, axis=-1, p=2)
        graph.nodes.append(helper.make_node("Identity", [pooled], ["embedding"]))
        return self._finish(graph)

    def _embeddings(self, graph: Graph) -> str:
        """Word, position and type-0 embeddings, normed. Positions and the type are one table."""
        words = self.table(graph, "input_ids", self.weights.array("words"))
        positions = graph.constant(self.weights.array("positions") + self.weights.array("types")[0])
        length = graph.add("Gather", graph.add("Shape", "input_ids"), graph.ints(1))
        # A Gather over a Range would be rewritten to a Slice that onnxruntime 1.32 cannot run.
        here = graph.add("Slice", positions, graph.ints(0), length, graph.ints(0))
        return self._norm(graph, graph.add("Add", words, here), "embedding_norm", 0)

    def _mask_bias(self, graph: Graph, mask: str) -> str:
        """float32 (batch, 1, 1, length): 0 where there is a token, `MASKED` where there is padding."""
        gap = graph.add("Sub", graph.constant(np.float32(1)), mask)
        return graph.add("Unsqueeze", graph.add("Mul", gap, graph.constant(np.float32(MASKED))), graph.ints(1, 2))

    def _layer(self, graph: Graph, hidden: str, bias: str, layer: int) -> str:
        w = self.weights
        attended = self.linear(
            graph, self._attention(graph, hidden, bias, layer), self._linear("attention_output", layer)
        )
        hidden = self._norm(graph, graph.add("Add", attended, hidden), "attention_norm", layer)
        up = self.linear(graph, hidden, self._linear("up", layer))
        down = self.linear(
            graph, self._activation(graph, up), Linear("down", layer, w.matrix("down", layer), w.bias("down", layer))
        )
        return self._norm(graph, graph.add("Add", down, hidden), "output_norm", layer)

    def _attention(self, graph: Graph, hidden: str, bias: str, layer: int) -> str:
        heads, size = self.sizes.heads, self.sizes.hidden // self.sizes.heads
        qkv = self.linear(graph, hidden, self._qkv(layer))
        parts = graph.add(
            "Transpose", graph.add("Reshape", qkv, graph.ints(0, 0, 3, heads, size)), perm=[2, 0, 3, 1, 4]
        )
        query, key, value = (graph.add("Gather", parts, self._index(graph, i), axis=0) for i in range(3))
        scaled = graph.add("Mul", query, graph.constant(np.float32(size**-0.5)))
        scores = graph.add("MatMul", scaled, graph.add("Transpose", key, perm=[0, 1, 3, 2]))
        weights = graph.add("Softmax", graph.add("Add", scores, bias), axis=-1)
        context = graph.add("Transpose", graph.add("MatMul", weights, value), perm=[0, 2, 1, 3])
        return graph.add("Reshape", context, graph.ints(0, 0, self.sizes.hidden))

    def _linear(self, role: str, layer: int) -> Linear:
        return Linear(role, layer, self.weights.matrix(role, layer), self.weights.bias(role, layer))

    def _qkv(self, layer: int) -> Linear:
        roles = ("query", "key", "value")
        weight = np.concatenate([self.weights.matrix(role, layer) for role in roles], axis=1)
        return Linear("qkv", layer, weight, np.concatenate([self.weights.bias(role, layer) for role in roles]))

    @staticmethod
    def _index(graph: Graph, i: int) -> str:
        return graph.shared(f"index {i}", lambda: graph.constant(np.int64(i)))

    def _activation(self, graph: Graph, x: str) -> str:
        match self.sizes.activation:
            case "relu":
                return graph.add("Relu", x)
            case "gelu_new":
                return graph.add("Gelu", x, approximate="tanh")
            case _:
                return graph.add("Gelu", x)

    def _norm(self, graph: Graph, x: str, role: str, layer: int) -> str:
        scale, bias = (graph.constant(self.weights.array(role, layer, part)) for part in ("weight", "bias"))
        return graph.add("LayerNormalization", x, scale, bias, axis=-1, epsilon=self.sizes.epsilon)

    def _pool(self, graph: Graph, hidden: str, mask: str) -> str:
        if self.pooling == "cls":
            return graph.add("Gather", hidden, self._index(graph, 0), axis=1)
        weighted = graph.add("Mul", hidden, graph.add("Unsqueeze", mask, graph.ints(-1)))
        total = graph.add("ReduceSum", weighted, graph.ints(1), keepdims=0)
        return graph.add("Div", total, graph.add("ReduceSum", mask, graph.ints(1), keepdims=1))

    def _finish(self, graph: Graph) -> onnx.ModelProto:
        int64, float32 = TensorProto.INT64, TensorProto.FLOAT
        inputs = [helper.make_tensor_value_info(n, int64, ["batch", "length"]) for n in ("input_ids", "attention_mask")]
        outputs = [helper.make_tensor_value_info("embedding", float32, ["batch", self.sizes.hidden])]
        body = helper.make_graph(graph.nodes, "encoder", inputs, outputs, graph.constants)
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(body, producer_name="edgemm", opset_imports=opsets, ir_version=IR_VERSION)


def save(model: onnx.ModelProto, path: Path) -> None:
    """Write `model` as one file. Raises `Unsupported` when it is over protobuf's limit."""
    if (size := model.ByteSize()) > _MAX_BYTES:
        raise Unsupported(path, f"the graph has {size} bytes, one ONNX file holds {_MAX_BYTES}", "choose a gguf target")
    with disk_errors(path):
        path.write_bytes(model.SerializeToString(deterministic=True))
