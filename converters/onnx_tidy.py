"""An exporter's graph in the form that the rest of the converter works on: linear layers as MatMul, tables stored once.

It also ends a graph as packages want it: one pooled vector, the scores of the places that are asked for, the logits of
the last tokens alone. Graphs with inner graphs are refused. It knows no architecture and no quantization.
"""

import numpy as np
import onnx
from onnx import TensorProto, helper

from converters.onnx_graph import Constant, Graph
from edgemm.errors import Unsupported

CONTROL_FLOW = ("If", "Loop", "Scan")
LOGITS_FROM = "logits_from"  # int64 (1,): logits are computed from this token of the input on
_TABLE_ROWS = 256  # smaller tables are not worth a search for their transpose
_END = (1 << 63) - 1
_DOMAINS = ("", "ai.onnx", "com.microsoft")


def check_nodes(graph: Graph, what: object) -> None:
    """Raise `Unsupported` for a graph with inner graphs, or with operators that onnxruntime does not bring along.

    What is captured by an inner graph is seen by no pass over the nodes, and a loop may never end.
    """
    fix = "use --to gguf, or another model"
    for node in graph.nodes:
        if node.op_type in CONTROL_FLOW:
            raise Unsupported(what, f"its graph needs a node {node.op_type} (control flow)", fix)
        if node.domain not in _DOMAINS:
            raise Unsupported(what, f"its graph needs {node.domain[:40]}::{node.op_type[:40]}", fix)


def tidy(graph: Graph) -> Graph:
    """A new graph that computes the same: constants without detours, linear layers as MatMul, tied tables stored once.

    Gemm, and convolutions of width 1 over texts, are linear layers.
    """
    direct = _without_identities(graph)
    tables = _tied(direct)
    new = Graph(constants=dict(direct.constants), inputs=graph.inputs, outputs=graph.outputs, opset=graph.opset)
    new.prefix = "tidy/"
    for node in direct.nodes:
        if node.op_type == "Gemm" and _is_linear(direct, node):
            _add_gemm(new, node, tables)
        elif node.op_type == "Conv" and _is_pointwise(direct, node):
            _add_pointwise(new, node)
        elif node.op_type == "MatMul" and node.input[1] in tables:
            turned = _turned(new, tables[node.input[1]])
            new.nodes.append(helper.make_node("MatMul", [node.input[0], turned], list(node.output), node.name))
        else:
            new.nodes.append(node)
    return new


def pruned(graph: Graph) -> Graph:
    """A new graph without nodes that no output needs, and without their constants."""
    needed = {value.name for value in graph.outputs}
    nodes = []
    for node in reversed(graph.nodes):
        if needed.intersection(node.output):
            nodes.append(node)
            needed.update(node.input)
    constants = {name: value for name, value in graph.constants.items() if name in needed}
    return Graph(nodes[::-1], constants, graph.inputs, graph.outputs, graph.opset, "pruned/")


def _without_identities(graph: Graph) -> Graph:
    """Exporters write an Identity for each further name of a constant."""
    names: dict[str, str] = {}
    new = Graph(constants=graph.constants, inputs=graph.inputs, outputs=graph.outputs, opset=graph.opset)
    ends = {value.name for value in graph.outputs}
    for node in graph.nodes:
        source = names.get(node.input[0], node.input[0]) if node.input else ""
        if node.op_type == "Identity" and source in graph.constants and node.output[0] not in ends:
            names[node.output[0]] = source
            continue
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.input[:] = [names.get(name, name) for name in node.input]
        new.nodes.append(copy)
    return new


def _tied(graph: Graph) -> dict[str, str]:
    """Output matrix -> the table that it is the transpose of: exporters store both."""
    tables = {n.input[0] for n in graph.nodes if n.op_type == "Gather" and n.input[0] in graph.constants}
    large = [name for name in sorted(tables) if graph.constants[name].ndim == 2]
    large = [name for name in large if len(graph.constants[name]) >= _TABLE_ROWS]
    found: dict[str, str] = {}
    for node in graph.nodes:
        name = node.input[1] if node.op_type in ("MatMul", "Gemm") else ""
        matrix = graph.constants.get(name)
        if matrix is not None and matrix.ndim == 2 and name not in large:
            is_turned = node.op_type == "Gemm" and bool(_attribute(node, "transB", 0))
            theirs = matrix if is_turned else matrix.T
            same = [t for t in large if _equal(graph.constants[t], theirs)]
            found |= {name: same[0]} if same and not is_turned else {}
    return found


