"""Attention as one node where the graph allows it: onnxruntime then keeps the scores of a head in the cache.

It is for INT8, where the products are cheap and moving scores through memory is not: a tenth of the time at 256 tokens,
a twentieth at 64; float32 gains next to nothing, and its files stay readable for older runtimes. What is replaced is
attention as onnx_blocks.py writes it, over tokens that follow each other without gaps, with nothing else added to the
scores; rotated queries and learned distances stay as they are. Operator: `Attention` of ONNX opset 24.
"""

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper

from converters.onnx_graph import Graph
from converters.onnx_tidy import pruned

_OPSET = 24
_MASK = "attention_mask"


@dataclass(frozen=True, slots=True)
class _Attention:
    """`qkv` (batch x length, 3 x width) attends with `heads`; `end`: the Reshape to (batch x length, width)."""

    qkv: str
    batch: str
    heads: int
    size: int
    padded: bool
    end: onnx.NodeProto


def fused(graph: Graph) -> Graph:
    """The same graph with one node for each attention, for padding on the right; `graph` itself where there is none."""
    found = {each.end.output[0]: each for each in _Finder(graph).all()}
    if not found:
        return graph
    new = Graph(constants=dict(graph.constants), inputs=graph.inputs, outputs=graph.outputs, opset=_OPSET)
    new.prefix = "attention/"
    for node in graph.nodes:
        if node.output[0] in found:
            _add(new, found[node.output[0]])
        else:
            new.nodes.append(node)
    return pruned(new)


def _add(g: Graph, found: _Attention) -> None:
    width = found.heads * found.size
    shape = g.add("Concat", found.batch, g.ints(3 * width), axis=0)
    query, key, value = g.split(g.add("Reshape", found.qkv, shape), 3)
    inputs = [query, key, value]
    if found.padded:
        lengths = g.shared("lengths", lambda: g.add("ReduceSum", _MASK, g.ints(1), keepdims=0))
        inputs += ["", "", "", lengths]
    context = g.add("Attention", *inputs, q_num_heads=found.heads, kv_num_heads=found.heads)
    g.nodes.append(helper.make_node("Reshape", [context, g.ints(-1, width)], list(found.end.output)))


class _Finder:
    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._producers = {output: node for node in graph.nodes for output in node.output}
        self._users: dict[str, list[onnx.NodeProto]] = {}
        for node in graph.nodes:
            for name in node.input:
                self._users.setdefault(name, []).append(node)

    def all(self) -> list[_Attention]:
        found = (self._attention(node) for node in self._graph.nodes if node.op_type == "Softmax")
        return [each for each in found if each is not None]

    def _attention(self, softmax: onnx.NodeProto) -> _Attention | None:
        """What surrounds `softmax`, from the product that gives query, key and value to the context."""
        scores = self._made(softmax.input[0])
        padded = scores is not None and scores.op_type == "Add"
        if scores is not None and padded:
            if not self._is_padding(scores.input[1]):
                return None
            scores = self._made(scores.input[0])
        context = self._only_user(softmax, "MatMul")
        if scores is None or scores.op_type != "MatMul" or context is None:
            return None
        query, key = self._behind(scores.input[0], "Mul"), self._behind(scores.input[1], "Transpose")
        parts = [self._behind(name, "Gather") for name in (query, key, context.input[1])]
        end = self._only_user(self._only_user(context, "Transpose"), "Reshape")
        heads = self._made(self._behind(parts[0], "Transpose")) if len(set(parts)) == 1 else None
        if end is None or heads is None or heads.op_type != "Reshape":
            return None
        found = self._sized(heads, padded, end)
        return found if found is not None and self._scale(scores.input[0]) == np.float32(found.size**-0.5) else None

    def _sized(self, heads: onnx.NodeProto, padded: bool, end: onnx.NodeProto) -> _Attention | None:
        shape = self._made(heads.input[1])
        sizes = self._graph.constants.get(shape.input[1]) if shape is not None and shape.op_type == "Concat" else None
        if shape is None or sizes is None or sizes.shape != (3,):
            return None
        _, count, size = map(int, sizes)
        return _Attention(heads.input[0], shape.input[0], count, size, padded, end)

    def _scale(self, query: str) -> float:
        factor = self._producers[query].input[1]
        return float(self._graph.constants[factor]) if factor in self._graph.constants else 0.0

    def _is_padding(self, bias: str) -> bool:
        """Whether `bias` comes from the mask, and from constants, alone."""
        node = self._made(bias)
        while node is not None and node.op_type in ("Unsqueeze", "Mul", "Sub"):
            rest = [name for name in node.input if name not in self._graph.constants]
            node = self._made(rest[0]) if len(rest) == 1 else None
        return node is not None and node.op_type == "Cast" and node.input[0] == _MASK

    def _made(self, name: str) -> onnx.NodeProto | None:
        return self._producers.get(name)

    def _behind(self, name: str, operator: str) -> str:
        """The first input of the node of that kind that makes `name`, or ""."""
        node = self._made(name)
        return node.input[0] if node is not None and node.op_type == operator else ""

    def _only_user(self, node: onnx.NodeProto | None, operator: str) -> onnx.NodeProto | None:
        users = self._users.get(node.output[0], []) if node is not None else []
        return users[0] if len(users) == 1 and users[0].op_type == operator else None
