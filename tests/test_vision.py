"""Pictures on a scripted encoder that sees their mean colour, and on small ONNX graphs that do the same."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_words

from edgemm import models, open_model
from edgemm.backends.fake import FakePictures
from edgemm.batches import BatchOptions
from edgemm.errors import BadFile, PromptTooLong, UsageError
from edgemm.image import from_pixels
from edgemm.manifest import ImageInputs, Inputs, MadeBy, Manifest, Quantization, Source, ZeroShot
from edgemm.tokenizer import Overflow
from edgemm.vision import VisionModel

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
SQUARE = ImageInputs(8, 8, resize=(8, 8))
LABELS = ("reddish", "greenish", "bluish")


def picture(path: Path, colour: tuple[int, int, int] = RED, size: tuple[int, int] = (8, 8)) -> Path:
    from_pixels(np.full((*size, 3), colour, np.uint8)).save(path)
    return path


def manifest(task: str, image: ImageInputs | None = SQUARE, normalize: bool = True, **facts: Any) -> Manifest:
    inputs = Inputs(8, normalize=normalize, dimensions=3, image=image)
    made = (Quantization("onnx-fp32"), MadeBy("test"))
    return Manifest("tiny", task, "vit", Source("tiny"), *made, inputs=inputs, **facts)


def model(task: str = "image-embed", threads: int = 2, names: tuple[str, ...] = (), **facts: Any) -> VisionModel:
    return VisionModel(FakePictures(), manifest(task, **facts), None, BatchOptions(threads=threads), names)


@pytest.fixture
def shades(tmp_path: Path) -> list[Path]:
    """30 pictures, each a little less red than the one before it."""
    return [picture(tmp_path / f"{i}.png", (255 - 8 * i, 8 * i, 0)) for i in range(30)]


# Vectors


@pytest.mark.parametrize("threads", [1, 3])
def test_vectors_are_in_input_order(threads: int, shades: list[Path]) -> None:
    with model(threads=threads, normalize=False) as engine:
        vectors = engine.embed_images(shades)
    assert (vectors.dtype, vectors.shape) == (np.float32, (30, 3))
    np.testing.assert_allclose(vectors[:, 1], [8 * i / 255 for i in range(30)], atol=1e-6)


def test_vectors_have_length_one_when_the_manifest_says_so(shades: list[Path]) -> None:
    with model() as engine:
        np.testing.assert_allclose(np.linalg.norm(engine.embed_images(shades), axis=1), 1, atol=1e-6)


def test_a_picture_may_be_a_path_its_name_or_its_bytes(tmp_path: Path) -> None:
    path = picture(tmp_path / "a.png", GREEN)
    with model() as engine:
        vectors = engine.embed_images([path, str(path), path.read_bytes()])
    np.testing.assert_allclose(vectors, [[0, 1, 0]] * 3, atol=1e-6)


def test_no_pictures_no_vectors() -> None:
    with model() as engine:
        assert engine.embed_images([]).shape == (0, 3)
        with pytest.raises(UsageError, match="pass a list"):
            engine.embed_images("photo.png")


def test_batches_stay_small_and_of_one_shape(shades: list[Path], tmp_path: Path) -> None:
    encoder = FakePictures()
    free = ImageInputs(0, 0, patch=4, max_patches=16)
    wide = [picture(tmp_path / f"wide{i}.png", BLUE, (8, 32)) for i in range(3)]
    with VisionModel(encoder, manifest("image-embed", free, normalize=False)) as engine:
        vectors = engine.embed_images([*shades[:6], *wide, shades[6]])
    assert encoder.batches == [4, 2, 3, 1]
    np.testing.assert_allclose(vectors[6:9], [[0, 0, 1]] * 3, atol=1e-6)


def test_a_stream_reads_only_a_little_ahead(tmp_path: Path) -> None:
    taken = 0
    path = picture(tmp_path / "a.png")

    def sources() -> Iterator[Path]:
        nonlocal taken
        for _ in range(1000):
            taken += 1
            yield path

    with model(threads=1) as engine:
        stream = engine.stream_images(sources())
        assert len(next(stream)) == 4
        assert taken < 30
        stream.close()


def test_what_is_no_picture_is_named(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("hello")
    good = picture(tmp_path / "good.png")
    (tmp_path / "short.png").write_bytes(good.read_bytes()[:40])
    with model() as engine:
        for name in ("text.png", "short.png", "missing.png"):
            with pytest.raises(BadFile, match=name):
                engine.embed_images([good, tmp_path / name, good])
        with pytest.raises(BadFile, match="picture"):
            engine.embed_images([b"hello"])


def test_an_error_in_a_thread_arrives(tmp_path: Path) -> None:
    class Broken(FakePictures):
        def run(self, feeds: dict[str, Any]) -> np.ndarray:
            raise MemoryError("no room")

    with VisionModel(Broken(), manifest("image-embed")) as engine, pytest.raises(MemoryError):
        engine.embed_images([picture(tmp_path / "a.png")] * 20)


# Labels


def test_labels_come_sorted(tmp_path: Path) -> None:
    purple = picture(tmp_path / "a.png", (102, 0, 204))
    with model("image-classify", labels=LABELS, scores="") as engine:
        labels = engine.classify_image(purple)
        assert [(label.name, round(label.score, 3)) for label in labels] == [
            ("bluish", 0.8),
            ("reddish", 0.4),
            ("greenish", 0),
        ]
        assert [label.name for label in engine.classify_image(purple, top_k=1)] == ["bluish"]


def test_many_pictures_are_labelled_in_their_order(shades: list[Path]) -> None:
    with model("image-classify", labels=LABELS, scores="softmax") as engine:
        best = [labels[0].name for labels in engine.classify_images(shades)]
    assert best == ["reddish"] * 16 + ["greenish"] * 14


def test_as_many_names_as_outputs(tmp_path: Path) -> None:
    path = picture(tmp_path / "a.png")
    with model("image-classify", labels=LABELS, names=("r", "g", "b")) as engine:
        assert engine.classify_image(path)[0].name == "r"
    with (
        model("image-classify", labels=LABELS, names=("r", "g")) as engine,
        pytest.raises(UsageError, match="2 names were given, tiny has 3 outputs"),
    ):
        engine.classify_image(path)


def test_only_the_methods_of_the_task_can_be_called(tmp_path: Path) -> None:
    path = picture(tmp_path / "a.png")
    with model("image-classify") as engine:
        with pytest.raises(UsageError, match="is for image-classify, not for image-embed — call classify_images"):
            engine.embed_images([path])
        with pytest.raises(UsageError, match="not for image-text"):
            engine.zero_shot([path], ["a", "b"])
    with model("image-embed") as engine:
        with pytest.raises(UsageError, match="is for image-embed, not for image-classify"):
            engine.classify_image(path)
        with pytest.raises(UsageError, match="is for image-embed, and reads no texts"):
            engine.embed_texts(["a"])


def test_a_manifest_without_picture_inputs_is_refused() -> None:
    with pytest.raises(BadFile, match=r"no `inputs\.image`"):
        model(image=None)


# Texts and pictures, on ONNX graphs: a caption is the sum of its words' colours

COLOURS = tiny_words.table(red=(1, 0, 0), blue=(0, 0, 1), the=(0.1, 0.1, 0.1))
TOWERS = {
    "text_model.onnx": tiny_words.looked_up(COLOURS, pooled=True),
    "vision_model.onnx": tiny_words.colours(np.eye(3)),
}


@pytest.fixture
def both() -> VisionModel:
    inputs = Inputs(8, dimensions=3, image=SQUARE)
    rule = ZeroShot(10, template="the {} cat")
    tiny_words.write_package("both", "image-text", TOWERS, inputs=inputs, zero_shot=rule)
    opened = open_model("both", threads=2)
    assert isinstance(opened, VisionModel)
    return opened


def test_texts_and_pictures_share_a_space(both: VisionModel, tmp_path: Path) -> None:
    with both:
        words = both.embed_texts(["red", "blue", "a red blue day"])
        seen = both.embed_images([picture(tmp_path / "a.png", BLUE)])
    np.testing.assert_allclose(words, [[1, 0, 0], [0, 0, 1], [0.5**0.5, 0, 0.5**0.5]], atol=1e-6)
    np.testing.assert_allclose(seen @ words.T, [[0, 1, 0.5**0.5]], atol=1e-6)


def test_zero_shot_is_scale_times_cosine_through_softmax(both: VisionModel, tmp_path: Path) -> None:
    paths = [picture(tmp_path / "r.png", RED), picture(tmp_path / "b.png", BLUE)]
    caption = np.array([[1.1, 0.1, 0.1], [0.1, 0.1, 1.1]])
    cosines = (caption / np.linalg.norm(caption, axis=1, keepdims=True))[:, 0]
    expected = np.exp(10 * cosines) / np.exp(10 * cosines).sum()
    with both:
        red, blue = both.zero_shot(paths, ["red", "blue"])
    assert [label.name for label in red] == ["red", "blue"]
    np.testing.assert_allclose([label.score for label in red], expected, atol=1e-6)
    assert [label.name for label in blue] == ["blue", "red"]


def test_another_template_and_the_best_label_alone(both: VisionModel, tmp_path: Path) -> None:
    path = picture(tmp_path / "r.png", RED)
    with both:
        [[best]] = both.zero_shot([path], ["red", "blue"], "{}", top_k=1)
        assert (best.name, best.score) == ("red", pytest.approx(1 / (1 + np.exp(-10)), abs=1e-6))
        with pytest.raises(UsageError, match=r"the template 'a cat' holds no \{\}"):
            both.zero_shot([path], ["red"], "a cat")
        with pytest.raises(UsageError, match="there are no labels"):
            both.zero_shot([path], [])


def test_zero_shot_with_sigmoid_judges_each_label_alone(tmp_path: Path) -> None:
    inputs, rule = Inputs(8, dimensions=3, image=SQUARE), ZeroShot(4, -2, "sigmoid", "{}")
    tiny_words.write_package("siglip", "image-text", TOWERS, inputs=inputs, zero_shot=rule)
    with models.open_vision("siglip") as engine:
        [labels] = engine.zero_shot([picture(tmp_path / "r.png")], ["blue", "red"])
    assert [(label.name, round(label.score, 4)) for label in labels] == [("red", 0.8808), ("blue", 0.1192)]


def test_a_long_caption_is_refused_or_cut_when_asked(both: VisionModel) -> None:
    text = "red " + "the " * 9 + "blue"
    with both, pytest.raises(PromptTooLong, match="has 13 tokens, this model takes 8"):
        both.embed_texts([text])
    with models.open_vision("both", BatchOptions(overflow=Overflow.CUT)) as engine:
        np.testing.assert_allclose(engine.embed_texts([text]), engine.embed_texts(["red " + "the " * 5]), atol=1e-6)


def test_captions_are_padded_as_the_manifest_says() -> None:
    """Every padding token counts in this model, as in those that are always padded."""
    lengths = tiny_words.graph_of_lengths(pad_id=4)
    inputs = Inputs(8, normalize=False, dimensions=2, image=SQUARE, pad_to=8, pad_id=4)
    files = {"text_model.onnx": lengths, "vision_model.onnx": TOWERS["vision_model.onnx"]}
    tiny_words.write_package("padded", "image-text", files, inputs=inputs, zero_shot=ZeroShot(1))
    with models.open_vision("padded") as engine:
        assert engine.embed_texts(["red", "red blue cat"]).tolist() == [[8, 5], [8, 3]]  # places, and those of padding


def test_a_package_without_one_of_its_halves_is_a_bad_file() -> None:
    inputs = Inputs(8, dimensions=3, image=SQUARE)
    one = {"text_model.onnx": TOWERS["text_model.onnx"]}
    tiny_words.write_package("half", "image-text", one, inputs=inputs, zero_shot=ZeroShot(1))
    with pytest.raises(BadFile, match=r"holds no vision_model\.onnx"):
        models.open_vision("half")


def test_a_model_of_another_task_is_refused(both: VisionModel) -> None:
    both.close()
    head = {"model.onnx": tiny_words.looked_up(COLOURS, pooled=True)}
    tiny_words.write_package("texts", "classify", head, inputs=Inputs(8))
    with pytest.raises(UsageError, match="texts: is for classify, not for pictures"):
        models.open_vision("texts")
    with pytest.raises(UsageError, match="both: is for image-text, not for scores of texts"):
        models.open_classifier("both")
    with pytest.raises(UsageError, match="both: is for image-text, not for embedding texts"):
        models.open_embedder("both")
