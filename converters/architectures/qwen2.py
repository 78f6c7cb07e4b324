"""Qwen 2 and 2.5 (Qwen team 2024): Llama's block with biases on query, key and value, and halves rotated."""

from converters.architectures import GGUFArchitecture
from converters.architectures._decoder import (
    CONTEXT,
    GATED,
    IGNORED,
    NORMS,
    ROPE,
    SIZES,
    STRIP,
    attention,
    checks,
    embeddings,
    plain_rotary,
    square,
)

GGUF = GGUFArchitecture(
    name="qwen2",
    keys=(*SIZES, CONTEXT, *ROPE),
    modules=(*embeddings(), *attention(), *GATED, *NORMS),
    strip=STRIP,
    ignored=IGNORED,
    check=checks(plain_rotary, square),
    only={"hidden_act": ("silu",)},
    defaults={"max_position_embeddings": 32768, "use_sliding_window": False},
)
