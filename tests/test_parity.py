"""Each family as GGUF computes what transformers computes: logits, embeddings and label scores, in float32.

The texts are long enough that windows, scaled rotary positions and buckets of relative positions matter.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters import allocate, gguf_model, judge, oracle, quantize, tensors
from converters.checkpoint import open_checkpoint
from converters.convert import Options, convert
from converters.quantize import Draft
from converters.recipe import RECIPES
from edgemm import package
from edgemm.backends import Sampling
from edgemm.backends.worker import LoadOptions, Worker
from edgemm.events import Token, value_of
from edgemm.package import Package

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.skipif(not oracle.available(), reason="transformers and torch are not installed (extra `export`)"),
]
if oracle.available():
    import tiny_checkpoints as tiny
    import tiny_nomic
    import torch
    import transformers
    from tiny_tokenizers import Tokenizer, content, size

    transformers.logging.set_verbosity_error()
    CHATS, EMBEDDERS, LABELLED, FAMILIES = tiny.CHATS, tiny.EMBEDDERS, tiny.CLASSIFIERS | tiny.RERANKERS, tiny.FAMILIES
else:
    CHATS = EMBEDDERS = LABELLED = FAMILIES = {}

DIFFERENCE, COSINE = 1e-3, 0.99999
LONG, SHORT = 220, 37
ALONE = Options(oracle=False, compare=False, calibrate="none")
WHOLE = Options(calibrate="none")
# Tokenizers that llama.cpp cannot follow on every text: it does not take Hangul apart when it strips accents, and
# of two equally likely splits it takes another one.
NOT_FOLLOWED = {"bert": 0.97, "xlm-roberta": 0.999, "t5": 0.999}


def rows(tokenizer: str, long: int = LONG) -> list[list[int]]:
    rng = np.random.default_rng(1)
    return [rng.integers(3, size(tokenizer), size=count).tolist() for count in (long, SHORT)]


def made(folder: Path, target: str, options: Options = ALONE) -> Package:
    *_, found = convert(folder, target, options=options)
    assert isinstance(found, Package)
    return package.open_package(found.path)


def load(folder: Path, family: "tiny.Family") -> Any:
    kind = getattr(transformers, family.model)
    return kind.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


def assert_tokenizer_is_settled(found: Package, tokenizer: str) -> None:
    """llama.cpp's ids are those of tokenizer.json, or the package says whose ids count."""
    report = found.report()
    least = NOT_FOLLOWED.get(tokenizer)
    share = report["metrics"]["tokenizer_agreement"]
    assert report["metrics"]["tokenizer_probes"] >= 2000
    assert (found.path / "tokenizer.json").is_file()
    said = any("the package keeps tokenizer.json" in note for note in report["notes"])
    if least is None:
        assert share == 1.0
        assert not said
    else:
        assert least < share < 1.0
        assert said
    if found.manifest.chat is not None:
        assert found.manifest.chat.tokenizer == ("gguf" if least is None else "tokenizer.json")


@pytest.mark.parametrize("name", CHATS)
def test_logits_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    family = CHATS[name]
    folder = tiny.write(tmp_path / name, family)
    found = made(folder, "gguf-f32")
    model = load(folder, family)
    with Worker(found.path / "model.gguf", LoadOptions(exact=True)) as worker:
        for row in rows(family.tokenizer):
            assert_same_logits(worker, model, row)
    assert (found.manifest.task, found.manifest.report.passed) == ("chat", True)
    assert_tokenizer_is_settled(found, family.tokenizer)


def assert_same_logits(worker: Worker, model: Any, row: list[int]) -> None:
    answer = [0, *row[::-1][:150]] if model.config.is_encoder_decoder else []
    with torch.inference_mode():
        more = {"decoder_input_ids": torch.tensor([answer])} if answer else {}
        theirs = model(input_ids=torch.tensor([row]), **more).logits[0].numpy()
    ours = np.concatenate(list(worker.score(row, answer)))
    assert np.abs(ours - theirs).max() < DIFFERENCE
    np.testing.assert_array_equal(ours.argmax(axis=1), theirs.argmax(axis=1))


@pytest.mark.parametrize(("context", "length"), [(256, 200), (0, 300)])
def test_longrope_takes_the_short_factors_in_a_short_context(context: int, length: int, tmp_path: Path) -> None:
    family = tiny.LONGROPE
    folder = tiny.write(tmp_path / "phi-3", family)
    found, row = made(folder, "gguf-f32"), rows(family.tokenizer, 300)[0][:length]
    with Worker(found.path / "model.gguf", LoadOptions(exact=True, context=context)) as worker:
        assert_same_logits(worker, load(folder, family), row)
    assert any("more than 256 tokens" in note for note in found.report()["notes"])


@pytest.mark.parametrize("name", EMBEDDERS)
def test_embeddings_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    family = EMBEDDERS[name]
    folder = tiny.write(tmp_path / name, family)
    found = made(folder, "gguf-f32")
    model, texts = load(folder, family).base_model, rows(family.tokenizer)
    with torch.inference_mode():
        hidden = [model(torch.tensor([row])).last_hidden_state[0] for row in texts]
    pooled = {"mean": lambda h: h.mean(dim=0), "cls": lambda h: h[0], "last": lambda h: h[-1]}[family.pooling]
    theirs = tiny.project(folder, torch.stack([pooled(h) for h in hidden])).numpy()
    assert_same_directions(found, texts, theirs)
    assert found.manifest.inputs is not None
    assert found.manifest.inputs.pooling == family.pooling
    assert_tokenizer_is_settled(found, family.tokenizer)


