"""DistilBERT (Sanh et al. 2019): half of BERT's layers, no token types."""

from converters.architectures import GGUFArchitecture, Key, Module
from converters.architectures._encoder import EMBEDDINGS, IGNORED
from converters.architectures._onnx import BERT_EMBEDDINGS, TOKEN_HEADS
from converters.encoder import Encoder, Head

_LAYER = "transformer.layer.{i}."
_DEFAULTS = {"n_layers": 6, "dim": 768, "hidden_dim": 3072, "n_heads": 12, "max_position_embeddings": 512}

GGUF = GGUFArchitecture(
    name="bert",
    keys=(
        Key("block_count", "n_layers"),
        Key("embedding_length", "dim"),
        Key("feed_forward_length", "hidden_dim"),
        Key("attention.head_count", "n_heads"),
        Key("attention.layer_norm_epsilon", "layer_norm_eps", 1e-12, float),
        Key("context_length", "max_position_embeddings"),
    ),
    modules=(
        *EMBEDDINGS,
        Module("blk.{i}.attn_q", _LAYER + "attention.q_lin", "hh"),
        Module("blk.{i}.attn_k", _LAYER + "attention.k_lin", "hh"),
        Module("blk.{i}.attn_v", _LAYER + "attention.v_lin", "hh"),
        Module("blk.{i}.attn_output", _LAYER + "attention.out_lin", "hh"),
        Module("blk.{i}.attn_output_norm", _LAYER + "sa_layer_norm", "h"),
        Module("blk.{i}.ffn_up", _LAYER + "ffn.lin1", "fh"),
        Module("blk.{i}.ffn_down", _LAYER + "ffn.lin2", "hf"),
        Module("blk.{i}.layer_output_norm", _LAYER + "output_layer_norm", "h"),
    ),
    strip=("distilbert.",),
    ignored=(*IGNORED, r"^vocab_", r"^pre_classifier\."),
    only={"activation": ("gelu",), "sinusoidal_pos_embds": (False, True)},
    defaults=_DEFAULTS,
    encoder=True,
)

ONNX = Encoder(
    sizes={
        "hidden": "dim",
        "layers": "n_layers",
        "heads": "n_heads",
        "feed_forward": "hidden_dim",
        "epsilon": "layer_norm_eps",
        "activation": "activation",
        "vocabulary": "vocab_size",
        "positions": "max_position_embeddings",
    },
    tensors={role: name for role, name in BERT_EMBEDDINGS.items() if role != "types"}
    | {
        "query": _LAYER + "attention.q_lin",
        "key": _LAYER + "attention.k_lin",
        "value": _LAYER + "attention.v_lin",
        "attention_output": _LAYER + "attention.out_lin",
        "attention_norm": _LAYER + "sa_layer_norm",
        "up": _LAYER + "ffn.lin1",
        "down": _LAYER + "ffn.lin2",
        "output_norm": _LAYER + "output_layer_norm",
    },
    defaults=_DEFAULTS | {"layer_norm_eps": 1e-12, "activation": "gelu", "vocab_size": 30522},
    prefixes=("", "distilbert."),
    heads={
        **TOKEN_HEADS,
        "fill-mask": Head(
            "masked", ("vocab_projector",), dense="vocab_transform", norm="vocab_layer_norm", tied=True,
            bias="vocab_projector.bias",
        ),
        "classify": Head("first", ("classifier",), dense="pre_classifier", activation="relu"),
    },
)  # fmt: skip
