"""ModernBERT (Warner et al. 2024): pre-norm, rotary positions, windows in two of three layers, GEGLU."""

from collections.abc import Callable

from converters.architectures import Config, GGUFArchitecture, Key, Module, Value
from converters.architectures._encoder import IGNORED

_LAYER = "layers.{i}."


def _none(_: Config) -> Value:
    return "none"


def _activation(config: Config) -> Value:
    return str(config.get("hidden_activation", "gelu"))


def _base(kind: str, older: str, default: float) -> Callable[[Config], float]:
    """The rotary base of one kind of layer: a key of its own, or in `rope_parameters` of newer files."""

    def read(config: Config) -> float:
        newer = config.section("rope_parameters").section(kind).number("rope_theta", default)
        return config.number(older, newer)

    return read


def _classifier_pooling(config: Config) -> Value:
    """Needed always: llama.cpp takes the mean where nothing is said, transformers the first token."""
    return {"mean": 1, "cls": 2}[str(config.get("classifier_pooling", "cls"))]


GGUF = GGUFArchitecture(
    name="modern-bert",
    keys=(
        Key("block_count", "num_hidden_layers"),
        Key("embedding_length", "hidden_size"),
        Key("feed_forward_length", "intermediate_size"),
        Key("attention.head_count", "num_attention_heads"),
        Key("attention.layer_norm_epsilon", "norm_eps", 1e-5, float),
        Key("context_length", "max_position_embeddings"),
        Key("attention.sliding_window", "local_attention", 128),
        Key("attention.sliding_window_pattern", "global_attn_every_n_layers", 3),
        Key("rope.freq_base", _base("full_attention", "global_rope_theta", 160000.0)),
        Key("rope.freq_base_swa", _base("sliding_attention", "local_rope_theta", 10000.0)),
        Key("rope.scaling.type", _none),
        Key("vocab_size", "vocab_size"),
        Key("hidden_activation", _activation),
        Key("classifier.pooling_type", _classifier_pooling),
    ),
    modules=(
        Module("token_embd", "embeddings.tok_embeddings", "vh"),
        Module("token_embd_norm", "embeddings.norm", "h"),
        Module("output_norm", "final_norm", "h"),
        Module("blk.{i}.attn_norm", _LAYER + "attn_norm", "h", optional=True),  # the first layer has none
        Module("blk.{i}.attn_qkv", _LAYER + "attn.Wqkv", "Qh"),
        Module("blk.{i}.attn_output", _LAYER + "attn.Wo", "hh"),
        Module("blk.{i}.ffn_norm", _LAYER + "mlp_norm", "h"),
        Module("blk.{i}.ffn_up", _LAYER + "mlp.Wi", "Fh"),
        Module("blk.{i}.ffn_down", _LAYER + "mlp.Wo", "hf"),
    ),
    strip=("model.",),
    ignored=(*IGNORED, r"^head\.", r"^decoder\."),
    heads={
        "classify": (
            Module("cls", "head.dense", "hh"),
            Module("cls.norm", "head.norm", "h"),
            Module("cls.output", "classifier", "ch"),
        )
    },
    only={
        "attention_bias": (False,),
        "mlp_bias": (False,),
        "norm_bias": (False,),
        "classifier_bias": (False,),
        "hidden_activation": ("gelu", "silu"),
        "classifier_activation": ("gelu",),
        "classifier_pooling": ("cls", "mean"),
        "position_embedding_type": ("absolute", "sans_pos"),
    },
    defaults={"max_position_embeddings": 8192},
    encoder=True,
)
