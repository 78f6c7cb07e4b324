"""Small tokenizers of every kind that real checkpoints have, trained on the spot and saved as the families save them.

Splitting, normalizing, special tokens and what is put around a text are those of the families; only the vocabulary
is small. `KINDS` names them; `write` saves one with its tokenizer_config.json.
"""

import base64
import json
import struct
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from converters.agreement import probes
from converters.calibrate import CALIBRATION, HELD_OUT

SIZE, BYTE_LEVEL_SIZE = 420, 900  # tokens, about; with fewer, wrong splits of bytes would not show
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
_BERT_PAIR = "[CLS] $A [SEP] $B:1 [SEP]:1"
_QWEN2 = _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
CHARACTERS = {"ﬁ": "fi", "…": "...", "１": "1", "２": "2", "²": "2"} | dict.fromkeys("\t\n\r\u00a0\u3000", " ")
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"


def corpus() -> list[str]:
    return [*CALIBRATION, *HELD_OUT]


def wordpiece(lowercase: bool = True) -> Tokenizer:
    """BERT's."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = Tokenizer(models.WordPiece({}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=SIZE, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(corpus(), trainer)
    tokenizer.post_processor = _around("[CLS] $A [SEP]", tokenizer, _BERT_PAIR)
    return tokenizer


def _around(single: str, tokenizer: Tokenizer, pair: str = "") -> processors.TemplateProcessing:
    names = {word.split(":")[0] for word in f"{single} {pair}".split() if not word.startswith("$")}
    special = [(name, tokenizer.token_to_id(name)) for name in sorted(names)]
    return processors.TemplateProcessing(single=single, pair=pair or None, special_tokens=special)


def byte_level(
    special: str, *, split: str = "", digits: bool = False, nfc: bool = False, ignore_merges: bool = False
) -> Tokenizer:
    """Byte-level BPE. `split`: a regex before the bytes, instead of GPT-2's own."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    if nfc:
        tokenizer.normalizer = normalizers.NFC()
    steps: list[Any] = [pre_tokenizers.Digits(individual_digits=True)] if digits else []
    steps += [pre_tokenizers.Split(Regex(split), "isolated")] if split else []
    steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not split))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps) if len(steps) > 1 else steps[0]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=BYTE_LEVEL_SIZE, special_tokens=special.split(), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([*corpus(), *probes(())], trainer)
    return tokenizer


def llama3() -> Tokenizer:
    special = "<|begin_of_text|> <|end_of_text|> <|start_header_id|> <|end_header_id|> <|eot_id|>"
    tokenizer = byte_level(special, split=_LLAMA3, ignore_merges=True)
    template = _around("<|begin_of_text|> $A", tokenizer)
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), template])
    return tokenizer


def qwen2(ending: bool = False) -> Tokenizer:
    """`ending`: the embedding models put <|endoftext|> behind a text."""
    tokenizer = byte_level("<|endoftext|> <|im_start|> <|im_end|>", split=_QWEN2, nfc=True)
    tokenizer.add_tokens([AddedToken("<think>", normalized=False, special=False)])
    level = processors.ByteLevel(trim_offsets=False)
    ended = processors.Sequence([level, _around("$A <|endoftext|>", tokenizer)])
    tokenizer.post_processor = ended if ending else level
    return tokenizer


def reranker() -> Tokenizer:
    """Qwen 3's, with the words that its answer is read from."""
    tokenizer = qwen2()
    tokenizer.add_tokens([AddedToken("yes", normalized=False), AddedToken("no", normalized=False)])
    return tokenizer


def roberta() -> Tokenizer:
    tokenizer = byte_level("<s> <pad> </s> <unk>")
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True)])
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    return tokenizer


def modernbert() -> Tokenizer:
    tokenizer = byte_level("[PAD] [UNK] [CLS] [SEP]", nfc=True)
    tokenizer.add_special_tokens([AddedToken("[MASK]", lstrip=True)])
    tokenizer.post_processor = _around("[CLS] $A [SEP]", tokenizer, _BERT_PAIR)
    return tokenizer


def neox() -> Tokenizer:
    tokenizer = byte_level("<|endoftext|> <|padding|>", nfc=True)
    tokenizer.add_tokens([AddedToken(" " * n, normalized=True, special=False) for n in (4, 3, 2)])
    return tokenizer


