"""Our numpy reference, and the packages, against transformers itself. Needs the extra `export`."""

from pathlib import Path

import pytest
import tiny_bert

from converters import oracle
from converters.calibrate import HELD_OUT
from converters.checkpoint import open_checkpoint
from converters.convert import convert
from converters.onnx_job import Job
from converters.recipe import RECIPES
from converters.verify import similarity
from edgemm.package import Package

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.skipif(not oracle.available(), reason="transformers and torch are not installed (extra `export`)"),
]


@pytest.mark.parametrize("activation", ["gelu", "gelu_new", "relu"])
@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_the_reference_is_transformers(activation: str, pooling: str, tmp_path: Path) -> None:
    folder = tiny_bert.write(tmp_path / "tiny", pooling=pooling, hidden_act=activation)
    job = Job.read(open_checkpoint(folder), RECIPES["onnx-fp32"])
    rows = job.rows(HELD_OUT)
    assert similarity(job.reference.embed(rows), oracle.vectors(job.checkpoint, rows))["cosine_min"] > 0.99999


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
