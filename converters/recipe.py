"""What each target means: data, no code.

A recipe names the file format, how the weights are stored, and the floor below which a package is not kept.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Floor:
    """The least likeness to the checkpoint on held-out texts.

    Embeddings: cosine mean and minimum, top-10 overlap, and the cosine of a text alone and in a batch. Scores of
    labels: their correlation is held to the least cosine. Chats: `divergence` is the most that the mean
    Kullback-Leibler divergence (nats a token) may be for a model of `BIG` weights or more; smaller ones lose more by
    the same rounding, they are allowed `SMALL` times as much.
    """

    cosine_mean: float
    cosine_min: float
    overlap: float = 0.0
    invariance: float = 0.0
    divergence: float = 0.0


SMALL, BIG = 5.0, 1_000_000_000


@dataclass(frozen=True, slots=True)
class Upgrade:
    """Tensors whose name holds `part` are stored as `weights` in some `layers`. The last that fits counts.

    `part` "attn_v." means values fused with queries and keys too. `layers`: "all", "first two", "first eighth",
    "first sixteenth", or "outer" (the first and last eighth and every third between them). `when`: "", "grouped"
    (four or more query heads share a key head), "blind" (no importance matrix), "guided" (with one), "deep" (Llama
    and Qwen of 80 layers) or "falcon". The rules are those of llama-quantize (src/llama-quant.cpp).
    """

    part: str
    weights: str
    layers: str = "all"
    when: str = ""


@dataclass(frozen=True, slots=True)
class Recipe:
    """`format` is "onnx" or "gguf"; `weights` the storage type of the matrices; `scheme` is for people.

    GGUF: `upgrades` are stored otherwise, `output` is the type of the output matrix, `file_type` llama.cpp's number
    for the mixture (enum llama_ftype), -1 where it has none.
    """

    target: str
    format: str
    weights: str
    scheme: str
    kept: tuple[str, ...]
    floor: Floor
    upgrades: tuple[Upgrade, ...] = ()
    output: str = ""
    file_type: int = 0

    @property
    def lossless(self) -> bool:
        return self.weights in ("fp32", "F32", "F16", "BF16")


_LOSSLESS = Floor(cosine_mean=0.99999, cosine_min=0.9999, divergence=0.001)
_INT8 = Floor(cosine_mean=0.999, cosine_min=0.9975, overlap=0.96, invariance=0.9999)
_HALF = Floor(cosine_mean=0.9999, cosine_min=0.999, overlap=0.98, invariance=0.995)
_VECTORS = ("norms", "biases", "positions")


def _gguf(
    target: str, weights: str, file_type: int, scheme: str, floor: Floor, *upgrades: Upgrade, output: str = "Q6_K"
) -> Recipe:
    return Recipe(f"gguf-{target}", "gguf", weights, scheme, _VECTORS, floor, upgrades, output, file_type)


_OUTER = (Upgrade("attn_v.", "Q6_K", "outer"), Upgrade("ffn_down.", "Q6_K", "outer"))
_FOUR_BIT_FLOOR = Floor(0.95, 0.88, divergence=0.08)
_FOUR_BIT = (Upgrade("attn_v.", "Q5_K", when="grouped"), Upgrade("ffn_down.", "Q5_K", "first eighth", "blind"))
BUDGET = _gguf(
    "fit", "", -1, "a type for each tensor, chosen by measured error to fit a size", Floor(0.95, 0.9, divergence=0.4)
)

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
            _INT8,
        ),
        Recipe("onnx-fp16", "onnx", "fp16", "float16, for CUDA and CoreML", ("rotary angles", "vector lengths"), _HALF),
        _gguf("f32", "F32", 0, "float32", _LOSSLESS, output="F32"),
        _gguf("f16", "F16", 1, "float16 matrices", _LOSSLESS, output="F16"),
        _gguf("bf16", "BF16", 32, "bfloat16 matrices", _LOSSLESS, output="BF16"),
        _gguf("q8_0", "Q8_0", 7, "8 bits, blocks of 32", Floor(0.999, 0.99, divergence=0.003), output="Q8_0"),
        _gguf("q6_k", "Q6_K", 18, "6 bits, blocks of 256", Floor(0.998, 0.985, divergence=0.01)),
        _gguf(
            "q5_k_m", "Q5_K", 17, "5 bits, blocks of 256, some tensors 6", Floor(0.985, 0.95, divergence=0.02),
            *_OUTER,
        ),
        _gguf(
            "q4_k_m", "Q4_K", 15, "4 bits, blocks of 256, some tensors 6", Floor(0.98, 0.93, divergence=0.06),
            Upgrade("attn_v.", "Q5_K", when="deep"), *_OUTER,
            Upgrade("ffn_down.", "Q4_K", when="falcon"), Upgrade("ffn_down.", "Q5_K", "outer", "falcon"),
            Upgrade("ffn_down.", "Q6_K", "first sixteenth", "falcon"),
        ),
        _gguf(
            "q4_0", "Q4_0", 2, "4 bits, blocks of 32 with one scale", Floor(0.93, 0.85, divergence=0.12),
            Upgrade("ffn_down.", "Q4_1", "first eighth", "guided"),
        ),
        _gguf("iq4_nl", "IQ4_NL", 25, "4 bits, not linear, blocks of 32", _FOUR_BIT_FLOOR, *_FOUR_BIT),
        _gguf("iq4_xs", "IQ4_XS", 30, "4 bits, not linear, blocks of 256", _FOUR_BIT_FLOOR, *_FOUR_BIT),
        _gguf(
            "q3_k_m", "Q3_K", 12, "3 bits, blocks of 256, some tensors 4 and 5", Floor(0.9, 0.8, divergence=0.25),
            Upgrade("attn_v.", "Q4_K"), Upgrade("attn_v.", "Q5_K", "first two"),
            Upgrade("attn_v.", "Q5_K", when="deep"),
            Upgrade("ffn_down.", "Q4_K"), Upgrade("ffn_down.", "Q3_K", when="falcon"),
            Upgrade("ffn_down.", "Q4_K", "outer", "falcon"), Upgrade("ffn_down.", "Q5_K", "first sixteenth"),
            Upgrade("attn_output.", "Q4_K"), Upgrade("attn_output.", "Q3_K", when="falcon"),
        ),
        _gguf(
            "q2_k", "Q2_K", 10, "2 bits, blocks of 256, some tensors 3 and 4", Floor(0.8, 0.6, divergence=1.0),
            Upgrade("attn_v.", "Q3_K"), Upgrade("attn_v.", "Q4_K", when="grouped"),
            Upgrade("attn_v.", "Q5_K", when="deep"), Upgrade("ffn_down.", "Q3_K"),
            Upgrade("attn_output.", "Q3_K"), Upgrade("attn_output.", "Q2_K", when="falcon"),
        ),
    )
}  # fmt: skip
