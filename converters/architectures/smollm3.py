"""SmolLM3 (Hugging Face 2025): Llama's block, with every fourth layer without rotary positions."""

from dataclasses import replace

from converters.architectures import Config, llama
from converters.architectures._decoder import GATED, INTERLEAVED, NORMS, embeddings, plain_rotary

_STEP = 4  # fixed in llama.cpp's graph


def _check(config: Config) -> None:
    plain_rotary(config)
    layers = config.get("no_rope_layers")
    wrong = layers is not None and any(bool(rotated) != ((i + 1) % _STEP != 0) for i, rotated in enumerate(layers))
    if wrong or (layers is None and config.integer("no_rope_layer_interval", _STEP) != _STEP):
        raise config.unsupported(f"no_rope_layers is not every {_STEP}th layer, as llama.cpp's graph has it")


GGUF = replace(
    llama.GGUF,
    name="smollm3",
    modules=(*embeddings(), *INTERLEAVED, *GATED, *NORMS),
    extra=lambda _: {},
    check=_check,
    defaults={
        "max_position_embeddings": 32768,
        "rope_theta": 2e6,
        "num_key_value_heads": 4,
        "use_sliding_window": False,
        "tie_word_embeddings": True,
    },
)
