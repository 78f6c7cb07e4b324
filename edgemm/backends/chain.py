"""llama.cpp's samplers for one answer: penalties, top-k, top-p, min-p, temperature and a seeded draw; greedy at 0.

A grammar is asked about the token that was chosen, and about all tokens only where it refuses that one, because asking
about a whole vocabulary takes longer than a small model takes for a token. It knows no text and no KV cache.
`library` is the module llama_cpp.
"""

import ctypes
from typing import Any

import numpy as np

from edgemm.backends import Sampling
from edgemm.backends.schema import refused

_PENALTY_WINDOW = 64
_CANDIDATE = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])  # struct llama_token_data


class Chain:
    """Chooses one token after the other. Close it, for its memory is native."""

    def __init__(self, library: Any, context: Any, vocab: Any, sampling: Sampling, grammar: bytes) -> None:
        """`grammar`: GBNF, empty for none. Raises `UsageError` for one that llama.cpp refuses."""
        self._library, self._context = library, context
        self._size = int(library.llama_vocab_n_tokens(vocab))
        self._grammar = library.llama_sampler_init_grammar(vocab, grammar, b"root") if grammar else None
        if grammar and not self._grammar:
            raise refused("becomes a grammar that llama.cpp refuses")
        self._chain = self._build(sampling)

    def choose(self, row: int) -> int:
        """The next token after the logits of output `row` of the last batch; -1: the last one."""
        if self._grammar is None:
            return int(self._library.llama_sampler_sample(self._chain, self._context, row))
        pointer = self._library.llama_get_logits_ith(self._context, row)
        logits = np.ctypeslib.as_array(pointer, (self._size,))
        all_tokens = np.zeros(self._size, _CANDIDATE)
        all_tokens["id"], all_tokens["logit"] = np.arange(self._size), logits
        token = self._apply(all_tokens, self._chain)
        single = np.array([(token, 1.0, 0.0)], _CANDIDATE)
        self._apply(single, self._grammar)
        if single["logit"][0] == -np.inf:
            all_tokens["id"], all_tokens["logit"] = np.arange(self._size), logits
            token = self._apply(all_tokens, self._grammar, self._chain)
        self._library.llama_sampler_accept(self._grammar, token)
        self._library.llama_sampler_accept(self._chain, token)
        return token

    def close(self) -> None:
        for sampler in filter(None, (self._chain, self._grammar)):
            self._library.llama_sampler_free(sampler)
        self._chain = self._grammar = None

    def _apply(self, candidates: Any, *samplers: Any) -> int:
        """The token that the last of `samplers` selects; `candidates` are changed in place."""
        array = self._library.llama_token_data_array(size=len(candidates), selected=-1, sorted=False)
        array.data = candidates.ctypes.data_as(ctypes.POINTER(self._library.llama_token_data))
        for sampler in samplers:
            self._library.llama_sampler_apply(sampler, ctypes.byref(array))
        return int(array.data[array.selected].id) if array.selected >= 0 else -1

    def _build(self, s: Sampling) -> Any:
        library = self._library
        chain = library.llama_sampler_chain_init(library.llama_sampler_chain_default_params())
        steps = []
        if s.repetition_penalty != 1:
            steps.append(
                library.llama_sampler_init_penalties(self._size, _PENALTY_WINDOW, s.repetition_penalty, 0.0, 0.0)
            )
        if s.temperature == 0:
            steps.append(library.llama_sampler_init_greedy())
        else:
            seed = library.LLAMA_DEFAULT_SEED if s.seed is None else s.seed & 0xFFFFFFFF
            steps += [
                library.llama_sampler_init_top_k(s.top_k),
                library.llama_sampler_init_top_p(s.top_p, 1),
                library.llama_sampler_init_min_p(s.min_p, 1),
                library.llama_sampler_init_temp(s.temperature),
                library.llama_sampler_init_dist(seed),
            ]
        for step in steps:
            library.llama_sampler_chain_add(chain, step)
        return chain
