"""Our engines beside the pipelines of transformers: tiny checkpoints, converted, on the same texts and pictures."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgemm import open_model
from edgemm.image import from_pixels

transformers = pytest.importorskip("transformers", reason="needs the extra `export`")
pytestmark = pytest.mark.oracle
TEXT = "The quick brown fox jumps over the lazy dog in Paris"
CLOSE = 2e-5


@pytest.fixture
def both(tmp_path: Path) -> Any:
    """The checkpoint's folder and our engine on its package."""
    import tiny_encoders

    from converters.convert import Options, convert

    def made(family: str) -> tuple[str, Any]:
        folder = tiny_encoders.write(tmp_path / family, family)
        *_, found = convert(folder, "onnx-fp32", family, Options(oracle=False))
        return str(folder), open_model(found.path, threads=1)

    return made


@pytest.fixture
def pictures(tmp_path: Path) -> list[str]:
    """Noise in coarse blocks, which no resizing filter finds ambiguous."""
    rng = np.random.default_rng(3)
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for path in paths:
        from_pixels(rng.integers(0, 255, (9, 12, 3), np.uint8).repeat(8, 0).repeat(8, 1)).save(path)
    return list(map(str, paths))


def close(found: list[Any], expected: list[dict[str, Any]]) -> None:
    """Labels and scores in the same order."""
    assert [label.name for label in found] == [row["label"] for row in expected]
    np.testing.assert_allclose([label.score for label in found], [row["score"] for row in expected], atol=CLOSE)


@pytest.mark.parametrize("family", ["bert-classify", "distilbert-classify", "modernbert-mean-classify"])
def test_labels_of_texts(family: str, both: Any) -> None:
    folder, engine = both(family)
    pipeline = transformers.pipeline("text-classification", model=folder, top_k=None)
    texts = [TEXT, "no", "a cat! " * 9]
    for found, expected in zip(engine.classify(texts), pipeline(texts), strict=True):
        close(found, expected)


@pytest.mark.parametrize("family", ["bert-classify", "roberta-classify"])
def test_labels_of_pairs(family: str, both: Any) -> None:
    folder, engine = both(family)
    pipeline = transformers.pipeline("text-classification", model=folder, top_k=None)
    close(engine.classify([(TEXT, "a lazy cat")])[0], pipeline({"text": TEXT, "text_pair": "a lazy cat"}))


@pytest.mark.parametrize("family", ["bert-fill-mask", "roberta-fill-mask", "xlm-roberta-fill-mask", "albert-fill-mask"])
def test_masks(family: str, both: Any) -> None:
    folder, engine = both(family)
    pipeline = transformers.pipeline("fill-mask", model=folder, top_k=5)
    mask = pipeline.tokenizer.mask_token
    one = engine.fill_mask("The quick [MASK] jumps")[0]
    expected = pipeline(f"The quick {mask} jumps")
    assert [filled.token for filled in one] == [row["token_str"].strip() for row in expected]
    np.testing.assert_allclose([f.score for f in one], [row["score"] for row in expected], atol=CLOSE)
    for found, rows in zip(engine.fill_mask("<mask> and [MASK]"), pipeline(f"{mask} and {mask}"), strict=True):
        np.testing.assert_allclose([f.score for f in found], [row["score"] for row in rows], atol=CLOSE)


@pytest.mark.parametrize("family", ["bert-token-classify", "electra-token-classify", "xlm-roberta-token-classify"])
def test_entities(family: str, both: Any) -> None:
    folder, engine = both(family)
    pipeline = transformers.pipeline("token-classification", model=folder, aggregation_strategy="simple")
    found, expected = engine.tokens(TEXT), pipeline(TEXT)
    assert [(e.label, e.start, e.end) for e in found] == [(r["entity_group"], r["start"], r["end"]) for r in expected]
    np.testing.assert_allclose([e.score for e in found], [r["score"] for r in expected], atol=CLOSE)


@pytest.mark.parametrize("family", ["bert-question-answering", "roberta-question-answering"])
def test_answers(family: str, both: Any) -> None:
    folder, engine = both(family)
    pipeline = transformers.pipeline("question-answering", model=folder)
    for question in ("who jumps?", "where is the dog?", "why"):
        [found] = [answer for answer in engine.answer(question, TEXT, top_k=2) if answer.text][:1]
        expected = pipeline(question=question, context=TEXT, max_answer_len=30, align_to_words=False)
        assert (found.text, found.start, found.end) == (expected["answer"], expected["start"], expected["end"])
        assert found.score == pytest.approx(expected["score"], abs=CLOSE)


def test_ranks_are_those_of_the_model(both: Any) -> None:
    import torch

    folder, engine = both("bert-rerank")
    texts = [TEXT, "no", "a lazy dog", "x " * 60]
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        batch = tokenizer([("the dog", text) for text in texts], return_tensors="pt", padding=True)
        expected = model(**batch).logits[:, 0].sigmoid().numpy()
    found = engine.rerank("the dog", texts)
    assert [ranked.index for ranked in found] == list(np.argsort(-expected))
    np.testing.assert_allclose([ranked.score for ranked in found], np.sort(expected)[::-1], atol=CLOSE)


@pytest.mark.parametrize("family", ["vit-classify", "dinov2-classify"])
def test_labels_of_pictures(family: str, both: Any, pictures: list[str]) -> None:
    folder, engine = both(family)
    pipeline = transformers.pipeline("image-classification", model=folder, top_k=7, use_fast=False)
    for found, expected in zip(engine.classify_images(pictures), pipeline(pictures), strict=True):
        close(found, expected)


@pytest.mark.parametrize("family", ["clip", "siglip"])
def test_zero_shot(family: str, both: Any, pictures: list[str]) -> None:
    folder, engine = both(family)
    facts = {"pad_token": "<|endoftext|>" if family == "clip" else "<pad>", "model_input_names": ["input_ids"]}
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=f"{folder}/tokenizer.json", **facts)
    pipeline = transformers.pipeline(
        "zero-shot-image-classification", model=folder, tokenizer=tokenizer, image_processor=folder, use_fast=False
    )
    labels = ["cat", "dog", "the sea"]
    padding = {"padding": "max_length" if family == "siglip" else True, "max_length": 40, "truncation": True}
    expected = pipeline(
        pictures, candidate_labels=labels, hypothesis_template="a photo of {}.", tokenizer_kwargs=padding
    )
    for found, rows in zip(engine.zero_shot(pictures, labels, "a photo of {}."), expected, strict=True):
        close(found, rows)
