"""tokenizer.json the other way round: what each token adds to a text, in bytes, and which tokens are control tokens.

A token may be a part of a character, so that pieces are bytes. It splits no text and knows no model.
"""

import re
from pathlib import Path
from typing import Any

from edgemm import guard
from edgemm.errors import BadFile, disk_errors

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")  # byte fallback of SentencePiece
_BLANK = "\u2581"


class Pieces:
    """Pieces by token id. `controls` are the texts of control tokens, `others` of added tokens that are plain text."""

    def __init__(self, path: Path) -> None:
        with disk_errors(path):
            content = guard.check_tokenizer_json(path.read_bytes(), path)
        try:
            tokens = _tokens(content["model"])
            added = [(int(row["id"]), str(row["content"]), bool(row["special"])) for row in content["added_tokens"]]
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise BadFile(path, f"a part of it is damaged ({error})", "convert or pull the model again") from error
        steps = _kinds(content.get("decoder")) | _kinds(content.get("pre_tokenizer"))
        is_byte_level = "ByteLevel" in steps
        piece = _byte_level if is_byte_level else _sentence_piece
        self._pieces = {place: piece(text) for place, text in tokens.items()}
        self._pieces |= {place: b"" if special else text.encode() for place, text, special in added}
        self.controls = [text for _, text, special in added if special]
        self.others = [text for _, text, special in added if not special]
        self._controls = {place: text for place, text, special in added if special}
        self.ids = {text: place for place, text in tokens.items()} | {text: place for place, text, _ in added}

    def __getitem__(self, token: int) -> bytes:
        """What `token` adds to the text: nothing, where it is a control token or a row without a token."""
        return self._pieces.get(token, b"")

    def text(self, token: int) -> str:
        """The text of `token`, control tokens included."""
        return self._controls.get(token) or self[token].decode("utf-8", "replace")

    def __len__(self) -> int:
        return 1 + max(self._pieces, default=-1)


def _tokens(model: dict[str, Any]) -> dict[int, str]:
    vocabulary = model["vocab"]
    if isinstance(vocabulary, list):  # Unigram: (text, score)
        return {place: str(row[0]) for place, row in enumerate(vocabulary)}
    return {int(place): str(text) for text, place in vocabulary.items()}


def _kinds(step: Any) -> set[str]:
    """The names of a step and of those in it."""
    if not isinstance(step, dict):
        return set()
    inner = step.get("decoders") or step.get("pretokenizers") or []
    return {str(step.get("type"))}.union(*map(_kinds, inner))


def _letters() -> dict[str, int]:
    """Radford et al. 2019: printable Latin-1 characters stand for themselves, all other bytes for U+0100 and up."""
    own = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [byte for byte in range(256) if byte not in own]
    return {chr(byte): byte for byte in own} | {chr(0x100 + i): byte for i, byte in enumerate(rest)}


_LETTERS = _letters()


def _byte_level(text: str) -> bytes:
    if all(letter in _LETTERS for letter in text):
        return bytes(_LETTERS[letter] for letter in text)
    return text.encode()


def _sentence_piece(text: str) -> bytes:
    if found := _BYTE.fullmatch(text):
        return bytes([int(found[1], 16)])
    return text.replace(_BLANK, " ").encode()
