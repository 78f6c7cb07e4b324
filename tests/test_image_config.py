"""preprocessor_config.json becomes the numbers of the manifest, as transformers would read it; nonsense is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from converters import oracle
from converters.image_config import image_inputs
from edgemm.errors import BadFile, Unsupported
from edgemm.manifest import ImageInputs

HALF = (0.5, 0.5, 0.5)
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def write(folder: Path, values: dict[str, Any], file: str = "preprocessor_config.json") -> Path:
    (folder / file).write_text(json.dumps(values))
    return folder


def named(name: str, **values: Any) -> dict[str, Any]:
    return {"image_processor_type": name, **values}


# As the files of well-known checkpoints are written, and how their pictures are prepared
CHECKPOINTS: dict[str, tuple[dict[str, Any], ImageInputs]] = {
    "vit": (
        {
            "do_normalize": True,
            "do_resize": True,
            "feature_extractor_type": "ViTFeatureExtractor",
            "image_mean": [0.5, 0.5, 0.5],
            "image_std": [0.5, 0.5, 0.5],
            "resample": 2,
            "size": 224,
        },
        ImageInputs(224, 224, resize=(224, 224), resample="bilinear", mean=HALF, std=HALF),
    ),
    "deit: a number is a square, also before a crop": (
        {
            "crop_size": 224,
            "do_center_crop": True,
            "feature_extractor_type": "DeiTFeatureExtractor",
            "resample": 3,
            "size": 256,
            "image_mean": [0.5, 0.5, 0.5],
            "image_std": [0.5, 0.5, 0.5],
        },
        ImageInputs(224, 224, resize=(256, 256), crop=True, mean=HALF, std=HALF),
    ),
    "dinov2": (
        named(
            "BitImageProcessor",
            crop_size={"height": 224, "width": 224},
            do_convert_rgb=True,
            size={"shortest_edge": 256},
            rescale_factor=0.00392156862745098,
            image_mean=[0.5, 0.5, 0.5],
            image_std=[0.5, 0.5, 0.5],
        ),
        ImageInputs(224, 224, resize=(256,), crop=True, rescale=0.00392156862745098, mean=HALF, std=HALF),
    ),
    "clip": (
        {"crop_size": 224, "do_center_crop": True, "feature_extractor_type": "CLIPFeatureExtractor", "size": 224},
        ImageInputs(224, 224, resize=(224,), crop=True, mean=CLIP_MEAN, std=CLIP_STD),
    ),
    "clip, stretched": (
        named("CLIPImageProcessorFast", size={"height": 336, "width": 300}, do_center_crop=False, do_pad=False),
        ImageInputs(336, 300, resize=(336, 300), mean=CLIP_MEAN, std=CLIP_STD),
    ),
    "siglip": (
        named("SiglipImageProcessor", size={"height": 384, "width": 384}, do_convert_rgb=None, processor_class="x"),
        ImageInputs(384, 384, resize=(384, 384), mean=HALF, std=HALF),
    ),
    "siglip2": (
        named("Siglip2ImageProcessorFast", max_num_patches=512, patch_size=14, resample=3),
        ImageInputs(0, 0, patch=14, max_patches=512, mean=HALF, std=HALF),
    ),
    "resnet": (
        {"feature_extractor_type": "ConvNextFeatureExtractor", "crop_pct": 0.875, "size": 224, "resample": 3},
        ImageInputs(224, 224, resize=(256,), crop=True, mean=HALF, std=HALF),
    ),
    "convnext": (
        named("ConvNextImageProcessor", size={"shortest_edge": 384}, crop_pct=None),
        ImageInputs(384, 384, resize=(384, 384), resample="bilinear", mean=HALF, std=HALF),
    ),
    "only cropped": (
        named("CLIPImageProcessor", do_resize=False, do_normalize=False, do_rescale=False, crop_size=64),
        ImageInputs(64, 64, crop=True, rescale=1.0),
    ),
    "grey": (
        named("ViTImageProcessor", size=28, image_mean=[0.1], image_std=[0.3]),
        ImageInputs(28, 28, channels=1, resize=(28, 28), resample="bilinear", mean=(0.1,), std=(0.3,)),
    ),
    "one number for all colours": (
        named("ViTImageProcessor", image_mean=0.5, image_std=0.25, do_reduce_labels=True),
        ImageInputs(224, 224, resize=(224, 224), resample="bilinear", mean=HALF, std=(0.25,) * 3),
    ),
}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_the_files_of_well_known_checkpoints_are_read(name: str, tmp_path: Path) -> None:
    values, expected = CHECKPOINTS[name]
    assert image_inputs(write(tmp_path, values)) == expected


@pytest.mark.oracle
@pytest.mark.skipif(not oracle.available(), reason="transformers and torch are not installed (extra `export`)")
@pytest.mark.parametrize("name", ["ViT", "DeiT", "Bit", "CLIP", "Siglip", "Siglip2", "ConvNext"])
def test_what_a_file_leaves_out_is_what_transformers_fills_in(name: str, tmp_path: Path) -> None:
    import transformers

    kind = getattr(transformers, f"{name}ImageProcessor")
    short, full = tmp_path / "short", tmp_path / "full"
    for folder in (short, full):
        folder.mkdir()
    kind().save_pretrained(full)
    assert image_inputs(write(short, named(f"{name}ImageProcessor"))) == image_inputs(full)


@pytest.mark.parametrize(("model", "filter"), [("vit", "bilinear"), ("dinov2", "bicubic"), ("clip_vision_model", "")])
def test_the_model_says_which_processor_an_old_file_is_of(model: str, filter: str, tmp_path: Path) -> None:
    write(tmp_path, {"model_type": model}, "config.json")
    found = image_inputs(write(tmp_path, {"size": 96, "do_normalize": False}))
    assert found.resample == (filter or "bicubic")
    assert found.resize == ((96, 96) if model == "vit" else (96,))


def test_the_processor_of_two_towers_is_read_when_there_is_no_other(tmp_path: Path) -> None:
    write(tmp_path, {"image_processor": named("SiglipImageProcessor", size=96)}, "processor_config.json")
    assert image_inputs(tmp_path).height == 96
    write(tmp_path, named("SiglipImageProcessor", size=64))
    assert image_inputs(tmp_path).height == 64


UNSUPPORTED: dict[str, tuple[dict[str, Any], str]] = {
    "another processor": (named("BeitImageProcessor"), "the processor 'Beit' is not known — known: ViT, DeiT"),
    "no processor": ({"size": 224}, "it names no processor"),
    "padding": (named("ViTImageProcessor", do_pad=True), "the step do_pad is not known"),
    "a step of another one": (named("SiglipImageProcessor", do_center_crop=True), "the step do_center_crop is not"),
    "a longest side": (named("CLIPImageProcessor", size={"longest_edge": 224}), "it can be shortest_edge or height"),
    "both sides": (named("CLIPImageProcessor", size={"shortest_edge": 1, "longest_edge": 2}), "it can be shortest"),
    "a shortest side": (named("ViTImageProcessor", size={"shortest_edge": 224}), "it can be height and width"),
    "any shape": (named("CLIPImageProcessor", do_center_crop=False), "its pictures keep their shape"),
    "any size": (named("ViTImageProcessor", do_resize=False), "its pictures keep their shape, or their size"),
    "any size of ConvNext": (named("ConvNextImageProcessor", do_resize=False), "its pictures keep their size"),
    "any size of SigLIP 2": (named("Siglip2ImageProcessor", do_resize=False), "its pictures keep their size"),
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_what_cannot_be_done_is_refused_with_a_reason(name: str, tmp_path: Path) -> None:
    values, why = UNSUPPORTED[name]
    with pytest.raises(Unsupported) as caught:
        image_inputs(write(tmp_path, values))
    assert why in str(caught.value)


ABSURD: list[tuple[str, str, Any]] = [
    *(("CLIP", "size", value) for value in (0, -1, 10**9, 2.5, "224", True, [], {"shortest_edge": "224"})),
    *(("CLIP", "crop_size", value) for value in (0, -1, 10**9, {"height": 224, "width": 0}, "x")),
    *(("ViT", "size", value) for value in ({"height": 0, "width": 224}, {"height": 224, "width": 1e3})),
    *(("ViT", "resample", value) for value in (-1, 6, 2.0, "bicubic", True, [2])),
    *(("ViT", "rescale_factor", value) for value in (0, -1, 1e9, "1/255", float("nan"), float("inf"), True)),
    *(("ViT", "image_mean", value) for value in ([], [0.5] * 2, [0.5] * 4, [0.5, 0.5, "x"], "x", {}, [1e9] * 3, [0.5])),
    *(("ViT", "image_std", value) for value in ([0.5, 0, 0.5], [-1] * 3, [1e-30] * 3, [float("nan")] * 3, True, 0)),
    *(("ViT", step, value) for step in ("do_resize", "do_rescale", "do_normalize") for value in ("false", 0, [])),
    *(("CLIP", "do_center_crop", value) for value in ("yes", 1)),
    *(("ViT", "do_something", value) for value in ("yes", 1)),
    *(("Siglip2", "patch_size", value) for value in (0, -1, 10**9, 1.5, "16", 5000)),
    *(("Siglip2", "max_num_patches", value) for value in (0, -1, 10**9, 1.5, "256", 1 << 20)),
    *(("ConvNext", "crop_pct", value) for value in (0, -1, 7, "x", float("nan"))),
    *(("ConvNext", "size", value) for value in (0, -1, 10**9, {"shortest_edge": 0})),
]


@pytest.mark.parametrize(("processor", "key", "value"), ABSURD)
def test_an_absurd_value_is_refused_by_name(processor: str, key: str, value: Any, tmp_path: Path) -> None:
    values = named(f"{processor}ImageProcessor") | ({"size": 224} if processor == "ConvNext" else {}) | {key: value}
    with pytest.raises(BadFile) as caught:
        image_inputs(write(tmp_path, values))
    assert type(caught.value) is BadFile
    assert key in str(caught.value) or "patches" in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path / "preprocessor_config.json"))
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "7", "\0", "[" * 100_000])
def test_a_damaged_file_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text(text)
    with pytest.raises(BadFile, match=r"not valid JSON|not a JSON object"):
        image_inputs(tmp_path)


@pytest.mark.parametrize("section", [None, {}, [], "x"])
def test_a_processor_without_pictures_is_refused(section: Any, tmp_path: Path) -> None:
    with pytest.raises(BadFile, match="image_processor"):
        image_inputs(write(tmp_path, {"image_processor": section}, "processor_config.json"))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match=r"preprocessor_config\.json: the file is missing"):
        image_inputs(tmp_path)
