"""tokenizer.json to a GGUF vocabulary: WordPiece, byte-level BPE, BPE with byte fallback, and Unigram.

What a file does not say outright (which of llama.cpp's pre-tokenizers splits as this one does, whether a blank is put
before the text) is not guessed: `variants` are all that could be meant, likeliest first, and agreement.py tries them.
It knows no weights. Keys: `tokenizer.ggml.*` (llama.cpp's src/llama-vocab.cpp).
"""

import base64
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from converters.checkpoint import Checkpoint, optional_json
from converters.gguf_file import Settings, setting
from edgemm import guard
from edgemm.errors import BadFile, Unsupported, disk_errors

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6  # enum llama_token_type
_FIX = "use the tokenizer.json that belongs to this checkpoint"
_ROLES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
_USUAL = {"cls": "[CLS]", "sep": "[SEP]", "pad": "[PAD]", "unk": "[UNK]", "mask": "[MASK]"}  # where no file says it
_KEYS = {"unk": "unknown", "sep": "seperator", "pad": "padding"}  # llama.cpp's spelling
# Those of llama.cpp's pre-tokenizers that split text differently, the common ones first.
PRE_TOKENIZERS = (
    "gpt-2 llama-bpe qwen2 smollm tekken gpt-4o default starcoder mpt olmo dbrx refact stablelm2 command-r falcon "
    "deepseek-llm deepseek-coder deepseek-v3 smaug-bpe poro-chat chatglm-bpe viking jais codeshell bloom gpt3-finnish "
    "exaone chameleon minerva-7b trillion bailingmoe superbpe kimi-k2 hunyuan seed-coder granite-docling minimax-m2"
).split()
# Texts that stand in the split pattern of tokenizer.json, and the pre-tokenizers that have such a pattern.
_HINTS = (
    (r"\p{N}{1,3}", ("llama-bpe", "dbrx", "smaug-bpe", "tekken")),
    (r"\p{Lu}\p{Lt}", ("tekken", "gpt-4o")),
    (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)", ("qwen2", "llama-bpe")),
    ('"Digits"', ("smollm", "starcoder", "refact", "command-r")),
)


_WHOLE_WORDS = ("llama-bpe", "tekken")  # they take a word that is a token before they look at the merges
_LEFT_MASK = "jina-v2-code"  # splits as gpt-2, and drops the blank before <mask> as RoBERTa does


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Token texts, types, scores and merges, and the other `tokenizer.ggml.*` keys. `model` is llama.cpp's kind."""

    model: str
    tokens: list[str]
    types: list[int]
    scores: list[float] = field(default_factory=list)
    merges: list[str] = field(default_factory=list)
    keys: dict[str, Any] = field(default_factory=dict)

    def padded(self, rows: int, path: Path) -> "Vocabulary":
        """With a placeholder for every row of the embedding that has no token. Raises `BadFile` for too few rows."""
        missing = rows - len(self.tokens)
        if missing < 0:
            raise BadFile(path, f"{len(self.tokens)} tokens, the embedding has {rows} rows", _FIX)
        names = [f"[PAD{len(self.tokens) + i}]" for i in range(missing)]
        scores = [*self.scores, *[-10000.0] * missing] if self.scores else []
        return replace(self, tokens=[*self.tokens, *names], types=[*self.types, *[UNUSED] * missing], scores=scores)

    def settings(self) -> Settings:
        lists = {"tokens": self.tokens, "scores": self.scores, "token_type": self.types, "merges": self.merges}
        values = {"model": self.model} | {name: items for name, items in lists.items() if items} | self.keys
        if self.model == "gpt2":
            values.setdefault("merges", self.merges)
        return {f"tokenizer.ggml.{name}": setting(value) for name, value in values.items()}


def variants(checkpoint: Checkpoint) -> list[Vocabulary]:
    """All that tokenizer.json could mean to llama.cpp, likeliest first. Raises `Unsupported` or `BadFile`."""
    path, content = checkpoint.tokenizer, _content(checkpoint.tokenizer)
    try:
        return _variants(checkpoint, content, path)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise BadFile(path, f"a part of it is damaged ({type(error).__name__}: {error})", _FIX) from error


def _content(path: Path) -> dict[str, Any]:
    with disk_errors(path):
        return guard.check_tokenizer_json(path.read_bytes(), path)


def _variants(checkpoint: Checkpoint, content: dict[str, Any], path: Path) -> list[Vocabulary]:
    tokens = _tokens(content, path)
    base = Vocabulary("", tokens, _types(content, tokens), keys=_special_ids(checkpoint, tokens, content))
    kind = content["model"].get("type") or "BPE"
    if kind == "BPE" and content["model"].get("byte_fallback"):
        kind = "SentencePiece"
    build = {"WordPiece": _wordpiece, "BPE": _byte_level, "SentencePiece": _byte_fallback, "Unigram": _unigram}
    if kind not in build:
        raise Unsupported(path, f"tokenizer model {kind!r} has no llama.cpp equivalent", "use --to onnx-int8")
    return build[kind](content, base, path)


