"""Text to tokens and back as llama.cpp does it for one model, and a conversation to a prompt by the model's template.

A tokenizer.json splits text in its place where the package says so. It knows no KV cache and no sampling.
`library` is the module llama_cpp.
"""

import ctypes
from collections.abc import Sequence
from typing import Any

from edgemm.backends import Prompt
from edgemm.prompt import Message, render
from edgemm.tokenizer import Tokenizer

_PIECE = 1024


class Vocabulary:
    """The tokens of a loaded `model`. `template` is the chat template that its file holds, empty for none."""

    def __init__(self, library: Any, model: Any, tokenizer: Tokenizer | None) -> None:
        self._library, self._tokenizer = library, tokenizer
        self.pointer = library.llama_model_get_vocab(model)
        self.size = int(library.llama_vocab_n_tokens(self.pointer))
        self.template = (library.llama_model_chat_template(model, None) or b"").decode("utf-8", "replace")
        self._pieces: dict[int, bytes | None] = {}
        self._texts: dict[int, str] = {}
        self._specials = self._control_texts()

    def tokenize(self, text: str, *, add_special: bool = False, parse_special: bool = False) -> list[int]:
        """Token ids of `text`. `add_special`: with BOS/EOS or CLS/SEP as the model wants them."""
        if self._tokenizer is not None:
            return self._tokenizer.text_ids(text, add_special=add_special, parse_special=parse_special)
        raw = text.encode("utf-8", "replace")
        size = len(raw) + 8
        ids = (ctypes.c_int32 * size)()
        tokenize = self._library.llama_tokenize
        count = tokenize(self.pointer, raw, len(raw), ids, size, add_special, parse_special)
        if count < 0:
            ids = (ctypes.c_int32 * -count)()
            count = tokenize(self.pointer, raw, len(raw), ids, -count, add_special, parse_special)
        return list(ids[:count])

    def prompt(self, messages: Sequence[Message]) -> Prompt:
        """The conversation by the template, up to the beginning of the assistant's turn."""
        bos, eos = self._library.llama_vocab_bos(self.pointer), self._library.llama_vocab_eos(self.pointer)
        rendered = render(self.template, messages, self._specials, self.text(bos), self.text(eos))
        tokens = [t for piece in rendered.pieces for t in self.tokenize(piece.text, parse_special=piece.special)]
        if self._library.llama_vocab_get_add_bos(self.pointer) and bos >= 0 and tokens[:1] != [bos]:
            tokens.insert(0, bos)
        return Prompt(tokens, rendered.note)

    def piece(self, token: int) -> bytes | None:
        """What `token` adds to the text; None: it ends the answer. Remembered, for the loop that decodes."""
        if token not in self._pieces:
            ends = self._library.llama_vocab_is_eog(self.pointer, token)
            self._pieces[token] = None if ends else self._bytes(token, special=False)
        return self._pieces[token]

    def text(self, token: int) -> str:
        """The text of `token`, control tokens included; empty for -1. Remembered as well."""
        if token not in self._texts:
            self._texts[token] = self._bytes(token, special=True).decode("utf-8", "replace") if token >= 0 else ""
        return self._texts[token]

    def _bytes(self, token: int, special: bool) -> bytes:
        buffer = ctypes.create_string_buffer(_PIECE)
        size = self._library.llama_token_to_piece(self.pointer, token, buffer, _PIECE, 0, special)
        return buffer.raw[: max(0, size)]

    def _control_texts(self) -> list[str]:
        """Texts that a message must not turn into their token: all control tokens, and what else marks a turn."""
        library = self._library
        always = library.LLAMA_TOKEN_ATTR_CONTROL | library.LLAMA_TOKEN_ATTR_UNKNOWN
        found = []
        for token in range(self.size):
            kind = library.llama_vocab_get_attr(self.pointer, token)
            if not kind & (always | library.LLAMA_TOKEN_ATTR_USER_DEFINED) or not (text := self.text(token)):
                continue
            if kind & always or (len(text) > 1 and text.strip() and text in self.template):
                found.append(text)
        return found