def sentencepiece(special: str, style: str = "llama") -> Tokenizer:
    """BPE with byte fallback, as SentencePiece vocabularies are converted: every split of a piece is a merge."""
    pieces = _pieces()
    tokens = [*special.split(), *(f"<0x{byte:02X}>" for byte in range(256)), *pieces]
    ids = {token: i for i, token in enumerate(tokens)}
    splits = [(p[:at], p[at:]) for p in pieces for at in range(1, len(p)) if p[:at] in ids and p[at:] in ids]
    tokenizer = Tokenizer(models.BPE(ids, splits, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    blank = normalizers.Replace(" ", "▁")
    if style == "gemma":
        tokenizer.normalizer = blank
        tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    else:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), blank])
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in special.split()])
    return tokenizer


@cache
def _pieces() -> tuple[str, ...]:
    """Pieces of a SentencePiece vocabulary: merged ones in the order of their scores, then characters."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=SIZE, limit_alphabet=80, show_progress=False)
    trained.train_from_iterator(corpus(), trainer)
    vocabulary = sorted(trained.get_vocab(), key=trained.get_vocab().__getitem__)
    merged = [piece for piece in vocabulary if len(piece) > 1]
    return (*merged, "▁▁", "▁▁▁▁", *(piece for piece in vocabulary if len(piece) == 1))


def llama2() -> Tokenizer:
    tokenizer = sentencepiece("<unk> <s> </s>")
    tokenizer.post_processor = _around("<s> $A", tokenizer)
    return tokenizer


def phi3() -> Tokenizer:
    """Llama's, with turns behind which blanks are dropped."""
    tokenizer = sentencepiece("<unk> <s>")
    tokenizer.add_special_tokens([AddedToken("</s>", rstrip=True, normalized=False)])
    tokenizer.add_special_tokens([AddedToken("<|endoftext|>", normalized=False)])
    turns = ("<|assistant|>", "<|system|>", "<|end|>", "<|user|>")
    tokenizer.add_special_tokens([AddedToken(turn, rstrip=True, normalized=False) for turn in turns])
    return tokenizer


def gemma() -> Tokenizer:
    tokenizer = sentencepiece("<pad> <eos> <bos> <unk> <start_of_turn> <end_of_turn>", "gemma")
    runs = ("\n\n", "\n\n\n", "<unused0>")
    tokenizer.add_tokens([AddedToken(text, normalized=False, special=False) for text in runs])
    tokenizer.post_processor = _around("<bos> $A", tokenizer)
    return tokenizer


def embedding_gemma() -> Tokenizer:
    tokenizer = gemma()
    tokenizer.post_processor = _around("<bos> $A <eos>", tokenizer)
    return tokenizer


def unigram(special: str, single: str, pair: str = "", *, charsmap: bool = True) -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    steps: list[Any] = [normalizers.Precompiled(precompiled(CHARACTERS))] if charsmap else []
    tokenizer.normalizer = normalizers.Sequence([*steps, normalizers.Replace(Regex(" {2,}"), " ")])
    blanks = pre_tokenizers.WhitespaceSplit()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([blanks, pre_tokenizers.Metaspace()])
    trainer = trainers.UnigramTrainer(
        vocab_size=SIZE, special_tokens=special.split(), unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    tokenizer.post_processor = _around(single, tokenizer, pair)
    return tokenizer


def precompiled(characters: dict[str, str]) -> bytes:
    """A SentencePiece `precompiled_charsmap`: a double-array trie of UTF-8 bytes, then the replacements.

    A node is a 32-bit unit: its byte, a bit for "ends here", and the distance (xor) to its children. Each node gets a
    block of 256 places, so that no search for gaps is needed.
    """
    replacements, starts = b"", {}
    for text, replacement in characters.items():
        starts[text.encode()] = len(replacements)
        replacements += replacement.encode() + b"\0"
    prefixes = sorted({key[:n] for key in starts for n in range(len(key) + 1)})
    block = {prefix: 256 * (i + 1) for i, prefix in enumerate(prefixes)}
    units = [0] * (256 * (len(prefixes) + 1))
    for prefix in prefixes:
        place = block[prefix[:-1]] ^ prefix[-1] if prefix else 0
        label = prefix[-1] if prefix else 0
        units[place] = label | (prefix in starts) << 8 | (place ^ block[prefix]) << 10
        if prefix in starts:
            units[block[prefix]] = starts[prefix] | 1 << 31
    trie = struct.pack(f"<{len(units)}I", *units)
    return struct.pack("<I", len(trie)) + trie + replacements


def xlm_roberta(charsmap: bool = True) -> Tokenizer:
    tokenizer = unigram("<s> <pad> </s> <unk>", "<s> $A </s>", "<s> $A </s> </s> $B </s>", charsmap=charsmap)
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True)])
    return tokenizer


