"""Pictures to tensors, from the numbers in the manifest: opened with care, turned upright, resized, cropped, scaled.

A picture is untrusted: its header is checked before anything is decoded, only plain formats are opened, and whatever
goes wrong inside is one `BadFile`. Resizing is that of the reference processors (Pillow's antialiasing filters on 8
bits), so that the pixels are theirs. It knows no model and no vectors.
"""

import io
import logging
import math
import re
import warnings
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgemm import device
from edgemm.errors import BadFile, disk_errors
from edgemm.manifest import ImageInputs

if TYPE_CHECKING:
    from PIL.Image import Image

Pixels = NDArray[np.float32]
MAX_PIXELS = 16_000_000
SUFFIXES = frozenset({".jpg", ".jpeg", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"})
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")  # others start programs (EPS), or are seldom and little tested
_JPEG = ("JPEG", "MPO")  # MPO: a JPEG with others behind it, as many cameras write it
_MAX_BYTES = 256 << 20
_FIX = "use a JPEG, PNG, WebP, GIF, BMP or TIFF file that other programs can open"
_SMALLER = "make it smaller first"
# A JPEG is decoded at a half, a quarter or an eighth where that leaves so many times the sides that are needed. At 6,
# photographs differ from a full decode by at most 2 of 255 and by 0.13 on average; at 3 by 4 and 0.3, at 1.5 by 13.
_DRAFT = 6
# Decoded that small, a camera's JPEG needs little memory: its header may say so many times the limit.
_DRAFT_LIMIT = 4
# Each scan of a progressive JPEG passes over all pixels (8 ms for 16 megapixels, from 31 bytes); usual are about 10.
_MAX_SCANS = 100
_SCAN = re.compile(rb"\xff\xda\x00[\x08\x0a\x0c\x0e][\x01-\x04]")
_LARGE = 4_000_000  # pixels: of a resized picture larger than this only what survives the crop is made
_MAX_RESIZED = 1 << 24  # pixels that a model gets
_AHEAD = 2  # pictures in flight for each decoding thread
_ORIENTATION = 0x0112  # the tag of EXIF
_EXIF, _TAKEN = 0x8769, 0x9003  # its further tags, and of them when the picture was taken (EXIF 2.32)
_DATE = re.compile(r"(\d{4}):(\d\d):(\d\d) (\d\d:\d\d:\d\d)")
# Its values but 1, upright -> the name of what turns the picture upright in PIL.Image.Transpose
_TURNS = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}
# Pillow warns and logs on stderr about large and slightly damaged pictures; what matters is refused here. Set once:
# `warnings.catch_warnings` is not made for threads.
warnings.filterwarnings("ignore", module=r"PIL\.")
logging.getLogger("PIL").addHandler(logging.NullHandler())


def is_image(path: Path) -> bool:
    """By its suffix; whether it is one is seen when it is opened."""
    return path.suffix.lower() in SUFFIXES


def read_image(source: Path | bytes, inputs: ImageInputs, limit: int = MAX_PIXELS) -> "Image":
    """The first frame, upright, in the model's colours ("RGB" or "L"), 8 bits a channel.

    A large JPEG may come at a half, a quarter or an eighth of its sides. Raises `BadFile`, also when more than `limit`
    pixels would have to be decoded: before a decoder allocates them.
    """
    name, raw = _bytes(source)
    from PIL import Image

    try:
        picture = Image.open(io.BytesIO(raw), formats=_FORMATS)
        why = _prepare(picture, raw, inputs, limit)
        if why:
            raise BadFile(name, why, _SMALLER)
        picture.load()
        return _colours(_upright(picture), inputs.channels)
    except BadFile:
        raise
    except Image.DecompressionBombError as error:  # Pillow's own limit is met while it reads the header
        raise BadFile(name, f"has {_number(error)} pixels, more than {limit:,}", _SMALLER) from error
    except MemoryError as error:
        raise BadFile(name, "needs more memory than there is", _SMALLER) from error
    except Exception as error:  # Pillow's decoders raise errors of many kinds on damaged files
        raise BadFile(name, f"is no picture that can be read ({_reason(error)})", _FIX) from error


def taken_at(source: Path | bytes) -> str:
    """When a picture was taken, by its EXIF: "2024-05-01T12:30:00" without a zone, or "". Raises `BadFile`."""
    from PIL import Image

    name, raw = _bytes(source)
    try:
        with Image.open(io.BytesIO(raw), formats=_FORMATS) as picture:
            found = str(picture.getexif().get_ifd(_EXIF).get(_TAKEN, ""))
    except Exception as error:  # Pillow's many ways of meeting a damaged file
        raise BadFile(name, f"is no picture that can be read ({_reason(error)})", _FIX) from error
    date = _DATE.fullmatch(found)
    return "{}-{}-{}T{}".format(*date.groups()) if date else ""


def from_pixels(pixels: NDArray[np.uint8]) -> "Image":
    """A picture from uint8 (height, width, 3), or (height, width) for grey."""
    from PIL import Image

    return Image.fromarray(pixels)


def to_tensor(picture: "Image", inputs: ImageInputs) -> Pixels:
    """float32 (channels, height, width), as the model wants it. `picture` has the model's number of channels.

    Raises `BadFile` when the resized picture would not fit into memory.
    """
    _check_size(picture, inputs)
    pixels = np.asarray(_cropped(_resized(picture, inputs), inputs))
    planes = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    mean = np.array(inputs.mean or [0.0], np.float32)[:, None, None]
    std = np.array(inputs.std or [1.0], np.float32)[:, None, None]
    # (x * rescale - mean) / std, as one product and one sum
    tensor = np.empty(planes.shape, np.float32)
    np.multiply(planes, np.float32(inputs.rescale) / std, out=tensor)
    tensor -= mean / std
    return tensor


def load_images(sources: Iterable[Path | bytes], inputs: ImageInputs, threads: int = 0) -> Iterator[Pixels]:
    """Tensors in the order of `sources`, read by `threads` (0: one for each core), only a few ahead of the caller.

    Raises `BadFile` in the place of the picture that cannot be read.
    """
    count = threads or device.cores()
    waiting: deque[Future[Pixels]] = deque()
    with ThreadPoolExecutor(count, thread_name_prefix="edgemm-image") as pool:
        try:
            for source in sources:
                waiting.append(pool.submit(_tensor, source, inputs))
                if len(waiting) > _AHEAD * count:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:  # Ctrl-C, errors and callers that stop: what has not begun never will
            for future in waiting:
                future.cancel()


def _tensor(source: Path | bytes, inputs: ImageInputs) -> Pixels:
    return to_tensor(read_image(source, inputs), inputs)


def _bytes(source: Path | bytes) -> tuple[Path | str, bytes]:
    """What to call it, and what it holds."""
    if isinstance(source, bytes):
        return "picture", source
    with disk_errors(source):
        if source.is_dir() or not source.exists():
            raise BadFile(source, "is a folder" if source.is_dir() else "there is no such file", "name a picture file")
        size = source.stat().st_size
        if not 0 < size <= _MAX_BYTES:
            raise BadFile(source, f"has {size} bytes, a picture has 1 to {_MAX_BYTES}", _FIX)
        return source, source.read_bytes()


def _reason(error: Exception) -> str:
    """Its message in one short line; without the address of the buffer that it was read from."""
    text = str(error).split(" <_io", 1)[0].strip() or type(error).__name__
    return ascii(" ".join(text.split()))[1:-1][:100]


def _number(error: Exception) -> str:
    """The first number that it names."""
    found = re.search(r"\d+", str(error))
    return f"{int(found[0]):,}" if found else "too many"


def _prepare(picture: Any, raw: bytes, inputs: ImageInputs, limit: int) -> str:
    """Set how it will be decoded, or say why it will not be."""
    width, height = picture.size
    if picture.format in _JPEG:
        if sum(1 for _ in _SCAN.finditer(raw)) > _MAX_SCANS:
            return f"has more than {_MAX_SCANS} scans"
        _draft(picture, inputs, limit)
    if picture.width * picture.height > limit:
        return f"has {width} x {height} = {width * height:,} pixels, more than {limit:,}"
    return ""


def _draft(picture: Any, inputs: ImageInputs, limit: int) -> None:
    """Let the JPEG decoder make a smaller picture, where the model sees no difference."""
    width, height = picture.size
    is_large = width * height > limit
    # The decoder of a progressive file holds all of its coefficients, however small the result.
    if is_large and (picture.info.get("progressive") or width * height > _DRAFT_LIMIT * limit):
        return
    tall, wide = _target(height, width, inputs)
    if len(inputs.resize) == 2:
        tall = wide = max(inputs.resize)  # the picture may lie on its side
    for scale in (8, 4, 2):
        # Sides that do not divide would change the shape by a part of a pixel: only where the alternative is refusal.
        is_exact = width % scale == height % scale == 0
        if min(width / wide, height / tall) >= _DRAFT * scale and (is_exact or is_large):
            picture.draft(None, (width // scale, height // scale))
            return


def _upright(picture: "Image") -> "Image":
    """As EXIF says; a damaged EXIF block is no reason to refuse the pixels, viewers show such pictures too."""
    from PIL import Image

    try:
        turn = _TURNS.get(picture.getexif().get(_ORIENTATION, 1))
    except Exception:
        return picture
    return picture.transpose(Image.Transpose[turn]) if turn else picture


def _colours(picture: "Image", channels: int) -> "Image":
    """RGB or grey, 8 bits. Transparency is dropped, not laid over a colour: so do the reference processors."""
    if picture.mode in ("I", "F") or picture.mode.startswith("I;16"):
        picture = _eight_bits(picture)
    mode = "L" if channels == 1 else "RGB"
    return picture if picture.mode == mode else picture.convert(mode)


def _eight_bits(picture: "Image") -> "Image":
    """A deep picture scaled to 8 bits: Pillow's own conversion would cut off everything above 255."""
    values = np.asarray(picture).astype(np.float32)  # native byte order
    if not picture.mode.startswith("I;16"):
        values = np.nan_to_num(values, copy=False)
    top = 65535.0 if picture.mode.startswith("I;16") else _top(values, picture.mode)
    return from_pixels(np.clip(values * np.float32(255 / top) + np.float32(0.5), 0, 255).astype(np.uint8))


def _top(values: Pixels, mode: str) -> float:
    """White in a file of 32 bits a pixel, which does not say it: the smallest usual one that holds all values."""
    most = float(values.max(initial=0))
    usual = (1.0, 255.0, 65535.0) if mode == "F" else (255.0, 65535.0)
    return next((top for top in usual if most <= top), most)


def _target(height: int, width: int, inputs: ImageInputs) -> tuple[int, int]:
    """Height and width after resizing."""
    if inputs.max_patches:
        return _patched(height, width, inputs.patch, inputs.max_patches)
    if len(inputs.resize) == 2:
        return inputs.resize[0], inputs.resize[1]
    if not inputs.resize:
        return height, width
    [side] = inputs.resize
    short, long = min(height, width), max(height, width)
    other = int(side * long / short)
    return (other, side) if width <= height else (side, other)


def _patched(height: int, width: int, patch: int, most: int) -> tuple[int, int]:
    """The largest size of about that shape whose sides are whole patches, at most `most` of them (SigLIP 2, NaFlex).

    The scale is found by halving, to 1e-5, as the reference does.
    """

    def side(scale: float, size: int) -> int:
        return max(patch, math.ceil(size * scale / patch) * patch)

    low, high = 1e-6, 100.0
    while high - low >= 1e-5:
        scale = (low + high) / 2
        fits = side(scale, height) // patch * (side(scale, width) // patch) <= most
        low, high = (scale, high) if fits else (low, scale)
    return side(low, height), side(low, width)


def _check_size(picture: "Image", inputs: ImageInputs) -> None:
    size = (inputs.height, inputs.width) if inputs.crop else _target(picture.height, picture.width, inputs)
    if math.prod(size) > _MAX_RESIZED:
        why = f"{picture.width} x {picture.height} pixels would become {size[1]} x {size[0]}"
        raise BadFile("picture", why, "cut it to a shape that is less long")


def _resized(picture: "Image", inputs: ImageInputs) -> "Image":
    from PIL import Image

    height, width = _target(picture.height, picture.width, inputs)
    if (height, width) == (picture.height, picture.width):
        return picture
    resample = Image.Resampling[inputs.resample.upper()]
    if inputs.crop and height * width > _LARGE:
        return _resized_middle(picture, inputs, (height, width), resample)
    return picture.resize((width, height), resample)


def _resized_middle(picture: "Image", inputs: ImageInputs, size: tuple[int, int], resample: Any) -> "Image":
    """Only the part of a long strip that survives the crop: all of it could be a hundred times larger.

    Not for all pictures: of one that is much higher than wide, Pillow would take the sides in another order, and
    round differently from the reference.
    """
    spans = []
    for new, old, kept in zip(size, (picture.height, picture.width), (inputs.height, inputs.width), strict=True):
        length = min(new, kept)
        start = (new - length) // 2
        spans.append((length, start * old / new, (start + length) * old / new))
    (height, top, bottom), (width, left, right) = spans
    return picture.resize((width, height), resample, (left, top, right, bottom))


def _cropped(picture: "Image", inputs: ImageInputs) -> "Image":
    """The middle, of the model's size; what is missing is black."""
    if not inputs.crop:
        return picture
    # Where something is missing the reference puts the odd pixel first, else it lies behind the middle.
    left, top = (
        (have - want) // 2 if have >= want else -math.ceil((want - have) / 2)
        for have, want in ((picture.width, inputs.width), (picture.height, inputs.height))
    )
    return picture.crop((left, top, left + inputs.width, top + inputs.height))
