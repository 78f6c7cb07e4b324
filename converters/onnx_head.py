"""The end of an encoder's ONNX graph: one vector out of many, and the heads behind it."""

import numpy as np
from onnx import TensorProto

from converters.checkpoint import Array
from converters.encoder import Head
from converters.onnx_blocks import Blocks


def pool(b: Blocks, kind: str, hidden: str) -> str:
    g = b.graph
    match kind:
        case "cls" | "first":
            return g.add("Gather", hidden, g.index(0), axis=1)
        case "second":
            return g.add("Gather", hidden, g.index(1), axis=1)
        case "classifier_pooling":
            return pool(b, str(b.config.get(kind, "cls")), hidden)
        case "mean":
            return _mean(b, hidden)
        case "patches" | "all":
            first = sum(b.weights.has(r) for r in ("class_token", "distillation_token"))
            start = first if kind == "patches" else 0
            rest = g.add("Slice", hidden, g.ints(start), g.ints(1 << 31), g.ints(1)) if start else hidden
            return g.add("ReduceMean", rest, g.ints(1), keepdims=0)
        case "first and patches":
            return g.add("Concat", pool(b, "first", hidden), pool(b, "patches", hidden), axis=-1)
        case "masked":
            wanted = g.input("positions", TensorProto.INT64, ["masks", 2])
            return g.add("GatherND", hidden, wanted)
        case "last" | "eos":
            return _at(b, hidden, _last(b) if kind == "last" else _end(b))
        case "probe":
            return _probed(b, hidden)
        case _:
            return hidden


def _mean(b: Blocks, hidden: str) -> str:
    g = b.graph
    weighted = g.add("Mul", hidden, g.add("Unsqueeze", b.mask(), g.ints(-1)))
    total = g.add("ReduceSum", weighted, g.ints(1), keepdims=0)
    return g.add("Div", total, g.add("ReduceSum", b.mask(), g.ints(1), keepdims=1))


def _last(b: Blocks) -> str:
    """int64 (batch, 1): the last token of each text; of a text that is always padded, the last place."""
    g = b.graph
    if not b.weights.row.masked:
        zeros = g.add("Mul", g.add("Slice", "input_ids", g.ints(0), g.ints(1), g.ints(1)), g.ints(0))
        return g.add("Add", zeros, g.add("Sub", b.length(), g.ints(1)))
    return g.add("Sub", g.add("ReduceSum", "attention_mask", g.ints(1), keepdims=1), g.ints(1))


def _end(b: Blocks) -> str:
    """int64 (batch, 1): the first end token; where config.json has the id 2, CLIP takes the largest id."""
    g, end = b.graph, b.config.integer("eos_token_id")
    ids = g.add("Cast", "input_ids", to=TensorProto.INT32)
    if end != 2:
        ids = g.add("Cast", g.add("Equal", ids, g.constant(np.int32(end))), to=TensorProto.INT32)
    return g.add("ArgMax", ids, axis=1, keepdims=1)


def _at(b: Blocks, hidden: str, places: str) -> str:
    """(batch, hidden): the vector of each text at its own place."""
    return b.graph.add("GatherND", hidden, places, batch_dims=1)


def _probed(b: Blocks, hidden: str) -> str:
    """Attention pooling (Zhai et al. 2022): a learned query looks at every patch; then a feed-forward part."""
    g, w, s = b.graph, b.weights, b.sizes
    weights = _probe_weights(b)
    probe = w.array("probe").reshape(1, -1) @ weights[0][0] + weights[0][1]  # always the same: computed here
    query = g.constant(probe.reshape(1, s.heads, 1, s.head).astype(np.float32))
    key, value = (
        g.add(
            "Transpose",
            g.add("Reshape", b.product(hidden, f"probe.{n}", weight, bias), g.ints(0, 0, s.heads, s.head)),
            perm=[0, 2, 1, 3],
        )
        for n, (weight, bias) in zip(("key", "value"), weights[1:], strict=True)
    )
    pooled = b.linear(b.attend(query, key, value, ""), "probe_output")
    up = b.activation(b.linear(b.norm(pooled, "probe_norm"), "probe_up"), s.activation)
    return g.add("Add", pooled, b.linear(up, "probe_down"))


def _probe_weights(b: Blocks) -> list[tuple[Array, Array]]:
    """(inputs, outputs) and bias of query, key and value, which torch stores in one."""
    w = b.weights
    matrices = np.split(w.tensor(w.name("probe_in") + "_weight"), 3)
    biases = np.split(w.tensor(w.name("probe_in") + "_bias"), 3)
    return [(matrix.T, bias) for matrix, bias in zip(matrices, biases, strict=True)]


def head_output(b: Blocks, head: Head, hidden: str, which: int) -> str:
    """One output of `head`; with several outputs, each has a class token of its own."""
    x = pool(b, "second" if which else head.pool, hidden)
    w = b.weights
    if head.dense:
        x = b.product(x, "head.dense", w.tensor(f"{head.dense}.weight").T, b.maybe(f"{head.dense}.bias"))
        x = b.activation(x, head.activation or b.sizes.activation)
    if head.norm:
        parts = (w.tensor(f"{head.norm}.weight"), b.maybe(f"{head.norm}.bias"))
        x = b.norm_of(x, *(part for part in parts if part is not None))
    output = head.output[which]
    bias = b.maybe(head.bias or f"{output}.bias")
    if head.tied and w.find(f"{output}.weight") is None:
        return _tied(b, x, bias)
    return b.product(x, f"head.{output}", w.tensor(f"{output}.weight").T, bias)


def _tied(b: Blocks, x: str, bias: Array | None) -> str:
    """The word table is the output matrix too, and stored once."""
    g = b.graph
    scores = g.add("MatMul", x, g.add("Transpose", "words", perm=[1, 0]), name="head.output")
    return scores if bias is None else g.add("Add", scores, g.constant(bias))
