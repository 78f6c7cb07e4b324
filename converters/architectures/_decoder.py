"""What decoder families share: sizes, rotary positions and the modules of a Llama-like block, as data.

Keys are those that llama.cpp reads (src/llama-arch.cpp). A family takes the rows that fit and adds its own.
"""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from converters.architectures import Config, Key, Module, Value
from converters.checkpoint import Array
from converters.operations import INTERLEAVE_K, INTERLEAVE_Q, KEEP, PLUS_ONE, Operation

_LINEAR, _LLAMA3, _YARN, _LONG = "linear", "llama3", "yarn", "longrope"
_YARN_FIXED = {"beta_fast": 32, "beta_slow": 1, "truncate": True}  # llama.cpp's graphs take no others
IGNORED = (r"rotary_emb\.", r"\.masked_bias$", r"\.attn\.bias$", r"\.attention\.bias$")


def head_dim(config: Config) -> int:
    return config.integer("head_dim", config.integer("hidden_size") // config.integer("num_attention_heads"))


def rotary(config: Config) -> int:
    """Dimensions of each head that are rotated."""
    share = _rope(config).number("partial_rotary_factor", config.number("partial_rotary_factor", 1.0))
    return int(head_dim(config) * share)


def context(config: Config) -> int:
    """The trained length. llama.cpp's graphs of these families look at everything, so a sliding window ends it."""
    length = config.integer("max_position_embeddings")
    window = config.get("sliding_window") if config.get("use_sliding_window", True) else None
    return length if window is None else min(length, config.integer("sliding_window"))


def _rope(config: Config) -> Config:
    """Settings of the rotary positions: `rope_scaling`, or `rope_parameters` of newer files."""
    name = "rope_scaling" if config.get("rope_scaling") is not None else "rope_parameters"
    section = config.section(name)
    return section.section("full_attention") if section.get("full_attention") is not None else section


def _rope_type(config: Config) -> str:
    rope = _rope(config)
    kind = str(rope.get("rope_type", rope.get("type", "default")))
    kind = {"su": _LONG}.get(kind, kind)
    if kind not in ("default", _LINEAR, _LLAMA3, _YARN, _LONG):
        raise config.unsupported(f"rope type {kind[:40]!r} is not known", "known: linear, llama3, yarn, longrope")
    for key, value in _YARN_FIXED.items() if kind == _YARN else ():
        if rope.get(key, value) != value:
            raise config.unsupported(f"{key} of yarn is {rope.get(key)!r}; llama.cpp's graph has {value!r}")
    return kind


def scalings(*kinds: str) -> Callable[[Config], None]:
    """A check: the graph knows no rope scaling but `kinds`."""

    def check(config: Config) -> None:
        kind = _rope_type(config)
        if kind not in ("default", *kinds):
            raise config.unsupported(f"rope type {kind!r}; llama.cpp's graph of this family has {', '.join(kinds)}")

    return check


def whole_heads(config: Config) -> None:
    """A check: the graph rotates all of each head."""
    if rotary(config) != head_dim(config):
        raise config.unsupported("rotary positions on a part of each head; llama.cpp's graph rotates all of it")


def square(config: Config) -> None:
    """A check: the graph wants the heads together as wide as the model."""
    width, heads = config.integer("hidden_size"), config.integer("num_attention_heads")
    if heads * head_dim(config) != width:
        why = (
            f"{heads} heads of {head_dim(config)} on a width of {width}; llama.cpp's graph needs heads as wide as that"
        )
        raise config.unsupported(why)


def checks(*each: Callable[[Config], None]) -> Callable[[Config], None]:
    """One check of several."""

    def check(config: Config) -> None:
        for one in each:
            one(config)

    return check


plain_rotary = checks(scalings(_LINEAR, _YARN), whole_heads)  # scalings that need no tensor of factors


def rope_base(config: Config) -> float:
    return _rope(config).number("rope_theta", config.number("rope_theta", 10000.0))


def _scaling_type(config: Config) -> Value | None:
    kind = _rope_type(config)
    return kind if kind in (_LINEAR, _YARN, _LONG) else None  # llama3 is a tensor of factors


def _scaling_factor(config: Config) -> Value | None:
    return _rope(config).number("factor") if _rope_type(config) in (_LINEAR, _YARN) else None


def _original_context(config: Config) -> Value | None:
    if _rope_type(config) not in (_YARN, _LONG):
        return None
    whole = config.get("original_max_position_embeddings", config.integer("max_position_embeddings"))
    return _rope(config).integer("original_max_position_embeddings", whole)


def _attention_factor(config: Config) -> Value | None:
    """What the rotated vectors are multiplied with, beyond what llama.cpp does by itself."""
    kind, rope = _rope_type(config), _rope(config)
    given = rope.get("attention_factor")
    if kind == _YARN:
        factor = rope.number("factor")
        mscale, all_dims = rope.number("mscale", 0.0), rope.number("mscale_all_dim", 0.0)
        wanted = _magnitude(factor, mscale) / _magnitude(factor, all_dims) if mscale and all_dims else None
        wanted = float(given) if given else wanted
        return None if wanted is None else wanted / _magnitude(factor, 1.0)
    if kind != _LONG:
        return None
    original = _original_context(config)
    assert isinstance(original, int)
    scale = config.integer("max_position_embeddings") / original
    return float(given) if given else math.sqrt(1 + math.log(scale) / math.log(original)) if scale > 1 else 1.0


def _magnitude(factor: float, weight: float) -> float:
    """YaRN's temperature (Peng et al. 2023, equation 22)."""
    return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0


def rope_tensors(config: Config) -> dict[str, Array]:
    """Factors of each rotary frequency, float32 (rotary / 2,): of Llama 3 ("rope_freqs") or of longrope (two)."""
    kind, rope = _rope_type(config), _rope(config)
    if kind == _LLAMA3:
        return {"rope_freqs.weight": _llama3_factors(config, rope)}
    if kind != _LONG:
        return {}
    found = {}
    for name in ("long", "short"):
        factors = rope.get(f"{name}_factor")
        if not isinstance(factors, list) or len(factors) != rotary(config) // 2:
            raise config.unsupported(f"{name}_factor does not have {rotary(config) // 2} numbers", "check config.json")
        found[f"rope_factors_{name}.weight"] = np.array(factors, np.float32)
    return found


def _llama3_factors(config: Config, rope: Config) -> Array:
    """Long wavelengths are stretched, short ones kept, those between interpolated (Llama 3.1's scaling)."""
    dim = rotary(config)
    factor = rope.number("factor", 8.0)
    low, high = rope.number("low_freq_factor", 1.0), rope.number("high_freq_factor", 4.0)
    original = rope.integer("original_max_position_embeddings", 8192)
    wavelength = 2 * math.pi * rope_base(config) ** (np.arange(0, dim, 2, dtype=np.float64) / dim)
    smooth = (original / wavelength - low) / (high - low)
    between = 1 / ((1 - smooth) / factor + smooth)
    factors = np.where(wavelength < original / high, 1.0, np.where(wavelength > original / low, factor, between))
    return factors.astype(np.float32)


def _kv_heads(config: Config) -> int:
    return config.integer("num_key_value_heads", config.integer("num_attention_heads"))


SIZES = (
    Key("block_count", "num_hidden_layers"),
    Key("embedding_length", "hidden_size"),
    Key("feed_forward_length", "intermediate_size"),
    Key("attention.head_count", "num_attention_heads"),
    Key("attention.head_count_kv", _kv_heads),
    Key("attention.key_length", head_dim),
    Key("attention.value_length", head_dim),
    Key("attention.layer_norm_rms_epsilon", "rms_norm_eps", 1e-6, float),
    Key("vocab_size", "vocab_size"),
)
CONTEXT = Key("context_length", context)
FULL_CONTEXT = Key("context_length", "max_position_embeddings")
ROPE = (
    Key("rope.dimension_count", rotary),
    Key("rope.freq_base", rope_base),
    Key("rope.scaling.type", _scaling_type),
    Key("rope.scaling.factor", _scaling_factor),
    Key("rope.scaling.original_context_length", _original_context),
    Key("rope.scaling.attn_factor", _attention_factor),
)
STRIP = ("language_model.model.", "model.language_model.", "language_model.", "model.")


def unbiased(modules: tuple[Module, ...]) -> tuple[Module, ...]:
    """The same without biases, where llama.cpp's graph adds none."""
    return tuple(replace(module, bias=False) for module in modules)


def embeddings(norm: Operation = KEEP) -> tuple[Module, ...]:
    return unbiased(
        (
            Module("token_embd", "embed_tokens", "vh"),
            Module("output_norm", "norm", "h", norm),
            Module("output", "lm_head", "vh", optional=True),
        )
    )


def attention(q: Operation = KEEP, k: Operation = KEEP) -> tuple[Module, ...]:
    """With biases on query, key and value, where the checkpoint has them."""
    return (
        Module("blk.{i}.attn_q", "layers.{i}.self_attn.q_proj", "qh", q),
        Module("blk.{i}.attn_k", "layers.{i}.self_attn.k_proj", "kh", k),
        Module("blk.{i}.attn_v", "layers.{i}.self_attn.v_proj", "kh"),
        Module("blk.{i}.attn_output", "layers.{i}.self_attn.o_proj", "hq", bias=False),
    )


def head_norms(operation: Operation = KEEP) -> tuple[Module, ...]:
    return (
        Module("blk.{i}.attn_q_norm", "layers.{i}.self_attn.q_norm", "d", operation, bias=False),
        Module("blk.{i}.attn_k_norm", "layers.{i}.self_attn.k_norm", "d", operation, bias=False),
    )


BIASED_GATED = (
    Module("blk.{i}.ffn_gate", "layers.{i}.mlp.gate_proj", "fh"),
    Module("blk.{i}.ffn_up", "layers.{i}.mlp.up_proj", "fh"),
    Module("blk.{i}.ffn_down", "layers.{i}.mlp.down_proj", "hf"),
)
GATED = unbiased(BIASED_GATED)
NORMS = unbiased(
    (
        Module("blk.{i}.attn_norm", "layers.{i}.input_layernorm", "h"),
        Module("blk.{i}.ffn_norm", "layers.{i}.post_attention_layernorm", "h"),
    )
)
GEMMA_NORMS = unbiased(
    (
        Module("blk.{i}.attn_norm", "layers.{i}.input_layernorm", "h", PLUS_ONE),
        Module("blk.{i}.post_attention_norm", "layers.{i}.post_attention_layernorm", "h", PLUS_ONE),
        Module("blk.{i}.ffn_norm", "layers.{i}.pre_feedforward_layernorm", "h", PLUS_ONE),
        Module("blk.{i}.post_ffw_norm", "layers.{i}.post_feedforward_layernorm", "h", PLUS_ONE),
    )
)
INTERLEAVED = attention(INTERLEAVE_Q, INTERLEAVE_K)  # llama.cpp rotates neighbours in these families
BIASED_INTERLEAVED = tuple(replace(module, bias=True) for module in INTERLEAVED)
