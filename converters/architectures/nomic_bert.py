"""Nomic-BERT (Nussbaum et al. 2024): BERT with rotary positions, a gated feed-forward and no biases."""

from converters.architectures import Config, GGUFArchitecture, Key, Module
from converters.architectures._encoder import IGNORED, TOKEN_TYPES
from converters.encoder import Encoder

_LAYER = "encoder.layers.{i}."
_TRAINED = 2048  # longer positions are extrapolated by the checkpoint's own code, which is not run


def _context(config: Config) -> int:
    return min(_TRAINED, config.integer("n_positions", _TRAINED))


def _check(config: Config) -> None:
    if config.number("rotary_emb_fraction", 1.0) != 1.0:
        raise config.unsupported("rotary positions on a part of each head")


_ONLY = {
    "activation_function": ("swiglu",),
    "prenorm": (False,),
    "num_experts": (0, 1),
    "parallel_block": (False,),
    "use_rms_norm": (False,),
    "causal": (False,),
    "rotary_emb_interleaved": (False,),
}

GGUF = GGUFArchitecture(
    name="nomic-bert",
    keys=(
        Key("block_count", "n_layer"),
        Key("embedding_length", "n_embd"),
        Key("feed_forward_length", "n_inner"),
        Key("attention.head_count", "n_head"),
        Key("attention.layer_norm_epsilon", "layer_norm_epsilon", 1e-12, float),
        Key("context_length", _context),
        Key("rope.freq_base", "rotary_emb_base", 10000.0, float),
    ),
    modules=(
        Module("token_embd", "embeddings.word_embeddings", "vh"),
        TOKEN_TYPES,
        Module("token_embd_norm", "emb_ln", "h"),
        Module("blk.{i}.attn_qkv", _LAYER + "attn.Wqkv", "Qh"),
        Module("blk.{i}.attn_output", _LAYER + "attn.out_proj", "hh"),
        Module("blk.{i}.attn_output_norm", _LAYER + "norm1", "h"),
        Module("blk.{i}.ffn_up", _LAYER + "mlp.fc11", "fh", bias=False),
        Module("blk.{i}.ffn_gate", _LAYER + "mlp.fc12", "fh", bias=False),
        Module("blk.{i}.ffn_down", _LAYER + "mlp.fc2", "hf", bias=False),
        Module("blk.{i}.layer_output_norm", _LAYER + "norm2", "h"),
    ),
    strip=("bert.",),
    ignored=(*IGNORED, r"^pooler\.", r"rotary_emb\."),
    only=_ONLY,
    check=_check,
    encoder=True,
)


def _base(config: Config, _: int) -> float:
    return config.number("rotary_emb_base")


def _no_biases(config: Config) -> None:
    _check(config)
    for name in ("qkv_proj_bias", "mlp_fc1_bias", "mlp_fc2_bias"):
        if config.get(name, False):
            raise config.unsupported(f"{name}: biases")


ONNX = Encoder(
    sizes={
        "hidden": "n_embd",
        "layers": "n_layer",
        "heads": "n_head",
        "feed_forward": "n_inner",
        "epsilon": "layer_norm_epsilon",
        "activation": "activation",
        "vocabulary": "vocab_size",
        "positions": "n_positions",
        "token_types": "type_vocab_size",
    },
    tensors={
        "words": "embeddings.word_embeddings",
        "types": "embeddings.token_type_embeddings",
        "embedding_norm": "emb_ln",
        "qkv": _LAYER + "attn.Wqkv",
        "attention_output": _LAYER + "attn.out_proj",
        "attention_norm": _LAYER + "norm1",
        "up": _LAYER + "mlp.fc11",
        "gate": _LAYER + "mlp.fc12",
        "down": _LAYER + "mlp.fc2",
        "output_norm": _LAYER + "norm2",
    },
    defaults={
        "layer_norm_epsilon": 1e-12, "activation": "silu", "n_positions": _TRAINED, "type_vocab_size": 2,
        "rotary_emb_base": 10000.0,
    },
    prefixes=("", "bert."),
    unbiased=frozenset({"qkv", "attention_output", "up", "gate", "down"}),
    longest=_TRAINED,
    rotary=_base,
    only=_ONLY,
    check=_no_biases,
)  # fmt: skip
