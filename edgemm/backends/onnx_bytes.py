"""One-node ONNX models as bytes, made without the package `onnx`, which is not there at run time.

Field numbers are those of onnx.proto3. It knows the wire format and no operator.
"""

from collections.abc import Sequence

_IR_VERSION = 8
# ModelProto, GraphProto, NodeProto, ValueInfoProto and the types and shapes below it: field numbers
_MODEL_IR, _MODEL_GRAPH, _MODEL_OPSET, _OPSET_VERSION = 1, 7, 8, 2
_GRAPH_NODE, _GRAPH_NAME, _GRAPH_INPUT, _GRAPH_OUTPUT = 1, 2, 11, 12
_NODE_INPUT, _NODE_OUTPUT, _NODE_OPERATOR = 1, 2, 4
_VALUE_NAME, _VALUE_TYPE, _TENSOR, _ELEMENT, _SHAPE, _DIMENSION, _SYMBOL = 1, 2, 1, 1, 2, 1, 2

Value = tuple[str, int, Sequence[str]]
"""Name, element type (TensorProto.DataType), and a name for each dimension, which may have any size."""


def one_node(operator: str, inputs: Sequence[Value], output: Value, opset: int) -> bytes:
    """A model that is this one node, an operator without attributes."""
    node = [_bytes(_NODE_INPUT, name.encode()) for name, _, _ in inputs]
    node += [_bytes(_NODE_OUTPUT, output[0].encode()), _bytes(_NODE_OPERATOR, operator.encode())]
    graph = [_bytes(_GRAPH_NODE, b"".join(node)), _bytes(_GRAPH_NAME, operator.encode())]
    graph += [_bytes(_GRAPH_INPUT, _value(value)) for value in inputs]
    graph += [_bytes(_GRAPH_OUTPUT, _value(output))]
    version = _bytes(_MODEL_OPSET, _number(_OPSET_VERSION, opset))
    return _number(_MODEL_IR, _IR_VERSION) + _bytes(_MODEL_GRAPH, b"".join(graph)) + version


def _value(value: Value) -> bytes:
    name, element, dimensions = value
    shape = b"".join(_bytes(_DIMENSION, _bytes(_SYMBOL, dimension.encode())) for dimension in dimensions)
    tensor = _number(_ELEMENT, element) + _bytes(_SHAPE, shape)
    return _bytes(_VALUE_NAME, name.encode()) + _bytes(_VALUE_TYPE, _bytes(_TENSOR, tensor))


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    digits = []
    while value > 0x7F:
        digits.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*digits, value])
