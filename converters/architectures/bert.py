"""BERT (Devlin et al. 2018): a post-norm encoder with learned positions and two token types.

Settings and tensor names of Hugging Face's BertModel; MiniLM, BGE, E5, GTE and Arctic embedding models use it.
"""

from converters.architectures import Encoder, GGUFArchitecture
from converters.architectures._encoder import BLOCK, EMBEDDINGS, IGNORED, KEYS, POSITIONS, TOKEN_TYPES, pooled_head

_LAYER = "encoder.layer.{i}."

ONNX = Encoder(
    keys={
        "vocabulary": "vocab_size",
        "hidden": "hidden_size",
        "layers": "num_hidden_layers",
        "heads": "num_attention_heads",
        "feed_forward": "intermediate_size",
        "positions": "max_position_embeddings",
        "token_types": "type_vocab_size",
        "epsilon": "layer_norm_eps",
        "activation": "hidden_act",
    },
    defaults={"token_types": 2, "epsilon": 1e-12, "activation": "gelu"},
    tensors={
        "words": "embeddings.word_embeddings.weight",
        "positions": "embeddings.position_embeddings.weight",
        "types": "embeddings.token_type_embeddings.weight",
        "embedding_norm": "embeddings.LayerNorm",
        "query": _LAYER + "attention.self.query",
        "key": _LAYER + "attention.self.key",
        "value": _LAYER + "attention.self.value",
        "attention_output": _LAYER + "attention.output.dense",
        "attention_norm": _LAYER + "attention.output.LayerNorm",
        "up": _LAYER + "intermediate.dense",
        "down": _LAYER + "output.dense",
        "output_norm": _LAYER + "output.LayerNorm",
    },
    prefixes=("", "bert."),
)

GGUF = GGUFArchitecture(
    name="bert",
    keys=(*KEYS, POSITIONS),
    modules=(*EMBEDDINGS, TOKEN_TYPES, *BLOCK),
    strip=("bert.",),
    ignored=(*IGNORED, r"^pooler\."),
    heads={"classify": pooled_head("pooler.dense", "classifier")},
    only={"hidden_act": ("gelu", "gelu_new"), "position_embedding_type": ("absolute",)},
    defaults={"type_vocab_size": 2, "max_position_embeddings": 512},
    encoder=True,
)