def token_ids(checkpoint: Checkpoint, texts: Sequence[str]) -> dict[str, int]:
    """The ids of tokens by their texts. Raises `BadFile`, naming one that is no token."""
    path = checkpoint.tokenizer
    place = {text: i for i, text in enumerate(_tokens(_content(path), path))}
    missing = next((text for text in texts if text not in place), None)
    if missing is not None:
        raise BadFile(path, f"{missing!r} is no token, but what the model answers with", _FIX)
    return {text: place[text] for text in texts}


def chat_template(checkpoint: Checkpoint) -> str:
    """The chat template of the checkpoint, or an empty text. It is data: it is rendered in a sandbox."""
    path = checkpoint.folder / "chat_template.jinja"
    if path.is_file():
        with disk_errors(path):
            return path.read_text("utf-8")
    template = optional_json(checkpoint.folder / "tokenizer_config.json").get("chat_template", "")
    if isinstance(template, list):  # several, by name
        named = {str(t.get("name")): t.get("template") for t in template if isinstance(t, dict)}
        template = named.get("default", "")
    return template if isinstance(template, str) else ""


def _tokens(content: dict[str, Any], path: Path) -> list[str]:
    """Token texts by id; ids without a token get a placeholder."""
    model = content["model"]
    vocab = model.get("vocab")
    if isinstance(vocab, list):
        ids = {str(row[0]): i for i, row in enumerate(vocab)}
        doubled = len(ids) != len(vocab)
    elif isinstance(vocab, dict):
        ids, doubled = dict(vocab), len(set(vocab.values())) != len(vocab)
    else:
        raise BadFile(path, "model.vocab is missing", _FIX)
    if not ids:
        raise BadFile(path, "model.vocab is empty", _FIX)
    for token in content.get("added_tokens") or []:
        known = ids.setdefault(token["content"], token["id"])
        doubled = doubled or known != token["id"]
    if doubled or len(set(ids.values())) != len(ids):
        raise BadFile(path, "a token or an id stands twice", _FIX)
    if not all(type(i) is int and 0 <= i < 1 << 24 for i in ids.values()):
        raise BadFile(path, "an id is no number", _FIX)
    texts = {i: text for text, i in ids.items()}
    return [texts.get(i, f"[PAD{i}]") for i in range(max(texts, default=-1) + 1)]


def _types(content: dict[str, Any], tokens: list[str]) -> list[int]:
    types = [NORMAL] * len(tokens)
    for token in content.get("added_tokens") or []:
        types[token["id"]] = CONTROL if token.get("special") else USER_DEFINED
    for i, text in enumerate(tokens):
        if text == f"[PAD{i}]":
            types[i] = UNUSED
    unknown = content["model"].get("unk_token")
    if isinstance(unknown, str) and unknown in tokens:
        types[tokens.index(unknown)] = UNKNOWN
    return types


def _special_ids(checkpoint: Checkpoint, tokens: list[str], content: dict[str, Any]) -> dict[str, Any]:
    """`bos_token_id` and so on, by the text in tokenizer_config.json, else by the id in config.json."""
    written = optional_json(checkpoint.folder / "tokenizer_config.json")
    place = {text: i for i, text in enumerate(tokens)}
    keys: dict[str, Any] = {}
    for role in _ROLES:
        text = written.get(f"{role}_token")
        text = text.get("content") if isinstance(text, dict) else text
        said = checkpoint.config.get(f"{role}_token_id", place.get(_USUAL.get(role, "")))
        number = place.get(text) if isinstance(text, str) else said[0] if isinstance(said, list) and said else said
        if type(number) is int and 0 <= number < len(tokens):
            keys[f"{_KEYS.get(role, role)}_token_id"] = number
    ends = optional_json(checkpoint.folder / "generation_config.json").get("eos_token_id")
    ends = checkpoint.config.get("eos_token_id") if ends is None else ends
    known = [i for i in (ends if isinstance(ends, list) else [ends]) if type(i) is int and 0 <= i < len(tokens)]
    if known:
        keys.setdefault("eos_token_id", known[0])
    others = [i for i in known if i != keys["eos_token_id"]]
    keys |= dict(zip(("eot_token_id", "eom_token_id"), others, strict=False))  # they end an answer too
    return keys | _added_around(content, keys)


def _added_around(content: dict[str, Any], keys: dict[str, Any]) -> dict[str, Any]:
    """Whether a text is put between special tokens, as the post-processor of tokenizer.json says."""
    before, after = _around(content.get("post_processor") or {})
    added: dict[str, Any] = {"add_bos_token": bool(before), "add_eos_token": bool(after)}
    if before:
        added["bos_token_id"] = before[0]
    if after:
        added |= {"eos_token_id": after[-1], "seperator_token_id": keys.get("seperator_token_id", after[-1])}
    return added


