"""Checkpoints without a graph of ours, through optimum's exporter, against transformers itself. Needs `export`."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_checkpoints as tiny
from tiny_checkpoints import Family

from converters import export_job, export_optimum
from converters.checkpoint import open_checkpoint
from converters.job import Options
from converters.oracle import vectors
from converters.recipe import RECIPES
from converters.verify import similarity
from edgemm import models, package
from edgemm.backends import Sampling
from edgemm.backends.ort import OrtModel
from edgemm.backends.ort_generator import DecoderFiles, OrtGenerator
from edgemm.errors import BadFile, MissingExtra, Unsupported
from edgemm.events import Done, Token, value_of
from edgemm.package import Package

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.skipif(not export_optimum.available(), reason="optimum and torch are not installed (extra `export`)"),
]
PROMPTS = ("Water expands when it freezes", "The dog next door", "def mean(values):", "A good password", "Sort the")
SIDE = 64
_DEBERTA = {
    "relative_attention": True, "position_buckets": 32, "norm_rel_ebd": "layer_norm", "share_att_key": True,
    "pos_att_type": ["p2c", "c2p"], "type_vocab_size": 0, "position_biased_input": False,
}  # fmt: skip
ENCODERS = {
    "deberta-v2": Family("DebertaV2Model", "bert", tiny._encoder() | _DEBERTA, "embed"),
    "camembert": Family("CamembertModel", "xlm-roberta", tiny._ROBERTA, "embed", "cls"),
}


def convert(checkpoint: Path, target: str, name: str) -> Package:
    """A package in the store, with the figures of its comparison. Fails below the floor."""
    with package.staged(name) as folder:
        work = export_job.run(open_checkpoint(checkpoint), RECIPES[target], name, folder, Options())
        outcome = value_of(work)
        assert outcome.comparison.passed, outcome.comparison.failures
        content = {"metrics": outcome.comparison.metrics, "notes": outcome.notes, **outcome.details}
        package.write_manifest(folder, outcome.manifest, content)
    return package.open_package(models.locate(name))


# A chat model


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write(tmp_path_factory.mktemp("gpt2") / "tiny-gpt2", tiny.CHATS["gpt2"])


def continued(found: Package, prompts: list[list[int]], count: int) -> list[list[int]]:
    """Greedy tokens after each prompt, by the runtime."""
    assert found.manifest.chat is not None
    files = DecoderFiles(found.path / "model.onnx", found.path / "tokenizer.json", found.manifest.chat.context)
    greedy = Sampling(max_tokens=count, temperature=0, repetition_penalty=1)
    with OrtGenerator(files) as generator:
        streams = [list(generator.generate(prompt, greedy)) for prompt in prompts]
    return [[event.id for event in stream if isinstance(event, Token) and event.id >= 0] for stream in streams]


def by_transformers(checkpoint: Path, prompts: list[list[int]], count: int) -> list[tuple[list[int], float]]:
    """Greedy tokens after each prompt, and by how much the likeliest one leads at least."""
    import torch
    import transformers

    model = transformers.GPT2LMHeadModel.from_pretrained(checkpoint).eval()
    found = []
    for prompt in prompts:
        text = torch.tensor([prompt])
        whole = model.generate(text, attention_mask=text * 0 + 1, max_new_tokens=count, do_sample=False, pad_token_id=0)
        first, second = model(whole).logits.detach()[0, len(prompt) - 1 : -1].topk(2).values.T
        found.append((whole[0, len(prompt) :].tolist(), float((first - second).min())))
    return found


@pytest.mark.parametrize(("target", "lead"), [("onnx-fp32", 1e-4), ("onnx-int8", 0.01)])
def test_gpt2_goes_on_as_in_transformers(target: str, lead: float, gpt2: Path) -> None:
    """Wherever the likeliest token leads by `lead`: random weights make close races."""
    found = convert(gpt2, target, "tiny")
    with models.open_chat("tiny") as chat:
        tokenizer = chat._generator
        prompts = [tokenizer.tokenize(prompt) for prompt in PROMPTS]
        assert isinstance(list(chat.send("Hello"))[-1], Done)
    expected = by_transformers(gpt2, prompts, 12)
    clear = [place for place, (_, least) in enumerate(expected) if least > lead]
    assert len(clear) >= 3
    said = continued(found, prompts, 12)
    assert [said[i] for i in clear] == [expected[i][0] for i in clear]
    again = [[*prompts[i], *expected[i][0][:5]] for i in clear]
    assert continued(found, [*prompts, *again], 7)[len(prompts) :] == [expected[i][0][5:] for i in clear]
    metrics = found.report()["metrics"]
    assert metrics["transformers_divergence"] < 1e-5
    assert metrics["divergence_mean"] < (1e-3 if target == "onnx-int8" else 1e-7)
    assert found.manifest.chat is not None
    assert (found.manifest.chat.context, found.manifest.chat.stop) == (256, ("<|endoftext|>",))


def test_what_a_decoder_cannot_become_is_refused(gpt2: Path, tmp_path: Path) -> None:
    exported = export_optimum.Exported(tmp_path / "none.onnx", (), ())
    with pytest.raises(Unsupported, match="no decoder in onnx-fp16"):
        value_of(
            export_job.export_chat.run(open_checkpoint(gpt2), exported, RECIPES["onnx-fp16"], "x", tmp_path, Options())
        )


# A convolutional network


@pytest.fixture(scope="module")
def resnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights, with the batch statistics of pictures."""
    import torch
    import transformers

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("resnet") / "tiny-resnet"
    sizes: dict[str, Any] = {"embedding_size": 16, "hidden_sizes": [16, 32, 48, 64], "depths": [1, 1, 1, 1]}
    model = transformers.ResNetForImageClassification(
        transformers.ResNetConfig(num_labels=10, layer_type="basic", **sizes)
    )
    with torch.no_grad():
        for seed in range(20):
            model.train()(torch.tensor(pictures(8, seed)))
    model.eval().save_pretrained(folder)
    transformers.ConvNextImageProcessor(size={"shortest_edge": SIDE}, crop_pct=0.875).save_pretrained(folder)
    return folder


