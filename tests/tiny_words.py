"""A tokenizer of whole words, whose ids tests can read, and packages around small ONNX graphs made by hand."""

import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgemm import package, paths
from edgemm.backends.fake import FakeHead
from edgemm.batches import BatchOptions
from edgemm.classify import Classifier
from edgemm.manifest import Inputs, MadeBy, Manifest, Quantization, Source
from edgemm.tokenizer import Tokenizer

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = (
    "the cat dog sat on mat good bad day Ada Lovelace lives in Paris London and ##s a who where ? . red blue".split()
)
VOCABULARY = [*SPECIAL, *WORDS]
ID = {word: i for i, word in enumerate(VOCABULARY)}


def write_tokenizer(folder: Path, vocabulary: Sequence[str] = VOCABULARY) -> Path:
    """tokenizer.json; the second text of a pair has the token type 1."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    made = Tokenizer(models.WordPiece({word: i for i, word in enumerate(vocabulary)}, unk_token="[UNK]"))
    made.add_special_tokens(SPECIAL)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece(cleanup=False)
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    folder.mkdir(parents=True, exist_ok=True)
    made.save(str(folder / "tokenizer.json"))
    return folder / "tokenizer.json"


@cache
def tokenizer() -> Tokenizer:
    with tempfile.TemporaryDirectory() as folder:
        return Tokenizer(write_tokenizer(Path(folder)))


def manifest(task: str, max_tokens: int = 16, **facts: Any) -> Manifest:
    inputs = Inputs(max_tokens, token_types=True, mask_token="[MASK]")
    facts = {"inputs": inputs, "scores": "softmax"} | facts
    return Manifest("tiny", task, "bert", Source("tiny"), Quantization("onnx-fp32"), MadeBy("test"), **facts)


def classifier(
    task: str,
    head: Callable[[list[int], list[int]], Any],
    max_tokens: int = 16,
    options: BatchOptions | None = None,
    names: Sequence[str] = (),
    **facts: Any,
) -> Classifier:
    """A model of `task` whose scores are what `head` gives for the ids and token types of a row."""
    return Classifier(FakeHead(head), tokenizer(), manifest(task, max_tokens, **facts), options, names)


def words(ids: Sequence[int]) -> list[str]:
    return [VOCABULARY[i] for i in ids]


def graph(nodes: list[Any], inputs: dict[str, tuple[int, list[Any]]], output: list[Any], **tables: Any) -> bytes:
    """An ONNX model with the output "y" and constants by name."""
    ends = [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()]
    constants = [numpy_helper.from_array(np.asarray(value), name) for name, value in tables.items()]
    end = helper.make_tensor_value_info("y", TensorProto.FLOAT, output)
    body = helper.make_graph(nodes, "g", ends, [end], constants)
    model: onnx.ModelProto = helper.make_model(body, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return model.SerializeToString()


IDS = {"input_ids": (TensorProto.INT64, ["batch", "length"])}
MASK = {"attention_mask": (TensorProto.INT64, ["batch", "length"])}
PLACES = {"positions": (TensorProto.INT64, ["masks", 2])}
PIXELS = {"pixel_values": (TensorProto.FLOAT, ["batch", 3, "height", "width"])}


def looked_up(table: np.ndarray, *, pooled: bool) -> bytes:
    """A row of `table` for each token; `pooled`: the sum of those of a text."""
    name = "rows" if pooled else "y"
    nodes = [helper.make_node("Gather", ["table", "input_ids"], [name])]
    inputs = IDS | MASK if pooled else IDS
    if not pooled:
        return graph(nodes, inputs, ["batch", "length", table.shape[1]], table=table.astype(np.float32))
    nodes += [
        helper.make_node("Cast", ["attention_mask"], ["there"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["there", "last"], ["each"]),
        helper.make_node("Mul", ["rows", "each"], ["known"]),
        helper.make_node("ReduceSum", ["known", "one"], ["y"], keepdims=0),
    ]
    tables = {"table": table.astype(np.float32), "last": np.array([-1]), "one": np.array([1])}
    return graph(nodes, inputs, ["batch", table.shape[1]], **tables)


def next_words(table: np.ndarray) -> bytes:
    """fill-mask: the scores of a mask are the row of `table` of the token before it."""
    nodes = [
        helper.make_node("Sub", ["positions", "back"], ["places"]),
        helper.make_node("GatherND", ["input_ids", "places"], ["before"]),
        helper.make_node("Gather", ["table", "before"], ["y"]),
    ]
    inputs = IDS | PLACES
    return graph(nodes, inputs, ["masks", table.shape[1]], table=table.astype(np.float32), back=np.array([0, 1]))


def colours(matrix: np.ndarray) -> bytes:
    """Pictures: the mean of each colour, times `matrix`, (3, outputs)."""
    nodes = [
        helper.make_node("ReduceMean", ["pixel_values", "sides"], ["means"], keepdims=0),
        helper.make_node("MatMul", ["means", "matrix"], ["y"]),
    ]
    tables = {"sides": np.array([2, 3]), "matrix": matrix.astype(np.float32)}
    return graph(nodes, PIXELS, ["batch", matrix.shape[1]], **tables)


def write_package(name: str, task: str, files: dict[str, bytes], *, has_tokenizer: bool = True, **facts: Any) -> Path:
    """A package in the store; `facts` are fields of the manifest."""
    folder = paths.store() / name
    folder.mkdir(parents=True)
    for file, content in files.items():
        (folder / file).write_bytes(content)
    if has_tokenizer:
        write_tokenizer(folder)
    made = Manifest(name, task, "bert", Source("tiny"), Quantization("onnx-fp32"), MadeBy("test"), **facts)
    package.write_manifest(folder, made)
    return folder


def table(**scores: Sequence[float]) -> np.ndarray:
    """Rows for some words of the vocabulary, zeros for the others. "_" stands for [MASK]."""
    width = len(next(iter(scores.values())))
    found = np.zeros((len(VOCABULARY), width), np.float32)
    for word, row in scores.items():
        found[ID[word]] = row
    return found


def graph_of_lengths(pad_id: int) -> bytes:
    """Texts: how many places there are, and how many of them hold `pad_id`."""
    nodes = [
        helper.make_node("Equal", ["input_ids", "pad"], ["same"]),
        helper.make_node("Cast", ["same"], ["padding"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["padding", "one"], ["b"], keepdims=1),
        helper.make_node("Mul", ["padding", "zero"], ["zeros"]),
        helper.make_node("Add", ["zeros", "unit"], ["ones"]),
        helper.make_node("ReduceSum", ["ones", "one"], ["a"], keepdims=1),
        helper.make_node("Concat", ["a", "b"], ["y"], axis=1),
    ]
    tables = {"pad": np.int64(pad_id), "one": np.array([1]), "zero": np.float32(0), "unit": np.float32(1)}
    return graph(nodes, IDS, ["batch", 2], **tables)
