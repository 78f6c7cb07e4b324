"""The linear layers of an ONNX graph: where they are, and what flows into them on calibration inputs.

A linear layer is a product with a constant matrix. Every graph is looked at in the same way, one of ours or an
exporter's. It knows no quantization.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from converters.checkpoint import Array
from converters.cores import each
from converters.onnx_graph import Graph
from edgemm.backends.ort import OrtModel

Feeds = dict[str, Any]
SMALLEST = 32  # a matrix narrower than this is left alone: nothing is gained by a smaller one
_GRAM_BYTES = 600_000_000  # of second moments that are collected in one pass over the inputs
# How far below zero the outputs of an activation can go; GELU's minimum is -0.16997
_FLOORS = {"Gelu": 0.17, "Relu": 0.0, "Sigmoid": 0.0}


@dataclass(frozen=True, slots=True)
class Linear:
    """A product `x` @ `weight`: `name` is what plans call it, `node` its place, (inputs, outputs) its shape.

    `transposed`: the constant is stored as (outputs, inputs), a table that is an output matrix too. `floor`: `x` is
    never below minus this; None: nothing is known. `is_flat`: `x` is known to be a matrix.
    """

    name: str
    node: int
    x: str
    weight: str
    inputs: int
    outputs: int
    floor: float | None = None
    transposed: bool = False
    is_flat: bool = False


@dataclass(frozen=True, slots=True)
class Activation:
    """Of one input of linear layers: the largest |x| of each channel, and where the sum of its outer products lies."""

    maxima: Array
    file: Path

    def gram(self) -> Array:
        """float32 (inputs, inputs). On disk until it is needed: those of a large model are larger than its weights."""
        return np.asarray(np.load(self.file, allow_pickle=False), np.float32)


def find_linears(graph: Graph) -> list[Linear]:
    """Every product with a constant matrix, in order."""
    producers = {output: node for node in graph.nodes for output in node.output}
    types = graph.types()
    found = (_linear(graph, producers, i, node) for i, node in enumerate(graph.nodes))
    return [replace(linear, is_flat=types.get(linear.x, (0, 0))[1] == 2) for linear in found if linear is not None]


def _linear(graph: Graph, producers: dict[str, onnx.NodeProto], place: int, node: onnx.NodeProto) -> Linear | None:
    if node.op_type != "MatMul":
        return None
    name, transposed = node.input[1], False
    source = producers.get(name)
    if source is not None and source.op_type == "Transpose" and source.input[0] in graph.constants:
        name, transposed = source.input[0], True
    weight = graph.constants.get(name)
    if weight is None or weight.ndim != 2 or weight.dtype != np.float32 or min(weight.shape) < SMALLEST:
        return None
    inputs, outputs = weight.shape[::-1] if transposed else weight.shape
    x = producers.get(node.input[0])
    floor = _FLOORS.get(x.op_type) if x is not None else None
    return Linear(node.name or node.output[0], place, node.input[0], name, inputs, outputs, floor, transposed)


def groups(linears: list[Linear]) -> list[list[Linear]]:
    """Linear layers that share an input or a weight, so that one smoothing must serve them all."""
    found: list[list[Linear]] = []
    for linear in linears:
        near = [g for g in found if any(linear.x == m.x or linear.weight == m.weight for m in g)]
        found = [g for g in found if g not in near]
        found.append([m for g in near for m in g] + [linear])
    return found


def observe(path: Path, linears: list[Linear], batches: Iterable[Feeds]) -> dict[str, Activation]:
    """By input of `linears`: what flows into them while the graph in `path` runs on `batches`. Files lie beside it."""
    watched = {linear.x: linear.inputs for linear in linears}
    inputs = list(batches)
    found: dict[str, Activation] = {}
    for names in _passes(watched):
        for name, seen in _sums(path, {name: watched[name] for name in names}, inputs).items():
            file = path.with_name(f"gram.{len(found)}.npy")
            np.save(file, seen.gram)
            found[name] = Activation(seen.maxima, file)
    return found


@dataclass(slots=True)
class _Sums:
    maxima: Array
    gram: Array

    def add(self, rows: Array) -> None:
        np.maximum(self.maxima, np.abs(rows).max(axis=0), out=self.maxima)
        self.gram += rows.T @ rows


def _sums(path: Path, watched: dict[str, int], batches: list[Feeds]) -> dict[str, _Sums]:
    """Of each watched value, whose width is given."""
    found = {name: _Sums(np.zeros(n, np.float32), np.zeros((n, n), np.float32)) for name, n in watched.items()}

    def add(feeds: Feeds, named: tuple[str, Array]) -> None:
        name, value = named
        found[name].add(value.reshape(-1, value.shape[-1])[_real(feeds, value)])

    with watched_model(path, list(watched)) as model:
        for feeds in batches:
            values = model.run_all(feeds, list(watched))
            each(partial(add, feeds), zip(watched, values, strict=True))
    return found


def _real(feeds: Feeds, value: Array) -> Any:
    """Which rows of `value` are no padding: all of them, where there is no mask of its shape."""
    mask = feeds.get("attention_mask")
    rows = value.size // value.shape[-1]
    return mask.reshape(-1).astype(bool) if mask is not None and mask.size == rows else slice(None)


def _passes(watched: dict[str, int]) -> Iterator[list[str]]:
    names: list[str] = []
    size = 0
    for name, inputs in watched.items():
        if names and size + 4 * inputs**2 > _GRAM_BYTES:
            yield names
            names, size = [], 0
        names.append(name)
        size += 4 * inputs**2
    if names:
        yield names


@contextmanager
def watched_model(path: Path, names: list[str]) -> Iterator[OrtModel]:
    """The graph in `path`, with the values `names` as further outputs."""
    watching = onnx.load(path, load_external_data=False)
    there = {output.name for output in watching.graph.output}
    extra = [n for n in names if n not in there]
    watching.graph.output.extend(helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in extra)
    file = path.with_name(f"watched.{path.name}")
    try:
        file.write_bytes(watching.SerializeToString())
        yield OrtModel(file, lean=True)
    finally:
        file.unlink(missing_ok=True)
