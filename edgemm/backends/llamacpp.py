"""llama.cpp's low-level API, for one model: tokenize, prefill, sample, pool. Runs inside the worker's child process.

One sequence, one KV cache: the longest prefix that a new prompt shares with the last one is not read again.
It knows no pipe, no chat and no file but the model's. API: llama.h of the installed llama-cpp-python.
"""

import codecs
import ctypes
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import llama_cpp as llama
import numpy as np
from numpy.typing import NDArray

from edgemm.backends import ModelInfo, Prompt, Sampling
from edgemm.errors import BadFile, NotEnoughMemory, PromptTooLong
from edgemm.events import Done, Progress, Token
from edgemm.prompt import Message, render

MAX_BATCH = 512
_FIRST_CHUNK = 64
_CHUNK_SECONDS = 0.25  # so that a cancel between two chunks comes soon
_PENALTY_WINDOW = 64
_MAX_SEQUENCES = 64
_PIECE = 1024


class LlamaCpp:
    """A loaded GGUF model. Not thread-safe: llama.cpp aborts the process when two threads share a context."""

    def __init__(self, path: Path, *, context: int, threads: int, gpu_layers: int, embedding: bool) -> None:
        self._path = path
        self._log = _Log()
        self._model = self._load(path, gpu_layers)
        self._vocab = llama.llama_model_get_vocab(self._model)
        self._context = self._open(context, threads, embedding)
        self._memory = llama.llama_get_memory(self._context)
        self._n_ctx = int(llama.llama_n_ctx(self._context))
        self._cached: list[int] = []
        self._pieces: dict[int, bytes | None] = {}
        self._rate = 0.0  # tokens a second of the last prefill chunk
        self._template = llama.llama_model_chat_template(self._model, None)
        self._specials = self._control_texts()
        self.info = ModelInfo(
            architecture=self._meta("general.architecture"),
            context=self._n_ctx,
            trained_context=int(llama.llama_model_n_ctx_train(self._model)),
            vocabulary=int(llama.llama_vocab_n_tokens(self._vocab)),
            dimensions=int(llama.llama_model_n_embd(self._model)),
            has_template=self._template is not None,
        )

    def tokenize(self, text: str, *, add_special: bool = False, parse_special: bool = False) -> list[int]:
        """Token ids of `text`. `add_special`: with BOS/EOS or CLS/SEP as the model wants them."""
        raw = text.encode("utf-8", "replace")
        size = len(raw) + 8
        ids = (ctypes.c_int32 * size)()
        count = llama.llama_tokenize(self._vocab, raw, len(raw), ids, size, add_special, parse_special)
        if count < 0:
            ids = (ctypes.c_int32 * -count)()
            count = llama.llama_tokenize(self._vocab, raw, len(raw), ids, -count, add_special, parse_special)
        return list(ids[:count])

    def prompt(self, messages: Sequence[Message]) -> Prompt:
        """A conversation by the model's own template."""
        bos, eos = llama.llama_vocab_bos(self._vocab), llama.llama_vocab_eos(self._vocab)
        template = self._template.decode("utf-8", "replace") if self._template else ""
        rendered = render(template, messages, self._specials, self._text(bos), self._text(eos))
        tokens = [t for piece in rendered.pieces for t in self.tokenize(piece.text, parse_special=piece.special)]
        if llama.llama_vocab_get_add_bos(self._vocab) and bos >= 0 and tokens[:1] != [bos]:
            tokens.insert(0, bos)
        return Prompt(tokens, rendered.note)

    def generate(
        self, tokens: Sequence[int], sampling: Sampling, cancelled: Callable[[], bool]
    ) -> Iterator[Progress | Token | Done]:
        """Prefill and decode; `cancelled` is asked between chunks and between tokens."""
        if not 0 < len(tokens) < self._n_ctx:
            raise PromptTooLong(
                "prompt", f"has {len(tokens)} tokens, this model takes {self._n_ctx - 1}", "try --ctx or a shorter one"
            )
        started = time.perf_counter()
        reused = self._reuse(tokens)
        yield from self._prefill(tokens, reused, cancelled)
        prefilled = time.perf_counter()
        count, reason = 0, "cancelled"
        if not cancelled():
            for piece in self._decode(sampling, cancelled):
                if isinstance(piece, str):
                    reason = piece
                else:
                    count += piece.id >= 0
                    yield piece
        ended = time.perf_counter()
        yield Done(reason, len(tokens), reused, count, prefilled - started, ended - prefilled)

    def logits(self) -> NDArray[np.float32]:
        """The logits after the last token that was read: float32 (vocabulary,)."""
        pointer = llama.llama_get_logits_ith(self._context, -1)
        return np.ctypeslib.as_array(pointer, (self.info.vocabulary,)).copy()

    def encode(self, rows: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Pooled embeddings, not normalized: float32 (len(rows), dimensions)."""
        longest = max(map(len, rows))
        most = int(llama.llama_n_ubatch(self._context))  # an encoder reads a batch in one go
        if longest > most:
            raise PromptTooLong("text", f"has {longest} tokens, this model takes {most}", "shorten or split it")
        vectors = np.empty((len(rows), self.info.dimensions), np.float32)
        start = 0
        while start < len(rows):
            end, tokens = start, 0
            while end < len(rows) and end - start < _MAX_SEQUENCES and tokens + len(rows[end]) <= most:
                tokens += len(rows[end])
                end += 1
            self._encode_batch(rows[start:end], vectors[start:end])
            start = end
        return vectors

    def _encode_batch(self, rows: Sequence[Sequence[int]], out: NDArray[np.float32]) -> None:
        batch = llama.llama_batch_init(sum(map(len, rows)), 0, 1)
        try:
            places = [(i, position, token) for i, row in enumerate(rows) for position, token in enumerate(row)]
            for slot, (sequence, position, token) in enumerate(places):
                batch.token[slot], batch.pos[slot] = token, position
                batch.n_seq_id[slot], batch.seq_id[slot][0], batch.logits[slot] = 1, sequence, 1
            batch.n_tokens = len(places)
            if self._memory:
                llama.llama_memory_clear(self._memory, True)
            self._check(llama.llama_decode(self._context, batch))
        finally:
            llama.llama_batch_free(batch)
        for i in range(len(rows)):
            pointer = llama.llama_get_embeddings_seq(self._context, i)
            out[i] = np.ctypeslib.as_array(pointer, (self.info.dimensions,))

    def _reuse(self, tokens: Sequence[int]) -> int:
        """Keep the common prefix in the KV cache and drop the rest; the last token is always read again."""
        keep = 0
        for ours, theirs in zip(self._cached, tokens[:-1], strict=False):
            if ours != theirs:
                break
            keep += 1
        if not llama.llama_memory_seq_rm(self._memory, 0, keep, -1):  # a recurrent model cannot rewind
            llama.llama_memory_clear(self._memory, True)
            keep = 0
        self._cached = list(tokens[:keep])
        return keep

    def _prefill(self, tokens: Sequence[int], done: int, cancelled: Callable[[], bool]) -> Iterator[Progress]:
        most = int(llama.llama_n_batch(self._context))  # the context asked for; llama.cpp rounds its own up
        while done < len(tokens) and not cancelled():
            size = min(most, max(16, int(self._rate * _CHUNK_SECONDS)) if self._rate else _FIRST_CHUNK)
            chunk = list(tokens[done : done + size])
            started = time.perf_counter()
            self._read(chunk)
            self._rate = len(chunk) / max(1e-9, time.perf_counter() - started)
            done += len(chunk)
            yield Progress("prefill", done, len(tokens), "tokens")

    def _read(self, tokens: Sequence[int]) -> None:
        ids = (ctypes.c_int32 * len(tokens))(*tokens)
        self._check(llama.llama_decode(self._context, llama.llama_batch_get_one(ids, len(tokens))))
        self._cached += tokens

    def _decode(self, sampling: Sampling, cancelled: Callable[[], bool]) -> Iterator[Token | str]:
        """Tokens, and at last the reason of the end."""
        text = _StreamText(sampling.stop)
        sampler = self._sampler(sampling)
        try:
            for _ in range(sampling.max_tokens):
                token = int(llama.llama_sampler_sample(sampler, self._context, -1))
                piece = self._piece(token)
                if piece is None:
                    yield from text.rest()
                    yield "stop"
                    return
                yield Token(token, text.add(piece))
                if text.stopped or cancelled():
                    yield "stop" if text.stopped else "cancelled"
                    return
                if len(self._cached) >= self._n_ctx:
                    break
                self._read([token])
            yield from text.rest()
            yield "length"
        finally:
            llama.llama_sampler_free(sampler)

    def _sampler(self, s: Sampling) -> Any:
        """A sampler chain: penalties, then top-k, top-p, min-p, temperature and a seeded draw; greedy at 0."""
        chain = llama.llama_sampler_chain_init(llama.llama_sampler_chain_default_params())
        steps = []
        if s.repetition_penalty != 1:
            steps.append(
                llama.llama_sampler_init_penalties(
                    self.info.vocabulary, _PENALTY_WINDOW, s.repetition_penalty, 0.0, 0.0
                )
            )
        if s.temperature == 0:
            steps.append(llama.llama_sampler_init_greedy())
        else:
            seed = llama.LLAMA_DEFAULT_SEED if s.seed is None else s.seed & 0xFFFFFFFF
            steps += [
                llama.llama_sampler_init_top_k(s.top_k),
                llama.llama_sampler_init_top_p(s.top_p, 1),
                llama.llama_sampler_init_min_p(s.min_p, 1),
                llama.llama_sampler_init_temp(s.temperature),
                llama.llama_sampler_init_dist(seed),
            ]
        for step in steps:
            llama.llama_sampler_chain_add(chain, step)
        return chain

    def _piece(self, token: int) -> bytes | None:
        """What `token` adds to the text; None: it ends the answer. Remembered, for the loop that decodes."""
        if token not in self._pieces:
            ends = llama.llama_vocab_is_eog(self._vocab, token)
            self._pieces[token] = None if ends else self._bytes(token, special=False)
        return self._pieces[token]

    def _text(self, token: int) -> str:
        return self._bytes(token, special=True).decode("utf-8", "replace") if token >= 0 else ""

    def _bytes(self, token: int, special: bool) -> bytes:
        buffer = ctypes.create_string_buffer(_PIECE)
        size = llama.llama_token_to_piece(self._vocab, token, buffer, _PIECE, 0, special)
        return buffer.raw[: max(0, size)]

    def _control_texts(self) -> list[str]:
        """Texts that a message must not turn into their token: all control tokens, and what else marks a turn."""
        always = llama.LLAMA_TOKEN_ATTR_CONTROL | llama.LLAMA_TOKEN_ATTR_UNKNOWN
        template = self._template.decode("utf-8", "replace") if self._template else ""
        found = []
        for token in range(llama.llama_vocab_n_tokens(self._vocab)):
            kind = llama.llama_vocab_get_attr(self._vocab, token)
            if not kind & (always | llama.LLAMA_TOKEN_ATTR_USER_DEFINED) or not (text := self._text(token)):
                continue
            if kind & always or (len(text) > 1 and text.strip() and text in template):
                found.append(text)
        return found

    def _meta(self, key: str) -> str:
        buffer = ctypes.create_string_buffer(_PIECE)
        llama.llama_model_meta_val_str(self._model, key.encode(), buffer, _PIECE)
        return buffer.value.decode("utf-8", "replace")

    def _load(self, path: Path, gpu_layers: int) -> Any:
        options = llama.llama_model_default_params()
        options.n_gpu_layers = gpu_layers if llama.llama_supports_gpu_offload() else 0
        model = llama.llama_model_load_from_file(str(path).encode(), options)
        if not model:
            raise BadFile(path, f"llama.cpp cannot load it ({self._log.last()})", "download or convert it again")
        return model

    def _open(self, context: int, threads: int, embedding: bool) -> Any:
        options = llama.llama_context_default_params()
        options.n_ctx = context
        options.n_batch = options.n_ubatch = context if embedding else min(MAX_BATCH, context)
        options.n_threads = options.n_threads_batch = threads
        options.n_seq_max = _MAX_SEQUENCES if embedding else 1
        options.embeddings, options.kv_unified, options.no_perf = embedding, True, True
        opened = llama.llama_init_from_model(self._model, options)
        if not opened:
            raise NotEnoughMemory(
                self._path, f"no context of {context} tokens ({self._log.last()})", "try a smaller --ctx"
            )
        return opened

    def _check(self, code: int) -> None:
        if code:
            self._cached = []
            llama.llama_memory_clear(self._memory, True) if self._memory else None
            raise NotEnoughMemory(self._path, f"llama.cpp could not decode (code {code})", "try a smaller --ctx")


class _StreamText:
    """Bytes of tokens to text: a character is never split, and a text that may begin a stop text is held back."""

    def __init__(self, stop: Sequence[str]) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._stop = tuple(s for s in stop if s)
        self._held = ""
        self.stopped = False

    def add(self, piece: bytes) -> str:
        if not self._stop:
            return self._decoder.decode(piece)
        self._held += self._decoder.decode(piece)
        ends = [at for s in self._stop if (at := self._held.find(s)) >= 0]
        if ends:
            self.stopped = True
            return self._held[: min(ends)]
        keep = max((_overlap(self._held, s) for s in self._stop), default=0)
        ready, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return ready

    def rest(self) -> Iterator[Token]:
        """What was held back, when the answer ends in another way; its tokens were counted before."""
        text = self._held + self._decoder.decode(b"", final=True)
        if text:
            yield Token(-1, text)


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of `text` begin `stop`."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)


class _Log:
    """Keeps the last error line of the native library instead of printing it."""

    _LEAST = 4  # ggml.h: GGML_LOG_LEVEL_ERROR

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._callback = llama.llama_log_callback(self._write)  # kept: the library holds only a pointer
        llama.llama_log_set(self._callback, ctypes.c_void_p())

    def last(self) -> str:
        return self._lines[0] if self._lines else "no reason given"

    def _write(self, level: int, text: bytes, _data: Any) -> None:
        if level == self._LEAST and len(self._lines) < 16:
            self._lines.append(text.decode("utf-8", "replace").strip())
