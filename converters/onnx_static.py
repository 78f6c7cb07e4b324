"""Static INT8 for convolutional networks: weights int8 per output channel, activations uint8 with ranges seen before.

Every value between quantized layers is quantized and dequantized once (the QDQ form of ONNX), at the places where
onnxruntime takes the pair and the layer for one integer kernel: behind the activation function, which a range that
begins at zero makes part of the rounding; around sums and pools too. Ranges come from calibration inputs: the smallest
and largest value, or the range whose mean squared error is least. It rewrites a graph as a plan says, and decides
nothing.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from converters.checkpoint import Array
from converters.onnx_graph import Constant, Graph
from converters.onnx_linear import Feeds, watched_model

MSE, MINMAX = "mse", "minmax"
_BINS = 2048
_SHARES = 80  # ranges that are tried, from a quarter of what was seen to all of it
_TINY = 1e-12
_MOST_BIAS = 1 << 30
_LAYERS = ("Conv", "Gemm", "MatMul")
_CLAMPS = ("Relu", "Clip")
# Operators with an integer kernel between dequantized inputs and a quantized output
_BETWEEN = ("Add", "AveragePool", "Concat", "GlobalAveragePool", "LeakyRelu", "Mul", "Sigmoid")
_SAME = ("Flatten", "MaxPool", "Reshape", "Squeeze", "Transpose", "Unsqueeze")  # they move values, and change none


@dataclass(frozen=True, slots=True)
class StaticPlan:
    """`ranges` of activations are `MSE` or `MINMAX`; `exceptions` are names of layers that stay in float32."""

    ranges: str = MSE
    exceptions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Seen:
    """How often values were seen between `low` and `high`, in `_BINS` equal steps."""

    low: float
    high: float
    counts: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Affine:
    """uint8 code `zero` stands for 0, one step is `scale`."""

    scale: float
    zero: int


def layers(graph: Graph) -> list[str]:
    """The names of all layers with a constant weight, in order."""
    return [node.name or node.output[0] for node in graph.nodes if _is_layer(graph, node)]


def _is_layer(graph: Graph, node: onnx.NodeProto) -> bool:
    if node.op_type not in _LAYERS:
        return False
    weight = graph.constants.get(node.input[1])
    known = weight is not None and weight.dtype == np.float32 and weight.ndim >= 2
    bias = node.input[2] if len(node.input) > 2 else ""
    numbers = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    plain = numbers.get("alpha", 1) == numbers.get("beta", 1) == 1 and not numbers.get("transA", 0)
    return known and plain and (not bias or bias in graph.constants)


def is_convolutional(graph: Graph) -> bool:
    """Whether convolutions do most of the work: a vision transformer has one, at its beginning."""
    found = [node.op_type for node in graph.nodes if _is_layer(graph, node)]
    return found.count("Conv") > len(found) / 2


def observe(
    path: Path, graph: Graph, feeds: Sequence[Feeds], limits: tuple[float, float] = (0.0, 0.0)
) -> dict[str, Seen]:
    """What the values that could be quantized are, while the graph in `path` runs on `feeds`.

    `limits` are what the graph's inputs can be at all, if more than what was seen.
    """
    names = list(_quantized(graph, ()))
    inputs = {value.name for value in graph.inputs}
    ends: dict[str, tuple[float, float]] = dict.fromkeys(inputs, limits)
    counts = {name: np.zeros(_BINS, np.int64) for name in names}
    with watched_model(path, [name for name in names if name not in inputs]) as model:
        for is_last in (False, True):
            for feed in feeds:
                inner = [name for name in names if name not in inputs]
                values = dict(zip(inner, model.run_all(feed, inner), strict=True)) | feed
                for name in names:
                    if not is_last:
                        low, high = ends.get(name, (0.0, 0.0))  # 0 must be exact: convolutions pad with it
                        ends[name] = (min(low, float(values[name].min())), max(high, float(values[name].max())))
                    else:
                        counts[name] += np.histogram(values[name], _BINS, ends[name])[0]
    return {name: Seen(*ends[name], counts[name]) for name in names}


def _quantized(graph: Graph, exceptions: Iterable[str]) -> dict[str, str]:
    """Each value that is quantized -> the value whose range it has: itself, or what it is moved from."""
    users: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.nodes:
        for name in node.input:
            users.setdefault(name, []).append(node)
    kept, ends = set(exceptions), {value.name for value in graph.outputs}
    ends |= {node.input[0] for node in graph.nodes if node.op_type == "Identity" and node.output[0] in ends}
    found: dict[str, str] = {}
    for node in graph.nodes:
        inputs = [name for name in node.input if name and name not in graph.constants]
        output = _clamped(node, users)
        if _is_layer(graph, node) and (node.name or node.output[0]) not in kept:
            found.setdefault(node.input[0], node.input[0])
        elif not (node.op_type in (*_BETWEEN, *_SAME) and inputs and all(name in found for name in inputs)):
            continue
        elif node.op_type in _BETWEEN and len(inputs) != len(node.input):
            continue  # a constant operand has no range
        if output not in ends:
            found[output] = found[node.input[0]] if node.op_type in _SAME else output
    return found


def _clamped(node: onnx.NodeProto, users: Mapping[str, Sequence[onnx.NodeProto]]) -> str:
    """The output of `node`, or of the activation that alone uses it."""
    after = users.get(node.output[0], ())
    return str(after[0].output[0] if len(after) == 1 and after[0].op_type in _CLAMPS else node.output[0])


def quantize(graph: Graph, plan: StaticPlan, seen: Mapping[str, Seen]) -> Graph:
    """A new graph in QDQ form."""
    return _Rewriter(graph, plan, seen).run()


@dataclass
class _Rewriter:
    old: Graph
    plan: StaticPlan
    seen: Mapping[str, Seen]
    codes: dict[str, Affine] = field(default_factory=dict)

    def run(self) -> Graph:
        old = self.old
        self.new = Graph(inputs=old.inputs, outputs=old.outputs, opset=old.opset, prefix="static/")
        found = _quantized(old, self.plan.exceptions)
        whole = {value.name for value in old.inputs}  # no pixel is an outlier
        for name, source in found.items():
            self.codes[name] = affine(self.seen[source], MINMAX if source in whole else self.plan.ranges)
        for value in old.inputs:
            self._round(value.name)
        for node in old.nodes:
            self.new.nodes.append(self._layer(node) if self._is_quantized(node) else self._copy(node))
            for name in node.output:
                self._round(name)
        return self.new

    def _is_quantized(self, node: onnx.NodeProto) -> bool:
        is_kept = (node.name or node.output[0]) in self.plan.exceptions
        return _is_layer(self.old, node) and not is_kept

    def _round(self, name: str) -> None:
        """Quantize and dequantize the value `name`, if it has codes."""
        if name not in self.codes:
            return
        g, code = self.new, self.codes[name]
        scale, zero = g.number(code.scale), g.shared(f"zero {code.zero}", lambda: g.constant(np.uint8(code.zero)))
        g.nodes.append(helper.make_node("QuantizeLinear", [name, scale, zero], [f"{name} codes"]))
        g.nodes.append(helper.make_node("DequantizeLinear", [f"{name} codes", scale, zero], [f"{name} rounded"]))

    def _copy(self, node: onnx.NodeProto) -> onnx.NodeProto:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        for place, name in enumerate(node.input):
            if name in self.codes:
                copy.input[place] = f"{name} rounded"
            elif name in self.old.constants:
                self.new.constants.setdefault(name, self.old.constants[name])
        return copy

    def _layer(self, node: onnx.NodeProto) -> onnx.NodeProto:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.input[0] = f"{node.input[0]} rounded"
        axis = _output_axis(node, self.old.constants[node.input[1]])
        weight = self.old.read(node.input[1])
        bias = np.asarray(self.old.constants[node.input[2]]).reshape(-1) if len(node.input) > 2 else None
        step = self.codes[node.input[0]].scale
        scale = _weight_scale(weight, axis, bias, step)
        shape = [-1 if i == axis else 1 for i in range(weight.ndim)]
        codes = np.clip(np.rint(weight / scale.reshape(shape)), -127, 127).astype(np.int8)
        copy.input[1] = self._constant(f"{copy.output[0]} weight", codes, scale, axis)
        if bias is not None:
            sums = np.rint(bias / (scale * np.float32(step))).astype(np.int32)
            copy.input[2] = self._constant(f"{copy.output[0]} bias", sums, scale * np.float32(step), 0)
        return copy

    def _constant(self, name: str, codes: Constant, scale: Array, axis: int) -> str:
        """A dequantized constant, with one scale for each output."""
        g = self.new
        scales = g.constant(scale, f"{name} scale")
        zeros = g.constant(np.zeros(len(scale), codes.dtype), f"{name} zero")
        inputs = [g.constant(codes, f"{name} codes"), scales, zeros]
        g.nodes.append(helper.make_node("DequantizeLinear", inputs, [name], axis=axis))
        return name


def _output_axis(node: onnx.NodeProto, weight: Constant) -> int:
    if node.op_type == "Conv":
        return 0
    turned = any(a.name == "transB" and a.i for a in node.attribute)
    return 0 if turned else weight.ndim - 1


def _weight_scale(weight: Array, axis: int, bias: Array | None, step: float) -> Array:
    """One for each output; not so small that the bias leaves int32, as with channels that a batch norm switched off."""
    others = tuple(i for i in range(weight.ndim) if i != axis)
    scale = np.maximum(np.abs(weight).max(axis=others) / 127, _TINY)
    if bias is not None:
        scale = np.maximum(scale, np.abs(bias) / (step * _MOST_BIAS))
    return np.asarray(scale, np.float32)


def affine(seen: Seen, ranges: str) -> Affine:
    """The codes of what was seen: all of it, or the range with the least mean squared error."""
    low, high = (seen.low, seen.high) if ranges == MINMAX else _best_range(seen)
    scale = max((high - low) / 255, _TINY)
    return Affine(float(np.float32(scale)), int(np.clip(round(-low / scale), 0, 255)))


def _best_range(seen: Seen) -> tuple[float, float]:
    """Values outside are cut, those inside rounded: both errors, for ranges that shrink on both sides alike."""
    width = (seen.high - seen.low) / _BINS
    centres = seen.low + width * (np.arange(_BINS) + 0.5)
    tried = []
    for share in np.linspace(0.25, 1, _SHARES):
        low, high = share * seen.low, share * seen.high
        cut = np.maximum(low - centres, 0) + np.maximum(centres - high, 0)
        rounded = ((high - low) / 255) ** 2 / 12
        tried.append((float(seen.counts @ np.where(cut > 0, cut**2, rounded)), low, high))
    return min(tried)[1:]
