"""SigLIP 2 (Tschannen et al. 2025): SigLIP for pictures of any shape, whose positions are stretched to fit."""

from dataclasses import replace

from converters.architectures import siglip

ONNX = replace(
    siglip.ONNX,
    vision=replace(
        siglip.ONNX.vision,
        sizes={name: key for name, key in siglip.ONNX.vision.sizes.items() if name != "image"},
    ),
)
