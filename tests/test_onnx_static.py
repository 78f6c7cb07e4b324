"""Static INT8 of convolutional networks, on a graph made by hand: right, near to float32, and fused by onnxruntime."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto

from converters.onnx_graph import Graph
from converters.onnx_static import MINMAX, MSE, Affine, Seen, StaticPlan, affine, is_convolutional, layers, observe
from converters.onnx_static import quantize as quantized
from edgemm.backends.ort import OrtModel

RNG = np.random.default_rng(1)


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def conv(graph: Graph, x: str, name: str, inputs: int, outputs: int, size: int = 3, **attributes: object) -> str:
    weight = graph.constant(normal(outputs, inputs, size, size) / np.float32(size * inputs**0.5), f"{name} w")
    bias = graph.constant(normal(outputs) / 4, f"{name} b")
    return graph.add("Conv", x, weight, bias, name=name, pads=[size // 2] * 4, **attributes)


@pytest.fixture(scope="module")
def network() -> Graph:
    """A stem, a pool, one residual block, a mean and a classifier."""
    g = Graph()
    pixels = g.input("pixel_values", TensorProto.FLOAT, ["n", 3, 24, 24])
    x = g.add("Relu", conv(g, pixels, "stem", 3, 16, strides=[2, 2]))
    x = g.add("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    y = conv(g, g.add("Relu", conv(g, x, "first", 16, 16)), "second", 16, 16)
    x = g.add("Relu", g.add("Add", y, x))
    x = g.add("Flatten", g.add("GlobalAveragePool", x))
    logits = g.add("Gemm", x, g.constant(normal(10, 16), "w"), g.constant(normal(10), "b"), name="classifier", transB=1)
    g.output(logits, "logits", ["n", 10])
    return g


@pytest.fixture(scope="module")
def feeds() -> list[dict[str, np.ndarray]]:
    return [pictures() for _ in range(4)]


def pictures() -> dict[str, np.ndarray]:
    """Noise over a colour of their own."""
    return {"pixel_values": normal(4, 3, 24, 24) / 2 + 2 * normal(4, 3, 1, 1)}


@pytest.fixture
def built(network: Graph, feeds: list[dict[str, np.ndarray]], tmp_path: Path) -> dict[str, Seen]:
    network.save(tmp_path / "float.onnx")
    return observe(tmp_path / "float.onnx", network, feeds)


def logits(path: Path, feeds: list[dict[str, np.ndarray]], *, int8: bool) -> np.ndarray:
    model = OrtModel(path, int8=int8)
    return np.concatenate([model.run(feed) for feed in feeds])


@pytest.mark.parametrize("plan", [StaticPlan(), StaticPlan(MINMAX), StaticPlan(MSE, ("stem", "classifier"))])
def test_int8_answers_like_float32(
    plan: StaticPlan, network: Graph, built: dict[str, Seen], feeds: list[dict[str, np.ndarray]], tmp_path: Path
) -> None:
    quantized(network, plan, built).save(tmp_path / "int8.onnx")
    other = [pictures()]
    found = logits(tmp_path / "int8.onnx", other, int8=True)
    expected = logits(tmp_path / "float.onnx", other, int8=False)
    assert np.corrcoef((found - expected.mean(0)).ravel(), (expected - expected.mean(0)).ravel())[0, 1] > 0.995
    assert not np.array_equal(found, expected)


def test_every_pair_becomes_an_integer_kernel(network: Graph, built: dict[str, Seen], tmp_path: Path) -> None:
    quantized(network, StaticPlan(), built).save(tmp_path / "int8.onnx")
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "fused.onnx")
    options.log_severity_level = 4
    onnxruntime.InferenceSession(str(tmp_path / "int8.onnx"), options, providers=["CPUExecutionProvider"])
    found = Counter(node.op_type for node in onnx.load(tmp_path / "fused.onnx").graph.node)
    assert (found["QLinearConv"], found["QLinearAdd"], found["QGemm"]) == (3, 1, 1)
    assert found["QLinearGlobalAveragePool"] == 1
    assert found["Conv"] == found["Relu"] == found["DequantizeLinear"] == 0


def test_exceptions_keep_their_weights(network: Graph, built: dict[str, Seen]) -> None:
    assert layers(network) == ["stem", "first", "second", "classifier"]
    found = quantized(network, StaticPlan(exceptions=("stem",)), built)
    kinds = {name: value.dtype for name, value in found.constants.items() if value.ndim == 4}
    assert sorted(map(str, kinds.values())) == ["float32", "int8", "int8"]
    assert kinds["stem w"] == np.float32


def test_a_vision_transformer_is_not_convolutional(network: Graph) -> None:
    g = Graph()
    x = g.input("pixel_values", TensorProto.FLOAT, ["n", 3, 24, 24])
    x = g.add("Flatten", conv(g, x, "patches", 3, 16))
    for _ in range(2):
        x = g.add("MatMul", x, g.constant(normal(40, 40)))
    assert is_convolutional(network)
    assert not is_convolutional(g)


def seen(values: np.ndarray) -> Seen:
    low, high = min(0.0, float(values.min())), max(0.0, float(values.max()))
    return Seen(low, high, np.histogram(values, 2048, (low, high))[0])


def error(values: np.ndarray, code: Affine) -> float:
    codes = np.clip(np.rint(values / code.scale) + code.zero, 0, 255)
    return float(np.mean((values - code.scale * (codes - code.zero)) ** 2))


def test_a_range_that_leaves_an_outlier_out_has_the_lesser_error() -> None:
    values = np.append(normal(20000), np.float32(40))
    both = {ranges: affine(seen(values), ranges) for ranges in (MSE, MINMAX)}
    assert both[MSE].scale < both[MINMAX].scale
    assert error(values, both[MSE]) < error(values, both[MINMAX])


def test_zero_is_exact_and_begins_the_range_of_what_is_never_negative() -> None:
    assert affine(seen(np.abs(normal(1000))), MSE).zero == 0
    assert 0 < affine(seen(normal(1000)), MINMAX).zero < 255


def test_a_channel_that_is_switched_off_keeps_its_bias(tmp_path: Path) -> None:
    g = Graph()
    x = g.input("pixel_values", TensorProto.FLOAT, ["n", 1, 4, 4])
    weight = np.zeros((2, 1, 1, 1), np.float32)
    weight[0] = 1
    values = g.add("Relu", g.add("Conv", x, g.constant(weight), g.constant(np.array([0, 3], np.float32)), name="conv"))
    g.output(g.add("GlobalAveragePool", values), "y", ["n", 2, 1, 1])
    g.save(tmp_path / "float.onnx")
    feed = {"pixel_values": np.full((1, 1, 4, 4), 2, np.float32)}
    quantized(g, StaticPlan(), observe(tmp_path / "float.onnx", g, [feed])).save(tmp_path / "int8.onnx")
    found = OrtModel(tmp_path / "int8.onnx", int8=True).run(feed).ravel()
    np.testing.assert_allclose(found, [2, 3], atol=0.03)
