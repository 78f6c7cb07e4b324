"""OLMo 2 (AI2 2024): norms after each part instead of before, and over all heads of query and key at once."""

from converters.architectures import GGUFArchitecture, Module
from converters.architectures._decoder import (
    CONTEXT,
    GATED,
    IGNORED,
    ROPE,
    SIZES,
    STRIP,
    attention,
    checks,
    embeddings,
    plain_rotary,
    square,
    unbiased,
)

GGUF = GGUFArchitecture(
    name="olmo2",
    keys=(*SIZES, CONTEXT, *ROPE),
    modules=(
        *embeddings(),
        *attention(),
        *GATED,
        *unbiased(
            (
                Module("blk.{i}.attn_q_norm", "layers.{i}.self_attn.q_norm", "q"),
                Module("blk.{i}.attn_k_norm", "layers.{i}.self_attn.k_norm", "k"),
                Module("blk.{i}.post_attention_norm", "layers.{i}.post_attention_layernorm", "h"),
                Module("blk.{i}.post_ffw_norm", "layers.{i}.post_feedforward_layernorm", "h"),
            )
        ),
    ),
    strip=STRIP,
    ignored=IGNORED,
    check=checks(plain_rotary, square),
    only={"hidden_act": ("silu",)},
    defaults={"max_position_embeddings": 2048, "rms_norm_eps": 1e-5},
    untied=True,
)
