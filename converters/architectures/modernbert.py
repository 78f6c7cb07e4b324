"""ModernBERT (Warner et al. 2024): pre-norm, rotary positions, windows in two of three layers, GEGLU."""

from collections.abc import Callable
from dataclasses import replace

from converters.architectures import Config, GGUFArchitecture, Key, Module, Value
from converters.architectures._encoder import IGNORED
from converters.encoder import Encoder, Head

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


_ONLY = {
    "attention_bias": (False,),
    "mlp_bias": (False,),
    "norm_bias": (False,),
    "classifier_bias": (False,),
    "hidden_activation": ("gelu", "silu"),
    "classifier_activation": ("gelu",),
    "classifier_pooling": ("cls", "mean"),
    "position_embedding_type": ("absolute", "sans_pos"),
}

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
    only=_ONLY,
    defaults={"max_position_embeddings": 8192},
    encoder=True,
)


def _is_global(config: Config, layer: int) -> bool:
    return layer % config.integer("global_attn_every_n_layers") == 0


def _rotary(config: Config, layer: int) -> float:
    kind = ("full_attention", "global_rope_theta", 160000.0)
    return _base(*(kind if _is_global(config, layer) else ("sliding_attention", "local_rope_theta", 10000.0)))(config)


def _window(config: Config, layer: int) -> float:
    return 0 if _is_global(config, layer) else config.integer("local_attention") // 2


_TOKENS = Head("tokens", ("classifier",), dense="head.dense", activation="gelu", norm="head.norm")

ONNX = Encoder(
    sizes={
        "hidden": "hidden_size",
        "layers": "num_hidden_layers",
        "heads": "num_attention_heads",
        "feed_forward": "intermediate_size",
        "epsilon": "norm_eps",
        "activation": "hidden_activation",
        "vocabulary": "vocab_size",
        "positions": "max_position_embeddings",
    },
    tensors={
        "words": "embeddings.tok_embeddings",
        "embedding_norm": "embeddings.norm",
        "qkv": _LAYER + "attn.Wqkv",
        "attention_output": _LAYER + "attn.Wo",
        "attention_norm": _LAYER + "attn_norm",
        "gate_up": _LAYER + "mlp.Wi",
        "down": _LAYER + "mlp.Wo",
        "output_norm": _LAYER + "mlp_norm",
        "final_norm": "final_norm",
    },
    defaults={
        "norm_eps": 1e-5, "hidden_activation": "gelu", "max_position_embeddings": 8192, "local_attention": 128,
        "global_attn_every_n_layers": 3,
    },
    prefixes=("", "model."),
    norm="pre",
    unbiased=frozenset(
        "embedding_norm qkv attention_output attention_norm gate_up down output_norm final_norm".split()
    ),
    unnormed=(0,),
    rotary=_rotary,
    window=_window,
    pooling="cls",
    only={**_ONLY, "classifier_activation": ("gelu",), "decoder_bias": (True,)},
    heads={
        "fill-mask": replace(_TOKENS, pool="masked", output=("decoder",), tied=True, bias="decoder.bias"),
        "classify": replace(_TOKENS, pool="classifier_pooling"),
        "token-classify": _TOKENS,
        "question-answering": _TOKENS,
    },
)  # fmt: skip