def _around(processor: dict[str, Any]) -> tuple[list[int], list[int]]:
    """Ids before and after a single text."""
    kind = processor.get("type")
    if kind == "Sequence":
        found = [_around(each) for each in processor.get("processors", [])]
        return next((pair for pair in found if pair != ([], [])), ([], []))
    if kind in ("BertProcessing", "RobertaProcessing"):
        return [processor["cls"][1]], [processor["sep"][1]]
    sides: tuple[list[int], list[int]] = ([], [])
    side = 0
    for item in processor.get("single", []) if kind == "TemplateProcessing" else []:
        if "Sequence" in item:
            side = 1
        else:
            sides[side].extend(processor["special_tokens"][item["SpecialToken"]["id"]]["ids"])
    return sides


def _wordpiece(content: dict[str, Any], base: Vocabulary, path: Path) -> list[Vocabulary]:
    """llama.cpp marks where a word begins ("▁word") instead of where it goes on ("##ing")."""
    prefix = str(content["model"].get("continuing_subword_prefix", "##"))

    def marked(word: str, kind: int) -> str:
        if kind != NORMAL:
            return word
        return word[len(prefix) :] if word.startswith(prefix) and word != prefix else "▁" + word

    tokens = [marked(word, kind) for word, kind in zip(base.tokens, base.types, strict=True)]
    return [replace(base, model="bert", tokens=tokens, keys={"pre": "default"} | base.keys | _normalizer(content))]


def _normalizer(content: dict[str, Any]) -> dict[str, bool]:
    """llama.cpp lowercases unless told otherwise, so both are always written."""
    settings = content.get("normalizer") or {}
    lowercase = bool(settings.get("lowercase", False))
    accents = settings.get("strip_accents")
    return {
        "normalizer.lowercase": lowercase,
        "normalizer.strip_accents": lowercase if accents is None else bool(accents),  # as BertNormalizer decides
    }


def _byte_level(content: dict[str, Any], base: Vocabulary, path: Path) -> list[Vocabulary]:
    merges = [m if isinstance(m, str) else " ".join(m) for m in content["model"].get("merges") or []]
    if not merges:
        raise BadFile(path, "a BPE vocabulary without its merges", _FIX)
    pattern = json.dumps(content.get("pre_tokenizer"))
    hinted = [pre for text, names in _HINTS if text in pattern.replace("\\\\", "\\") for pre in names]
    if not content["model"].get("ignore_merges"):
        hinted.sort(key=_WHOLE_WORDS.__contains__)
    masks = [t for t in content.get("added_tokens") or [] if t["content"] == "<mask>" and t.get("lstrip")]
    order = dict.fromkeys([*([_LEFT_MASK] if masks else []), *hinted, *PRE_TOKENIZERS])
    return [replace(base, model="gpt2", merges=merges, keys={"pre": pre} | base.keys) for pre in order]


def _byte_fallback(content: dict[str, Any], base: Vocabulary, path: Path) -> list[Vocabulary]:
    """llama.cpp merges the pair whose result has the highest score: the earlier a merge, the higher."""
    types = [BYTE if _is_byte(t) and k == NORMAL else k for t, k in zip(base.tokens, base.types, strict=True)]
    if types.count(BYTE) != 256:
        raise Unsupported(path, f"{types.count(BYTE)} of 256 byte tokens", "use a model with all of them")
    ranks: dict[str, int] = {}
    for rank, merge in enumerate(content["model"].get("merges") or []):
        left, right = merge.split(" ", 1) if isinstance(merge, str) else merge
        ranks.setdefault(left + right, rank)
    scores = [-float(ranks.get(text, len(ranks))) for text in base.tokens]
    base = replace(base, model="llama", types=types, scores=scores)
    text = json.dumps([content.get("normalizer"), content.get("pre_tokenizer")])
    prefix = '"Prepend"' in text or '"prepend_scheme": "first"' in text or '"prepend_scheme": "always"' in text
    return [replace(base, keys={"pre": "default", "add_space_prefix": p} | base.keys) for p in (prefix, not prefix)]


def _is_byte(text: str) -> bool:
    return len(text) == 6 and text.startswith("<0x") and text.endswith(">")


def _unigram(content: dict[str, Any], base: Vocabulary, path: Path) -> list[Vocabulary]:
    model = content["model"]
    scores = [0.0] * len(base.tokens)
    for i, row in enumerate(model["vocab"]):
        scores[i] = float(row[1])
    types = list(base.types)
    unknown = model.get("unk_id")
    if type(unknown) is int and 0 <= unknown < len(types):
        types[unknown] = UNKNOWN
        base.keys["unknown_token_id"] = unknown
    charsmap = next(_charsmaps(content.get("normalizer") or {}), b"")
    keys = base.keys | ({"precompiled_charsmap": charsmap} if charsmap else {})
    base = replace(base, model="t5", scores=scores, types=types)
    choices: Iterable[tuple[bool, bool]] = ((True, True), (True, False), (False, False), (False, True))
    return [
        replace(base, keys={"pre": "default", "add_space_prefix": p, "remove_extra_whitespaces": r} | keys)
        for p, r in choices
    ]


def _charsmaps(normalizer: dict[str, Any]) -> Iterator[bytes]:
    if normalizer.get("type") == "Precompiled":
        yield base64.b64decode(normalizer.get("precompiled_charsmap") or "")
    for each in normalizer.get("normalizers", []):
        yield from _charsmaps(each)
