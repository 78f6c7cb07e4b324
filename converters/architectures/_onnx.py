"""What encoder families share in our own ONNX graphs: sizes, tensor names of BERT's blocks, and common heads."""

from typing import Any

from converters.encoder import Head

SIZES = {
    "hidden": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "feed_forward": "intermediate_size",
    "epsilon": "layer_norm_eps",
    "activation": "hidden_act",
}
TEXT_SIZES = {
    **SIZES,
    "vocabulary": "vocab_size",
    "positions": "max_position_embeddings",
    "token_types": "type_vocab_size",
}
IMAGE_SIZES = {**SIZES, "image": "image_size", "patch": "patch_size", "channels": "num_channels"}
_BLOCK: dict[str, Any] = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
}
DEFAULTS = _BLOCK | {"max_position_embeddings": 512, "type_vocab_size": 2}
IMAGE_DEFAULTS = _BLOCK | {"image_size": 224, "patch_size": 16, "num_channels": 3}
_LAYER = "encoder.layer.{i}."
BERT_LAYER = {
    "query": _LAYER + "attention.self.query",
    "key": _LAYER + "attention.self.key",
    "value": _LAYER + "attention.self.value",
    "attention_output": _LAYER + "attention.output.dense",
    "attention_norm": _LAYER + "attention.output.LayerNorm",
    "up": _LAYER + "intermediate.dense",
    "down": _LAYER + "output.dense",
    "output_norm": _LAYER + "output.LayerNorm",
}
BERT_EMBEDDINGS = {
    "words": "embeddings.word_embeddings",
    "positions": "embeddings.position_embeddings",
    "types": "embeddings.token_type_embeddings",
    "embedding_norm": "embeddings.LayerNorm",
}
TOKEN_HEADS = {
    "token-classify": Head("tokens", ("classifier",)),
    "question-answering": Head("tokens", ("qa_outputs",)),
}
ROBERTA_HEADS = {
    **TOKEN_HEADS,
    "fill-mask": Head(
        "masked",
        ("lm_head.decoder",),
        dense="lm_head.dense",
        activation="gelu",
        norm="lm_head.layer_norm",
        tied=True,
        bias="lm_head.bias",
    ),
    "classify": Head("first", ("classifier.out_proj",), dense="classifier.dense", activation="tanh"),
}
ABSOLUTE = {"position_embedding_type": ("absolute",)}
