"""Encoders on onnxruntime: INT8 against float32, against the processor's ceiling and against sentence-transformers.

Part of `make bench`. The large models have seeded weights, which are as fast as trained ones; what INT8 costs a trained
one is measured on MiniLM, on its neighbours and on sentence pairs, and on the models of tests/reference by the tests.
"""

import csv
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
from bench import CHECKPOINT, Result, docstrings, find_checkpoint, process, ratio, seconds
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save_file

from converters import pictures
from converters.calibrate import HELD_OUT
from edgemm import image, models
from edgemm.backends.ort import OrtModel
from edgemm.batches import BatchOptions
from edgemm.device import cores
from edgemm.embed import Embedder
from edgemm.package import open_package
from edgemm.tokenizer import Overflow, open_tokenizer

FP32, INT8 = f"{CHECKPOINT}-onnx-fp32", f"{CHECKPOINT}-onnx-int8"
PAIRS = "EDGEMM_BENCH_PAIRS"  # a TSV with sentence_A, sentence_B and relatedness_score, such as that of SICK
QUERY = "how do I stop an answer?"
SIZE, MIXED, SHORT, CEILING, PEER, LOST = 24.0, 2.2, 2.0, 0.45, 7.0, 0.3
BERT_MB, BERT_SECONDS, VIT, DECODING = 1600, 60, 1.5, 0.15
ROWS = 512  # tokens of one call
TEXTS = 1536  # of one turn: short turns measure what the turn before left in the caches
TURN = 20  # short queries one after the other


def minilm() -> list[Result]:
    """The starter embedding model: size, floor, speed."""
    texts = docstrings(TEXTS)
    found = open_package(models.find(INT8).path)
    tokens = sum(len(t.rows[0]) for t in open_tokenizer(found).encode(texts, 256, Overflow.CUT))
    options = BatchOptions(overflow=Overflow.CUT)
    with models.open_embedder(FP32, options) as exact, models.open_embedder(INT8, options) as int8:

        def speed(model: Embedder, rows: list[str], times: int = 1) -> Callable[[], float]:
            return lambda: tokens / seconds(lambda: [model.embed(rows) for _ in range(times)])

        mixed = ratio(speed(int8, texts), speed(exact, texts), repeats=9)
        # A program holds one model. In turns of single queries each model would find the other one's weights in the
        # cache, which costs INT8 half of its speed; both figures are shown.
        short = ratio(speed(int8, [QUERY], TURN), speed(exact, [QUERY], TURN), repeats=31)
        cold = ratio(speed(int8, [QUERY]), speed(exact, [QUERY]), repeats=301)
        bare = ratio(speed(int8, texts), lambda: ceiling(found.path / "model.onnx"), repeats=5)
        peers = list(against_sentence_transformers(speed(int8, texts), texts, tokens))
    metrics = found.report()["metrics"]
    floor = f"min {metrics['cosine_min']:.5f}, top-10 {100 * metrics['top10_overlap']:.1f} %, alone and in a batch "
    floor += (
        f"{metrics['batch_invariance']:.5f}: {'all above' if found.report()['passed'] else 'NOT all above'} the floor"
    )
    size = (found.path / "model.onnx").stat().st_size / 1e6
    what = f"{mixed.ours:,.0f} against {mixed.theirs:,.0f} tokens/s, {len(texts)} docstrings, 9 pairs"
    in_turns = f"31 pairs of {TURN} queries; {cold.value:.2f}x in turns of one query, caches cold"
    return [
        Result("MiniLM onnx-int8: mean cosine", metrics["cosine_mean"], 0.999, "", True, floor),
        Result("MiniLM onnx-int8: size", size, SIZE, "MB", False, "model.onnx"),
        Result("embedding, INT8 / our fp32, mixed lengths", mixed.value, MIXED, "x", True, what),
        Result("embedding, INT8 / our fp32, one short query", short.value, SHORT, "x", True, in_turns),
        Result("embedding, INT8 / bare MatMulInteger", bare.value, CEILING, "x", True, f"{bare.theirs:,.0f} tokens/s"),
        *peers,
    ]


