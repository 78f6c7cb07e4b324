"""DeiT (Touvron et al. 2020): ViT with a second token that learned from a teacher."""

from dataclasses import replace

from converters.architectures import vit
from converters.encoder import Head

ONNX = replace(
    vit.ONNX,
    tensors=vit.ONNX.tensors | {"distillation_token": "embeddings.distillation_token"},
    prefixes=("", "deit."),
    special={
        "DeiTForImageClassificationWithTeacher": Head("first", ("cls_classifier", "distillation_classifier")),
    },
)
