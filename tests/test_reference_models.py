"""The two vision models that are kept in tests/reference, trained on digits and on drawn scenes: what INT8 costs them.

Real trained weights: accuracy, recall and the label that wins, of the packages against the float32 packages, on
pictures that neither training nor calibration has seen.
"""

import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, Cli
from numpy.typing import NDArray

from converters.convert import Options, convert
from edgemm import image, models
from edgemm.errors import BelowFloor
from edgemm.package import Package

REFERENCE = ROOT / "tests" / "reference"
sys.path.insert(0, str(REFERENCE))

import scenes  # noqa: E402

SCENES, DIGITS = REFERENCE / "scenes-clip", REFERENCE / "digits-vit"
MOST_LOST, LEAST_AGREEMENT = 0.005, 0.99
Make = Callable[[Path, str], Path]


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Converts once for all tests of this file."""

    @cache
    def made(checkpoint: Path, target: str) -> Path:
        *_, found = convert(checkpoint, target, options=Options(oracle=False))
        assert isinstance(found, Package)
        kept = tmp_path_factory.mktemp("packages") / found.name
        found.path.rename(kept)
        return kept

    return made


def digits() -> tuple[list[bytes], NDArray[np.uint8]]:
    """The held-out pictures as PNG files, and their labels."""
    with np.load(DIGITS / "held_out.npz", allow_pickle=False) as arrays:
        return [png(np.repeat(pixels[..., None], 3, axis=-1)) for pixels in arrays["images"]], arrays["labels"]


def png(pixels: NDArray[np.uint8]) -> bytes:
    import io

    buffer = io.BytesIO()
    image.from_pixels(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def guesses(package: Path, pictures: list[bytes]) -> NDArray[np.int64]:
    with models.open_vision(package) as model:
        return np.array([int(labels[0].name) for labels in model.classify_images(pictures, 1)])


def test_digits_are_told_apart_as_well_in_int8(make: Make) -> None:
    pictures, labels = digits()
    exact, int8 = (guesses(make(DIGITS, target), pictures) for target in ("onnx-fp32", "onnx-int8"))
    assert (exact == labels).mean() > 0.97
    assert (int8 == labels).mean() >= (exact == labels).mean() - MOST_LOST
    assert (int8 == exact).mean() >= LEAST_AGREEMENT


def spaces(package: Path, count: int = 300) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Vectors of captions and of pictures, in the same order."""
    held_out = scenes.held_out(count)
    with models.open_vision(package) as model:
        pictures = [png(np.asarray(scenes.render(scene))) for scene in held_out]
        return model.embed_texts([scenes.caption(scene) for scene in held_out]), model.embed_images(pictures)


def test_scenes_are_found_by_their_captions_as_well_in_int8(make: Make) -> None:
    exact, int8 = (spaces(make(SCENES, target)) for target in ("onnx-fp32", "onnx-int8"))
    best = [(texts @ pictures.T).argmax(axis=1) for texts, pictures in (exact, int8)]
    recall = [(found == np.arange(len(found))).mean() for found in best]
    assert recall[0] > 0.9
    assert recall[1] >= recall[0] - MOST_LOST
    assert (best[0] == best[1]).mean() >= LEAST_AGREEMENT


def test_the_command_names_the_digit_and_the_scene(make: Make, tmp_path: Path, cli: Cli) -> None:
    pictures, labels = digits()
    (tmp_path / "digit.png").write_bytes(pictures[3])
    done = cli("predict", "-m", make(DIGITS, "onnx-int8"), tmp_path / "digit.png", "--top-k", 1)
    assert done.stdout.split("\t")[1] == str(labels[3])
    scene, *others = scenes.held_out(5)
    scenes.render(scene, 256).save(tmp_path / "scene.png")
    captions = ",".join(scenes.caption(each) for each in (*others, scene))
    done = cli("predict", "-m", make(SCENES, "onnx-int8"), tmp_path / "scene.png", "--labels", captions)
    assert done.stdout.split("\n")[0].split("\t")[1] == scenes.caption(scene)


@pytest.mark.parametrize(("most", "fits"), [(1_500_000, True), (900_000, False)])
def test_a_size_holds_for_both_halves_together(most: int, fits: bool) -> None:
    options = Options(oracle=False, max_size=most)
    if not fits:
        with pytest.raises(BelowFloor, match="the most is"):
            list(convert(SCENES, "onnx-int8", options=options))
        return
    *_, found = convert(SCENES, "onnx-int8", options=options)
    assert isinstance(found, Package)
    assert sum(path.stat().st_size for path in found.path.glob("*.onnx")) <= most
