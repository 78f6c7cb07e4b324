"""Attention in one node: the same answers as step by step, and only where that is what the graph does."""

from pathlib import Path

import numpy as np
import pytest
from test_onnx_graph import parts, run, with_transformers

from converters import oracle
from converters.onnx_attention import fused
from converters.onnx_graph import Graph
from converters.onnx_parts import Part, answers
from edgemm.backends.ort import OrtModel

pytestmark = with_transformers
if oracle.available():
    import tiny_encoders

FUSED = (
    *("bert-embed", "bert-token-classify", "roberta-embed", "xlm-roberta-fill-mask", "electra-wide-embed"),
    *("albert-embed", "distilbert-embed", "vit-embed", "deit-classify", "dinov2-embed", "clip-vision"),
)
STEP_BY_STEP = ("mpnet-embed", "modernbert-embed")  # learned distances; rotated queries and a window


def attentions(graph: Graph) -> int:
    return sum(node.op_type == "Attention" for node in graph.nodes)


def saved(part: Part, path: Path) -> Graph:
    part.graph().save(path, external=True)
    return Graph.load(path)


@pytest.mark.parametrize("name", FUSED)
def test_the_answers_stay_the_same(name: str, tmp_path: Path) -> None:
    [(part, chosen)] = parts(tiny_encoders.write(tmp_path / name, name))
    expected = run(part, chosen, tmp_path / "exact.onnx")
    graph = Graph.load(tmp_path / "exact.onnx")
    softmaxes = sum(node.op_type == "Softmax" for node in graph.nodes)
    new = fused(graph)
    assert attentions(new) == softmaxes > 0
    new.save(tmp_path / "fused.onnx")
    found = answers(OrtModel(tmp_path / "fused.onnx"), part.feeds(chosen))
    np.testing.assert_allclose(found, expected, atol=2e-6)


@pytest.mark.parametrize("name", STEP_BY_STEP)
def test_other_attention_is_left_as_it_is(name: str, tmp_path: Path) -> None:
    [(part, _)] = parts(tiny_encoders.write(tmp_path / name, name))
    graph = saved(part, tmp_path / "exact.onnx")
    assert fused(graph) is graph


def test_another_scale_of_the_scores_is_left_as_it_is(tmp_path: Path) -> None:
    [(part, _)] = parts(tiny_encoders.write(tmp_path / "bert", "bert-embed"))
    graph = saved(part, tmp_path / "exact.onnx")
    scores = next(node for node in graph.nodes if node.op_type == "Softmax")
    producers = {output: node for node in graph.nodes for output in node.output}
    product = producers[producers[scores.input[0]].input[0]]
    graph.constants[producers[product.input[0]].input[1]] = np.float32(0.5)
    assert attentions(fused(graph)) == 0