def albert() -> Tokenizer:
    tokenizer = unigram("<pad> <unk> [CLS] [SEP]", "[CLS] $A [SEP]", _BERT_PAIR)
    tokenizer.add_special_tokens([AddedToken("[MASK]", lstrip=True)])
    return tokenizer


def mpnet() -> Tokenizer:
    """BERT's words between RoBERTa's marks, whose ids are the same."""
    special = ["<s>", "<pad>", "</s>", "[UNK]", "<mask>"]
    tokenizer = Tokenizer(models.WordPiece({}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=SIZE, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(corpus(), trainer)
    tokenizer.post_processor = _around("<s> $A </s>", tokenizer, "<s> $A </s> </s> $B </s>")
    return tokenizer


def clip() -> Tokenizer:
    tokenizer = byte_level("<|startoftext|> <|endoftext|>")
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.post_processor = _around("<|startoftext|> $A <|endoftext|>", tokenizer)
    return tokenizer


# Maker, and what tokenizer_config.json says.
KINDS: dict[str, tuple[Callable[[], Tokenizer], dict[str, Any]]] = {
    "bert": (
        wordpiece,
        {
            "cls_token": "[CLS]",
            "sep_token": "[SEP]",
            "unk_token": "[UNK]",
            "pad_token": "[PAD]",
            "mask_token": "[MASK]",
        },
    ),
    "bert-cased": (lambda: wordpiece(lowercase=False), {"do_lower_case": False, "mask_token": "[MASK]"}),
    "gpt2": (lambda: byte_level("<|endoftext|>"), {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"}),
    "llama3": (llama3, {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"}),
    "qwen2": (qwen2, {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "chat_template": TEMPLATE}),
    "qwen3-embedding": (lambda: qwen2(ending=True), {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}),
    "qwen3-reranker": (reranker, {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}),
    "smollm": (
        lambda: byte_level("<|endoftext|> <|im_start|> <|im_end|>", digits=True),
        {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "chat_template": TEMPLATE},
    ),
    "roberta": (roberta, {"bos_token": "<s>", "eos_token": "</s>", "sep_token": "</s>", "mask_token": "<mask>"}),
    "modernbert": (modernbert, {"cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}),
    "neox": (neox, {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"}),
    "dolma": (lambda: byte_level("<|endoftext|> <|pad|>", split=_LLAMA3), {"eos_token": "<|endoftext|>"}),
    "llama2": (llama2, {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}),
    "phi3": (phi3, {"bos_token": "<s>", "eos_token": "<|endoftext|>", "unk_token": "<unk>"}),
    "gemma": (gemma, {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>"}),
    "embedding-gemma": (embedding_gemma, {"bos_token": "<bos>", "eos_token": "<eos>"}),
    "xlm-roberta": (
        xlm_roberta,
        {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "mask_token": "<mask>"},
    ),
    "xlm-roberta-plain": (lambda: xlm_roberta(charsmap=False), {"bos_token": "<s>", "eos_token": "</s>"}),
    "t5": (lambda: unigram("<pad> </s> <unk>", "$A </s>"), {"eos_token": "</s>", "unk_token": "<unk>"}),
}
# Families without a graph in llama.cpp.
ENCODERS: dict[str, tuple[Callable[[], Tokenizer], dict[str, Any]]] = {
    "albert": (albert, {"cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}),
    "mpnet": (mpnet, {"bos_token": "<s>", "eos_token": "</s>", "mask_token": {"content": "<mask>", "lstrip": True}}),
    "clip": (clip, {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>"}),
    "siglip": (lambda: unigram("<unk> <pad> </s>", "$A </s>"), {"eos_token": "</s>", "pad_token": "<pad>"}),
}


@cache
def content(kind: str) -> str:
    """tokenizer.json."""
    return (KINDS | ENCODERS)[kind][0]().to_str()


def size(kind: str) -> int:
    """The number of tokens."""
    return Tokenizer.from_str(content(kind)).get_vocab_size()


def write(folder: Path, kind: str, **changes: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(content(kind))
    (folder / "tokenizer_config.json").write_text(json.dumps((KINDS | ENCODERS)[kind][1] | changes))
    return folder


def charsmap_of(kind: str) -> bytes:
    """The charsmap that stands in tokenizer.json."""
    steps = json.loads(content(kind))["normalizer"]["normalizers"]
    return base64.b64decode(steps[0]["precompiled_charsmap"])
