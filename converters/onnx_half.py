"""A float32 graph in float16, for CUDA and CoreML: half the bytes, and the arithmetic that they are fast at.

Inputs and outputs stay float32. So do sums over many values, whose total could leave float16's range, and what the
graph marks as exact.
"""

from functools import partial

import numpy as np
import onnx
from onnx import TensorProto

from converters.onnx_graph import EXACT, Constant, Graph

_FULL = ("LpNormalization", "ReduceSum", "ReduceMean")
_HALF, _FLOAT = TensorProto.FLOAT16, TensorProto.FLOAT
_MAX = float(np.finfo(np.float16).max)


def to_half(graph: Graph) -> Graph:
    """A new graph; constants that float16 cannot hold are cut to its range."""
    new = Graph(inputs=graph.inputs, outputs=graph.outputs, opset=graph.opset, prefix="half/")
    floats = {name for name, (kind, _) in graph.types().items() if kind == _FLOAT}
    outputs = {value.name for value in graph.outputs}
    full = [node for node in graph.nodes if _is_full(node) or outputs & set(node.output)]
    wide = {value.name for value in graph.inputs} & floats  # what is float32 in the new graph
    wide |= {name for node in full for name in node.input if name in graph.constants}
    for name, value in graph.constants.items():
        new.constants[name] = value if name in wide else _halved(value)
    for node in graph.nodes:
        _add(new, node, floats, wide, is_full=node in full)
    return new


def _is_full(node: onnx.NodeProto) -> bool:
    return node.op_type in _FULL or node.name.startswith(EXACT)


def _add(new: Graph, node: onnx.NodeProto, floats: set[str], wide: set[str], *, is_full: bool) -> None:
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    for place, name in enumerate(node.input):
        if name in floats and is_full != (name in wide):
            kind = _FLOAT if is_full else _HALF
            copy.input[place] = new.shared(f"{name} as {kind}", partial(new.add, "Cast", name, to=kind))
    for attribute in copy.attribute:
        if node.op_type == "Cast" and not is_full and attribute.name == "to" and attribute.i == _FLOAT:
            attribute.i = _HALF
    new.nodes.append(copy)
    if is_full:
        wide.update(name for name in node.output if name in floats)


def _halved(value: Constant) -> Constant:
    return np.clip(value, -_MAX, _MAX).astype(np.float16) if value.dtype == np.float32 else value
