"""Llama 1 to 3 (Touvron et al. 2023), and what is built like it: SmolLM2, TinyLlama, Yi, DeepSeek's dense models."""

from converters.architectures import GGUFArchitecture
from converters.architectures._decoder import (
    BIASED_GATED,
    BIASED_INTERLEAVED,
    CONTEXT,
    IGNORED,
    NORMS,
    ROPE,
    SIZES,
    STRIP,
    embeddings,
    rope_tensors,
    whole_heads,
)

GGUF = GGUFArchitecture(
    name="llama",
    keys=(*SIZES, CONTEXT, *ROPE),
    modules=(*embeddings(), *BIASED_INTERLEAVED, *BIASED_GATED, *NORMS),
    strip=STRIP,
    ignored=IGNORED,
    extra=rope_tensors,
    only={"hidden_act": ("silu",), "pretraining_tp": (1, 2, 4)},
    check=whole_heads,
    defaults={"max_position_embeddings": 2048},
)
