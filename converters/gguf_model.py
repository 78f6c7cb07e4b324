"""A post-norm encoder as a GGUF file for llama.cpp, straight from arrays.

Matrices are stored as the recipe says where their rows fit its blocks, else as f16; norms, biases and positions stay
f32. Tensor names and keys are those that llama.cpp's `bert` graph loads (src/models/bert.cpp). Format: docs/gguf.md.
"""

from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np
from numpy.typing import NDArray

from converters.architectures import Encoder, EncoderConfig, Weights
from converters.checkpoint import Array, Checkpoint
from converters.gguf_vocab import Vocabulary, wordpiece
from edgemm.errors import BadFile, Unsupported, disk_errors

_POOLING = {"mean": 1, "cls": 2}  # enum llama_pooling_type
_FILE_TYPES = {"F16": 1, "Q8_0": 7}  # enum llama_ftype
_BLOCKS = {"F16": 1, "Q8_0": 32}
_MATRICES = {
    "query": "attn_q",
    "key": "attn_k",
    "value": "attn_v",
    "attention_output": "attn_output",
    "up": "ffn_up",
    "down": "ffn_down",
}
_NORMS = {"attention_norm": "attn_output_norm", "output_norm": "layer_output_norm"}


def write_encoder(
    path: Path, checkpoint: Checkpoint, row: Encoder, sizes: EncoderConfig, weights: Weights, storage: str
) -> None:
    """Write the model to `path`. `storage` is "F16" or "Q8_0"."""
    if sizes.activation != "gelu":
        raise Unsupported(
            checkpoint.folder, f"llama.cpp's {row.gguf} graph has no {sizes.activation}", "use --to onnx-int8"
        )
    vocabulary = wordpiece(checkpoint.tokenizer)
    if len(vocabulary.tokens) != sizes.vocabulary:
        why = f"{len(vocabulary.tokens)} tokens, config.json says {sizes.vocabulary}"
        raise BadFile(checkpoint.tokenizer, why, "download the checkpoint again")
    with disk_errors(path):
        writer = gguf.GGUFWriter(path, row.gguf)
        try:
            _settings(writer, row.gguf, checkpoint, sizes, storage)
            _vocabulary(writer, vocabulary, sizes)
            for name, array in _tensors(weights, sizes):
                _add(writer, name, array, storage)
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
        finally:
            writer.close()


def _settings(writer: gguf.GGUFWriter, arch: str, checkpoint: Checkpoint, sizes: EncoderConfig, storage: str) -> None:
    writer.add_name(checkpoint.folder.name)
    writer.add_file_type(_FILE_TYPES[storage])
    writer.add_quantization_version(2)
    numbers = {
        "block_count": sizes.layers,
        "context_length": sizes.positions,
        "embedding_length": sizes.hidden,
        "feed_forward_length": sizes.feed_forward,
        "attention.head_count": sizes.heads,
        "pooling_type": _POOLING[checkpoint.pooling],
    }
    for key, value in numbers.items():
        writer.add_uint32(f"{arch}.{key}", value)
    writer.add_float32(f"{arch}.attention.layer_norm_epsilon", sizes.epsilon)
    writer.add_bool(f"{arch}.attention.causal", False)


def _vocabulary(writer: gguf.GGUFWriter, vocabulary: Vocabulary, sizes: EncoderConfig) -> None:
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    writer.add_uint32("tokenizer.ggml.token_type_count", sizes.token_types)
    for key, value in vocabulary.keys.items():
        if isinstance(value, bool):
            writer.add_bool(f"tokenizer.ggml.{key}", value)
        else:
            writer.add_uint32(f"tokenizer.ggml.{key}", int(value))


def _tensors(weights: Weights, sizes: EncoderConfig) -> Iterator[tuple[str, Array]]:
    """(GGUF name, array in numpy order), one at a time."""
    yield "token_embd.weight", weights.array("words")
    yield "position_embd.weight", weights.array("positions")
    yield "token_types.weight", weights.array("types")
    for part in ("weight", "bias"):
        yield f"token_embd_norm.{part}", weights.array("embedding_norm", 0, part)
    for layer in range(sizes.layers):
        for role, name in (_MATRICES | _NORMS).items():
            for part in ("weight", "bias"):
                yield f"blk.{layer}.{name}.{part}", weights.array(role, layer, part)


def _add(writer: gguf.GGUFWriter, name: str, array: Array, storage: str) -> None:
    stays = array.ndim == 1 or name.startswith(("position_embd", "token_types")) or "norm" in name
    if stays:
        writer.add_tensor(name, array)
        return
    kind = storage if array.shape[-1] % _BLOCKS[storage] == 0 else "F16"
    quantized: NDArray[np.generic] = gguf.quants.quantize(array, gguf.GGMLQuantizationType[kind])
    writer.add_tensor(name, quantized, raw_dtype=gguf.GGMLQuantizationType[kind])
