"""INT8 linear layers whose activations are quantized per row, at run time; and an int8 embedding table.

One scale for each token makes a text's vector independent of what shares its batch, and one outlier token cannot
coarsen the others. Three more things keep the quality:
- SmoothQuant (Xiao et al. 2022): activations are divided, weights multiplied, per input channel, so that outlier
  channels take less of the activation's range; measured on calibration texts.
- GELU is never below -0.17, so its outputs need 16 of the 256 levels below zero and not half of them.
- Weights have one scale for each output column.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper

from converters.checkpoint import Array
from converters.onnx_graph import Graph, Linear

ALPHA = 0.6  # share of the outliers that moves into the weights
SMOOTHED = ("qkv", "attention_output", "up")  # not "down": its floor trick gains more, and a Mul is saved
FLOORS = {"gelu": 0.17, "gelu_new": 0.1701, "relu": 0.0}  # GELU's minimum is -0.16997
_SYMMETRIC, _BELOW = 128, 16  # zero points: for signed values, and for values that are never below the floor
_TINY = 1e-12


@dataclass(frozen=True, slots=True)
class Int8Linear:
    """Writes a linear layer in INT8.

    `maxima`: the largest |x| of each input channel on calibration texts, by role and layer. `floor`: how far below
    zero the activation function can go.
    """

    maxima: dict[tuple[str, int], Array]
    floor: float

    def __call__(self, graph: Graph, x: str, linear: Linear) -> str:
        smooth = self._smoothing(linear)
        weight = linear.weight * smooth[:, None]
        scale = np.maximum(np.abs(weight).max(axis=0) / 127, _TINY).astype(np.float32)
        quantized = np.rint(weight / scale).astype(np.int8)
        if linear.role in SMOOTHED:
            x = graph.add("Mul", x, graph.constant((1 / smooth).astype(np.float32)))
        zero = _SYMMETRIC if linear.role != "down" else _BELOW if self.floor else 0
        return self._product(graph, x, quantized, scale, linear.bias, zero)

    def _smoothing(self, linear: Linear) -> Array:
        """One factor for each input channel, with geometric mean 1."""
        if linear.role not in SMOOTHED:
            return np.ones(len(linear.weight), np.float32)
        largest = np.maximum(self.maxima[linear.role, linear.layer], 1e-5)
        factor = largest**ALPHA / np.maximum(np.abs(linear.weight).max(axis=1), 1e-5) ** (1 - ALPHA)
        return np.asarray(factor / np.exp(np.log(factor).mean()), np.float32)

    def _product(self, graph: Graph, x: str, weight: NDArray[np.int8], scale: Array, bias: Array, zero: int) -> str:
        """x @ weight + bias, with rows as uint8 around the zero point `zero`."""
        inputs, outputs = weight.shape
        signed, levels = zero == _SYMMETRIC, 255 - zero
        least = self.floor / zero if zero and not signed else _TINY  # the floor itself must fit
        rows = graph.add("Reshape", x, graph.ints(-1, inputs))
        magnitude = graph.add("Abs", rows) if signed else rows
        largest = graph.add("ReduceMax", magnitude, graph.ints(-1), keepdims=0)
        per_level = graph.add("Mul", largest, graph.constant(np.float32(1 / levels)))
        row_scale = graph.add("Max", per_level, graph.constant(np.float32(least)))
        zeros = graph.add(
            "ConstantOfShape",
            graph.add("Shape", row_scale),
            value=helper.make_tensor("", TensorProto.UINT8, [1], [zero]),
        )
        codes = graph.add("QuantizeLinear", rows, row_scale, zeros, axis=0)
        product = graph.add(
            "MatMulIntegerToFloat",
            codes,
            graph.constant(weight),
            graph.constant(np.float32(1)),
            graph.constant(scale),
            graph.constant(np.uint8(zero)),
            graph.constant(np.int8(0)),
            domain="com.microsoft",
        )
        # The row scale comes last: the kernel takes one scale for all rows.
        scaled = graph.add("Mul", product, graph.add("Unsqueeze", row_scale, graph.ints(-1)))
        result = graph.add("Add", scaled, graph.constant(bias.astype(np.float32)))
        return graph.add("Reshape", result, self._shape(graph, outputs))

    @staticmethod
    def _shape(graph: Graph, width: int) -> str:
        """int64 (3,): batch, length, `width`."""
        batch = graph.shared("batch shape", lambda: graph.add("Shape", "input_ids"))
        return graph.shared(f"shape {width}", lambda: graph.add("Concat", batch, graph.ints(width), axis=0))


def int8_table(graph: Graph, ids: str, table: Array) -> str:
    """The embedding table as int8 rows with a scale for each: a quarter of the bytes, read as cheaply."""
    scale = np.maximum(np.abs(table).max(axis=1, keepdims=True) / 127, _TINY).astype(np.float32)
    codes = graph.add("Gather", graph.constant(np.rint(table / scale).astype(np.int8)), ids)
    return graph.add(
        "Mul", graph.add("Cast", codes, to=TensorProto.FLOAT), graph.add("Gather", graph.constant(scale), ids)
    )
