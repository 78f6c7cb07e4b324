"""Gemma 2 (Gemma team 2024): norms before and after each part, soft caps, a sliding window in every second layer."""

from converters.architectures import Config, GGUFArchitecture, Key
from converters.architectures._decoder import (
    FULL_CONTEXT,
    GATED,
    GEMMA_NORMS,
    IGNORED,
    ROPE,
    SIZES,
    STRIP,
    attention,
    checks,
    embeddings,
    head_dim,
    plain_rotary,
)
from converters.operations import PLUS_ONE

_LARGE = {46: 144.0, 62: 168.0}  # layers of the 27B models: llama.cpp scales their scores by width / heads


def check_scale(config: Config) -> None:
    """llama.cpp knows the scale of the attention scores from the size of the model."""
    expected = _LARGE.get(config.integer("num_hidden_layers"), float(head_dim(config)))
    scale = config.number("query_pre_attn_scalar", 256)
    if scale != expected:
        raise config.unsupported(f"query_pre_attn_scalar is {scale:g}; llama.cpp's graph needs {expected:g}")


GGUF = GGUFArchitecture(
    name="gemma2",
    keys=(
        *SIZES,
        FULL_CONTEXT,
        *ROPE,
        Key("attention.sliding_window", "sliding_window", 4096),
        Key("attn_logit_softcapping", "attn_logit_softcapping", 50.0, float),
        Key("final_logit_softcapping", "final_logit_softcapping", 30.0, float),
    ),
    modules=(*embeddings(PLUS_ONE), *attention(), *GATED, *GEMMA_NORMS),
    strip=STRIP,
    ignored=IGNORED,
    only={"hidden_activation": ("gelu_pytorch_tanh",), "tie_word_embeddings": (True,)},
    check=checks(check_scale, plain_rotary),
    defaults={
        "head_dim": 256,
        "num_key_value_heads": 4,
        "max_position_embeddings": 8192,
        "query_pre_attn_scalar": 256,
        "tie_word_embeddings": True,
    },
)