def _equal(a: Constant, b: Constant) -> bool:
    """Compared a slab at a time: both may be larger than the memory."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    return all(np.array_equal(a[at : at + 1024], b[at : at + 1024]) for at in range(0, len(a), 1024))


def _is_linear(graph: Graph, node: onnx.NodeProto) -> bool:
    matrix = graph.constants.get(node.input[1])
    plain = _attribute(node, "alpha", 1.0) == _attribute(node, "beta", 1.0) == 1.0
    return matrix is not None and matrix.ndim == 2 and plain and not _attribute(node, "transA", 0)


def _add_gemm(new: Graph, node: onnx.NodeProto, tables: dict[str, str]) -> None:
    weight = node.input[1]
    if _attribute(node, "transB", 0):
        weight = _stored_turned(new, weight)
    elif weight in tables:
        weight = _turned(new, tables[weight])
    biases = [name for name in node.input[2:] if name]
    product = f"{node.output[0]} product" if biases else node.output[0]
    new.nodes.append(helper.make_node("MatMul", [node.input[0], weight], [product], node.name))
    if biases:
        new.nodes.append(helper.make_node("Add", [product, biases[0]], [node.output[0]]))


def _is_pointwise(graph: Graph, node: onnx.NodeProto) -> bool:
    """Whether a convolution over texts is a linear layer of each token, as SqueezeBERT writes it."""
    weight = graph.constants.get(node.input[1])
    lists = [list(a.ints) for a in node.attribute if a.name in ("strides", "dilations")]
    padding = [n for a in node.attribute if a.name == "pads" for n in a.ints]
    plain = not any(padding) and all(each == [1] for each in lists) and _attribute(node, "group", 1) == 1
    return weight is not None and weight.ndim == 3 and weight.shape[2] == 1 and plain


def _add_pointwise(new: Graph, node: onnx.NodeProto) -> None:
    """(batch, channels, length) is turned round for the product, and back."""
    weight = np.ascontiguousarray(new.constants[node.input[1]][:, :, 0].T)
    rows = new.add("Transpose", node.input[0], perm=[0, 2, 1])
    product = new.add("MatMul", rows, new.constant(weight, f"{node.output[0]} weight"), name=node.name)
    if len(node.input) > 2:
        product = new.add("Add", product, node.input[2])
    new.nodes.append(helper.make_node("Transpose", [product], list(node.output), perm=[0, 2, 1]))


def _turned(new: Graph, table: str) -> str:
    return new.shared(f"{table} turned", lambda: new.add("Transpose", table, perm=[1, 0]))


def _stored_turned(new: Graph, name: str) -> str:
    """The constant `name`, stored the other way round; a table that is looked up too is turned at run time."""
    if any(node.op_type == "Gather" and node.input[0] == name for node in new.nodes):
        return _turned(new, name)
    return new.shared(f"{name} stored", lambda: new.constant(np.ascontiguousarray(new.constants[name].T), f"{name}.T"))


def _attribute(node: onnx.NodeProto, name: str, default: float) -> float:
    found = next((a for a in node.attribute if a.name == name), None)
    return default if found is None else float(helper.get_attribute_value(found))


def end_with(graph: Graph, value: str, name: str, shape: list[int | str]) -> None:
    """Make `value` the one output, called `name`: float32. A value of that name inside is renamed."""
    if any(name in node.output for node in graph.nodes):
        value = _renamed(graph, name) if value == name else value
        _renamed(graph, name)
    graph.outputs.clear()
    graph.output(value, name, shape)


def _renamed(graph: Graph, name: str) -> str:
    new = f"{name} inside"
    for node in graph.nodes:
        node.input[:] = [new if each == name else each for each in node.input]
        node.output[:] = [new if each == name else each for each in node.output]
    return new


def pooled(graph: Graph, hidden: str, pooling: str, *, normalize: bool) -> str:
    """One vector of float32 `hidden` (batch, length, width) for each text: the mean, the first or the last token."""
    g = graph
    if pooling == "cls":
        vector = g.add("Gather", hidden, g.index(0), axis=1)
    elif pooling == "last":
        last = g.add("Sub", g.add("ReduceSum", "attention_mask", g.ints(1), keepdims=1), g.ints(1))
        vector = g.add("GatherND", hidden, last, batch_dims=1)
    else:
        mask = g.add("Cast", "attention_mask", to=TensorProto.FLOAT)
        total = g.add("ReduceSum", g.add("Mul", hidden, g.add("Unsqueeze", mask, g.ints(-1))), g.ints(1), keepdims=0)
        vector = g.add("Div", total, g.add("ReduceSum", mask, g.ints(1), keepdims=1))
    return g.add("LpNormalization", vector, axis=-1, p=2) if normalize else vector


def spatial_mean(graph: Graph, maps: str) -> str:
    """Unit vectors from feature maps: float32 (batch, channels, height, width) -> (batch, channels)."""
    mean = graph.add("ReduceMean", maps, graph.ints(2, 3), keepdims=0)
    return graph.add("LpNormalization", mean, axis=-1, p=2)


def places(graph: Graph, logits: str) -> str:
    """Those rows of (batch, length, vocabulary) that the new input `positions`, int64 (masks, 2), asks for."""
    return graph.add("GatherND", logits, graph.input("positions", TensorProto.INT64, ["masks", 2]))


def last_logits(graph: Graph, output: str = "logits") -> None:
    """Compute logits from the token `LOGITS_FROM` on: a long prompt needs those of its last token alone.

    The output matrix is a third of a small model. A graph that ends in another way than by a product is left as it is.
    """
    producers = {name: node for node in graph.nodes for name in node.output}
    product = producers[output]
    while product.op_type in ("Add", "Identity", "Cast") and product.input[0] in producers:
        product = producers[product.input[0]]
    place = next(i for i, node in enumerate(graph.nodes) if product.output[0] in node.output)
    if product.op_type != "MatMul" or graph.types().get(product.input[0], (0, 0))[1] != 3:
        return
    start = graph.input(LOGITS_FROM, TensorProto.INT64, [1])
    rest = [product.input[0], start, graph.ints(_END), graph.ints(1)]
    graph.nodes.insert(place, helper.make_node("Slice", rest, ["last hidden"]))
    product.input[0] = "last hidden"
