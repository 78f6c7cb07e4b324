"""What an encoder checkpoint becomes as ONNX: its task, its parts, and how the package says they are fed.

Only headers and settings are read here. A family without a row, or a task that its row has no head for, is refused
with what there is.
"""

import math
import re
from dataclasses import dataclass, field, replace
from typing import Any

from converters.architectures import onnx_row
from converters.checkpoint import Checkpoint, optional_json
from converters.encoder import Encoder, Head, Towers, read_sizes
from converters.image_config import image_inputs
from converters.labels import labels, scores, text_task
from converters.onnx_parts import Part
from edgemm.errors import BadFile, Unsupported
from edgemm.manifest import Inputs, ZeroShot

MODEL, TEXT_MODEL, VISION_MODEL = "model.onnx", "text_model.onnx", "vision_model.onnx"
_DENSE = re.compile(r"(\d_Dense\.linear)\.weight")
_TEMPLATES = {"softmax": "a photo of a {}", "sigmoid": "This is a photo of {}."}
_PAD = 1  # of SigLIP's tokenizer


@dataclass(frozen=True)
class Prepared:
    """A checkpoint on its way to ONNX. `labels`, `scores` and `zero_shot` as in the manifest."""

    checkpoint: Checkpoint
    task: str
    parts: list[Part]
    inputs: Inputs
    labels: tuple[str, ...] = ()
    scores: str = ""
    zero_shot: ZeroShot | None = None
    notes: list[str] = field(default_factory=list)


def prepare(checkpoint: Checkpoint, task: str = "") -> Prepared:
    """`task` "": the checkpoint's own. Raises `Unsupported` or `BadFile`, naming the setting or the tensor."""
    row = onnx_row(checkpoint.model_type, checkpoint.folder)
    if isinstance(row, Towers):
        chosen = _tower(row, checkpoint)
        if chosen is None:
            return _towers(row, checkpoint)
        row = chosen
    found = _pictures(row, checkpoint, task) if "patches" in row.tensors else _texts(row, checkpoint, task)
    for part in found.parts:
        part.weights.check(part.sizes)
    return found


def _tower(row: Towers, checkpoint: Checkpoint) -> Encoder | None:
    """The one tower that the checkpoint holds or uses; None for both."""
    if checkpoint.model_type.endswith("_text_model"):
        return replace(row.text, section="")
    if checkpoint.model_type.endswith("_vision_model"):
        return replace(row.vision, section="")
    return row.vision if "ForImageClassification" in checkpoint.kind else None


def _towers(row: Towers, checkpoint: Checkpoint) -> Prepared:
    text, vision = (_part(tower, checkpoint, "image-text") for tower in (row.text, row.vision))
    window = text.sizes.positions
    pad_id = int(text.config.get("pad_token_id", _PAD))
    text = replace(text, file=TEXT_MODEL, max_tokens=window, pad_to=window if row.pad_to_window else 0, pad_id=pad_id)
    vision = replace(vision, file=VISION_MODEL, image=image_inputs(checkpoint.folder))
    inputs = Inputs(
        max_tokens=window,
        pooling=text.pooling,
        dimensions=_dimensions(text),
        pad_to=text.pad_to,
        pad_id=pad_id,
        image=vision.image,
    )
    for part in (text, vision):
        part.weights.check(part.sizes)
    return Prepared(checkpoint, "image-text", [text, vision], inputs, zero_shot=_zero_shot(row, checkpoint))


def _zero_shot(row: Towers, checkpoint: Checkpoint) -> ZeroShot:
    scale = math.exp(float(checkpoint.read("logit_scale").reshape(-1)[0]))
    bias = float(checkpoint.read("logit_bias").reshape(-1)[0]) if "logit_bias" in checkpoint.tensors else 0.0
    return ZeroShot(scale, bias, row.scores, _TEMPLATES[row.scores])


def _part(row: Encoder, checkpoint: Checkpoint, task: str, head: Head | None = None) -> Part:
    sizes, config = read_sizes(row, checkpoint.config, checkpoint.folder)
    return Part(MODEL, checkpoint, row, sizes, config, task, head, pooling=row.pooling)


