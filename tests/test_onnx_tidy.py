"""Exporters' graphs in the form that the converter works on: they compute the same, and linear layers are found."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from converters.onnx_graph import Graph
from converters.onnx_linear import find_linears
from converters.onnx_tidy import LOGITS_FROM, check_nodes, end_with, last_logits, pooled, pruned, tidy
from edgemm.backends.ort import OrtModel
from edgemm.errors import Unsupported

RNG = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def run(graph: Graph, folder: Path, **feeds: np.ndarray) -> np.ndarray:
    graph.save(folder / "x.onnx")
    return OrtModel(folder / "x.onnx").run(feeds)


def ended(graph: Graph, value: str, axes: int = 2) -> Graph:
    graph.output(value, "y", [f"d{i}" for i in range(axes)])
    return graph


@pytest.mark.parametrize("turned", [0, 1])
@pytest.mark.parametrize("bias", [True, False])
def test_a_gemm_becomes_a_linear_layer_that_computes_the_same(turned: int, bias: bool, tmp_path: Path) -> None:
    graph = Graph()
    x = graph.input("x", TensorProto.FLOAT, ["n", 40])
    inputs = [x, graph.constant(normal(48, 40) if turned else normal(40, 48), "w")]
    inputs += [graph.constant(normal(48), "b")] if bias else []
    ended(graph, graph.add("Gemm", *inputs, transB=turned, name="layer"))
    found = tidy(graph)
    [linear] = find_linears(found)
    assert (linear.name, linear.inputs, linear.outputs, linear.is_flat) == ("layer", 40, 48, True)
    feed = normal(5, 40)
    np.testing.assert_allclose(run(found, tmp_path, x=feed), run(graph, tmp_path, x=feed), atol=1e-5)


def test_a_gemm_that_scales_is_left_alone() -> None:
    graph = Graph()
    x = graph.input("x", TensorProto.FLOAT, ["n", 40])
    ended(graph, graph.add("Gemm", x, graph.constant(normal(40, 48), "w"), alpha=0.5))
    assert [node.op_type for node in tidy(graph).nodes] == ["Gemm", "Identity"]


def test_a_convolution_of_width_one_is_a_linear_layer(tmp_path: Path) -> None:
    graph = Graph()
    x = graph.input("x", TensorProto.FLOAT, ["n", 40, "length"])
    conv = graph.add("Conv", x, graph.constant(normal(48, 40, 1), "w"), graph.constant(normal(48), "b"))
    ended(graph, conv, 3)
    found = tidy(graph)
    assert [(each.inputs, each.outputs) for each in find_linears(found)] == [(40, 48)]
    feed = normal(2, 40, 7)
    np.testing.assert_allclose(run(found, tmp_path, x=feed), run(graph, tmp_path, x=feed), atol=1e-5)


def tied(table: np.ndarray, matrix: np.ndarray) -> Graph:
    graph = Graph()
    ids = graph.input("ids", TensorProto.INT64, ["n", "m"])
    rows = graph.add("Gather", graph.constant(table, "table"), ids)
    rows = graph.add("Mul", rows, graph.number(2))
    return ended(graph, graph.add("MatMul", rows, graph.constant(matrix, "head")), 3)


def test_a_tied_table_is_stored_once(tmp_path: Path) -> None:
    table = normal(300, 40)
    graph = tied(table, table.T.copy())
    found = pruned(tidy(graph))
    assert "head" not in found.constants
    [linear] = find_linears(found)
    assert (linear.weight, linear.transposed) == ("table", True)
    feed = np.array([[1, 2, 299]])
    np.testing.assert_allclose(run(found, tmp_path, ids=feed), run(graph, tmp_path, ids=feed), atol=1e-5)


def test_a_matrix_that_differs_in_one_value_is_not_tied() -> None:
    table = normal(300, 40)
    other = table.T.copy()
    other[3, 7] += 1
    assert "head" in pruned(tidy(tied(table, other))).constants


def test_identities_of_constants_hide_no_layer() -> None:
    graph = Graph()
    x = graph.input("x", TensorProto.FLOAT, ["n", 40])
    weight = graph.add("Identity", graph.constant(normal(40, 48), "w"))
    ended(graph, graph.add("MatMul", x, weight))
    assert find_linears(graph) == []
    assert [linear.weight for linear in find_linears(tidy(graph))] == ["w"]


def test_what_no_output_needs_is_dropped() -> None:
    graph = Graph()
    x = graph.input("x", TensorProto.FLOAT, ["n", 40])
    graph.add("MatMul", x, graph.constant(normal(40, 48), "dead"))
    ended(graph, graph.add("MatMul", x, graph.constant(normal(40, 48), "alive")))
    assert set(pruned(graph).constants) == {"alive"}


def test_logits_from_a_place_on_are_those_of_the_whole_text(tmp_path: Path) -> None:
    graph = Graph()
    x = graph.input("x", TensorProto.FLOAT, ["n", "m", 40])
    graph.output(graph.add("MatMul", x, graph.constant(normal(40, 48), "head")), "logits", ["n", "m", 48])
    feed = normal(1, 6, 40)
    whole = run(graph, tmp_path, x=feed)
    last_logits(graph)
    found = run(graph, tmp_path, x=feed, **{LOGITS_FROM: np.array([4])})
    np.testing.assert_array_equal(found, whole[:, 4:])


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_pooling_leaves_padding_out(pooling: str, tmp_path: Path) -> None:
    graph = Graph()
    x = graph.input("x", TensorProto.FLOAT, ["n", "m", 4])
    graph.input("attention_mask", TensorProto.INT64, ["n", "m"])
    ended(graph, pooled(graph, x, pooling, normalize=False))
    feed, mask = normal(2, 3, 4), np.array([[1, 1, 0], [1, 1, 1]])
    found = run(graph, tmp_path, x=feed, attention_mask=mask)
    texts = [feed[0, :2], feed[1]]
    expected = {"mean": [t.mean(axis=0) for t in texts], "cls": [t[0] for t in texts], "last": [t[-1] for t in texts]}
    np.testing.assert_allclose(found, expected[pooling], atol=1e-6)


def test_an_output_may_take_the_name_of_a_value_inside(tmp_path: Path) -> None:
    graph = Graph()
    x = graph.input("x", TensorProto.FLOAT, ["n", 4])
    graph.nodes.append(helper.make_node("Neg", [x], ["logits"]))
    end_with(graph, graph.add("Abs", "logits"), "logits", ["n", 4])
    np.testing.assert_array_equal(run(graph, tmp_path, x=-np.ones((1, 4), np.float32)), np.ones((1, 4)))


@pytest.mark.parametrize("operator", ["If", "Loop", "Scan"])
def test_a_graph_with_control_flow_is_refused(operator: str) -> None:
    graph = Graph()
    graph.nodes.append(onnx.NodeProto(op_type=operator, input=["x"], output=["y"]))
    with pytest.raises(Unsupported, match=f"needs a node {operator}") as caught:
        check_nodes(graph, "model")
    assert "\n" not in str(caught.value)


def test_an_operator_of_somebody_else_is_refused() -> None:
    graph = Graph()
    graph.nodes.append(onnx.NodeProto(op_type="Magic", domain="org.example", input=["x"], output=["y"]))
    with pytest.raises(Unsupported, match=r"org\.example::Magic"):
        check_nodes(graph, "model")
