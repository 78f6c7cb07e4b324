"""An ONNX graph as nodes and named constants: under construction, read from a file, or on its way to one.

Constants are numpy arrays; those of a file on disk are memory maps of its data file, so that a model larger than the
memory can be rewritten weight by weight. Operators: ONNX opset 20. It knows no architecture and no quantization.
"""

import mmap
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgemm.errors import BadFile, disk_errors

OPSET, IR_VERSION = 20, 10
DATA_SUFFIX = ".data"
_INLINE = 1024  # bytes: smaller constants stay in the graph, where onnxruntime can reason about them
_MAX_BYTES = 1_900_000_000  # protobuf holds 2 GB in one file
_ALIGNMENT = 4096  # of data that onnxruntime maps into memory
EXACT = "exact/"  # begins the names of nodes that stay in float32
Constant = NDArray[Any]


@dataclass(slots=True)
class Graph:
    """Nodes in order, constants by name, and the two ends. Methods return the name of what they add."""

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, Constant] = field(default_factory=dict)
    inputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    outputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    opset: int = OPSET
    prefix: str = ""  # of the names that are made up; a graph made of another's nodes needs one of its own
    _shared: dict[str, str] = field(default_factory=dict)

    def constant(self, value: Constant | np.generic, name: str = "") -> str:
        name = name or f"{self.prefix}c{len(self.constants)}"
        self.constants[name] = np.asarray(value)
        return name

    def ints(self, *values: int) -> str:
        """A constant int64 vector, shared between its users."""
        return self.shared(f"ints {values}", lambda: self.constant(np.array(values, np.int64)))

    def index(self, value: int) -> str:
        """A constant int64 scalar, shared."""
        return self.shared(f"index {value}", lambda: self.constant(np.int64(value)))

    def number(self, value: float) -> str:
        """A constant float32 scalar, shared."""
        return self.shared(f"number {value!r}", lambda: self.constant(np.float32(value)))

    def shared(self, key: str, make: Callable[[], str]) -> str:
        """What `make` added the first time that `key` was asked for."""
        if key not in self._shared:
            self._shared[key] = make()
        return self._shared[key]

    def add(
        self, operator: str, *inputs: str, domain: str = "", name: str = "", exact: bool = False, **attributes: Any
    ) -> str:
        """A node with one output. The nodes of linear layers have a `name`, by which a plan calls them.

        `exact` ones stay in float32 whatever becomes of the others.
        """
        output = f"{self.prefix}n{len(self.nodes)}"
        name = f"{EXACT}{output}" if exact else name
        self.nodes.append(helper.make_node(operator, list(inputs), [output], name, domain=domain, **attributes))
        return output

    def split(self, x: str, parts: int, axis: int = -1) -> list[str]:
        """`x` in equal parts along `axis`."""
        names = [f"{self.prefix}n{len(self.nodes)}_{i}" for i in range(parts)]
        self.nodes.append(helper.make_node("Split", [x], names, axis=axis, num_outputs=parts))
        return names

    def input(self, name: str, kind: int, shape: Iterable[int | str]) -> str:
        self.inputs.append(helper.make_tensor_value_info(name, kind, list(shape)))
        return name

    def output(self, value: str, name: str, shape: Iterable[int | str]) -> None:
        self.nodes.append(helper.make_node("Identity", [value], [name]))
        self.outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)))

    def read(self, name: str) -> Constant:
        """A constant as an array of its own. The pages of a memory map are let go at once."""
        value = self.constants[name]
        copy = np.array(value)
        if isinstance(value, np.memmap) and hasattr(mmap, "MADV_DONTNEED"):
            value._mmap.madvise(mmap.MADV_DONTNEED)  # type: ignore[attr-defined]
        return copy

    def bytes(self) -> int:
        return sum(constant.nbytes for constant in self.constants.values())

    def save(self, path: Path, *, external: bool | None = None) -> None:
        """Write `path`, with the large constants in `path`.data where `external` says so, or one file cannot hold them.

        Only constants that a node uses are written.
        """
        used = {name for node in self.nodes for name in node.input}
        constants = {name: value for name, value in self.constants.items() if name in used}
        total = sum(value.nbytes for value in constants.values())
        external = total > _MAX_BYTES if external is None else external
        with disk_errors(path):
            if external:
                tensors = _write_data(path.with_name(path.name + DATA_SUFFIX), constants)
            else:
                tensors = [numpy_helper.from_array(np.array(v, order="C"), name) for name, v in constants.items()]
            path.write_bytes(self._proto(tensors).SerializeToString(deterministic=True))

    def types(self) -> dict[str, tuple[int, int]]:
        """Element type and number of axes of each value, as far as ONNX's own rules tell.

        Large constants are not looked at: they stand in for themselves as inputs.
        """
        small = [numpy_helper.from_array(np.array(v), n) for n, v in self.constants.items() if v.nbytes < _INLINE]
        model = self._proto(small)
        for name, value in self.constants.items():
            if value.nbytes >= _INLINE:
                kind = helper.np_dtype_to_tensor_dtype(value.dtype)
                model.graph.input.append(helper.make_tensor_value_info(name, kind, value.shape))
        graph = onnx.shape_inference.infer_shapes(model).graph
        values = [*graph.value_info, *graph.input, *graph.output]
        found = {v.name: (v.type.tensor_type.elem_type, len(v.type.tensor_type.shape.dim)) for v in values}
        return found | {tensor.name: (tensor.data_type, len(tensor.dims)) for tensor in small}

    def _proto(self, tensors: list[onnx.TensorProto]) -> onnx.ModelProto:
        body = helper.make_graph(self.nodes, "edgemm", self.inputs, self.outputs, tensors)
        opsets = [helper.make_opsetid("", self.opset), helper.make_opsetid("com.microsoft", 1)]
        version = max(IR_VERSION, helper.find_min_ir_version_for(opsets[:1]))
        return helper.make_model(body, producer_name="edgemm", opset_imports=opsets, ir_version=version)

    @classmethod
    def load(cls, path: Path) -> "Graph":
        """Read a file of ours or of an exporter. Data in a file beside it is mapped, not read."""
        try:
            model = onnx.load(path, load_external_data=False)
        except Exception as error:  # protobuf's own class
            raise BadFile(path, f"not a valid ONNX file ({error})", "export the model again") from error
        constants = {tensor.name: _read(tensor, path.parent) for tensor in model.graph.initializer}
        nodes = [node for node in model.graph.node if not _is_constant(node, constants)]
        names = set(constants)
        inputs = [value for value in model.graph.input if value.name not in names]
        version = next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
        return cls(nodes, constants, inputs, list(model.graph.output), version)


