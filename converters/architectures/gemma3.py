"""Gemma 3 with pictures: its text part; the picture tower is left out, and that is said."""

from dataclasses import replace

from converters.architectures import gemma3_text

GGUF = replace(
    gemma3_text.GGUF,
    section="text_config",
    ignored=(*gemma3_text.GGUF.ignored, r"^(model\.)?vision_tower\.", r"^(model\.)?multi_modal_projector\."),
)
