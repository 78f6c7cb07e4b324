"""Pictures become the pixels of the reference processors, upright, in the right colours and of the right size.

The pictures are drawn from a seed and saved by Pillow. What happens to hostile files is in test_image_hostile.py.
"""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from converters import oracle
from converters.image_config import image_inputs
from edgemm import image
from edgemm.errors import BadFile
from edgemm.manifest import ImageInputs

Bytes = NDArray[np.uint8]
PLAIN = ImageInputs(64, 64, resize=(64, 64))
CROPPED = ImageInputs(224, 224, resize=(224,), crop=True, mean=(0.5,) * 3, std=(0.5,) * 3)
AS_IT_IS = ImageInputs(0, 0, rescale=1.0)
EXACT = 1e-5  # on the scale of 0 to 1
ROUNDED = 2.5 / 255  # two passes of a filter, taken in another order


def drawn(seed: int, width: int, height: int) -> Bytes:
    """uint8 (height, width, 3): soft colours, a hard edge, stripes and grain."""
    rng = np.random.default_rng(seed)
    soft = rng.integers(40, 216, (max(2, height // 60 + 2), max(2, width // 60 + 2), 3), dtype=np.uint8)
    canvas = np.array(Image.fromarray(soft).resize((width, height), Image.Resampling.BICUBIC)).astype(np.int16)
    canvas[height // 3 : height // 2, width // 4 :] = rng.integers(0, 256, 3)
    canvas[:, width // 2 : width // 2 + width // 8 : 4] = 255
    canvas += rng.integers(-12, 13, canvas.shape, dtype=np.int16)
    return np.clip(canvas, 0, 255).astype(np.uint8)


def saved(picture: Image.Image, format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format, **options)
    return buffer.getvalue()


def pixels(raw: bytes | Path, inputs: ImageInputs = AS_IT_IS) -> NDArray[np.float32]:
    return image.to_tensor(image.read_image(raw, inputs), inputs)


def planes(array: Bytes) -> NDArray[np.float32]:
    """(height, width, 3) or (height, width) as (channels, height, width)."""
    return np.atleast_3d(array).transpose(2, 0, 1).astype(np.float32)


# Parity with the reference processors

MODES = {
    "RGB": ("JPEG", "PNG", "WEBP", "BMP", "TIFF"),
    "L": ("JPEG", "PNG", "TIFF"),
    "P": ("PNG", "GIF"),
    "RGBA": ("PNG", "WEBP"),
    "LA": ("PNG",),
    "CMYK": ("JPEG", "TIFF"),
    "1": ("PNG", "TIFF"),
    "I;16": ("PNG", "TIFF"),
}
SHAPES = [(30, 20), (20, 30), (224, 224), (500, 375), (375, 500), (301, 299), (1200, 800), (90, 700), (611, 97)]
LARGE = [(3000, 2000), (2000, 3000)]
if oracle.available():
    import transformers

    PROCESSORS = {
        "vit": lambda: transformers.ViTImageProcessor(),
        "deit": lambda: transformers.DeiTImageProcessor(),
        "dinov2": lambda: transformers.BitImageProcessor(size={"shortest_edge": 256}),
        "clip": lambda: transformers.CLIPImageProcessor(),
        "clip, padded": lambda: transformers.CLIPImageProcessor(size={"shortest_edge": 199}, crop_size=224),
        "siglip": lambda: transformers.SiglipImageProcessor(),
        "siglip2": lambda: transformers.Siglip2ImageProcessor(),
        "resnet": lambda: transformers.ConvNextImageProcessor(size={"shortest_edge": 224}),
        "convnext": lambda: transformers.ConvNextImageProcessor(),
    }
else:
    PROCESSORS = {}


@pytest.fixture(scope="module")
def varied() -> list[tuple[bytes, Image.Image]]:
    """50 files, and what is in each as RGB."""
    kinds = [(mode, format) for mode, formats in MODES.items() for format in formats]
    made = []
    for i in range(50):
        mode, format = kinds[i % len(kinds)]
        width, height = LARGE[i % 2] if i < 4 else SHAPES[i % len(SHAPES)]
        array = drawn(i, width, height)
        if mode == "I;16":
            grey = Image.fromarray(array).convert("L")
            deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
            made.append((saved(deep, format), grey.convert("RGB")))
        else:
            raw = saved(in_mode(array, mode), format)
            made.append((raw, Image.open(io.BytesIO(raw)).convert("RGB")))
    return made


def in_mode(array: Bytes, mode: str) -> Image.Image:
    picture = Image.fromarray(array)
    if mode in ("RGBA", "LA"):
        picture.putalpha(Image.fromarray(array[..., 0]))
    return picture.convert(mode)


def reference(processor: Any, picture: Image.Image) -> NDArray[np.float32]:
    found = processor(picture, return_tensors="np")
    values = found["pixel_values"][0]
    if "spatial_shapes" in found:
        high, wide = found["spatial_shapes"][0]
        side = processor.patch_size
        grid = values[: high * wide].reshape(high, wide, side, side, 3)
        values = grid.transpose(4, 0, 2, 1, 3).reshape(3, high * side, wide * side)
    return np.asarray(values, np.float32)


@pytest.mark.oracle
@pytest.mark.skipif(not oracle.available(), reason="transformers and torch are not installed (extra `export`)")
@pytest.mark.parametrize("name", PROCESSORS)
def test_the_pixels_are_those_of_the_reference(
    name: str, varied: list[tuple[bytes, Image.Image]], tmp_path: Path
) -> None:
    processor = PROCESSORS[name]()
    processor.save_pretrained(tmp_path)
    inputs = image_inputs(tmp_path)
    std = np.array(inputs.std)[:, None, None]
    worst = 0.0
    for raw, rgb in varied:
        ours, theirs = pixels(raw, inputs), reference(processor, rgb)
        assert ours.dtype == np.float32
        assert ours.shape == theirs.shape
        worst = max(worst, float(np.abs((ours - theirs) * std).max()))
    print(f"{name}: {255 * worst:.6f} of 255 at most")
    assert worst < EXACT


# Colours, frames, turns


def test_a_grey_model_gets_one_channel() -> None:
    array = drawn(1, 50, 40)
    grey = ImageInputs(40, 50, channels=1, rescale=1.0)
    expected = planes(np.asarray(Image.fromarray(array).convert("L")))
    np.testing.assert_array_equal(pixels(saved(Image.fromarray(array), "PNG"), grey), expected)


def test_a_dark_picture_of_16_bits_stays_dark() -> None:
    deep = np.array([[0, 128, 129, 255, 65535]], np.uint16)
    for format in ("PNG", "TIFF"):
        assert pixels(saved(Image.fromarray(deep), format))[0].tolist() == [[0, 0, 1, 1, 255]]


@pytest.mark.parametrize(
    ("values", "white"),
    [([0, 100, 255], 255), ([0, 300, 65535], 65535), ([0, 5, 1 << 24], 1 << 24), ([0.0, 0.25, 1.0], 1)],
)
def test_a_picture_of_32_bits_is_scaled_by_the_white_that_fits(values: list[float], white: float) -> None:
    array = np.array([values], np.int32 if isinstance(values[1], int) else np.float32)
    found = pixels(saved(Image.fromarray(array), "TIFF"))[0, 0]
    np.testing.assert_allclose(found, 255 * np.array(values) / white, atol=0.5)


def test_a_picture_of_floats_may_hold_no_number() -> None:
    array = np.array([[np.nan, np.inf, -np.inf, 1.0]], np.float32)
    assert pixels(saved(Image.fromarray(array), "TIFF")).shape == (3, 1, 4)


@pytest.mark.parametrize("format", ["GIF", "WEBP", "TIFF", "PNG"])
def test_of_an_animation_the_first_frame_is_taken(format: str) -> None:
    first, second = (Image.new("RGB", (20, 10), colour) for colour in ("red", "blue"))
    options = {"lossless": True} if format == "WEBP" else {}
    found = pixels(saved(first, format, save_all=True, append_images=[second], **options))
    assert found.shape == (3, 10, 20)
    assert found[:, 5, 5].tolist() == [255, 0, 0]


# How the rows and columns of an upright array lie in a file, by the definition of the tag in the EXIF standard
TURNS = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: a[:, ::-1].transpose(1, 0, 2),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: a[::-1].transpose(1, 0, 2),
}


@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP", "JPEG"])
def test_a_picture_is_turned_as_exif_says(turn: int, format: str) -> None:
    upright = drawn(3, 48, 32)
    exif = Image.Exif()
    exif[0x0112] = turn
    stored = Image.fromarray(np.ascontiguousarray(TURNS[turn](upright)))
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}}.get(format, {})
    found = pixels(saved(stored, format, exif=exif, **options))
    np.testing.assert_allclose(found, planes(upright), atol=6 if format == "JPEG" else 0)


@pytest.mark.parametrize("block", [b"Exif\0\0", b"Exif\0\0garbage", b"Exif\0\0MM\0*\xff\xff\xff\xff", b"Exif\0\0II*\0"])
def test_a_damaged_exif_block_does_not_hide_the_picture(block: bytes) -> None:
    raw = saved(Image.fromarray(drawn(3, 48, 32)), "JPEG", exif=block)
    assert pixels(raw).shape == (3, 32, 48)


# Sizes


@pytest.mark.parametrize("inputs", [PLAIN, CROPPED])
def test_one_pixel_fills_the_picture(inputs: ImageInputs) -> None:
    found = pixels(saved(Image.new("RGB", (1, 1), (255, 0, 0)), "PNG"), inputs)
    assert found.shape == (3, inputs.height, inputs.width)
    assert np.ptp(found, axis=(1, 2)).tolist() == [0, 0, 0]


@pytest.mark.parametrize(("width", "height"), [(3000, 10), (10, 3000), (1, 500), (2999, 13)])
@pytest.mark.parametrize("resample", ["bilinear", "bicubic", "lanczos"])
def test_the_middle_of_a_strip_is_that_of_the_whole_strip(width: int, height: int, resample: str) -> None:
    calm = 60 + drawn(1, width, height) // 2  # so that no filter overshoots
    inputs = ImageInputs(200, 224, resize=(224,), crop=True, resample=resample)
    found = pixels(saved(Image.fromarray(calm), "PNG"), inputs)
    short = min(width, height)
    wide, high = int(224 * width / short), int(224 * height / short)
    whole = Image.fromarray(calm).resize((wide, high), Image.Resampling[resample.upper()])
    left, top = (wide - 224) // 2, (high - 200) // 2
    expected = planes(np.asarray(whole.crop((left, top, left + 224, top + 200)))) / 255
    assert wide * high > 4_000_000
    assert np.abs(found - expected).max() < ROUNDED


def test_a_strip_that_is_not_cropped_is_refused_before_it_grows() -> None:
    strip = image.from_pixels(drawn(1, 20000, 10))
    with pytest.raises(BadFile, match="20000 x 10 pixels would become 448000 x 224"):
        image.to_tensor(strip, ImageInputs(224, 224, resize=(224,)))


@pytest.mark.parametrize(("width", "height"), [(1, 1), (20000, 10), (10, 20000), (640, 480), (17, 16)])
def test_a_free_picture_is_whole_patches_and_no_more_than_allowed(width: int, height: int) -> None:
    inputs = ImageInputs(0, 0, patch=16, max_patches=256)
    _, high, wide = pixels(saved(Image.new("RGB", (width, height)), "PNG"), inputs).shape
    assert high % 16 == wide % 16 == 0
    assert 1 <= high * wide // 256 <= 256


def camera(width: int, height: int, **options: Any) -> bytes:
    """A large JPEG, like a photograph: soft, with detail, a few edges and some noise."""
    rng = np.random.default_rng(0)
    soft = Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)).resize((width // 8, height // 8), 3)
    detail = np.asarray(soft).astype(np.int16) + rng.integers(-20, 21, (height // 8, width // 8, 3), dtype=np.int16)
    sharp = Image.fromarray(np.clip(detail, 0, 255).astype(np.uint8)).resize((width, height), 3)
    sharp.paste((230, 200, 20), (width // 3, height // 3, width // 2, height // 2))
    return saved(sharp, "JPEG", quality=90, **options)


def test_a_large_jpeg_is_decoded_smaller_and_looks_the_same() -> None:
    raw = camera(4000, 3000)
    small = image.read_image(raw, CROPPED)
    assert small.size == (2000, 1500)
    whole = Image.open(io.BytesIO(raw)).convert("RGB")
    difference = 0.5 * np.abs(image.to_tensor(small, CROPPED) - image.to_tensor(whole, CROPPED))
    print(f"draft: {255 * difference.max():.2f} of 255 at most, {255 * difference.mean():.3f} on average")
    assert difference.max() < 3 / 255
    assert difference.mean() < 0.2 / 255


@pytest.mark.parametrize(("width", "height"), [(4001, 3000), (1200, 800), (2000, 2000)])
def test_a_jpeg_is_decoded_whole_where_that_would_change_it(width: int, height: int) -> None:
    assert image.read_image(camera(width, height), CROPPED).size == (width, height)


def test_the_limit_is_on_the_pixels_that_are_decoded() -> None:
    assert image.read_image(camera(4000, 3000), CROPPED, limit=4_000_000).size == (2000, 1500)
    assert image.read_image(camera(4001, 3001), CROPPED, limit=4_000_000).size == (2001, 1501)
    for refused in (camera(4000, 3000, progressive=True), saved(Image.new("L", (4000, 3000)), "PNG")):
        with pytest.raises(BadFile, match=r"has 4000 x 3000 = 12,000,000 pixels, more than 4,000,000 — make it small"):
            image.read_image(refused, CROPPED, limit=4_000_000)