def _is_constant(node: onnx.NodeProto, constants: dict[str, Constant]) -> bool:
    """Take the value of a Constant node, as exporters write them, into `constants`."""
    if node.op_type != "Constant" or node.attribute[0].name != "value":
        return False
    constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    return True


def _write_data(path: Path, constants: dict[str, Constant]) -> list[onnx.TensorProto]:
    tensors = []
    with open(path, "wb") as file:
        for name, value in constants.items():
            if value.nbytes < _INLINE:
                tensors.append(numpy_helper.from_array(np.array(value, order="C"), name))
                continue
            file.write(b"\0" * (-file.tell() % _ALIGNMENT))
            start = file.tell()
            file.write(np.ascontiguousarray(value).data)
            tensors.append(_outside(name, value, path.name, start))
    return tensors


def _outside(name: str, value: Constant, file: str, start: int) -> onnx.TensorProto:
    kind = helper.np_dtype_to_tensor_dtype(value.dtype)
    tensor = TensorProto(name=name, data_type=kind, dims=value.shape, data_location=TensorProto.EXTERNAL)
    for key, text in {"location": file, "offset": start, "length": value.nbytes}.items():
        tensor.external_data.add(key=key, value=str(text))
    return tensor


def _read(tensor: onnx.TensorProto, folder: Path) -> Constant:
    if tensor.data_location != TensorProto.EXTERNAL:
        return np.asarray(numpy_helper.to_array(tensor))
    facts = {entry.key: entry.value for entry in tensor.external_data}
    path = folder / facts["location"]
    if path.parent != folder or path.is_symlink():
        raise BadFile(path, "it keeps weights outside of its folder", "export the model again")
    kind = helper.tensor_dtype_to_np_dtype(tensor.data_type)
    return np.memmap(path, kind, "r", int(facts.get("offset", 0)), tuple(tensor.dims) or (1,))