def ceiling(model: Path) -> float:
    """Tokens per second of the model's linear layers alone, as bare INT8 products on all cores."""
    products, feeds, outputs = bare_products(model)
    rounds = 8

    def work(_: int) -> None:
        products.run_all(feeds, outputs)  # all of them: what nobody asks for is not computed

    with ThreadPoolExecutor(cores()) as pool:
        started = time.perf_counter()
        list(pool.map(work, range(rounds)))
    return rounds * ROWS / (time.perf_counter() - started)


Bare = tuple[OrtModel, dict[str, NDArray[np.uint8]], list[str]]
_BARE: dict[Path, Bare] = {}


def bare_products(model: Path) -> Bare:
    """A graph of nothing but the INT8 products of `model`, each of its own input."""
    if model not in _BARE:
        weights = [
            numpy_helper.to_array(t) for t in onnx.load(model).graph.initializer if t.data_type == TensorProto.INT8
        ]
        matrices = [w for w in weights if w.ndim == 2 and len(w) < 4096]
        widths = sorted({len(w) for w in matrices})
        nodes = [helper.make_node("MatMulInteger", [f"x{len(w)}", f"w{i}"], [f"y{i}"]) for i, w in enumerate(matrices)]
        graph = helper.make_graph(
            nodes,
            "bare",
            [helper.make_tensor_value_info(f"x{n}", TensorProto.UINT8, ["rows", n]) for n in widths],
            [helper.make_tensor_value_info(f"y{i}", TensorProto.INT32, None) for i in range(len(nodes))],
            [numpy_helper.from_array(w, f"w{i}") for i, w in enumerate(matrices)],
        )
        path = Path(tempfile.mkdtemp()) / "bare.onnx"
        path.write_bytes(
            helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10).SerializeToString()
        )
        rng = np.random.default_rng(0)
        feeds = {f"x{n}": rng.integers(0, 255, (ROWS, n), np.uint8) for n in widths}
        _BARE[model] = (OrtModel(path), feeds, [f"y{i}" for i in range(len(nodes))])
    return _BARE[model]


def against_sentence_transformers(ours: Callable[[], float], texts: list[str], tokens: int) -> Iterator[Result]:
    """Its defaults: torch, float32, batches of 32 that it sorts by length."""
    if find_spec("sentence_transformers") is None:
        print("not compared with sentence-transformers: it is not installed (pip install sentence-transformers)")
        return
    from sentence_transformers import SentenceTransformer

    peer = SentenceTransformer(str(find_checkpoint()), device="cpu", local_files_only=True)
    against = ratio(ours, lambda: tokens / seconds(lambda: peer.encode(texts)), repeats=3)
    detail = f"{against.ours:,.0f} against {against.theirs:,.0f} tokens/s, 3 pairs"
    yield Result("embedding, INT8 / sentence-transformers", against.value, PEER, "x", True, detail)


def relatedness() -> Result:
    """How much worse INT8 orders pairs of sentences than float32 does, in points of Spearman's correlation."""
    pairs, scores = sentence_pairs()
    left, right = ([pair[i] for pair in pairs] for i in (0, 1))
    found = []
    for name in (FP32, INT8):
        with models.open_embedder(name) as model:
            found.append(np.sum(model.embed(left) * model.embed(right), axis=1))
    truth = found[0] if scores is None else scores
    exact, int8 = (100 * spearman(cosines, truth) for cosines in found)
    what = f"{len(pairs)} pairs: fp32 {exact:.2f}, INT8 {int8:.2f}"
    what += "" if scores is not None else f" (to fp32; name a file of judged pairs with {PAIRS})"
    return Result("Spearman's correlation that INT8 loses", exact - int8, LOST, "points", False, what)


