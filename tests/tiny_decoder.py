"""A decoder of a few nodes whose next token is known by counting: made by hand, without torch.

The likeliest token after a text is the sum of all its ids, modulo the vocabulary, so that a cache that lost or doubled
a token shows at once; or it is what a table says of the last token alone.
"""

from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from edgemm.backends.ort_generator import LOGITS_FROM, DecoderFiles

END, START, STOP = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
CONTEXT = 256
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"


def tokenizer() -> Tokenizer:
    """A token for each byte, and three control tokens."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE({letter: i for i, letter in enumerate(letters)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(name, special=True) for name in (END, START, STOP)])
    return made


SIZE = tokenizer().get_vocab_size()


def ids(text: str) -> list[int]:
    return list(tokenizer().encode(text).ids)


def chain(text: str, last: int | None = None) -> NDArray[np.float32]:
    """A table by which each byte of `text` is followed by the next one; its bytes must differ. Then comes `last`."""
    table = np.zeros((SIZE, SIZE), np.float32)
    tokens = [*ids(text), tokenizer().token_to_id(END) if last is None else last]
    for token, following in pairwise(tokens):
        table[token, following] = 9
    return table


def write(folder: Path, table: NDArray[np.float32] | None = None, *, past: bool = True, counts: bool = True) -> Path:
    """`table`: logits by the last token, float32 (SIZE, SIZE); None: the sum of all ids decides.

    `past` False: the graph has no cache. `counts`: it computes logits from `LOGITS_FROM` on alone.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer().save(str(folder / "tokenizer.json"))
    onnx.save(_model(table, past=past, counts=counts), folder / "model.onnx")
    return folder


def files(folder: Path, **changes: object) -> DecoderFiles:
    settings = {"stop": (END,), "architecture": "tiny", **changes}
    return DecoderFiles(folder / "model.onnx", folder / "tokenizer.json", CONTEXT, **settings)  # type: ignore[arg-type]


def _model(table: NDArray[np.float32] | None, *, past: bool, counts: bool) -> onnx.ModelProto:
    places = np.arange(SIZE, dtype=np.float32)
    constants = {
        "shape": np.array([1, 1, -1, 1], np.int64),
        "flat": np.array([1, -1, 1], np.int64),
        "two": np.int64(2),
        "axis": np.array([1], np.int64),
        "end": np.array([1 << 40], np.int64),
        "zero": np.array([0], np.int64),
        "size": np.float32(SIZE),
        "places": places,
        "table": np.zeros((SIZE, SIZE), np.float32) if table is None else table,
        "weight": np.float32(table is None),
    }
    node = helper.make_node
    nodes = [
        node("Cast", ["input_ids"], ["floats"], to=TensorProto.FLOAT),
        node("Reshape", ["floats", "shape"], ["own"]),
        node("Concat", ["past_key_values.0.key", "own"], ["present.0.key"], axis=2),
        node("Concat", ["past_key_values.0.value", "own"], ["present.0.value"], axis=2),
        node("CumSum", ["present.0.key", "two"], ["sums"]),
        node("Reshape", ["sums", "flat"], ["every"]),
        node("Shape", ["past_key_values.0.key"], ["before"], start=2, end=3),
        node("Slice", ["every", "before", "end", "axis"], ["new"]),
        node("Slice", ["new", LOGITS_FROM if counts else "zero", "end", "axis"], ["wanted"]),
        node("Mod", ["wanted", "size"], ["next"], fmod=1),
        node("Sub", ["places", "next"], ["away"]),
        node("Abs", ["away"], ["distance"]),
        node("Mul", ["distance", "weight"], ["penalty"]),
        node("Gather", ["table", "input_ids"], ["known"]),
        node("Slice", ["known", LOGITS_FROM if counts else "zero", "end", "axis"], ["rows"]),
        node("Sub", ["rows", "penalty"], ["logits"]),
    ]
    info = helper.make_tensor_value_info
    inputs = [info("input_ids", TensorProto.INT64, [1, "n"])]
    inputs += [info(LOGITS_FROM, TensorProto.INT64, [1])] if counts else []
    kinds = [f"past_key_values.0.{kind}" for kind in ("key", "value")]
    inputs += [info(name, TensorProto.FLOAT, [1, 1, "past", 1]) for name in kinds if past]
    outputs = [info("logits", TensorProto.FLOAT, [1, "m", SIZE])]
    outputs += [info(f"present.0.{kind}", TensorProto.FLOAT, [1, 1, "all", 1]) for kind in ("key", "value")]
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    if not past:
        tensors += [numpy_helper.from_array(np.zeros((1, 1, 0, 1), np.float32), name) for name in kinds]
    graph = helper.make_graph(nodes, "decoder", inputs, outputs, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
