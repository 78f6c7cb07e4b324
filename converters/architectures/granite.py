"""Granite 3 (IBM 2024): Llama's block with four constant multipliers."""

from dataclasses import replace

from converters.architectures import Key, llama

GGUF = replace(
    llama.GGUF,
    name="granite",
    keys=(
        *llama.GGUF.keys,
        Key("embedding_scale", "embedding_multiplier", 1.0, float),
        Key("attention.scale", "attention_multiplier", 1.0, float),
        Key("residual_scale", "residual_multiplier", 1.0, float),
        Key("logit_scale", "logits_scaling", 1.0, float),
    ),
)
