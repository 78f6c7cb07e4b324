"""tokenizer.json as a GGUF vocabulary: every kind agrees with llama.cpp on thousands of texts, or it is said."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_bert
import tiny_tokenizers as tiny
from tokenizers import AddedToken, Regex, pre_tokenizers

from converters import agreement, gguf_prepare, gguf_vocab
from converters.agreement import Agreement
from converters.checkpoint import Checkpoint, open_checkpoint
from converters.gguf_file import setting
from edgemm.errors import BadFile, EdgemmError, Unsupported
from edgemm.tokenizer import Tokenizer

# Kinds that llama.cpp cannot follow on every text, and the share that it follows: it does not take Hangul apart, of two
# equally likely splits it takes another one, and without a charsmap a line break is no blank.
SHARES = {"bert": 0.97, "xlm-roberta": 0.999, "t5": 0.999, "xlm-roberta-plain": 0.5}
MODELS = {"bert": "bert", "llama2": "llama", "phi3": "llama", "gemma": "llama", "xlm-roberta": "t5", "t5": "t5"}
Change = Callable[[dict[str, Any]], Any]


def opened(folder: Path, **config: Any) -> Checkpoint:
    """A checkpoint without weights."""
    return Checkpoint(folder, {"model_type": "any"} | config, {}, "mean", True, 0, {})


def settled(folder: Path, name: str = "") -> Agreement:
    checkpoint = opened(folder)
    general = {"general.architecture": setting("llama"), "general.name": setting(name or folder.name)}
    return agreement.best(gguf_vocab.variants(checkpoint), Tokenizer(checkpoint.tokenizer), general, folder)


def keys(folder: Path, **config: Any) -> dict[str, Any]:
    return gguf_vocab.variants(opened(folder, **config))[0].keys


def change(folder: Path, edit: Change) -> None:
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("kind", tiny.KINDS)
def test_llama_cpp_splits_as_tokenizer_json_does(kind: str, tmp_path: Path) -> None:
    found = settled(tiny.write(tmp_path / kind, kind))
    assert found.probes >= 2000
    least = SHARES.get(kind)
    if least is None:
        assert (found.share, found.example) == (1.0, "")
    else:
        assert least < found.share < 1.0
        assert found.example
    assert found.vocabulary.model == MODELS.get(kind, found.vocabulary.model)
    assert len(found.vocabulary.tokens) == tiny.size(kind)


@pytest.mark.parametrize(
    ("kind", "pre"),
    [("gpt2", "gpt-2"), ("llama3", "llama-bpe"), ("dolma", "dbrx"), ("qwen2", "qwen2"), ("smollm", "smollm")],
)
def test_the_pattern_says_which_pre_tokenizer_is_likeliest(kind: str, pre: str, tmp_path: Path) -> None:
    assert keys(tiny.write(tmp_path, kind))["pre"] == pre


@pytest.mark.parametrize(("kind", "wrong"), [("qwen2", "default"), ("llama3", "gpt-2"), ("gpt2", "smollm")])
def test_a_wrong_pre_tokenizer_is_found_out(kind: str, wrong: str, tmp_path: Path) -> None:
    checkpoint = opened(tiny.write(tmp_path, kind))
    known = {v.keys["pre"]: v for v in gguf_vocab.variants(checkpoint)}
    right = gguf_vocab.variants(checkpoint)[0].keys["pre"]
    general = {"general.architecture": setting("llama"), "general.name": setting("x")}
    tokenizer = Tokenizer(checkpoint.tokenizer)
    alone = agreement.best([known[wrong]], tokenizer, general, tmp_path)
    assert alone.share < 1.0
    assert not alone.plain
    both = agreement.best([known[wrong], known[right]], tokenizer, general, tmp_path)
    assert (both.share, both.vocabulary.keys["pre"]) == (1.0, right)


def test_a_split_that_llama_cpp_does_not_have_is_no_agreement(tmp_path: Path) -> None:
    tokenizer = tiny.byte_level("<|endoftext|>")
    pairs = pre_tokenizers.Split(Regex("..?"), "isolated")
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pairs, level])
    tiny.write(tmp_path, "gpt2")
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    checkpoint = opened(tmp_path)
    general = {"general.architecture": setting("llama"), "general.name": setting("x")}
    first = gguf_vocab.variants(checkpoint)[:3]
    found = agreement.best(first, Tokenizer(checkpoint.tokenizer), general, tmp_path)
    assert found.share < 1.0
    assert found.example


def test_blanks_beside_control_tokens_follow_from_the_name(tmp_path: Path) -> None:
    assert settled(tiny.write(tmp_path / "turns", "phi3")).name == "turns (phi-3)"
    assert settled(tiny.write(tmp_path / "phi-3-mini", "phi3")).name == "phi-3-mini"
    assert settled(tiny.write(tmp_path / "modern", "modernbert")).name == "modern (modern-bert)"
    assert settled(tiny.write(tmp_path / "plain", "llama2")).name == "plain"
    assert settled(tiny.write(tmp_path / "phi3-like", "llama2")).name == ""  # llama.cpp misses <|endoftext|> there


def test_special_tokens_stand_in_tokenizer_config(tmp_path: Path) -> None:
    found = keys(tiny.write(tmp_path, "bert", bos_token=None))
    expected = {"padding": 0, "unknown": 1, "cls": 2, "bos": 2, "seperator": 3, "eos": 3, "mask": 4}
    assert {name: found[f"{name}_token_id"] for name in expected} == expected


def test_special_tokens_may_be_objects_or_ids(tmp_path: Path) -> None:
    tiny.write(tmp_path, "qwen2", eos_token={"content": "<|im_end|>"})
    found = keys(tmp_path, bos_token_id=1)
    assert (found["bos_token_id"], found["eos_token_id"]) == (1, 2)
    tiny.write(tmp_path, "qwen2", eos_token=None)
    found = keys(tmp_path, eos_token_id=[2, 1], bos_token_id=99999)
    assert (found["eos_token_id"], found["eot_token_id"]) == (2, 1)
    assert "bos_token_id" not in found


def test_generation_config_names_more_ends(tmp_path: Path) -> None:
    tiny.write(tmp_path, "llama3")
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [1, 4, 3, 99999]}))
    found = keys(tmp_path)
    assert (found["eos_token_id"], found["eot_token_id"], found["eom_token_id"]) == (4, 1, 3)
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": 4}))
    assert "eot_token_id" not in keys(tmp_path)
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": 1}))
    assert keys(tmp_path)["eot_token_id"] == 1


@pytest.mark.parametrize(
    ("kind", "bos", "eos"),
    [
        ("bert", True, True), ("gpt2", False, False), ("llama3", True, False), ("qwen3-embedding", False, True),
        ("roberta", True, True), ("llama2", True, False), ("gemma", True, False), ("t5", False, True),
    ],
)  # fmt: skip
def test_what_is_put_around_a_text_is_written(kind: str, bos: bool, eos: bool, tmp_path: Path) -> None:
    found = keys(tiny.write(tmp_path, kind))
    assert (found["add_bos_token"], found["add_eos_token"]) == (bos, eos)


def test_case_and_accents_are_always_written(tmp_path: Path) -> None:
    lower = keys(tiny.write(tmp_path / "a", "bert"))
    cased = keys(tiny.write(tmp_path / "b", "bert-cased"))
    assert (lower["normalizer.lowercase"], lower["normalizer.strip_accents"]) == (True, True)
    assert (cased["normalizer.lowercase"], cased["normalizer.strip_accents"]) == (False, False)


def test_a_token_that_users_added_is_found_in_the_middle_of_a_text(tmp_path: Path) -> None:
    tokenizer = tiny.wordpiece(lowercase=False)
    tokenizer.add_tokens([AddedToken("<part>", normalized=False)])
    tiny.write(tmp_path, "bert-cased")
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    found = settled(tmp_path)
    assert found.share == 1.0
    assert found.vocabulary.types[found.vocabulary.tokens.index("<part>")] == gguf_vocab.USER_DEFINED


def test_the_charsmap_and_the_scores_are_those_of_the_file(tmp_path: Path) -> None:
    tiny.write(tmp_path, "t5")
    vocabulary = gguf_vocab.variants(opened(tmp_path))[0]
    assert vocabulary.keys["precompiled_charsmap"] == tiny.charsmap_of("t5")
    rows = json.loads((tmp_path / "tokenizer.json").read_text())["model"]["vocab"]
    assert vocabulary.scores[: len(rows)] == [score for _, score in rows]
    assert vocabulary.types[vocabulary.keys["unknown_token_id"]] == gguf_vocab.UNKNOWN


def test_rows_without_a_token_get_a_placeholder(tmp_path: Path) -> None:
    vocabulary = gguf_vocab.variants(opened(tiny.write(tmp_path, "llama2")))[0]
    count = len(vocabulary.tokens)
    padded = vocabulary.padded(count + 2, tmp_path)
    assert padded.tokens[count:] == [f"[PAD{count}]", f"[PAD{count + 1}]"]
    assert padded.types[count:] == [gguf_vocab.UNUSED] * 2
    assert len(padded.scores) == count + 2


def test_an_id_that_no_token_has_gets_a_placeholder(tmp_path: Path) -> None:
    tiny.write(tmp_path, "gpt2")
    change(tmp_path, lambda c: c["added_tokens"].append({"content": "<late>", "id": 910, "special": True}))
    vocabulary = gguf_vocab.variants(opened(tmp_path))[0]
    assert (vocabulary.tokens[909], vocabulary.tokens[910]) == ("[PAD909]", "<late>")
    assert (vocabulary.types[909], vocabulary.types[910]) == (gguf_vocab.UNUSED, gguf_vocab.CONTROL)


TEMPLATE = "{{ messages[0].content }}"


def test_the_chat_template_is_found_where_it_stands(tmp_path: Path) -> None:
    assert gguf_vocab.chat_template(opened(tiny.write(tmp_path, "gpt2"))) == ""
    assert gguf_vocab.chat_template(opened(tiny.write(tmp_path, "qwen2"))) == tiny.TEMPLATE
    named = [{"name": "tool_use", "template": "x"}, {"name": "default", "template": TEMPLATE}, "y"]
    assert gguf_vocab.chat_template(opened(tiny.write(tmp_path, "qwen2", chat_template=named))) == TEMPLATE
    assert gguf_vocab.chat_template(opened(tiny.write(tmp_path, "qwen2", chat_template=7))) == ""
    (tmp_path / "chat_template.jinja").write_text("{{ 'file' }}")
    assert gguf_vocab.chat_template(opened(tmp_path)) == "{{ 'file' }}"


def refused(folder: Path) -> str:
    with pytest.raises((BadFile, Unsupported)) as caught:
        gguf_vocab.variants(opened(folder))
    text = str(caught.value)
    assert "\n" not in text
    assert "tokenizer.json" in text
    return text


def set_vocabulary(value: Any) -> Change:
    return lambda c: c["model"].update(vocab=value)


DAMAGE: list[tuple[str, Change, str]] = [
    ("gpt2", lambda c: c["model"]["vocab"].update(twice=5), "a token or an id stands twice"),
    ("gpt2", lambda c: c["added_tokens"].append({"content": "x", "id": 5}), "stands twice"),
    ("t5", lambda c: c["model"]["vocab"].append(["</s>", 0.0]), "stands twice"),
    ("gpt2", lambda c: c["model"]["vocab"].update(far=1 << 40), "an id is no number"),
    ("gpt2", lambda c: c["model"]["vocab"].update(far="7"), "an id is no number"),
    ("gpt2", set_vocabulary(None), "model.vocab is missing"),
    ("gpt2", set_vocabulary({}), "model.vocab is empty"),
    ("gpt2", lambda c: c["model"].update(merges=[]), "without its merges"),
    ("gpt2", lambda c: c["model"].update(merges=[7]), "damaged"),
    ("gpt2", lambda c: c.update(added_tokens=[{"id": 3}]), "damaged"),
    ("gpt2", lambda c: c.update(added_tokens=7), "damaged"),
    ("bert", lambda c: c["post_processor"].update(special_tokens={}), "damaged"),
    ("llama2", lambda c: c["model"]["vocab"].pop("<0x41>"), "255 of 256 byte tokens"),
    ("t5", lambda c: c["model"]["vocab"].append([7]), "damaged"),
    ("gpt2", lambda c: c["model"].update(type="WordLevel"), "'WordLevel' has no llama.cpp equivalent"),
    ("gpt2", lambda c: c["model"].update(type="Letters"), "'Letters' is not known"),
]


@pytest.mark.parametrize(
    ("kind", "edit", "why"), DAMAGE, ids=[f"{why[:30]} {i}" for i, (_, _, why) in enumerate(DAMAGE)]
)
def test_a_damaged_vocabulary_is_one_line(kind: str, edit: Change, why: str, tmp_path: Path) -> None:
    tiny.write(tmp_path, kind)
    change(tmp_path, edit)
    assert why in refused(tmp_path)


def test_the_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    folder = tiny_bert.write(tmp_path / "tiny")
    tiny.write(folder, "gpt2")
    with pytest.raises(BadFile, match=r"900 tokens, the embedding has \d+ rows"):
        gguf_prepare.from_checkpoint(open_checkpoint(folder), tmp_path)


def test_a_vocabulary_that_llama_cpp_does_not_load_is_refused(tmp_path: Path) -> None:
    tiny.write(tmp_path, "bert-cased")
    checkpoint = opened(tmp_path)
    broken = gguf_vocab.variants(checkpoint)[0]
    broken.keys["cls_token_id"] = 1 << 20
    general = {"general.architecture": setting("bert"), "general.name": setting("x")}
    with pytest.raises(EdgemmError, match=r"llama\.cpp loads this vocabulary in none of its meanings"):
        agreement.best([broken], Tokenizer(checkpoint.tokenizer), general, tmp_path)


def test_tokens_are_found_by_their_texts(tmp_path: Path) -> None:
    checkpoint = opened(tiny.write(tmp_path, "qwen3-reranker"))
    assert gguf_vocab.token_ids(checkpoint, ["yes", "no"]) == {"yes": 901, "no": 902}
    with pytest.raises(BadFile, match="'maybe' is no token"):
        gguf_vocab.token_ids(checkpoint, ["yes", "maybe"])
