"""Tiny checkpoints of every encoder that has an ONNX graph of ours, for every task: text, pictures, and both.

They are saved by transformers, with random weights and awkward sizes, as those of tiny_checkpoints.py.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import tiny_checkpoints as tiny
import torch
import transformers
from tiny_checkpoints import Family

WIDTH = tiny.WIDTH
SIDE, PATCH = 32, 8
_BERT = tiny._encoder()
_ROBERTA = tiny._ROBERTA | {"type_vocab_size": 2}
_ALBERT = tiny._encoder(embedding_size=24, num_hidden_layers=4, num_hidden_groups=2, hidden_act="gelu_new")
_MPNET = {key: value for key, value in tiny._ROBERTA.items() if key != "type_vocab_size"}
_DISTIL = {"dim": WIDTH, "hidden_dim": 112, "n_layers": 2, "n_heads": 4, "max_position_embeddings": 256}
_TEXT: dict[str, tuple[str, str, dict[str, Any]]] = {
    "bert": ("Bert", "bert", _BERT),
    "roberta": ("Roberta", "roberta", _ROBERTA),
    "xlm-roberta": ("XLMRoberta", "xlm-roberta", _ROBERTA),
    "distilbert": ("DistilBert", "bert", _DISTIL),
    "albert": ("Albert", "albert", _ALBERT),
    "mpnet": ("MPNet", "mpnet", _MPNET),
    "electra": ("Electra", "bert", _BERT | {"embedding_size": 24}),
    "electra-wide": ("Electra", "bert", _BERT | {"embedding_size": WIDTH}),
    "modernbert": ("ModernBert", "modernbert", tiny._MODERN),
    "modernbert-mean": ("ModernBert", "modernbert", tiny._MODERN | {"classifier_pooling": "mean"}),
}
_TASKS = {
    "fill-mask": "ForMaskedLM",
    "classify": "ForSequenceClassification",
    "token-classify": "ForTokenClassification",
    "question-answering": "ForQuestionAnswering",
}


def _texts() -> dict[str, Family]:
    found = {"bert-next-sentence": Family("BertForNextSentencePrediction", "bert", _BERT, "next-sentence")}
    for name, (model, tokenizer, settings) in _TEXT.items():
        found[f"{name}-embed"] = Family(f"{model}Model", tokenizer, settings, "embed", "mean")
        for task, end in _TASKS.items():
            labels = {} if task in ("fill-mask", "question-answering") else {"num_labels": 5}
            found[f"{name}-{task}"] = Family(model + end, tokenizer, settings | labels, task)
    found["bert-embed-cls"] = replace(found["bert-embed"], pooling="cls")
    found["bert-embed-last"] = replace(found["bert-embed"], pooling="last")
    found["roberta-embed-dense"] = replace(found["roberta-embed"], dense=(96, 32))
    found["bert-rerank"] = replace(found["bert-classify"], settings=_BERT | {"num_labels": 1})
    found["bert-pretraining"] = Family("BertForPreTraining", "bert", _BERT, "fill-mask")
    found["electra-fill-mask"] = replace(found["electra-fill-mask"], model="ElectraForMaskedLM")
    return found


TEXTS = _texts()
_IMAGE = {
    "hidden_size": WIDTH,
    "intermediate_size": 112,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": SIDE,
    "patch_size": PATCH,
    "layer_norm_eps": 0.01,
}
_CLIP_TEXT = {
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 40,
    "eos_token_id": 1,
    "bos_token_id": 0,
    "layer_norm_eps": 0.01,
}
_SIGLIP_TEXT = _CLIP_TEXT | {"projection_size": WIDTH}
_LABELS = {"num_labels": 7}
IMAGES = {
    "vit-embed": Family("ViTModel", "", _IMAGE, "image-embed", "cls"),
    "vit-classify": Family("ViTForImageClassification", "", _IMAGE | _LABELS, "image-classify"),
    "deit-classify": Family("DeiTForImageClassification", "", _IMAGE | _LABELS, "image-classify"),
    "deit-embed": Family("DeiTModel", "", _IMAGE, "image-embed", "cls"),
    "deit-teacher": Family("DeiTForImageClassificationWithTeacher", "", _IMAGE | _LABELS, "image-classify"),
    "dinov2-embed": Family("Dinov2Model", "", _IMAGE | {"mlp_ratio": 2}, "image-embed", "cls"),
    "dinov2-gated": Family("Dinov2Model", "", _IMAGE | {"use_swiglu_ffn": True}, "image-embed", "cls"),
    "dinov2-resized": Family("Dinov2Model", "", _IMAGE | {"image_size": 56}, "image-embed", "cls"),
    "dinov2-classify": Family("Dinov2ForImageClassification", "", _IMAGE | _LABELS, "image-classify"),
    "clip-vision": Family("CLIPVisionModelWithProjection", "", _IMAGE | {"projection_dim": 40}, "image-embed"),
    "clip-classify": Family("CLIPForImageClassification", "", {"vision_config": _IMAGE, **_LABELS}, "image-classify"),
    "siglip-vision": Family("SiglipVisionModel", "", _IMAGE, "image-embed"),
    "siglip-classify": Family(
        "SiglipForImageClassification", "", {"vision_config": _IMAGE, **_LABELS}, "image-classify"
    ),
}
TOWERS = {
    "clip": Family(
        "CLIPModel", "clip", {"text_config": _CLIP_TEXT, "vision_config": _IMAGE, "projection_dim": 40}, "image-text"
    ),
    "clip-legacy": Family(
        "CLIPModel",
        "clip",
        {"text_config": _CLIP_TEXT | {"eos_token_id": 2}, "vision_config": _IMAGE, "projection_dim": 40},
        "image-text",
    ),
    "siglip": Family("SiglipModel", "siglip", {"text_config": _SIGLIP_TEXT, "vision_config": _IMAGE}, "image-text"),
    "siglip2": Family(
        "Siglip2Model",
        "siglip",
        {"text_config": _SIGLIP_TEXT, "vision_config": {k: v for k, v in _IMAGE.items() if k != "image_size"}
         | {"num_patches": 16}},
        "image-text",
    ),
}  # fmt: skip

# What each family's image processor saves.
PROCESSORS = {
    "vit": {"image_processor_type": "ViTImageProcessor", "size": {"height": SIDE, "width": SIDE}},
    "deit": {"image_processor_type": "DeiTImageProcessor", "size": {"height": 36, "width": 36}, "crop_size": SIDE},
    "dinov2": {"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 36}, "crop_size": SIDE},
    "clip": {"image_processor_type": "CLIPImageProcessor", "size": SIDE, "crop_size": SIDE},
    "siglip": {"image_processor_type": "SiglipImageProcessor", "size": {"height": SIDE, "width": SIDE}},
    "siglip2": {"image_processor_type": "Siglip2ImageProcessor", "patch_size": PATCH, "max_num_patches": 16},
}
# SigLIP 2 takes pictures as patches, so that they are compared by what is made of whole ones.
_FREE = {key: value for key, value in _IMAGE.items() if key != "image_size"} | {"num_patches": 16}
SHAPELESS = {
    "siglip2-vision": Family("Siglip2VisionModel", "", _FREE, "image-embed"),
    "siglip2-classify": Family(
        "Siglip2ForImageClassification", "", {"vision_config": _FREE, **_LABELS}, "image-classify"
    ),
}
FAMILIES = TEXTS | IMAGES | SHAPELESS | TOWERS


def model(family: Family) -> Any:
    """An image model with seeded weights, float32."""
    kind = getattr(transformers, family.model)
    made = kind(kind.config_class(**family.settings)).eval()
    generator = torch.Generator().manual_seed(family.seed)
    with torch.no_grad():
        for weights in made.parameters():
            noise = torch.randn(weights.shape, generator=generator)
            weights.copy_(tiny.SPREAD * noise) if weights.dim() > 1 else weights.add_(tiny.NORM_SPREAD * noise)
    return made


def write(folder: Path, name: str) -> Path:
    """Save the checkpoint `name`, its tokenizer and its image processor."""
    family = FAMILIES[name]
    if family.tokenizer:
        tiny.write(folder, family)
    else:
        model(family).save_pretrained(folder, safe_serialization=True)
    if name not in TEXTS:
        (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSORS[name.split("-")[0]]))
    return folder