def pictures(count: int, seed: int = 99) -> np.ndarray:
    rng = np.random.default_rng(seed)
    noise, colours = rng.standard_normal((count, 3, SIDE, SIDE)), rng.standard_normal((count, 3, 1, 1))
    return np.clip(noise / 2 + colours, -1, 1).astype(np.float32)  # black and white are -1 and 1


def logits(checkpoint: Path, pixels: np.ndarray) -> np.ndarray:
    import torch
    import transformers

    model = transformers.ResNetForImageClassification.from_pretrained(checkpoint).eval()
    with torch.inference_mode():
        return np.asarray(model(torch.tensor(pixels)).logits.numpy())


def test_a_resnet_in_float32_is_that_of_transformers(resnet: Path) -> None:
    found = convert(resnet, "onnx-fp32", "tiny")
    pixels = pictures(6)
    ours = OrtModel(found.path / "model.onnx").run({"pixel_values": pixels})
    assert np.abs(ours - logits(resnet, pixels)).max() < 1e-4
    assert (found.manifest.task, len(found.manifest.labels)) == ("image-classify", 10)
    assert found.manifest.inputs is not None
    assert found.manifest.inputs.image is not None
    assert found.manifest.inputs.image.height == SIDE


def test_a_resnet_in_int8_keeps_its_logits(resnet: Path) -> None:
    found = convert(resnet, "onnx-int8", "tiny")
    pixels = pictures(16)
    ours = OrtModel(found.path / "model.onnx", int8=True).run({"pixel_values": pixels})
    theirs = logits(resnet, pixels)
    both = [each - each.mean(axis=1, keepdims=True) for each in (ours, theirs)]
    assert np.corrcoef(both[0].ravel(), both[1].ravel())[0, 1] > 0.99
    assert found.report()["trials"]["model.onnx"][0]["what"] == "ranges by mse"
    assert "per output channel" in found.manifest.quantization.scheme


def test_a_resnet_without_its_head_gives_unit_vectors(resnet: Path, tmp_path: Path) -> None:
    with package.staged("tiny") as folder:
        options = Options(task="image-embed")
        outcome = value_of(export_job.run(open_checkpoint(resnet), RECIPES["onnx-int8"], "tiny", folder, options))
        vectors = OrtModel(folder / "model.onnx", int8=True).run({"pixel_values": pictures(2)})
    assert outcome.manifest.inputs is not None
    assert vectors.shape == (2, outcome.manifest.inputs.dimensions) == (2, 64)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


# Encoders of text


@pytest.mark.parametrize(("name", "target"), [("deberta-v2", "onnx-int8"), ("camembert", "onnx-fp32")])
def test_an_encoder_without_a_graph_of_ours_embeds_as_in_transformers(name: str, target: str, tmp_path: Path) -> None:
    folder = tiny.write(tmp_path / name, ENCODERS[name])
    convert(folder, target, "tiny")
    texts = ["A short text.", "Another text, which is a little longer than the first.", "One more"]
    with models.open_embedder("tiny") as embedder:
        found = embedder.embed(texts)
        rows = embedder._tokenizer.ids(texts)
    assert similarity(found, vectors(open_checkpoint(folder), rows))["cosine_min"] > 0.999


def test_answers_of_an_exported_model_are_spans(tmp_path: Path) -> None:
    family = Family("CamembertForQuestionAnswering", "xlm-roberta", tiny._ROBERTA, "question-answering")
    folder = tiny.write(tmp_path / "qa", family)
    found = convert(folder, "onnx-fp32", "tiny")
    assert OrtModel(found.path / "model.onnx").outputs["logits"][-1] == 2
    assert found.report()["metrics"]["transformers_correlation_min"] > 0.99999


# What goes wrong


def test_an_unknown_architecture_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "frobnicator"}))
    with pytest.raises(Unsupported, match="optimum knows no architecture 'frobnicator'") as caught:
        export_optimum.export(tmp_path, "embed", tmp_path / "out")
    assert "\n" not in str(caught.value)


def test_a_task_that_optimum_does_not_export_names_those_that_it_does(resnet: Path, tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match=r"optimum exports resnet for .*image-classification, not for question"):
        export_optimum.export(resnet, "question-answering", tmp_path)


def test_a_task_without_an_export_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="no export for next-sentence"):
        export_optimum.export(tmp_path, "next-sentence", tmp_path)


def test_without_the_extra_the_error_says_how_to_install_it(
    resnet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder before all others holds an `optimum` that is no package of exporters."""
    (tmp_path / "optimum.py").write_text("")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(MissingExtra, match=r"pip install 'edgemm\[export\]'"):
        export_optimum.export(resnet, "image-classify", tmp_path / "out")


def test_weights_in_a_pickle_are_not_read(resnet: Path, tmp_path: Path) -> None:
    import torch

    (tmp_path / "config.json").write_bytes((resnet / "config.json").read_bytes())
    torch.save({"x": torch.zeros(1)}, tmp_path / "pytorch_model.bin")
    with pytest.raises(BadFile, match="optimum cannot export it"):
        export_optimum.export(tmp_path, "image-classify", tmp_path / "out")


def test_an_export_that_takes_too_long_is_ended(resnet: Path, tmp_path: Path) -> None:
    with pytest.raises(BadFile, match="takes longer than 1 s"):
        export_optimum.export(resnet, "image-classify", tmp_path / "out", seconds=1)
