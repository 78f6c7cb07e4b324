"""ViT (Dosovitskiy et al. 2020): a pre-norm encoder over the patches of an image, behind a class token."""

from converters.architectures._onnx import IMAGE_DEFAULTS, IMAGE_SIZES
from converters.encoder import Encoder, Head

_LAYER = "encoder.layer.{i}."

ONNX = Encoder(
    sizes=IMAGE_SIZES,
    tensors={
        "patches": "embeddings.patch_embeddings.projection",
        "class_token": "embeddings.cls_token",
        "positions": "embeddings.position_embeddings",
        "query": _LAYER + "attention.attention.query",
        "key": _LAYER + "attention.attention.key",
        "value": _LAYER + "attention.attention.value",
        "attention_output": _LAYER + "attention.output.dense",
        "attention_norm": _LAYER + "layernorm_before",
        "up": _LAYER + "intermediate.dense",
        "down": _LAYER + "output.dense",
        "output_norm": _LAYER + "layernorm_after",
        "final_norm": "layernorm",
    },
    defaults=IMAGE_DEFAULTS,
    prefixes=("", "vit."),
    norm="pre",
    pooling="cls",
    only={"qkv_bias": (True,)},
    heads={"image-classify": Head("first", ("classifier",))},
)
