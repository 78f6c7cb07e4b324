"""ELECTRA (Clark et al. 2020): BERT with narrow embeddings in its small sizes."""

from converters.architectures._onnx import (
    ABSOLUTE,
    BERT_EMBEDDINGS,
    BERT_LAYER,
    DEFAULTS,
    TEXT_SIZES,
    TOKEN_HEADS,
)
from converters.encoder import Encoder, Head

ONNX = Encoder(
    sizes={**TEXT_SIZES, "embedding": "embedding_size"},
    tensors=BERT_EMBEDDINGS | BERT_LAYER | {"embedding_projection": "embeddings_project"},
    defaults=DEFAULTS
    | {"vocab_size": 30522, "embedding_size": 128, "hidden_size": 256, "num_attention_heads": 4}
    | {"intermediate_size": 1024},
    prefixes=("", "electra."),
    optional=frozenset({"embedding_projection"}),
    only={**ABSOLUTE, "is_decoder": (False,)},
    heads={
        **TOKEN_HEADS,
        "fill-mask": Head(
            "masked",
            ("generator_lm_head",),
            dense="generator_predictions.dense",
            activation="gelu",
            norm="generator_predictions.LayerNorm",
            tied=True,
            bias="generator_lm_head.bias",
        ),
        "classify": Head("first", ("classifier.out_proj",), dense="classifier.dense", activation="gelu"),
    },
)
