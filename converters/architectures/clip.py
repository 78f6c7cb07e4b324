"""CLIP (Radford et al. 2021): a text and an image encoder, trained until a picture lies beside its caption."""

from converters.architectures._onnx import IMAGE_DEFAULTS, IMAGE_SIZES, SIZES
from converters.encoder import Encoder, Head, Towers

_LAYER = "encoder.layers.{i}."
LAYER = {
    "query": _LAYER + "self_attn.q_proj",
    "key": _LAYER + "self_attn.k_proj",
    "value": _LAYER + "self_attn.v_proj",
    "attention_output": _LAYER + "self_attn.out_proj",
    "attention_norm": _LAYER + "layer_norm1",
    "up": _LAYER + "mlp.fc1",
    "down": _LAYER + "mlp.fc2",
    "output_norm": _LAYER + "layer_norm2",
}
TEXT_SIZES = {**SIZES, "vocabulary": "vocab_size", "positions": "max_position_embeddings"}
WORDS = {"words": "embeddings.token_embedding", "positions": "embeddings.position_embedding"}
TEXT_DEFAULTS = {
    "vocab_size": 49408,
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "max_position_embeddings": 77,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
    "eos_token_id": 49407,
}

ONNX = Towers(
    text=Encoder(
        sizes=TEXT_SIZES,
        tensors=WORDS | LAYER | {"final_norm": "final_layer_norm", "projection": "text_projection"},
        defaults=TEXT_DEFAULTS,
        prefixes=("text_model.", ""),
        section="text_config",
        norm="pre",
        unbiased=frozenset({"projection"}),
        causal=True,
        pooling="eos",
    ),
    vision=Encoder(
        sizes=IMAGE_SIZES,
        tensors=LAYER
        | {
            "patches": "embeddings.patch_embedding",
            "class_token": "embeddings.class_embedding",
            "positions": "embeddings.position_embedding",
            "embedding_norm": "pre_layrnorm",
            "final_norm": "post_layernorm",
            "projection": "visual_projection",
        },
        defaults=IMAGE_DEFAULTS | {"patch_size": 32, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5},
        prefixes=("vision_model.", ""),
        section="vision_config",
        norm="pre",
        unbiased=frozenset({"patches", "projection"}),
        optional=frozenset({"projection"}),
        pooling="cls",
        heads={"image-classify": Head("patches", ("classifier",), before_norm=True)},
    ),
    scores="softmax",
)