def _pictures(row: Encoder, checkpoint: Checkpoint, wanted: str) -> Prepared:
    task = wanted or ("image-classify" if checkpoint.task == "image-classify" else "image-embed")
    if task not in ("image-classify", "image-embed"):
        raise Unsupported(checkpoint.folder, f"an image encoder cannot {task}", "known: image-embed, image-classify")
    head = _head(row, checkpoint, task) if task == "image-classify" else None
    image = image_inputs(checkpoint.folder)
    part = replace(_part(row, checkpoint, task, head), image=image)
    _check_picture(part)
    dimensions = 0 if head else _dimensions(part)
    inputs = Inputs(0, part.pooling, normalize=head is None, dimensions=dimensions, image=image)
    found = (labels(checkpoint), scores(checkpoint)) if head else ((), "")
    return Prepared(checkpoint, task, [part], inputs, *found)


def _check_picture(part: Part) -> None:
    image, patch = part.image, part.sizes.patch
    assert image is not None
    if image.channels != part.sizes.channels:
        why = f"pictures have {image.channels} channels, the model takes {part.sizes.channels}"
        raise BadFile(part.checkpoint.pictures, why, "the files do not belong together: download them again")
    if not image.max_patches and (image.height < patch or image.width < patch):
        why = f"pictures of {image.width} x {image.height} pixels hold no patch of {patch}"
        raise BadFile(part.checkpoint.pictures, why, "check size and crop_size")


def _texts(row: Encoder, checkpoint: Checkpoint, wanted: str) -> Prepared:
    task = wanted or text_task(checkpoint)
    head = _head(row, checkpoint, task) if task != "embed" else None
    part = _part(row, checkpoint, task, head)
    window = min(part.sizes.positions - row.skipped_positions, row.longest)
    dense = tuple(sorted(found[1] for name in checkpoint.tensors if (found := _DENSE.fullmatch(name))))
    part = replace(
        part,
        pooling=checkpoint.pooling,
        normalize=checkpoint.normalize,
        dense=dense,
        max_tokens=min(checkpoint.max_tokens or window, window),
        mask_token=mask_token(checkpoint) if task == "fill-mask" else "",
    )
    return Prepared(
        checkpoint,
        task,
        [part],
        _text_inputs(checkpoint, part),
        labels(checkpoint) if task not in ("embed", "fill-mask", "question-answering") else (),
        scores(checkpoint) if task not in ("embed", "fill-mask") else "",
        notes=assumptions(checkpoint) if task == "embed" else [],
    )


def _text_inputs(checkpoint: Checkpoint, part: Part) -> Inputs:
    is_vector = part.head is None
    return Inputs(
        max_tokens=part.max_tokens,
        pooling=part.pooling if is_vector else "",
        normalize=checkpoint.normalize and is_vector,
        dimensions=_dimensions(part) if is_vector else 0,
        query_prefix=checkpoint.prompts.get("query", ""),
        document_prefix=checkpoint.prompts.get("document", checkpoint.prompts.get("passage", "")),
        matryoshka=checkpoint.is_matryoshka,
        token_types=part.has_types,
        mask_token=part.mask_token,
    )


def _head(row: Encoder, checkpoint: Checkpoint, task: str) -> Head:
    head = row.special.get(checkpoint.kind) or row.heads.get("classify" if task == "rerank" else task)
    if head is None:
        known = ", ".join(["embed", *row.heads])
        why = f"our {checkpoint.model_type} graph has no head for {task}; it knows {known}"
        raise Unsupported(checkpoint.folder, why, "choose one with --task")
    return head


def _dimensions(part: Part) -> int:
    if part.dense:
        return part.weights.shape(f"{part.dense[-1]}.weight")[0]
    if part.weights.has("projection"):
        return part.weights.shape(f"{part.weights.name('projection')}.weight")[0]
    return part.sizes.hidden


def mask_token(checkpoint: Checkpoint) -> str:
    for file in ("tokenizer_config.json", "special_tokens_map.json"):
        token: Any = optional_json(checkpoint.folder / file).get("mask_token")
        token = token.get("content") if isinstance(token, dict) else token
        if isinstance(token, str) and token:
            return token
    raise BadFile(checkpoint.folder / "tokenizer_config.json", "it names no mask_token", "download it again")


def assumptions(checkpoint: Checkpoint) -> list[str]:
    if checkpoint.modules:
        return []
    return [f"no modules.json: {checkpoint.pooling} pooling and normalized vectors are assumed"]
