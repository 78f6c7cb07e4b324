"""ALBERT (Lan et al. 2019): BERT whose layers share their weights, with narrow embeddings."""

from converters.architectures import Config
from converters.architectures._onnx import ABSOLUTE, BERT_EMBEDDINGS, DEFAULTS, TEXT_SIZES, TOKEN_HEADS
from converters.encoder import Encoder, Head

_LAYER = "encoder.albert_layer_groups.{i}."


def _layer(config: Config, layer: int) -> str:
    """Layer i is the one layer of its group."""
    group = layer * config.integer("num_hidden_groups") // config.integer("num_hidden_layers")
    return f"{group}.albert_layers.0"


ONNX = Encoder(
    sizes={**TEXT_SIZES, "embedding": "embedding_size"},
    tensors=BERT_EMBEDDINGS
    | {
        "embedding_projection": "encoder.embedding_hidden_mapping_in",
        "query": _LAYER + "attention.query",
        "key": _LAYER + "attention.key",
        "value": _LAYER + "attention.value",
        "attention_output": _LAYER + "attention.dense",
        "attention_norm": _LAYER + "attention.LayerNorm",
        "up": _LAYER + "ffn",
        "down": _LAYER + "ffn_output",
        "output_norm": _LAYER + "full_layer_layer_norm",
    },
    defaults=DEFAULTS
    | {
        "vocab_size": 30000, "embedding_size": 128, "hidden_size": 4096, "num_attention_heads": 64,
        "intermediate_size": 16384, "hidden_act": "gelu_new", "num_hidden_groups": 1,
    },
    prefixes=("", "albert."),
    layer=_layer,
    only={**ABSOLUTE, "inner_group_num": (1,)},
    heads={
        **TOKEN_HEADS,
        "fill-mask": Head(
            "masked", ("predictions.decoder",), dense="predictions.dense", norm="predictions.LayerNorm", tied=True,
            bias="predictions.bias",
        ),
        "classify": Head("first", ("classifier",), dense="pooler", activation="tanh"),
    },
)  # fmt: skip
