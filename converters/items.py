"""What the builds of an encoder are run on: texts, pairs, masked texts or pictures, as a part of a model takes them.

Built in, or the user's own; what is compared was not calibrated on. It knows no graph and no floor.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from converters import pictures
from converters.calibrate import CALIBRATION, HELD_OUT
from converters.job import BUILT_IN, NONE
from converters.onnx_parts import Item, Part, Text
from edgemm import image
from edgemm.errors import BadFile, PromptTooLong, UsageError, disk_errors
from edgemm.manifest import ImageInputs
from edgemm.tokenizer import Overflow, Tokenizer

_PAIRS = ("rerank", "next-sentence", "question-answering")  # tasks whose input is two texts
_MAX_FILE = 16 << 20
_MASKED = 0.15  # of the tokens of a text, at least one
_LONGEST = 512  # characters of each text of a pair
_FREE_SIDE = 256  # pixels of a drawn picture, where the model sets no size
_MOST = 64  # pictures of the user's that are calibrated on


def calibration(part: Part, tokenizer: Tokenizer | None, source: str, prefix: str = "") -> list[Item]:
    """Raises `BadFile` when the user's file or folder holds nothing."""
    path = Path(source)
    if part.image is not None:
        found = _user_pictures(path)[::2][:_MOST] if _is_folder(source) else []
        return _pictures(part.image, found or range(pictures.COUNT))
    own = source not in (BUILT_IN, NONE) and not path.is_dir()
    return _texts(part, _tokenizer(tokenizer), _user_texts(path) if own else CALIBRATION, prefix)


def held_out(part: Part, tokenizer: Tokenizer | None, source: str, prefix: str = "") -> list[Item]:
    if part.image is not None:
        found = _user_pictures(Path(source))[1::2][:_MOST] if _is_folder(source) else []
        return _pictures(part.image, found or range(pictures.COUNT, 2 * pictures.COUNT))
    return _texts(part, _tokenizer(tokenizer), HELD_OUT, prefix)


def check(part: Part, tokenizer: Tokenizer | None, text: str) -> list[Item]:
    """The fixed input whose answer the manifest remembers."""
    if part.image is not None:
        return _pictures(part.image, range(1))
    return _texts(part, _tokenizer(tokenizer), [text], "")


def _is_folder(source: str) -> bool:
    return source not in (BUILT_IN, NONE) and Path(source).is_dir()


def _tokenizer(tokenizer: Tokenizer | None) -> Tokenizer:
    assert tokenizer is not None, "a part that takes texts has a tokenizer"
    return tokenizer


def _user_texts(path: Path) -> list[str]:
    """The lines of a UTF-8 file, without those that are empty."""
    with disk_errors(path):
        if not path.is_file():
            raise UsageError(path, "there is no such file or folder", "give --calibrate a text file, or pictures")
        if path.stat().st_size > _MAX_FILE:
            raise BadFile(path, f"has {path.stat().st_size} bytes, more than {_MAX_FILE}", "take a part of it")
        text = path.read_text("utf-8", "replace")
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        raise BadFile(path, "the calibration file is empty", "put some texts into it, one a line")
    return lines


def _user_pictures(folder: Path) -> list[Path]:
    found = sorted(path for path in folder.rglob("*") if image.is_image(path) and path.is_file())
    if not found:
        raise BadFile(folder, "the folder holds no pictures", "put some JPEG or PNG files into it")
    return found


def _pictures(inputs: ImageInputs, sources: Sequence[Path] | range) -> list[Item]:
    if not isinstance(sources, range):
        return list(image.load_images(sources, inputs))
    side = max(inputs.height, inputs.width) or _FREE_SIDE
    drawn = pictures.drawn(sources.start, len(sources), side)
    return [image.to_tensor(image.from_pixels(pixels), inputs) for pixels in drawn]


def _texts(part: Part, tokenizer: Tokenizer, texts: Sequence[str], prefix: str) -> list[Item]:
    """Texts of like length stand together, so that batches hold little padding."""
    if part.task in _PAIRS:
        found = list(_pairs(part, tokenizer, texts))
    else:
        encoded = tokenizer.encode([prefix + text for text in texts], part.max_tokens, Overflow.CUT)
        fill = [part.pad_id] * part.pad_to  # a model that is always padded looks at the padding too
        rows = [[*each.rows[0], *fill[len(each.rows[0]) :]] for each in encoded]
        found = [Text(row, text=text) for row, text in zip(rows, texts, strict=True)]
    if part.head is not None and part.head.pool == "masked":
        found = [_masked(part, tokenizer, text) for text in found]
    return [*sorted(found, key=lambda text: len(text.ids))]


def _pairs(part: Part, tokenizer: Tokenizer, texts: Sequence[str]) -> Iterator[Text]:
    """Each text with the one behind it; those that do not fit are left out."""
    for first, second in zip(texts, [*texts[1:], texts[0]], strict=True):
        try:
            pair = tokenizer.pair(first[:_LONGEST], second[:_LONGEST], part.max_tokens)
        except PromptTooLong:
            continue
        yield Text(pair.ids, pair.types)


def _masked(part: Part, tokenizer: Tokenizer, text: Text) -> Text:
    """Some tokens, drawn by the text itself, replaced by the mask."""
    mask = tokenizer.token_id(part.mask_token)
    if mask is None:
        raise BadFile(part.checkpoint.tokenizer, f"it has no token {part.mask_token!r}", "download it again")
    rng = np.random.default_rng(len(text.ids) + sum(text.ids))
    inner = np.arange(1, max(2, len(text.ids) - 1))
    places = sorted(rng.choice(inner, max(1, int(_MASKED * len(inner))), replace=False).tolist())
    return Text([mask if i in places else token for i, token in enumerate(text.ids)], text.types, places)
