"""Text to token ids for encoders, by the model's own tokenizer.json (package `tokenizers`).

Nothing is cut in silence: a text that is longer than the model's window is split into windows, cut, or
refused, as the caller says. It knows no model and no vectors. Chat models carry their tokenizer in the GGUF, and are
read by tokenizer.json only where llama.cpp would split their text otherwise.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from edgemm import guard
from edgemm.errors import BadFile, PromptTooLong, disk_errors
from edgemm.package import Package

if TYPE_CHECKING:
    import tokenizers

FILE = "tokenizer.json"


class Overflow(StrEnum):
    """What becomes of a text longer than the model's window."""

    SPLIT = "split"
    CUT = "cut"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class Encoded:
    """The windows of one text: one row of token ids, special tokens included, for each."""

    rows: tuple[list[int], ...]


@dataclass(frozen=True, slots=True)
class Pair:
    """Two texts in one row: ids, the token type of each, which text (0, 1, or None: neither) it is of, and where in it.

    `offsets` are first character and last character + 1 in the text of the token.
    """

    ids: list[int]
    types: list[int]
    texts: list[int | None]
    offsets: list[tuple[int, int]]


class Tokenizer:
    """`encode` is exact with respect to tokenizer.json; padding and truncation of the file are ignored."""

    def __init__(self, path: Path) -> None:
        self._tokenizer = _load(path)
        probe = self._tokenizer.encode("a")
        special = probe.special_tokens_mask
        body = special.index(0) if 0 in special else len(special)
        self._before = probe.ids[:body]
        self._after = probe.ids[len(special) - special[::-1].index(0) :] if 0 in special else []

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids with special tokens, of any length."""
        return [encoding.ids for encoding in self._tokenizer.encode_batch_fast(list(texts))]

    def spans(self, texts: Sequence[str]) -> list[list[tuple[int, int]]]:
        """Of each text, where its tokens stand: first character and last character + 1. Without special tokens."""
        return [encoding.offsets for encoding in self._tokenizer.encode_batch(list(texts), add_special_tokens=False)]

    def pair(self, first: str, second: str, max_tokens: int) -> Pair:
        """Two texts as one row of ids. Raises `PromptTooLong` when they do not fit together."""
        encoding = self._tokenizer.encode(first, second)
        if len(encoding.ids) > max_tokens:
            why = f"have {len(encoding.ids)} tokens together, this model takes {max_tokens}"
            raise PromptTooLong("the two texts", why, "shorten them, or split the longer one")
        return Pair(encoding.ids, encoding.type_ids, encoding.sequence_ids, encoding.offsets)

    def single(self, text: str) -> Pair:
        """One text, of any length, and where each of its tokens stands in it."""
        encoding = self._tokenizer.encode(text)
        return Pair(encoding.ids, encoding.type_ids, encoding.sequence_ids, encoding.offsets)

    def spelled(self, ids: Sequence[int]) -> str:
        """What the ids stand for, special tokens included."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=False))

    def token_id(self, token: str) -> int | None:
        """The id of one token by its exact name."""
        found: int | None = self._tokenizer.token_to_id(token)
        return found

    def text_ids(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        """Token ids of one text; without `parse_special` what looks like a control token stays text."""
        self._tokenizer.encode_special_tokens = not parse_special
        return list(self._tokenizer.encode(text, add_special_tokens=add_special).ids)

    def encode(self, texts: Sequence[str], max_tokens: int, overflow: Overflow = Overflow.SPLIT) -> list[Encoded]:
        """The rows of each text, each of at most `max_tokens` ids. Raises `PromptTooLong` under `REFUSE`."""
        return [Encoded(self._windows(ids, max_tokens, overflow)) for ids in self.ids(texts)]

    def _windows(self, ids: list[int], max_tokens: int, overflow: Overflow) -> tuple[list[int], ...]:
        if len(ids) <= max_tokens:
            return (ids,)
        if overflow is Overflow.REFUSE:
            raise PromptTooLong(
                "text", f"has {len(ids)} tokens, this model takes {max_tokens}", "shorten it, or let it be split"
            )
        body = ids[len(self._before) : len(ids) - len(self._after)]
        step = max_tokens - len(self._before) - len(self._after)
        starts = range(0, len(body), step) if overflow is Overflow.SPLIT else (0,)
        return tuple([*self._before, *body[s : s + step], *self._after] for s in starts)


def open_tokenizer(package: Package) -> Tokenizer:
    """The package's tokenizer, refused when it does not give the ids that the manifest remembers."""
    path = package.file(FILE)
    if path is None:
        raise BadFile(package.path, f"the package has no {FILE}", "convert or pull the model again")
    tokenizer = Tokenizer(path)
    check = package.manifest.check
    if check is not None and tuple(tokenizer.ids([check.text])[0]) != check.tokens:
        raise BadFile(path, "the tokenizer does not match the model", "convert or pull the model again")
    return tokenizer


def _load(path: Path) -> "tokenizers.Tokenizer":
    import json

    import tokenizers

    with disk_errors(path):
        raw = path.read_bytes()
    cleaned = json.dumps(guard.check_tokenizer_json(raw, path))
    try:
        return tokenizers.Tokenizer.from_str(cleaned)
    except BaseException as error:  # a Rust panic is no Exception
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            raise
        raise BadFile(path, f"not a valid tokenizer ({error})", "convert or pull the model again") from error
