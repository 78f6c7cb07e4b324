"""Phi-3, 3.5 and 4 (Microsoft 2024): query, key and value in one matrix, gate and up in another; longrope."""

from converters.architectures import GGUFArchitecture, Module
from converters.architectures._decoder import (
    CONTEXT,
    IGNORED,
    NORMS,
    ROPE,
    SIZES,
    STRIP,
    checks,
    embeddings,
    rope_tensors,
    scalings,
    square,
    unbiased,
)

GGUF = GGUFArchitecture(
    name="phi3",
    keys=(*SIZES, CONTEXT, *ROPE),
    modules=(
        *embeddings(),
        *NORMS,
        *unbiased(
            (
                Module("blk.{i}.attn_qkv", "layers.{i}.self_attn.qkv_proj", "Qh"),
                Module("blk.{i}.attn_output", "layers.{i}.self_attn.o_proj", "hq"),
                Module("blk.{i}.ffn_up", "layers.{i}.mlp.gate_up_proj", "Fh"),
                Module("blk.{i}.ffn_down", "layers.{i}.mlp.down_proj", "hf"),
            )
        ),
    ),
    strip=STRIP,
    ignored=IGNORED,
    extra=rope_tensors,
    check=checks(scalings("linear", "yarn", "longrope"), square),
    only={"hidden_act": ("silu",)},
    defaults={"max_position_embeddings": 4096, "rms_norm_eps": 1e-5},
)
