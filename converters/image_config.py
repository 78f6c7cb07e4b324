"""preprocessor_config.json to the numbers that the runtime needs: how pixels become the tensor of a vision model.

One row for each image processor of transformers: the steps that it takes, what it fills in, and what a bare number
means as its size. It opens no picture.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converters.architectures import Config
from converters.checkpoint import PICTURES, optional_json
from edgemm.errors import BadFile, Unsupported
from edgemm.manifest import ImageInputs

_PROCESSOR = "processor_config.json"  # newer checkpoints of two towers keep the processors of both in it
_FILTERS = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")  # PIL.Image.Resampling, by number
_BILINEAR, _BICUBIC = 2, 3
_STANDARD = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
_CLIP = {"image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]}
_SQUARE, _SHORT = {"height": 224, "width": 224}, {"shortest_edge": 224}
_EDGES, _SIDES = ("shortest_edge",), ("height", "width")
_COMMON = ("do_resize", "do_rescale", "do_normalize")
_CROPS = (*_COMMON, "do_center_crop")
_HARMLESS = ("do_convert_rgb", "do_reduce_labels")  # we always do the first; the second is for training


@dataclass(frozen=True, slots=True)
class _Row:
    """A processor: its steps, its defaults, and the kinds of size it takes, of which a bare number is the first."""

    steps: tuple[str, ...]
    sizes: tuple[tuple[str, ...], ...]
    defaults: dict[str, Any]


# By the name of the processor without "ImageProcessor" or "FeatureExtractor"
_ROWS = {
    "ViT": _Row(_COMMON, (_SIDES,), {"size": _SQUARE, "resample": _BILINEAR, **_STANDARD}),
    "DeiT": _Row(
        _CROPS,
        (_SIDES,),
        {"size": {"height": 256, "width": 256}, "crop_size": _SQUARE, "resample": _BICUBIC, **_STANDARD},
    ),
    "Bit": _Row(_CROPS, (_EDGES, _SIDES), {"size": _SHORT, "crop_size": _SQUARE, "resample": _BICUBIC, **_CLIP}),
    "CLIP": _Row(_CROPS, (_EDGES, _SIDES), {"size": _SHORT, "crop_size": _SQUARE, "resample": _BICUBIC, **_CLIP}),
    "Siglip": _Row(_COMMON, (_SIDES,), {"size": _SQUARE, "resample": _BICUBIC, **_STANDARD}),
    "Siglip2": _Row(_COMMON, (), {"patch_size": 16, "max_num_patches": 256, "resample": _BILINEAR, **_STANDARD}),
    "ConvNext": _Row(
        _COMMON,
        (_EDGES,),
        {"size": {"shortest_edge": 384}, "crop_pct": 224 / 256, "resample": _BILINEAR, **_STANDARD},
    ),
}
# The processor of a model type, for files that are so old that they do not name it
_OF_MODELS = {
    "vit": "ViT",
    "deit": "DeiT",
    "dinov2": "Bit",
    "clip": "CLIP",
    "siglip": "Siglip",
    "siglip2": "Siglip2",
    "resnet": "ConvNext",
    "convnext": "ConvNext",
    "convnextv2": "ConvNext",
}
_CROP_BELOW = 384  # pixels: ConvNext's processor crops below, and stretches from there on
_FIX = "check the file, or download it again"
_OTHER = "use a model whose pictures are resized or cropped to one size"
_MOST_SIDE = 1 << 12  # pixels of a side that somebody means
_MOST_PATCHES = 1 << 14
_MOST_VALUE = 1e4  # of a mean or a deviation, in units of the rescaled pixels


def image_inputs(folder: Path) -> ImageInputs:
    """Raises `BadFile` for a missing or damaged file, `Unsupported` for a processor or a step that is not known."""
    path, given = _given(folder)
    row = _row(given, path, folder)
    values = Config(row.defaults | given, path)
    for step in given:
        if step.startswith("do_") and step not in (*row.steps, *_HARMLESS) and _does(values, step, False):
            raise Unsupported(path, f"the step {step[:40]} is not known", _OTHER)
    if not row.sizes:
        return _free(values)
    if "crop_pct" in row.defaults:
        height, width, resize, crop = _shares(values, row)
    else:
        height, width, resize, crop = _sizes(values, row)
    return ImageInputs(height, width, resize=resize, crop=crop, **_scaling(values))


def _given(folder: Path) -> tuple[Path, dict[str, Any]]:
    """The file, and what it sets; null counts as not set."""
    path = folder / PICTURES
    if path.is_file() or not (folder / _PROCESSOR).is_file():
        if not path.is_file():
            raise BadFile(path, "the file is missing", "save the image processor beside the model")
        return path, _set(optional_json(path))
    path = folder / _PROCESSOR
    section = Config(optional_json(path), path).section("image_processor")
    if not section.values:
        raise BadFile(path, "it holds no image_processor", "save the image processor beside the model")
    return path, _set(section.values)


def _set(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def _row(given: dict[str, Any], path: Path, folder: Path) -> _Row:
    full = given.get("image_processor_type") or given.get("feature_extractor_type")
    if full is None:
        model = str(optional_json(folder / "config.json").get("model_type")).removesuffix("_vision_model")
        full = _OF_MODELS.get(model, "")
    name = str(full).removesuffix("Fast").removesuffix("ImageProcessor").removesuffix("FeatureExtractor")
    if name not in _ROWS:
        known = f"known: {', '.join(_ROWS)}"
        raise Unsupported(path, f"the processor {name[:40]!r} is not known" if name else "it names no processor", known)
    return _ROWS[name]


def _does(values: Config, step: str, default: bool) -> bool:
    value = values.get(step, default)
    if type(value) is not bool:
        raise BadFile(values.path, f"{step[:40]} is {_shown(value)}, expected true or false", _FIX)
    return value


def _shown(value: Any) -> str:
    return repr(value)[:60]


def _scaling(values: Config) -> dict[str, Any]:
    """Filter, factor, mean and deviation, and the channels that those are for."""
    number = values.get("resample")
    if type(number) is not int or not 0 <= number < len(_FILTERS):
        raise BadFile(values.path, f"resample is {_shown(number)}, expected 0 to {len(_FILTERS) - 1}", _FIX)
    rescale = values.number("rescale_factor", 1 / 255) if _does(values, "do_rescale", True) else 1.0
    if not 1e-6 <= rescale <= 1:
        raise BadFile(values.path, f"rescale_factor is {_shown(rescale)}, expected 1/255 or so", _FIX)
    scaling: dict[str, Any] = {"resample": _FILTERS[number], "rescale": rescale}
    if _does(values, "do_normalize", True):
        mean, std = _channels(values, "image_mean"), _channels(values, "image_std")
        if len(mean) != len(std):
            raise BadFile(values.path, f"{len(mean)} values in image_mean, {len(std)} in image_std", _FIX)
        if not all(value >= 1e-6 for value in std):
            raise BadFile(values.path, f"image_std is {_shown(list(std))}, expected positive numbers", _FIX)
        scaling |= {"channels": len(mean), "mean": mean, "std": std}
    return scaling


def _channels(values: Config, name: str) -> tuple[float, ...]:
    """A number for each colour, or one for grey; a bare number counts for three colours."""
    given = values.get(name)
    given = [given] * 3 if type(given) in (int, float) else given
    if not isinstance(given, list) or len(given) not in (1, 3) or not all(map(_is_sane, given)):
        raise BadFile(values.path, f"{name} is {_shown(given)}, expected three numbers", _FIX)
    return tuple(float(value) for value in given)


def _is_sane(value: Any) -> bool:
    return type(value) in (int, float) and math.fabs(value) <= _MOST_VALUE


def _sizes(values: Config, row: _Row) -> tuple[int, int, tuple[int, ...], bool]:
    """Height and width of the tensor, how to resize, and whether to crop."""
    resize = _size(values, "size", row.sizes) if _does(values, "do_resize", True) else ()
    crop = "do_center_crop" in row.steps and _does(values, "do_center_crop", True)
    final = _size(values, "crop_size", (_SIDES,)) if crop else resize
    if len(final) != 2:
        raise Unsupported(values.path, "its pictures keep their shape, or their size", _OTHER)
    return final[0], final[1], resize, crop


def _size(values: Config, name: str, kinds: tuple[tuple[str, ...], ...]) -> tuple[int, ...]:
    """(side,) for the shorter side, or (height, width), of the `kinds` allowed; a bare number is of the first kind."""
    given = values.get(name)
    given = dict.fromkeys(kinds[0], given) if type(given) is int else given
    if not isinstance(given, dict):
        raise BadFile(values.path, f"{name} is {_shown(given)}, expected pixels", _FIX)
    given = _set(given)
    kind = next((kind for kind in kinds if set(kind) == set(given)), None)
    if kind is None:
        known = " or ".join(" and ".join(kind) for kind in kinds)
        raise Unsupported(values.path, f"{name} is {_shown(given)}", f"for this processor it can be {known}")
    for side in given.values():
        if type(side) is not int or not 0 < side <= _MOST_SIDE:
            raise BadFile(values.path, f"{name} is {_shown(given)}, expected 1 to {_MOST_SIDE} pixels", _FIX)
    return tuple(given[key] for key in kind)


def _shares(values: Config, row: _Row) -> tuple[int, int, tuple[int, ...], bool]:
    """ConvNext's rule: below 384 pixels the picture is enlarged by 1 / crop_pct and cropped, else stretched."""
    if not _does(values, "do_resize", True):
        raise Unsupported(values.path, "its pictures keep their size", _OTHER)
    [side] = _size(values, "size", row.sizes)
    if side >= _CROP_BELOW:
        return side, side, (side, side), False
    share = values.number("crop_pct")
    if not 0.1 <= share <= 1:
        raise BadFile(values.path, f"crop_pct is {_shown(share)}, expected 0.1 to 1", _FIX)
    return side, side, (int(side / share),), True


def _free(values: Config) -> ImageInputs:
    """Pictures that keep their shape (SigLIP 2, NaFlex)."""
    if not _does(values, "do_resize", True):
        raise Unsupported(values.path, "its pictures keep their size", _OTHER)
    patch, most = values.integer("patch_size"), values.integer("max_num_patches")
    if patch * patch * most > _MOST_SIDE**2 or most > _MOST_PATCHES:
        raise BadFile(values.path, f"{most} patches of {patch} pixels are more than anybody means", _FIX)
    return ImageInputs(0, 0, patch=patch, max_patches=most, **_scaling(values))
