"""llama.cpp's KV cache of one sequence, and which tokens it holds: read, rewind, save to a file, restore.

It knows no text and no sampling. `library` is the module llama_cpp.
"""

import ctypes
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemm import device
from edgemm.backends import common_prefix, state
from edgemm.errors import NotEnoughMemory


class KvCache:
    """The cache of `context`. `tokens` are those that it holds, in order; only this class changes them."""

    def __init__(self, library: Any, model: Any, context: Any, path: Path) -> None:
        """`path`: the model's file, for messages. `context` None: a vocabulary alone, which reads nothing."""
        self._library, self._context, self._path = library, context, path
        self._memory = library.llama_get_memory(context) if context else None
        self.room = int(library.llama_n_ctx(context)) if context else 0
        self.tokens: list[int] = []
        self.can_rewind = self._memory is not None and _keeps_every_token(library, model)

    def __len__(self) -> int:
        return len(self.tokens)

    def forget(self) -> None:
        self.tokens = []
        if self._memory:
            self._library.llama_memory_clear(self._memory, True)

    def reuse(self, tokens: Sequence[int]) -> int:
        """Keep the common prefix and drop the rest; the last token is always read again."""
        keep = common_prefix(self.tokens, tokens[:-1])
        if not self._library.llama_memory_seq_rm(self._memory, 0, keep, -1):  # a recurrent model cannot rewind
            self._library.llama_memory_clear(self._memory, True)
            keep = 0
        self.tokens = list(tokens[:keep])
        return keep

    def rewind(self, length: int) -> None:
        """Take the tokens behind the first `length` out."""
        if length < len(self.tokens):
            self._library.llama_memory_seq_rm(self._memory, 0, length, -1)
            del self.tokens[length:]

    def read(self, tokens: Sequence[int]) -> None:
        """Read `tokens`, with an output after the last one."""
        ids = (ctypes.c_int32 * len(tokens))(*tokens)
        self.check(self._library.llama_decode(self._context, self._library.llama_batch_get_one(ids, len(tokens))))
        self.tokens += tokens

    def read_each(self, tokens: Sequence[int]) -> None:
        """Read `tokens`, with an output after each one."""
        self.decode([(0, len(self.tokens) + i, token) for i, token in enumerate(tokens)])
        self.tokens += tokens

    def decode(self, places: Sequence[tuple[int, int, int]]) -> None:
        """Read (sequence, position, token), with an output for each; `tokens` is left as it is."""
        library = self._library
        batch = library.llama_batch_init(len(places), 0, 1)
        try:
            for slot, (sequence, position, token) in enumerate(places):
                batch.token[slot], batch.pos[slot] = token, position
                batch.n_seq_id[slot], batch.seq_id[slot][0], batch.logits[slot] = 1, sequence, 1
            batch.n_tokens = len(places)
            self.check(library.llama_decode(self._context, batch))
        finally:
            library.llama_batch_free(batch)

    def check(self, code: int) -> None:
        """Raise `NotEnoughMemory` for a failed call of llama.cpp; nothing is held then."""
        if code:
            self.forget()
            raise NotEnoughMemory(self._path, f"llama.cpp could not decode (code {code})", "try a smaller --ctx")

    def save(self, path: Path, identity: str) -> int:
        """Write the cache to a file; its bytes. 0: nothing is held, or no memory is free for a copy."""
        size = int(self._library.llama_state_seq_get_size(self._context, 0)) if self.can_rewind and self.tokens else 0
        if not 0 < size < device.free_memory():
            return 0
        blob = np.empty(size, np.uint8)
        written = self._library.llama_state_seq_get_data(self._context, _pointer(blob), size, 0)
        return state.write(path, identity, self.tokens, blob[:written])

    def restore(self, path: Path, identity: str) -> int:
        """Replace the cache by that of a file; its tokens. 0: the file did not fit, and is deleted."""
        found = state.read(path, identity) if self.can_rewind else None
        if found is None or not 0 < len(found[0]) <= self.room or not self._set(*found):
            path.unlink(missing_ok=True)
            return 0
        os.utime(path)  # the newest files are kept the longest
        return len(self.tokens)

    def _set(self, tokens: list[int], blob: NDArray[np.uint8]) -> bool:
        library = self._library
        self.forget()
        read = library.llama_state_seq_set_data(self._context, _pointer(blob), len(blob), 0)
        if read != len(blob) or library.llama_memory_seq_pos_max(self._memory, 0) != len(tokens) - 1:
            self.forget()
            return False
        self.tokens = tokens
        return True


def _keeps_every_token(library: Any, model: Any) -> bool:
    """Whether the memory holds each token until it is taken out: no recurrent state, no sliding window, no encoder."""
    kinds = (
        library.llama_model_is_recurrent,
        library.llama_model_is_hybrid,
        library.llama_model_is_diffusion,
        library.llama_model_has_encoder,
        library.llama_model_n_swa,
    )
    return not any(kind(model) for kind in kinds)


def _pointer(array: NDArray[np.uint8]) -> Any:
    return array.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