def assert_same_directions(found: Package, texts: list[list[int]], theirs: "np.typing.NDArray[np.float32]") -> None:
    ours = judge.embed(found.path / "model.gguf", texts, exact=True)
    assert ours.shape == theirs.shape
    cosines = np.sum(ours * theirs, axis=1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(theirs, axis=1)
    assert cosines.min() > COSINE
    assert np.linalg.norm(ours - theirs) < 0.01 * np.linalg.norm(theirs)
    assert (found.manifest.task, found.manifest.report.passed) == ("embed", True)


def test_nomic_bert_computes_what_its_paper_says(tmp_path: Path) -> None:
    folder = tiny_nomic.write(tmp_path / "nomic")
    tiny.write_modules(folder, "mean")
    found, texts = made(folder, "gguf-f32"), rows("bert")
    assert_same_directions(found, texts, np.stack([tiny_nomic.embed(folder, row) for row in texts]))
    assert_tokenizer_is_settled(found, "bert")
    assert any("auto_map" in str(event) for event in convert(folder, "gguf-q8_0", options=ALONE))


@pytest.mark.parametrize("name", LABELLED)
def test_label_scores_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    family = LABELLED[name]
    folder = tiny.write(tmp_path / name, family)
    found = made(folder, "gguf-f32")
    model, texts = load(folder, family), rows(family.tokenizer)
    with torch.inference_mode():
        logits = [model(torch.tensor([row])).logits[0] for row in texts]
    if family.task == "rerank":
        words = Tokenizer.from_str(content(family.tokenizer))
        logits = [each[-1, [words.token_to_id("yes"), words.token_to_id("no")]] for each in logits]
    shares = name.startswith("qwen3")  # llama.cpp's graph ends in a softmax
    theirs = torch.stack([each.softmax(dim=-1) if shares else each for each in logits]).numpy()
    ours = judge.embed(found.path / "model.gguf", texts, exact=True)
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() < DIFFERENCE
    single = family.task == "classify" and found.manifest.labels == ("LABEL_0",)
    assert found.manifest.task == ("rerank" if single else "classify")
    assert len(found.manifest.labels) == (ours.shape[1] if family.task == "classify" else 0)
    assert any("shares that add up to 1" in note for note in found.report()["notes"]) == shares
    assert_tokenizer_is_settled(found, family.tokenizer)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_value_of_a_bf16_checkpoint_comes_back_from_q8_0(name: str, tmp_path: Path) -> None:
    folder = tiny.write(tmp_path / name, tiny.FAMILIES[name], torch.bfloat16)
    blueprint = gguf_model.blueprint(open_checkpoint(folder))
    types = allocate.by_recipe(RECIPES["gguf-q8_0"], blueprint, guided=False)
    draft = Draft(blueprint.settings, blueprint.tensors, types)
    value_of(quantize.write(tmp_path / "model.gguf", draft, {}, blueprint.sizes))
    errors = value_of(tensors.check(tmp_path / "model.gguf", draft, blueprint.sizes))
    assert {tensor.source.dtype for tensor in blueprint.tensors} - {"F32"} == {"BF16"}
    assert 0 < max(error.relative for error in errors.values()) < 0.02
    assert all(errors[name].exact for name, kind in types.items() if kind == "F32")


@pytest.mark.parametrize(
    ("name", "figure"),
    [
        ("gemma3", "transformers_divergence"),
        ("t5", "transformers_divergence"),
        ("gemma-embedding", "transformers_cosine_min"),
        ("modernbert-1", "transformers_label_error"),
        ("qwen3-reranker", "transformers_label_error"),
    ],
)
def test_the_report_compares_with_transformers_itself(name: str, figure: str, tmp_path: Path) -> None:
    metrics = made(tiny.write(tmp_path / name, tiny.FAMILIES[name]), "gguf-q8_0", WHOLE).report()["metrics"]
    if figure == "transformers_cosine_min":
        assert metrics[figure] > 0.9999
    else:
        assert metrics[figure] < 0.001


def test_an_encoder_beside_the_decoder_answers_a_message_as_transformers_does(tmp_path: Path) -> None:
    """The message goes in as it is, split by tokenizer.json, which llama.cpp does not follow on every text."""
    folder = tiny.write(tmp_path / "t5", CHATS["t5"])
    found = made(folder, "gguf-f32")
    text = "Das Haus ist wunderbar\nund alt."
    expected = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text).ids
    model = load(folder, CHATS["t5"])
    with torch.inference_mode():
        inputs = torch.tensor([expected])
        answer = model.generate(inputs, max_new_tokens=12, do_sample=False, decoder_start_token_id=0)[0].tolist()[1:]
    options = LoadOptions(exact=True, tokenizer=found.path / "tokenizer.json")
    with Worker(found.path / "model.gguf", options) as worker:
        prompt = worker.prompt([{"role": "user", "content": text}])
        events = list(worker.generate(prompt.tokens, Sampling(max_tokens=12, temperature=0, repetition_penalty=1.0)))
    assert prompt.tokens == expected
    assert [event.id for event in events if isinstance(event, Token) and event.id >= 0] == answer
