"""Our numpy reference, and the packages, against transformers itself. Needs the extra `export`."""

from pathlib import Path

import pytest
import tiny_bert

from converters import items, onnx_prepare, oracle
from converters.checkpoint import open_checkpoint
from converters.convert import convert
from converters.job import BUILT_IN
from converters.verify import similarity
from edgemm.package import Package
from edgemm.tokenizer import Tokenizer

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.skipif(not oracle.available(), reason="transformers and torch are not installed (extra `export`)"),
]


@pytest.mark.parametrize("activation", ["gelu", "gelu_new", "relu"])
@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_the_reference_is_transformers(activation: str, pooling: str, tmp_path: Path) -> None:
    folder = tiny_bert.write(tmp_path / "tiny", pooling=pooling, hidden_act=activation)
    [part] = onnx_prepare.prepare(open_checkpoint(folder)).parts
    chosen = items.held_out(part, Tokenizer(folder / "tokenizer.json"), BUILT_IN)
    assert similarity(part.expected(chosen), oracle.answers(part, chosen))["cosine_min"] > 0.99999


def test_the_report_says_so(tmp_path: Path) -> None:
    *_, found = convert(tiny_bert.write(tmp_path / "tiny"), "onnx-int8")
    assert isinstance(found, Package)
    assert found.report()["metrics"]["transformers_cosine_min"] > 0.9999


@pytest.mark.starter
def test_minilm_is_what_transformers_says(minilm_checkpoint: Path) -> None:
    *_, found = convert(minilm_checkpoint, "onnx-fp32", "minilm")
    assert isinstance(found, Package)
    metrics = found.report()["metrics"]
    assert metrics["transformers_cosine_min"] > 0.99999
    assert metrics["cosine_min"] > 0.99999
