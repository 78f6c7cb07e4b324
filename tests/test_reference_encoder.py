"""The numpy forward pass computes what transformers computes, for every row of architectures/ with a graph of ours."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters import oracle
from converters.architectures import onnx_row
from converters.checkpoint import Array, Checkpoint, open_checkpoint
from converters.encoder import Encoder, Towers, Weights, read_sizes
from converters.reference import ACTIVATIONS, Reference, numpy_reference
from edgemm.errors import Unsupported

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.skipif(not oracle.available(), reason="transformers and torch are not installed (extra `export`)"),
]
if oracle.available():
    import tiny_checkpoints as tiny
    import tiny_encoders
    import tiny_nomic
    import tiny_tokenizers
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    TEXTS, IMAGES, TOWERS = tiny_encoders.TEXTS, tiny_encoders.IMAGES, tiny_encoders.TOWERS
else:
    TEXTS = IMAGES = TOWERS = {}

DIFFERENCE = 2e-5
VOCABULARY = 300
LENGTHS = (200, 37)  # windows, rotary positions and the coarse buckets of relative ones matter in the longer one
EXPECTED = {"mean": lambda x: x.mean(0), "cls": lambda x: x[0], "last": lambda x: x[-1]}


def opened(folder: Path, family: "tiny.Family", monkeypatch: pytest.MonkeyPatch) -> tuple[Checkpoint, Any]:
    """The saved checkpoint, and the model of transformers; without a tokenizer, ids are made up."""
    monkeypatch.setattr(tiny_tokenizers, "size", lambda _: VOCABULARY)
    tiny.model(family).save_pretrained(folder)
    (folder / "tokenizer.json").write_text("{}")
    kind = getattr(transformers, family.model)
    return open_checkpoint(folder), kind.from_pretrained(folder, attn_implementation="eager").eval()


def row_of(checkpoint: Checkpoint) -> Any:
    return onnx_row(checkpoint.model_type.replace("_vision_model", ""), checkpoint.folder)


def reference(checkpoint: Checkpoint, row: Encoder) -> Reference:
    sizes, config = read_sizes(row, checkpoint.config, checkpoint.folder)
    weights = Weights(row, checkpoint, config)
    weights.check(sizes)
    return Reference(weights, sizes, config)


def texts(count: int = len(LENGTHS)) -> list[list[int]]:
    rng = np.random.default_rng(0)
    return [rng.integers(5, VOCABULARY, length).tolist() for length in LENGTHS[:count]]


def pictures(*sizes: tuple[int, int]) -> list[Array]:
    rng = np.random.default_rng(0)
    return [rng.normal(size=(3, *size)).astype(np.float32) for size in sizes]


def ask(model: Any, ids: list[int], **more: Any) -> Any:
    with torch.inference_mode():
        return model(input_ids=torch.tensor([ids]), **{name: torch.tensor([row]) for name, row in more.items()})


def difference(ours: Array, theirs: Any) -> float:
    theirs = theirs.numpy() if hasattr(theirs, "numpy") else theirs
    assert ours.dtype == np.float32
    assert ours.shape == theirs.shape
    return float(np.abs(ours - theirs).max())


@pytest.mark.parametrize("name", [n for n, f in TEXTS.items() if f.task == "embed" and not f.dense])
def test_embedding(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    family = TEXTS[name]
    checkpoint, model = opened(tmp_path, family, monkeypatch)
    found = reference(checkpoint, row_of(checkpoint))
    vectors = found.embed(texts(), family.pooling, normalize=False)
    for ids, states, vector in zip(texts(), found.hidden(texts()), vectors, strict=True):
        theirs = ask(model, ids).last_hidden_state[0]
        assert difference(states, theirs) < DIFFERENCE
        assert difference(vector, EXPECTED[family.pooling](theirs)) < DIFFERENCE


@pytest.mark.parametrize("name", [n for n, f in TEXTS.items() if f.task != "embed"])
def test_head(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    family = TEXTS[name]
    checkpoint, model = opened(tmp_path, family, monkeypatch)
    row = row_of(checkpoint)
    pairs = row.sizes.get("token_types") and checkpoint.config["type_vocab_size"] > 1
    types = [[0] * 20 + [1] * (len(ids) - 20) for ids in texts()] if pairs else []
    asked = [[3, 199], [20]]
    found = reference(checkpoint, row).logits(texts(), row.heads[family.task], types, asked)
    for i, (ids, ours) in enumerate(zip(texts(), found, strict=True)):
        out = ask(model, ids, **({"token_type_ids": types[i]} if pairs else {}))
        assert difference(ours, labels(out, family.task, asked[i])) < DIFFERENCE


@pytest.mark.parametrize("name", ["bert-fill-mask", "distilbert-fill-mask", "modernbert-fill-mask"])
def test_output_matrix_of_its_own(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    family = replace(TEXTS[name], settings=TEXTS[name].settings | {"tie_word_embeddings": False})
    checkpoint, model = opened(tmp_path, family, monkeypatch)
    row = row_of(checkpoint)
    found = reference(checkpoint, row).logits(texts(1), row.heads["fill-mask"], positions=[[3]])
    assert difference(found[0], ask(model, texts()[0]).logits[0, [3]]) < DIFFERENCE


def labels(out: Any, task: str, asked: list[int]) -> Any:
    if task == "question-answering":
        return torch.stack([out.start_logits, out.end_logits], -1)[0]
    logits = out.prediction_logits if "prediction_logits" in out else out.logits
    return logits[0, asked] if task == "fill-mask" else logits[0]


@pytest.mark.parametrize("name", IMAGES)
def test_picture(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    family = IMAGES[name]
    checkpoint, model = opened(tmp_path, family, monkeypatch)
    row = row_of(checkpoint)
    row = row.vision if isinstance(row, Towers) else row
    found = reference(checkpoint, row)
    pixels = pictures((32, 32), (32, 32))
    with torch.inference_mode():
        out = model(torch.tensor(np.stack(pixels)))
    if family.task == "image-classify":
        head = row.special.get(checkpoint.kind) or row.heads[family.task]
        assert difference(np.stack(found.logits(pixels, head)), out.logits) < DIFFERENCE
    else:
        vectors = found.embed(pixels, row.pooling, normalize=False)
        assert difference(vectors, theirs_of(out, row.pooling)) < DIFFERENCE


def theirs_of(out: Any, pooling: str) -> Any:
    if "image_embeds" in out:
        return out.image_embeds
    return out.pooler_output if pooling == "probe" else out.last_hidden_state[:, 0]


@pytest.mark.parametrize("size", [(32, 48), (16, 24), (37, 32)])
def test_positions_of_another_size(size: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint, model = opened(tmp_path, IMAGES["vit-embed"], monkeypatch)
    pixels = pictures(size)
    with torch.inference_mode():
        cut = torch.tensor(pixels[0])[None, :, : size[0] // 8 * 8]
        theirs = model(cut, interpolate_pos_encoding=True).last_hidden_state[0]
    assert difference(reference(checkpoint, row_of(checkpoint)).hidden(pixels)[0], theirs) < DIFFERENCE


@pytest.mark.parametrize("name", TOWERS)
def test_text_tower(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint, model = opened(tmp_path, TOWERS[name], monkeypatch)
    row = row_of(checkpoint)
    ids = np.random.default_rng(0).integers(3, VOCABULARY, (2, 40 if row.pad_to_window else 12))
    if not row.pad_to_window:
        end = checkpoint.config["text_config"]["eos_token_id"]
        ids[:, -3:] = VOCABULARY + 2 if name == "clip-legacy" else end  # the first end counts
    vectors = reference(checkpoint, row.text).embed(ids.tolist(), row.text.pooling, normalize=False)
    with torch.inference_mode():
        assert difference(vectors, model.get_text_features(input_ids=torch.tensor(ids))) < DIFFERENCE


@pytest.mark.parametrize("name", [n for n in TOWERS if n != "siglip2"])
def test_image_tower(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint, model = opened(tmp_path, TOWERS[name], monkeypatch)
    row, pixels = row_of(checkpoint).vision, pictures((32, 32), (32, 32))
    vectors = reference(checkpoint, row).embed(pixels, row.pooling, normalize=True)
    with torch.inference_mode():
        theirs = model.get_image_features(pixel_values=torch.tensor(np.stack(pixels)))
    assert difference(vectors, torch.nn.functional.normalize(theirs)) < DIFFERENCE


@pytest.mark.parametrize("grid", [(4, 4), (6, 3), (2, 7), (1, 1)])
def test_pictures_of_any_shape(grid: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SigLIP 2 takes patches; positions are averages where the grid is smaller than the trained one."""
    checkpoint, model = opened(tmp_path, TOWERS["siglip2"], monkeypatch)
    row, (pixels,) = row_of(checkpoint).vision, pictures((grid[0] * 8, grid[1] * 8))
    cells = [pixels[:, i : i + 8, j : j + 8] for i in range(0, grid[0] * 8, 8) for j in range(0, grid[1] * 8, 8)]
    patches = torch.tensor(np.stack([cell.transpose(1, 2, 0).ravel() for cell in cells])[None])
    mask, shapes = torch.ones(1, len(cells)), torch.tensor([grid])
    with torch.inference_mode():
        theirs = model.get_image_features(pixel_values=patches, pixel_attention_mask=mask, spatial_shapes=shapes)
    assert difference(reference(checkpoint, row).embed([pixels], row.pooling, normalize=False), theirs) < DIFFERENCE


