"""What each target means: data, no code.

A recipe names the file format, how the weights are stored, and the floor below which a package is not kept.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Floor:
    """The least likeness to the fp32 model on held-out texts: cosine mean and minimum, and top-10 overlap."""

    cosine_mean: float
    cosine_min: float
    overlap: float = 0.0


@dataclass(frozen=True, slots=True)
class Recipe:
    """`format` is "onnx" or "gguf"; `weights` the storage type of the matrices; `scheme` is for people."""

    target: str
    format: str
    weights: str
    scheme: str
    kept: tuple[str, ...]
    floor: Floor


_LOSSLESS = Floor(cosine_mean=0.99999, cosine_min=0.9999)
_QUANTIZED = Floor(cosine_mean=0.99, cosine_min=0.97)

RECIPES = {
    recipe.target: recipe
    for recipe in (
        Recipe("onnx-fp32", "onnx", "fp32", "float32, as in the checkpoint", (), _LOSSLESS),
        Recipe(
            "onnx-int8",
            "onnx",
            "int8",
            "weights int8 per column, activations uint8 per row at run time, SmoothQuant; embedding table int8 per row",
            ("layer norms", "softmax", "attention products", "biases"),
            _QUANTIZED,
        ),
        Recipe("gguf-f16", "gguf", "F16", "float16 matrices", ("norms", "biases"), _LOSSLESS),
        Recipe("gguf-q8_0", "gguf", "Q8_0", "int8 blocks of 32 with an f16 scale", ("norms", "biases"), _QUANTIZED),
    )
}
