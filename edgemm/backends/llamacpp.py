"""llama.cpp's low-level API, for one model: tokenize, prefill, sample, pool. Runs inside the worker's child process.

One sequence, one KV cache: the longest prefix that a new prompt shares with the last one is not read again.
It knows no pipe, no chat and no file but the model's. API: llama.h of the installed llama-cpp-python.
"""

import ctypes
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import llama_cpp as llama
import numpy as np
from llama_cpp._ggml import libggml
from numpy.typing import NDArray

from edgemm.backends import ModelInfo, Prompt, Sampling
from edgemm.backends.activations import Observer
from edgemm.backends.detokenize import StreamText
from edgemm.errors import BadFile, NotEnoughMemory, PromptTooLong
from edgemm.events import Done, Progress, Token
from edgemm.prompt import Message, render
from edgemm.tokenizer import Tokenizer

MAX_BATCH = 512
_FIRST_CHUNK = 64
_CHUNK_SECONDS = 0.25  # so that a cancel between two chunks comes soon
_PENALTY_WINDOW = 64
_MAX_SEQUENCES = 64
_PIECE = 1024
_LOGITS_BYTES = 16 << 20  # logits on their way to the parent in one piece


class LlamaCpp:
    """A loaded GGUF model. Not thread-safe: llama.cpp aborts the process when two threads share a context."""

    def __init__(
        self,
        path: Path,
        *,
        context: int,
        threads: int,
        gpu_layers: int,
        embedding: bool,
        vocabulary_only: bool = False,
        observe: bool = False,
        exact: bool = False,
        tokenizer: str = "",
    ) -> None:
        self._path = path
        self._tokenizer = Tokenizer(Path(tokenizer)) if tokenizer else None
        self._log = _Log()
        self._observer = Observer(libggml, llama.ggml_backend_sched_eval_callback) if observe else None
        self._model = self._load(path, gpu_layers, vocabulary_only)
        self._vocab = llama.llama_model_get_vocab(self._model)
        self._has_encoder = bool(llama.llama_model_has_encoder(self._model))  # beside a decoder, as T5 has
        self._context = None if vocabulary_only else self._open(context, threads, embedding, exact)
        self._memory = llama.llama_get_memory(self._context) if self._context else None
        self._n_ctx = int(llama.llama_n_ctx(self._context)) if self._context else 0
        self._cached: list[int] = []
        self._pieces: dict[int, bytes | None] = {}
        self._rate = 0.0  # tokens a second of the last prefill chunk
        self._template = llama.llama_model_chat_template(self._model, None)
        self._specials = self._control_texts()
        ranks = not vocabulary_only and llama.llama_pooling_type(self._context) == llama.LLAMA_POOLING_TYPE_RANK
        self._outputs = int(
            llama.llama_model_n_cls_out(self._model) if ranks else llama.llama_model_n_embd(self._model)
        )
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
        if self._tokenizer is not None:
            return self._tokenizer.text_ids(text, add_special=add_special, parse_special=parse_special)
        raw = text.encode("utf-8", "replace")
        size = len(raw) + 8
        ids = (ctypes.c_int32 * size)()
        count = llama.llama_tokenize(self._vocab, raw, len(raw), ids, size, add_special, parse_special)
        if count < 0:
            ids = (ctypes.c_int32 * -count)()
            count = llama.llama_tokenize(self._vocab, raw, len(raw), ids, -count, add_special, parse_special)
        return list(ids[:count])

    def prompt(self, messages: Sequence[Message]) -> Prompt:
        """A conversation by the model's own template. An encoder beside the decoder reads the last message as it is."""
        if self._has_encoder and self._template is None:
            return Prompt(self.tokenize(messages[-1]["content"], add_special=True))
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
        reused = 0
        if self._has_encoder:
            self._forget()
            self._read_source(tokens)
            self._read([int(llama.llama_model_decoder_start_token(self._model))])
        else:
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

    def score(self, tokens: Sequence[int], answer: Sequence[int] = ()) -> Iterator[NDArray[np.float32]]:
        """Logits after each token, float32 (n, vocabulary), a few positions at a time. Nothing is kept for later.

        With an encoder beside the decoder, `tokens` go into the encoder and the logits belong to `answer`.
        """
        self._forget()
        if self._has_encoder:
            self._read_source(tokens)
            tokens = answer
        if len(tokens) > self._n_ctx:
            raise PromptTooLong("text", f"has {len(tokens)} tokens, this model takes {self._n_ctx}", "shorten it")
        step = min(int(llama.llama_n_batch(self._context)), max(1, _LOGITS_BYTES // (4 * self.info.vocabulary)))
        for start in range(0, len(tokens), step):
            chunk = tokens[start : start + step]
            self._decode_batch([(0, start + i, token) for i, token in enumerate(chunk)])
            pointer = llama.llama_get_logits(self._context)
            yield np.ctypeslib.as_array(pointer, (len(chunk), self.info.vocabulary))
        self._forget()

    def importance(self) -> dict[str, tuple[NDArray[np.float64], int]]:
        """For each matrix that was used: the sums of its squared inputs by column, and how many rows they are of."""
        seen = self._observer
        return {name: (seen.sums[name], seen.counts[name]) for name in seen.sums} if seen else {}

    def encode(self, rows: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Pooled embeddings, not normalized: float32 (len(rows), dimensions)."""
        longest = max(map(len, rows))
        most = int(llama.llama_n_ubatch(self._context))  # an encoder reads a batch in one go
        if longest > most:
            raise PromptTooLong("text", f"has {longest} tokens, this model takes {most}", "shorten or split it")
        vectors = np.empty((len(rows), self._outputs), np.float32)
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
        if self._memory:
            llama.llama_memory_clear(self._memory, True)
        self._decode_batch([(i, position, token) for i, row in enumerate(rows) for position, token in enumerate(row)])
        for i in range(len(rows)):
            pointer = llama.llama_get_embeddings_seq(self._context, i)
            out[i] = np.ctypeslib.as_array(pointer, (out.shape[1],))

    def _decode_batch(self, places: Sequence[tuple[int, int, int]]) -> None:
        """Read (sequence, position, token), with an output for each."""
        batch = llama.llama_batch_init(len(places), 0, 1)
        try:
            for slot, (sequence, position, token) in enumerate(places):
                batch.token[slot], batch.pos[slot] = token, position
                batch.n_seq_id[slot], batch.seq_id[slot][0], batch.logits[slot] = 1, sequence, 1
            batch.n_tokens = len(places)
            self._check(llama.llama_decode(self._context, batch))
        finally:
            llama.llama_batch_free(batch)

    def _read_source(self, tokens: Sequence[int]) -> None:
        """Give `tokens` to the encoder; the decoder attends to them from then on."""
        ids = (ctypes.c_int32 * len(tokens))(*tokens)
        self._check(llama.llama_encode(self._context, llama.llama_batch_get_one(ids, len(tokens))))

    def _forget(self) -> None:
        self._cached = []
        if self._memory:
            llama.llama_memory_clear(self._memory, True)

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
        text = StreamText(sampling.stop)
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

    def _load(self, path: Path, gpu_layers: int, vocabulary_only: bool) -> Any:
        options = llama.llama_model_default_params()
        options.vocab_only = vocabulary_only
        options.n_gpu_layers = gpu_layers if llama.llama_supports_gpu_offload() else 0
        model = llama.llama_model_load_from_file(str(path).encode(), options)
        if not model:
            raise BadFile(path, f"llama.cpp cannot load it ({self._log.last()})", "download or convert it again")
        return model

    def _open(self, context: int, threads: int, embedding: bool, exact: bool) -> Any:
        options = llama.llama_context_default_params()
        options.n_ctx = context
        whole = embedding or self._has_encoder  # an encoder reads its batch in one go
        batch = context if whole else min(MAX_BATCH, context)
        if embedding:  # llama.cpp's mean pooling asserts unless a batch is a multiple of the sequences
            batch = -(-batch // _MAX_SEQUENCES) * _MAX_SEQUENCES
        options.n_batch = options.n_ubatch = batch
        if exact:
            options.type_k = options.type_v = llama.GGML_TYPE_F32
            options.flash_attn_type = llama.LLAMA_FLASH_ATTN_TYPE_DISABLED
        if self._observer:
            options.cb_eval = self._observer.callback
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
            self._forget()
            raise NotEnoughMemory(self._path, f"llama.cpp could not decode (code {code})", "try a smaller --ctx")


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
