"""The onnxruntime backend: providers, processors without VNNI, and files that it cannot run."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import tiny_bert
from onnx import TensorProto, helper

from converters import onnx_prepare
from converters.checkpoint import open_checkpoint
from converters.convert import Options, convert
from converters.onnx_int8 import Plan, quantize
from edgemm import device
from edgemm.backends.ort import CPU, OrtEncoder, choose_providers
from edgemm.errors import BadFile
from edgemm.package import Package

CUDA, CORE_ML = "CUDAExecutionProvider", "CoreMLExecutionProvider"


@pytest.mark.parametrize(
    ("available", "int8", "chosen"),
    [
        ([CPU], False, [CPU]),
        ([CUDA, CPU], False, [CUDA, CPU]),
        ([CORE_ML, CPU], False, [CORE_ML, CPU]),
        ([CUDA, CPU], True, [CPU]),
        ([CORE_ML, CPU], True, [CPU]),
        (["AzureExecutionProvider", CPU], False, [CPU]),
    ],
)
def test_int8_stays_on_the_cpu(available: list[str], int8: bool, chosen: list[str]) -> None:
    assert choose_providers(available, int8=int8) == chosen


@pytest.fixture(scope="module")
def rows() -> list[list[int]]:
    rng = np.random.default_rng(0)
    return [[2, *rng.integers(5, len(tiny_bert.VOCABULARY), n).tolist(), 3] for n in (3, 9, 30)]


def test_a_processor_without_vnni_gives_the_same_vectors(
    tmp_path: Path, rows: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    *_, found = convert(tiny_bert.write(tmp_path / "tiny"), "onnx-int8", options=Options(oracle=False))
    assert isinstance(found, Package)
    path = found.path / "model.onnx"
    expected = OrtEncoder(path, int8=True).encode(rows)
    monkeypatch.setattr(device, "processor", lambda: ("old", ("AVX2",)))
    assert device.saturates_int8()
    np.testing.assert_allclose(OrtEncoder(path, int8=True).encode(rows), expected, atol=1e-5)


def test_a_weight_that_layers_share_does_not_overflow_without_vnni(
    tmp_path: Path, rows: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It cannot be turned into uint8 when it is loaded, so that it holds 7 bits."""
    [part] = onnx_prepare.prepare(open_checkpoint(tiny_bert.write(tmp_path / "tiny"))).parts
    graph = part.graph()
    first, last = (next(n for n in graph.nodes if n.name == f"layers.{i}.down") for i in (0, 1))
    last.input[1] = first.input[1]
    graph.save(tmp_path / "exact.onnx")
    quantize(graph, Plan(), {}).save(tmp_path / "int8.onnx")
    expected = OrtEncoder(tmp_path / "exact.onnx").encode(rows)
    monkeypatch.setattr(device, "processor", lambda: ("old", ("AVX2",)))
    cosines = np.sum(OrtEncoder(tmp_path / "int8.onnx", int8=True).encode(rows) * expected, axis=1)
    assert cosines.min() > 0.999
    stored = {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(tmp_path / "int8.onnx").graph.initializer}
    assert np.abs(stored[f"{first.input[1]} int8"].astype(int)).max() == 63


@pytest.mark.parametrize(
    ("features", "saturates"),
    [(("AVX2",), True), (("AVX2", "AVX-VNNI"), False), (("NEON", "dotprod"), False), ((), False)],
)
def test_which_processors_saturate(features: tuple[str, ...], saturates: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "processor", lambda: ("some", features))
    assert device.saturates_int8() is saturates


def model(inputs: list[str], operator: str) -> bytes:
    ends = [helper.make_tensor_value_info(n, TensorProto.INT64, ["b", "s"]) for n in inputs]
    out = helper.make_tensor_value_info("y", TensorProto.INT64, ["b", "s"])
    graph = helper.make_graph([helper.make_node(operator, [inputs[0]], ["y"])], "g", ends, [out])
    built: onnx.ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return built.SerializeToString()


@pytest.mark.parametrize(
    ("inputs", "operator", "message"),
    [(["input_ids"], "NoSuchOperator", "onnxruntime cannot load it"), (["pixels"], "Identity", "unexpected inputs")],
)
def test_files_that_cannot_run(inputs: list[str], operator: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "x.onnx"
    path.write_bytes(model(inputs, operator))
    with pytest.raises(BadFile, match=message) as caught:
        OrtEncoder(path)
    assert "\n" not in str(caught.value)
