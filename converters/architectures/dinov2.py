"""DINOv2 (Oquab et al. 2023): ViT trained without labels, with a scale for each channel of a residual."""

from dataclasses import replace

from converters.architectures import vit
from converters.encoder import Head

_LAYER = "encoder.layer.{i}."

ONNX = replace(
    vit.ONNX,
    tensors=vit.ONNX.tensors
    | {
        "attention_norm": _LAYER + "norm1",
        "attention_scale": _LAYER + "layer_scale1.lambda1",
        "up": _LAYER + "mlp.fc1",
        "gate_up": _LAYER + "mlp.weights_in",
        "down": _LAYER + "mlp.fc2",
        "gated_down": _LAYER + "mlp.weights_out",
        "output_norm": _LAYER + "norm2",
        "output_scale": _LAYER + "layer_scale2.lambda1",
    },
    sizes={name: key for name, key in vit.ONNX.sizes.items() if name != "feed_forward"},
    defaults=vit.ONNX.defaults | {"layer_norm_eps": 1e-6, "patch_size": 14},
    prefixes=("", "dinov2."),
    gate="silu",
    optional=frozenset({"gate_up", "gated_down", "up", "down"}),
    heads={"image-classify": Head("first and patches", ("classifier",))},
)