def sentence_pairs() -> tuple[list[tuple[str, str]], NDArray[np.float32] | None]:
    path = os.environ.get(PAIRS)
    if not path:
        texts = list(HELD_OUT)
        return [(a, b) for i, a in enumerate(texts) for b in texts[i + 1 :]][::4], None
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    return [(r["sentence_A"], r["sentence_B"]) for r in rows], np.array([float(r["relatedness_score"]) for r in rows])


def spearman(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    return float(np.corrcoef(ranks(a), ranks(b))[0, 1])


def ranks(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """Equal values share their mean rank."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts - 1) / 2)[inverse]


def bert() -> list[Result]:
    """A BERT of 110M seeded weights to INT8, without torch."""
    code = (
        "import sys; from edgemm.cli import main\n"
        "try: main()\n"
        "finally: assert 'torch' not in sys.modules, 'torch was imported'"
    )
    with tempfile.TemporaryDirectory() as home:
        folder = write_bert(Path(home) / "bert-110m")
        arguments = ("convert", str(folder), "--to", "onnx-int8", "--no-oracle")
        wall, cpu, memory = process("-c", code, *arguments, EDGEMM_HOME=home)
    detail = f"{cpu:.0f} s of CPU; torch not imported"
    return [
        Result("convert a BERT of 110M weights to onnx-int8", wall, BERT_SECONDS, "s", False, detail),
        Result("peak memory of that conversion", memory, BERT_MB, "MB", False, "the largest process"),
    ]


def write_bert(folder: Path) -> Path:
    """MiniLM's tokenizer and settings, with the sizes of BERT base."""
    folder.mkdir()
    checkpoint = find_checkpoint()
    for name in ("tokenizer.json", "tokenizer_config.json", "modules.json", "sentence_bert_config.json"):
        (folder / name).write_bytes((checkpoint / name).read_bytes())
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_bytes((checkpoint / "1_Pooling" / "config.json").read_bytes())
    config = json.loads((checkpoint / "config.json").read_text())
    sizes = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
    (folder / "config.json").write_text(json.dumps(config | sizes))
    words = {
        "embeddings.word_embeddings.weight": (config["vocab_size"], 768),
        "embeddings.position_embeddings.weight": (512, 768),
        "embeddings.token_type_embeddings.weight": (2, 768),
    }
    norms = {"embeddings.LayerNorm": 768}
    for i in range(12):
        layer = f"encoder.layer.{i}."
        names = ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense")
        words |= {f"{layer}{name}.weight": (768, 768) for name in names}
        words |= {f"{layer}intermediate.dense.weight": (3072, 768), f"{layer}output.dense.weight": (768, 3072)}
        norms |= {f"{layer}attention.output.LayerNorm": 768, f"{layer}output.LayerNorm": 768}
    save_file(seeded(words, norms), folder / "model.safetensors")
    return folder


def seeded(matrices: dict[str, tuple[int, ...]], norms: dict[str, int]) -> dict[str, NDArray[np.float32]]:
    rng = np.random.default_rng(0)
    found = {name: 0.02 * rng.standard_normal(shape, np.float32) for name, shape in matrices.items()}
    layers = [n for n in matrices if ".weight" in n and "embeddings" not in n]
    found |= {n.replace(".weight", ".bias"): 0.02 * rng.standard_normal(matrices[n][0], np.float32) for n in layers}
    for name, width in norms.items():
        found[f"{name}.weight"] = 1 + 0.1 * rng.standard_normal(width, np.float32)
        found[f"{name}.bias"] = 0.1 * rng.standard_normal(width, np.float32)
    return found


def vit() -> list[Result]:
    """A ViT-B/16 of seeded weights: INT8 against float32, and what reading the pictures takes of it."""
    with seeded_vit() as (exact, int8), tempfile.TemporaryDirectory() as folder:
        files = write_pictures(Path(folder), 12)
        inputs = open_package(int8).manifest.inputs
        assert inputs is not None
        assert inputs.image is not None
        shape = inputs.image
        with models.open_vision(exact) as one, models.open_vision(int8) as two:
            speed = ratio(
                lambda: len(files) / seconds(lambda: list(two.classify_images(files, 1))),
                lambda: len(files) / seconds(lambda: list(one.classify_images(files, 1))),
                repeats=3,
            )
        reading = min(
            cpu_seconds(lambda: [image.to_tensor(image.read_image(f, shape), shape) for f in files]) for _ in "123"
        )
        with models.open_vision(int8) as two:
            whole = min(map(cpu_seconds, [lambda: list(two.classify_images(files, 1))] * 3))
    detail = f"{speed.ours:.2f} against {speed.theirs:.2f} pictures/s, JPEG files of 1200 x 800, 3 pairs"
    share = f"{1e3 * reading / len(files):.1f} of {1e3 * whole / len(files):.0f} ms of CPU a picture"
    return [
        Result("ViT-B/16, INT8 / fp32", speed.value, VIT, "x", True, detail),
        Result("of that INT8, reading and resizing pictures", reading / whole, DECODING, "", False, share),
    ]


def cpu_seconds(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


@contextmanager
def seeded_vit() -> Iterator[tuple[Path, Path]]:
    """Packages in float32 and INT8."""
    with tempfile.TemporaryDirectory() as home:
        folder = write_vit(Path(home) / "vit-b16")
        for target in ("onnx-fp32", "onnx-int8"):
            arguments = ("convert", str(folder), "--to", target, "--no-oracle", "--accept-below-floor")
            process("-m", "edgemm", *arguments, EDGEMM_HOME=home)
        yield Path(home) / "vit-b16-onnx-fp32", Path(home) / "vit-b16-onnx-int8"


def write_vit(folder: Path) -> Path:
    folder.mkdir()
    config = {"model_type": "vit", "architectures": ["ViTForImageClassification"], "num_labels": 1000}
    (folder / "config.json").write_text(json.dumps(config | {"id2label": {str(i): str(i) for i in range(1000)}}))
    processor = {"image_processor_type": "ViTImageProcessor", "size": {"height": 224, "width": 224}}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    matrices = {"classifier.weight": (1000, 768), "vit.embeddings.patch_embeddings.projection.weight": (768, 3, 16, 16)}
    norms = {"vit.layernorm": 768}
    for i in range(12):
        layer = f"vit.encoder.layer.{i}."
        names = ("attention.attention.query", "attention.attention.key", "attention.attention.value")
        matrices |= {f"{layer}{name}.weight": (768, 768) for name in (*names, "attention.output.dense")}
        matrices |= {f"{layer}intermediate.dense.weight": (3072, 768), f"{layer}output.dense.weight": (768, 3072)}
        norms |= {f"{layer}layernorm_before": 768, f"{layer}layernorm_after": 768}
    arrays = seeded(matrices, norms)
    rng = np.random.default_rng(1)
    arrays["vit.embeddings.cls_token"] = rng.standard_normal((1, 1, 768), np.float32)
    arrays["vit.embeddings.position_embeddings"] = 0.1 * rng.standard_normal((1, 197, 768), np.float32)
    arrays["vit.embeddings.patch_embeddings.projection.bias"] = np.zeros(768, np.float32)
    save_file(arrays, folder / "model.safetensors")
    return folder


def write_pictures(folder: Path, count: int) -> list[Path]:
    """JPEG files as a camera would make them."""
    paths = []
    for i, pixels in enumerate(pictures.drawn(100, count, 1200)):
        paths.append(folder / f"{i}.jpg")
        image.from_pixels(pixels[:800, :1200]).save(paths[-1], quality=90)
    return paths


def results() -> list[Result]:
    return [*minilm(), relatedness(), *bert(), *vit()]
