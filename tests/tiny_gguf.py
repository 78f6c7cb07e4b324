"""A llama of two layers with random weights and a byte-level BPE vocabulary, as a GGUF of half a megabyte."""

import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np

TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
WIDTH, HEADS, KV_HEADS, FEED_FORWARD, LAYERS, CONTEXT = 64, 4, 2, 128, 2, 256
NORMAL_TYPE, CONTROL_TYPE = 1, 3


def byte_letters() -> list[str]:
    """GPT-2's printable stand-in for each byte, in the order of the bytes."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    spare = iter(range(256, 512))
    return [chr(b) if b in plain else chr(next(spare)) for b in range(256)]


def vocabulary() -> tuple[list[str], list[int], list[str]]:
    letters = byte_letters()
    merged = [letters[ord(a)] + letters[ord(b)] for a, b in ("th", "he", "in", "er", "an")]
    merges = [f"{m[0]} {m[1]}" for m in merged]
    tokens = CONTROL + letters + merged
    types = [CONTROL_TYPE] * len(CONTROL) + [NORMAL_TYPE] * (len(tokens) - len(CONTROL))
    return tokens, types, merges


def write(path: Path, changes: Mapping[str, Any] | None = None, template: str = TEMPLATE, seed: int = 0) -> Path:
    """Write the model to `path`. `changes` replaces numbers of the header by key (without "llama."); None drops one."""
    tokens, types, merges = vocabulary()
    writer = gguf.GGUFWriter(path, "llama")
    numbers: dict[str, Any] = {
        "block_count": LAYERS,
        "context_length": CONTEXT,
        "embedding_length": WIDTH,
        "feed_forward_length": FEED_FORWARD,
        "attention.head_count": HEADS,
        "attention.head_count_kv": KV_HEADS,
        "rope.dimension_count": WIDTH // HEADS,
        "attention.layer_norm_rms_epsilon": 1e-5,
        "rope.freq_base": 10000.0,
        "vocab_size": len(tokens),
    } | dict(changes or {})
    for key, value in numbers.items():
        if isinstance(value, float):
            writer.add_float32(f"llama.{key}", value)
        elif isinstance(value, list):
            writer.add_array(f"llama.{key}", value)
        elif value is not None:
            writer.add_uint32(f"llama.{key}", value)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(merges)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(False)
    if template:
        writer.add_chat_template(template)
    add_tensors(writer, len(tokens), np.random.default_rng(seed))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def add_tensors(writer: gguf.GGUFWriter, tokens: int, rng: np.random.Generator) -> None:
    kv = KV_HEADS * WIDTH // HEADS
    shapes = {"token_embd": (tokens, WIDTH), "output": (tokens, WIDTH)}
    for i in range(LAYERS):
        shapes |= {
            f"blk.{i}.attn_q": (WIDTH, WIDTH),
            f"blk.{i}.attn_k": (kv, WIDTH),
            f"blk.{i}.attn_v": (kv, WIDTH),
            f"blk.{i}.attn_output": (WIDTH, WIDTH),
            f"blk.{i}.ffn_gate": (FEED_FORWARD, WIDTH),
            f"blk.{i}.ffn_up": (FEED_FORWARD, WIDTH),
            f"blk.{i}.ffn_down": (WIDTH, FEED_FORWARD),
        }
    for name, shape in shapes.items():
        array = rng.normal(0, 0.2, shape).astype(np.float32)
        if name == "output":
            array[: len(CONTROL)] = 0  # never the likeliest: a greedy answer does not end by itself
        writer.add_tensor(f"{name}.weight", array)
    for name in ["output_norm", *(f"blk.{i}.{n}_norm" for i in range(LAYERS) for n in ("attn", "ffn"))]:
        writer.add_tensor(f"{name}.weight", np.ones(WIDTH, np.float32))


Mutation = Callable[[bytes, random.Random], bytes]


def truncate(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data))]


def flip_header(data: bytes, rng: random.Random) -> bytes:
    """Flip one to three bits of the first 8 kB: counts, keys, types, the vocabulary."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 3)):
        changed[rng.randrange(min(8192, len(data)))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def splice(data: bytes, rng: random.Random) -> bytes:
    """Overwrite four or eight bytes of the header with a number that software trips over."""
    changed = bytearray(data)
    width = rng.choice((4, 8))
    value = rng.choice((0, 1, 0xFF, 0x7FFFFFFF, 0xFFFFFFFF, (1 << 63) - 1, (1 << 64) - 1)) & ((1 << 8 * width) - 1)
    at = rng.randrange(4, min(8192, len(data)) - width)
    changed[at : at + width] = value.to_bytes(width, "little")
    return bytes(changed)


def flip_weights(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(8):
        changed[rng.randrange(len(data) // 2, len(data))] ^= 1 << rng.randrange(8)
    return bytes(changed)


MUTATIONS: tuple[Mutation, ...] = (truncate, flip_header, splice)
