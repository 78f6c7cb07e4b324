"""GPT-NeoX and Pythia (Black et al. 2022): parallel residual, rotary positions on a part of each head."""

from converters.architectures import Config, GGUFArchitecture, Key, Module
from converters.operations import SPLIT_HEADS


def _rotary(config: Config) -> int:
    share = config.number("rotary_pct", config.section("rope_parameters").number("partial_rotary_factor", 0.25))
    return int(config.integer("hidden_size") // config.integer("num_attention_heads") * share)


def _base(config: Config) -> float:
    newer = config.section("rope_parameters").number("rope_theta", 10000)
    return config.number("rotary_emb_base", config.number("rope_theta", newer))


def _check(config: Config) -> None:
    kind = config.section("rope_parameters").get("rope_type", "default")
    if kind != "default":
        raise config.unsupported(f"rope type {str(kind)[:40]!r}; llama.cpp's graph of this family has none")


def _parallel(config: Config) -> bool:
    return bool(config.get("use_parallel_residual", True))


GGUF = GGUFArchitecture(
    name="gptneox",
    keys=(
        Key("block_count", "num_hidden_layers"),
        Key("context_length", "max_position_embeddings"),
        Key("embedding_length", "hidden_size"),
        Key("feed_forward_length", "intermediate_size"),
        Key("attention.head_count", "num_attention_heads"),
        Key("attention.layer_norm_epsilon", "layer_norm_eps", 1e-5, float),
        Key("rope.dimension_count", _rotary),
        Key("rope.freq_base", _base),
        Key("use_parallel_residual", _parallel),
    ),
    modules=(
        Module("token_embd", "embed_in", "vh"),
        Module("output_norm", "final_layer_norm", "h"),
        Module("output", "embed_out", "vh", optional=True),
        Module("blk.{i}.attn_norm", "layers.{i}.input_layernorm", "h"),
        Module("blk.{i}.attn_qkv", "layers.{i}.attention.query_key_value", "Qh", SPLIT_HEADS),
        Module("blk.{i}.attn_output", "layers.{i}.attention.dense", "hh"),
        Module("blk.{i}.ffn_norm", "layers.{i}.post_attention_layernorm", "h"),
        Module("blk.{i}.ffn_up", "layers.{i}.mlp.dense_h_to_4h", "fh"),
        Module("blk.{i}.ffn_down", "layers.{i}.mlp.dense_4h_to_h", "hf"),
    ),
    strip=("gpt_neox.",),
    ignored=(r"rotary_emb\.", r"\.attention\.(bias|masked_bias)$"),
    only={
        "hidden_act": ("gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh"),
        "rope_scaling": (None,),
        "attention_bias": (True,),
    },
    check=_check,
    defaults={"max_position_embeddings": 2048},
    untied=True,
)
