"""INT8 linear layers whose activations are quantized per row, at run time; and int8 tables.

One scale for each token makes a text's vector independent of what shares its batch, and one outlier token cannot
coarsen the others. More things keep the quality:
- SmoothQuant (Xiao et al. 2022): activations are divided, weights multiplied, per input channel, so that outlier
  channels take less of the activation's range; measured on calibration inputs.
- Error feedback (GPTQ, Frantar et al. 2022): the rounding error of a weight is made up for by those that follow,
  as far as they see the same inputs.
- GELU is never below -0.17, so its outputs need 16 of the 256 levels below zero and not half of them.
- Weights have one scale for each output column.
- Where a few channels are far larger than all others, they can stay in float32 (LLM.int8, Dettmers et al. 2022): their
  product takes the place of adding the bias, so that it costs next to nothing.
It rewrites a graph as a plan says, and decides nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from converters.checkpoint import Array
from converters.cores import each
from converters.onnx_attention import fused
from converters.onnx_graph import Graph
from converters.onnx_linear import Activation, Linear, find_linears, groups
from converters.onnx_tidy import pruned
from converters.rounding import with_feedback

INT8, OUTLIERS, BLOCK8, FP32 = "int8", "outliers", "block8", "fp32"
_SYMMETRIC, _BELOW = 128, 16  # zero points: for signed values, and for values that are never below the floor
_TINY = 1e-12
_BLOCK = 32
_OUTLIER, _MOST_KEPT = 4.0, 4  # times the median of all channels; channels that OUTLIERS keeps in float32 at most
_TABLE_ROWS = 1024  # smaller tables (positions, types) stay as they are


@dataclass(frozen=True, slots=True)
class Plan:
    """How a graph is stored: `alpha` is the share of the outliers that moves into the weights, 0 for no smoothing.

    `exceptions` are linear layers by name that are `OUTLIERS`, `BLOCK8` or `FP32`; all others are `INT8`.
    """

    alpha: float = 0.5
    feedback: bool = True
    exceptions: Mapping[str, str] = field(default_factory=dict)

    def storage(self, linear: Linear) -> str:
        kind = self.exceptions.get(linear.name, INT8)
        if kind == OUTLIERS and not (linear.is_flat and not linear.transposed):
            return INT8
        return FP32 if kind == BLOCK8 and linear.inputs % _BLOCK else kind


def quantize(graph: Graph, plan: Plan, seen: Mapping[str, Activation]) -> Graph:
    """A new graph with the linear layers and tables of `graph` stored as `plan` says, and attention in one node."""
    return pruned(_Rewriter(fused(graph), plan, seen).run())


def outlier_channels(maxima: Array) -> NDArray[np.int64]:
    """The few channels that are far larger than all others, in order."""
    largest = np.argsort(-maxima)[:_MOST_KEPT]
    return np.sort(largest[maxima[largest] > _OUTLIER * np.median(maxima)])


class _Rewriter:
    def __init__(self, graph: Graph, plan: Plan, seen: Mapping[str, Activation]) -> None:
        self._old, self._plan, self._seen = graph, plan, seen
        self._linears = {linear.node: linear for linear in find_linears(graph)}
        self._smoothing = self._smooth()
        self._new = Graph(inputs=graph.inputs, outputs=graph.outputs, opset=graph.opset, prefix="int8/")
        self._tables = self._int8_tables()
        rounded = {e.weight: e for e in self._int8_linears() if not e.transposed}
        self._rounded = dict(zip(rounded, each(self._round, rounded.values()), strict=True))
        self._codes: dict[str, tuple[str, str]] = {}
        self._done: set[str] = set()  # values that something else made on its way

    def run(self) -> Graph:
        for place, node in enumerate(self._old.nodes):
            linear = self._linears.get(place)
            kind = self._plan.storage(linear) if linear is not None else FP32
            if node.output[0] in self._done:
                continue
            if linear is not None and kind in (INT8, OUTLIERS):
                self._int8(linear, node.output[0])
            elif linear is not None and kind == BLOCK8:
                self._block8(linear, node.output[0])
            elif node.op_type == "Gather" and node.input[0] in self._tables:
                self._gather(node)
            else:
                self._copy(node)
        return self._new

    def _copy(self, node: onnx.NodeProto) -> None:
        for name in node.input:
            if name in self._old.constants:
                self._new.constants.setdefault(name, self._old.constants[name])
        self._new.nodes.append(node)

    def _int8_linears(self) -> list[Linear]:
        return [e for e in self._linears.values() if self._plan.storage(e) in (INT8, OUTLIERS)]

    # Smoothing

    def _smooth(self) -> dict[str, Array]:
        """By weight: a factor for each input channel, with geometric mean 1."""
        found: dict[str, Array] = {}
        for group in groups(self._int8_linears()):
            factor = self._factor(group)
            found |= {linear.weight: factor for linear in group}
        return found

    def _factor(self, group: list[Linear]) -> Array:
        # Outputs of an activation function are not smoothed: the floor gains more, and a Mul is saved.
        ones = np.ones(group[0].inputs, np.float32)
        seen = [self._seen[each.x].maxima for each in group if each.x in self._seen]
        if not self._plan.alpha or not seen or any(each.floor is not None or each.transposed for each in group):
            return ones
        largest = np.maximum(np.max(seen, axis=0), 1e-5)
        weights = np.max([np.abs(self._matrix(each)).max(axis=1) for each in group], axis=0)
        factor = largest**self._plan.alpha / np.maximum(weights, 1e-5) ** (1 - self._plan.alpha)
        rest = np.delete(factor, self._kept_channels(group[0]))
        return np.asarray(factor / np.exp(np.log(rest).mean()), np.float32)

    def _kept_channels(self, linear: Linear) -> NDArray[np.int64]:
        """Input channels that stay in float32."""
        if self._plan.storage(linear) != OUTLIERS or linear.x not in self._seen:
            return np.empty(0, np.int64)
        return outlier_channels(self._seen[linear.x].maxima)

    def _matrix(self, linear: Linear) -> Array:
        weight = self._old.read(linear.weight)
        return np.asarray(weight.T if linear.transposed else weight, np.float32)

    # Linear layers

    def _int8(self, linear: Linear, output: str) -> None:
        g = self._new
        zero = _SYMMETRIC if linear.floor is None else _BELOW if linear.floor else 0
        kept = self._kept_channels(linear)
        codes, row_scale = self._quantized_rows(linear, zero, kept)
        weight, scale = self._weight(linear)
        product = g.add(
            "MatMulIntegerToFloat", codes, weight, g.number(1), scale,
            g.shared(f"uint8 {zero}", lambda: g.constant(np.uint8(zero))),
            g.constant(np.int8(0)), domain="com.microsoft",
        )  # fmt: skip
        # The row scale comes last: the kernel takes one scale for all rows.
        if not len(kept):
            g.nodes.append(helper.make_node("Mul", [product, row_scale], [output]))
            return
        self._add_kept(linear, kept, g.add("Mul", product, row_scale), output)

    def _add_kept(self, linear: Linear, kept: NDArray[np.int64], product: str, output: str) -> None:
        """`product` + the bias + what the kept channels give: one Gemm in the place of adding the bias."""
        g = self._new
        matrix, bias, output = self._matrix(linear)[kept], *self._bias(output, linear.outputs)
        pick = np.zeros((linear.inputs, len(kept) + 1), np.float32)
        pick[kept, np.arange(len(kept))] = 1
        one = np.zeros(len(kept) + 1, np.float32)
        one[-1] = 1
        picked = g.add("Gemm", linear.x, g.constant(pick), g.constant(one))  # the kept channels, and a 1
        weight = g.constant(np.concatenate([matrix, bias[None]]).astype(np.float32))
        g.nodes.append(helper.make_node("Gemm", [picked, weight, product], [output]))

    def _bias(self, output: str, width: int) -> tuple[Array, str]:
        """The bias that alone is added to `output`, and the name of the sum; zeros where there is none."""
        users = [node for node in self._old.nodes if output in node.input]
        if len(users) == 1 and users[0].op_type == "Add":
            other = next(name for name in users[0].input if name != output)
            bias = self._old.constants.get(other)
            if bias is not None and bias.shape == (width,):
                self._done.add(users[0].output[0])
                return np.asarray(bias), users[0].output[0]
        return np.zeros(width, np.float32), output

    def _quantized_rows(self, linear: Linear, zero: int, kept: NDArray[np.int64]) -> tuple[str, str]:
        """Codes and scale of each row of `x`: uint8 (..., inputs) around `zero`, float32 (..., 1)."""
        factor = np.asarray(1 / self._smoothing[linear.weight], np.float32)
        factor[kept] = 0
        key = f"{linear.x} {zero} {factor.tobytes()!r}"
        if key not in self._codes:
            self._codes[key] = self._quantize_rows(linear, zero, factor)
        return self._codes[key]

    def _quantize_rows(self, linear: Linear, zero: int, factor: Array) -> tuple[str, str]:
        g, x = self._new, linear.x
        if not (factor == 1).all():
            x = g.add("Mul", x, g.constant(factor))
        signed, levels = zero == _SYMMETRIC, 255 - zero
        least = linear.floor / zero if zero and linear.floor else _TINY  # the floor itself must fit
        rows = x if linear.is_flat else g.add("Reshape", x, g.ints(-1, linear.inputs))
        magnitude = g.add("Abs", rows) if signed else rows
        largest = g.add("ReduceMax", magnitude, g.ints(-1), keepdims=0)
        row_scale = g.add("Max", g.add("Mul", largest, g.number(1 / levels)), g.number(least))
        codes = g.add("QuantizeLinear", rows, row_scale, self._zeros(row_scale, zero), axis=0)
        if linear.is_flat:
            return codes, g.add("Unsqueeze", row_scale, g.ints(1))
        shape = g.add("Shape", x)
        column = g.add("Concat", g.add("Slice", shape, g.ints(0), g.ints(-1)), g.ints(1), axis=0)
        return g.add("Reshape", codes, shape), g.add("Reshape", row_scale, column)

    def _zeros(self, row_scale: str, zero: int) -> str:
        """The zero point of every row."""
        g = self._new
        value = helper.make_tensor("", TensorProto.UINT8, [1], [zero])
        return g.add("ConstantOfShape", g.add("Shape", row_scale), value=value)

    def _weight(self, linear: Linear) -> tuple[str, str]:
        """Names of the int8 matrix (inputs, outputs) and of its scales (outputs,)."""
        g, name = self._new, f"{linear.weight} int8"
        if linear.transposed:
            codes, scale = self._table(linear.weight)
            turned = g.shared(f"{name} turned", lambda: g.add("Transpose", codes, perm=[1, 0]))
            return turned, g.shared(f"{name} flat", lambda: g.add("Reshape", scale, g.ints(-1)))
        if name not in g.constants:
            codes8, scales = self._rounded[linear.weight]
            g.constant(codes8, name)
            g.constant(scales, f"{name} scale")
        return name, f"{name} scale"

    def _round(self, linear: Linear) -> tuple[NDArray[np.int8], Array]:
        """int8 (inputs, outputs) and float32 (outputs,) of the smoothed weight without the kept channels."""
        smoothing = self._smoothing[linear.weight]
        weight = self._matrix(linear) * smoothing[:, None]
        weight[self._kept_channels(linear)] = 0
        levels = self._levels(linear)
        scale = np.maximum(np.abs(weight).max(axis=0) / levels, _TINY).astype(np.float32)
        seen = self._seen.get(linear.x)
        if not self._plan.feedback or seen is None:
            return np.rint(weight / scale).astype(np.int8), scale
        return with_feedback(weight, scale, seen.gram() / np.outer(smoothing, smoothing), levels), scale

    def _levels(self, linear: Linear) -> int:
        """127; 63 for a weight that several layers share.

        Products of uint8 and int8 overflow 16 bits on x86 without VNNI. There onnxruntime turns weights into uint8 when
        it loads them, which it cannot do with a shared one; 7 bits never overflow.
        """
        return 127 if sum(e.weight == linear.weight for e in self._linears.values()) == 1 else 63

    def _block8(self, linear: Linear, output: str) -> None:
        """8 bits in blocks of 32 inputs, activations quantized block by block inside the kernel."""
        g, blocks = self._new, linear.inputs // _BLOCK
        name = f"{linear.weight} block8"
        if name not in g.constants:
            weight = np.ascontiguousarray(self._matrix(linear).T).reshape(linear.outputs, blocks, _BLOCK)
            scale = np.maximum(np.abs(weight).max(axis=-1) / 127, _TINY).astype(np.float32)
            g.constant((np.rint(weight / scale[..., None]) + _SYMMETRIC).astype(np.uint8), name)
            g.constant(scale.reshape(-1), f"{name} scale")
        sizes = {"K": linear.inputs, "N": linear.outputs, "bits": 8, "block_size": _BLOCK, "accuracy_level": 4}
        inputs = [linear.x, name, f"{name} scale"]
        g.nodes.append(helper.make_node("MatMulNBits", inputs, [output], domain="com.microsoft", **sizes))

    # Tables

    def _int8_tables(self) -> set[str]:
        """Constants that are large and only looked up, or an output matrix at the same time."""
        turned = {each.weight for each in self._linears.values() if each.transposed}
        found = set()
        for name, table in self._old.constants.items():
            if table.ndim != 2 or table.dtype != np.float32 or len(table) < _TABLE_ROWS:
                continue
            users = [node for node in self._old.nodes if name in node.input]
            looked_up = all(node.op_type == "Gather" for node in users)
            if users and (looked_up or (name in turned and all(n.op_type in ("Gather", "Transpose") for n in users))):
                found.add(name)
        kept = {e.weight for e in self._linears.values() if e.transposed and self._plan.storage(e) != INT8}
        return found - kept

    def _table(self, name: str) -> tuple[str, str]:
        """Names of the int8 rows and of their scales (rows, 1)."""
        g, table = self._new, self._old.read(name)
        if f"{name} int8" not in g.constants:
            scale = np.maximum(np.abs(table).max(axis=1, keepdims=True) / 127, _TINY).astype(np.float32)
            g.constant(np.rint(table / scale).astype(np.int8), f"{name} int8")
            g.constant(scale, f"{name} row scale")
        return f"{name} int8", f"{name} row scale"

    def _gather(self, node: onnx.NodeProto) -> None:
        """A quarter of the bytes of a float table, read as cheaply."""
        g = self._new
        codes, scale = self._table(node.input[0])
        rows = g.add("Cast", g.add("Gather", codes, node.input[1]), to=TensorProto.FLOAT)
        g.nodes.append(helper.make_node("Mul", [rows, g.add("Gather", scale, node.input[1])], [node.output[0]]))
