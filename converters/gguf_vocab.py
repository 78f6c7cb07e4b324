"""tokenizer.json to a GGUF vocabulary: WordPiece, from that one file.

llama.cpp marks where a word begins ("▁word") instead of where it goes on ("##ing"). It lowercases unless told
otherwise, so the normalizer's settings are always written. It knows no weights.
Keys: llama.cpp's `tokenizer.ggml.*` (src/llama-arch.cpp, llama-vocab.cpp).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgemm import guard
from edgemm.errors import Unsupported, disk_errors

NORMAL, UNKNOWN, CONTROL = 1, 2, 3  # llama_token_type
_ROLES = {
    "[CLS]": "cls",
    "[SEP]": "seperator",
    "[PAD]": "padding",
    "[MASK]": "mask",
    "[UNK]": "unknown",
}  # llama.cpp's spelling


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Token texts and types by id, and the remaining `tokenizer.ggml.*` keys."""

    tokens: list[str]
    types: list[int]
    keys: dict[str, int | bool | str]


def wordpiece(path: Path) -> Vocabulary:
    """The vocabulary of a WordPiece tokenizer.json. Raises `Unsupported` for another kind."""
    with disk_errors(path):
        content = guard.check_tokenizer_json(path.read_bytes(), path)
    model = content["model"]
    if model.get("type") != "WordPiece" or not isinstance(model.get("vocab"), dict):
        raise Unsupported(path, f"tokenizer model {model.get('type')!r} has no GGUF builder yet", "use --to onnx-int8")
    words: list[str] = sorted(model["vocab"], key=model["vocab"].__getitem__)
    special = {token["content"] for token in content.get("added_tokens", []) if token.get("special")}
    prefix = str(model.get("continuing_subword_prefix", "##"))
    tokens = [word if word in special else _phantom_space(word, prefix) for word in words]
    types = [UNKNOWN if w == model.get("unk_token") else CONTROL if w in special else NORMAL for w in words]
    keys: dict[str, int | bool | str] = {f"{role}_token_id": words.index(w) for w, role in _ROLES.items() if w in words}
    if "[CLS]" in words and "[SEP]" in words:
        keys |= {"bos_token_id": words.index("[CLS]"), "eos_token_id": words.index("[SEP]")}
    return Vocabulary(tokens, types, keys | _normalizer(content))


def _phantom_space(word: str, prefix: str) -> str:
    return word[len(prefix) :] if word.startswith(prefix) else "▁" + word


def _normalizer(content: dict[str, Any]) -> dict[str, bool]:
    settings = content.get("normalizer") or {}
    lowercase = bool(settings.get("lowercase", False))
    accents = settings.get("strip_accents")
    return {
        "normalizer.lowercase": lowercase,
        "normalizer.strip_accents": lowercase if accents is None else bool(accents),  # as BertNormalizer decides
    }
