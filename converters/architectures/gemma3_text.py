"""Gemma 3 (Gemma team 2025), text part: five of six layers see a window; EmbeddingGemma sees both directions."""

from dataclasses import replace

from converters.architectures import Config, Key, Module, gemma2
from converters.architectures._decoder import (
    FULL_CONTEXT,
    GATED,
    GEMMA_NORMS,
    ROPE,
    SIZES,
    attention,
    checks,
    embeddings,
    head_norms,
    scalings,
    whole_heads,
)
from converters.operations import PLUS_ONE

_PATTERN = 6
_DENSE = (
    Module("dense_2", "2_Dense.linear", "xx", optional=True, bias=False),
    Module("dense_3", "3_Dense.linear", "xx", optional=True, bias=False),
)


def _bidirectional(config: Config) -> bool:
    return bool(config.get("use_bidirectional_attention", False))


def _name(config: Config) -> str:
    return "gemma-embedding" if _bidirectional(config) else "gemma3"


def _softcap(config: Config) -> float | None:
    return None if config.get("final_logit_softcapping") is None else config.number("final_logit_softcapping")


def _pattern(config: Config) -> int:
    """One layer of so many sees everything, the last one."""
    layers = config.get("layer_types")
    if layers is None:
        return config.integer("sliding_window_pattern", config.integer("_sliding_window_pattern", _PATTERN))
    full = [i for i, kind in enumerate(layers) if kind == "full_attention"]
    return full[0] + 1 if full else len(layers) + 1


def _local_base(config: Config) -> float:
    newer = config.section("rope_parameters").section("sliding_attention").number("rope_theta", 10000.0)
    return config.number("rope_local_base_freq", newer)


def _check(config: Config) -> None:
    checks(gemma2.check_scale, scalings("linear"), whole_heads)(config)
    layers, every = config.get("layer_types"), _pattern(config)
    if layers is not None and any(
        (kind == "full_attention") != (i % every == every - 1) for i, kind in enumerate(layers)
    ):
        raise config.unsupported("layer_types does not have a full layer at regular distances")
    if config.get("attn_logit_softcapping") is not None:
        raise config.unsupported("attn_logit_softcapping is set; llama.cpp's graph has none")


GGUF = replace(
    gemma2.GGUF,
    name=_name,
    keys=(
        *SIZES,
        FULL_CONTEXT,
        *ROPE,
        Key("attention.sliding_window", "sliding_window", 4096),
        Key("attention.sliding_window_pattern", _pattern),
        Key("rope.freq_base_swa", _local_base),
        Key("final_logit_softcapping", _softcap),
    ),
    modules=(*embeddings(PLUS_ONE), *attention(), *GATED, *GEMMA_NORMS, *head_norms(PLUS_ONE)),
    heads={"embed": _DENSE},
    only={"hidden_activation": ("gelu_pytorch_tanh",)},
    check=_check,
    defaults={
        "vocab_size": 262208,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "max_position_embeddings": 131072,
        "rope_theta": 1e6,
        "query_pre_attn_scalar": 256,
        "tie_word_embeddings": True,
    },
)