def test_nomic(tmp_path: Path) -> None:
    tiny_nomic.write(tmp_path)
    checkpoint = open_checkpoint(tmp_path)
    vectors = reference(checkpoint, row_of(checkpoint)).embed(texts(), "mean", normalize=False)
    for ids, vector in zip(texts(), vectors, strict=True):
        assert difference(vector, tiny_nomic.embed(tmp_path, ids)) < DIFFERENCE


def test_checkpoint_says_how_to_embed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pooling, projections one behind the other, and normalization are those of its sentence-transformers modules."""
    family = TEXTS["roberta-embed-dense"]
    _, model = opened(tmp_path, family, monkeypatch)
    tiny.write_modules(tmp_path, "last", family.dense)
    vectors = numpy_reference(open_checkpoint(tmp_path)).embed(texts())
    states = torch.stack([ask(model, ids).last_hidden_state[0, -1] for ids in texts()])
    theirs = torch.nn.functional.normalize(tiny.project(tmp_path, states))
    assert difference(vectors, theirs) < DIFFERENCE


def test_a_picture_is_no_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint, _ = opened(tmp_path, IMAGES["vit-embed"], monkeypatch)
    with pytest.raises(Unsupported, match="no text encoder"):
        numpy_reference(checkpoint)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation(name: str) -> None:
    """Far from 0 too, where exp would overflow."""
    x = np.concatenate([np.linspace(-8, 8, 2001), [-200, 200]]).astype(np.float32)
    theirs = transformers.activations.ACT2FN[name](torch.tensor(x).double())
    assert np.abs(ACTIVATIONS[name](x) - theirs.numpy()).max() < 1e-6
