"""llama.cpp's low-level API, for one model: prefill, decode, pool, save. Runs inside the worker's child process.

One sequence, one KV cache: the longest prefix that a new prompt shares with the last one is not read again.
It knows no pipe and no chat. API: llama.h of the installed llama-cpp-python.
"""

import ctypes
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import llama_cpp as llama
import numpy as np
from llama_cpp._ggml import libggml
from llama_cpp.llama_grammar import json_schema_to_gbnf
from numpy.typing import NDArray

from edgemm.backends import ModelInfo, Prompt, Sampling, schema, state
from edgemm.backends.activations import Observer
from edgemm.backends.chain import Chain
from edgemm.backends.detokenize import StreamText
from edgemm.backends.kv_cache import KvCache
from edgemm.backends.logprobs import likeliest
from edgemm.backends.lookup import Costs, Lookup
from edgemm.backends.vocabulary import Vocabulary
from edgemm.errors import BadFile, NotEnoughMemory, PromptTooLong, UsageError
from edgemm.events import Done, Progress, Token
from edgemm.prompt import Message
from edgemm.tokenizer import Tokenizer

MAX_BATCH = 512
_FIRST_CHUNK = 64
_CHUNK_SECONDS = 0.25  # so that a cancel between two chunks comes soon
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
        fingerprint: str = "",
    ) -> None:
        self._path = path
        self._log = _Log()
        self._observer = Observer(libggml, llama.ggml_backend_sched_eval_callback) if observe else None
        self._model = self._load(path, gpu_layers, vocabulary_only)
        self._vocabulary = Vocabulary(llama, self._model, Tokenizer(Path(tokenizer)) if tokenizer else None)
        self._has_encoder = bool(llama.llama_model_has_encoder(self._model))  # beside a decoder, as T5 has
        self._context = None if vocabulary_only else self._open(context, threads, embedding, exact)
        self._cache = KvCache(llama, self._model, self._context, path)
        self._floats = ctypes.c_float * self._vocabulary.size
        self._costs = Costs()
        self._rate = 0.0  # tokens a second of the last prefill chunk
        ranks = not vocabulary_only and llama.llama_pooling_type(self._context) == llama.LLAMA_POOLING_TYPE_RANK
        self._outputs = int(
            llama.llama_model_n_cls_out(self._model) if ranks else llama.llama_model_n_embd(self._model)
        )
        room, template = self._cache.room, self._vocabulary.template
        system = llama.llama_print_system_info()
        self._identity = state.identity(fingerprint, room, exact, template, llama.__version__, system)
        is_plain = self._cache.can_rewind and not embedding
        self.info = ModelInfo(
            architecture=self._meta("general.architecture"),
            context=room,
            trained_context=int(llama.llama_model_n_ctx_train(self._model)),
            vocabulary=self._vocabulary.size,
            dimensions=int(llama.llama_model_n_embd(self._model)),
            has_template=bool(template),
            can_rewind=is_plain,
            can_save=is_plain,
        )

    def tokenize(self, text: str, *, add_special: bool = False, parse_special: bool = False) -> list[int]:
        """See `Vocabulary.tokenize`."""
        return self._vocabulary.tokenize(text, add_special=add_special, parse_special=parse_special)

    def prompt(self, messages: Sequence[Message]) -> Prompt:
        """A conversation by the model's own template. An encoder beside the decoder reads the last message as it is."""
        if self._has_encoder and not self._vocabulary.template:
            return Prompt(self.tokenize(messages[-1]["content"], add_special=True))
        return self._vocabulary.prompt(messages)

    def continuation(self, messages: Sequence[Message]) -> Prompt:
        """See `Generator.continuation`."""
        if self._has_encoder:
            raise UsageError(self._path.name, "cannot go on with an answer: it has an encoder", "ask again")
        before = self.prompt(messages[:-1])
        return Prompt(before.tokens + self.tokenize(messages[-1]["content"]), before.note)

    def generate(
        self, tokens: Sequence[int], sampling: Sampling, cancelled: Callable[[], bool]
    ) -> Iterator[Progress | Token | Done]:
        """Prefill and decode; `cancelled` is asked between chunks and between tokens."""
        if not 0 < len(tokens) < self._cache.room:
            raise PromptTooLong(
                "prompt",
                f"has {len(tokens)} tokens, this model takes {self._cache.room - 1}",
                "try --ctx or a shorter one",
            )
        started = time.perf_counter()
        grammar = schema.grammar(sampling.schema, json_schema_to_gbnf) if sampling.schema else b""
        with closing(Chain(llama, self._context, self._vocabulary.pointer, sampling, grammar)) as chain:
            reused = yield from self._begin(tokens, cancelled)
            prefilled = time.perf_counter()
            # Attention rounds a batch otherwise than single tokens: a greedy answer would not be the same each time.
            can_draft = self.info.can_rewind and sampling.temperature > 0
            ahead = Lookup(tokens, self._costs, sampling.draft if can_draft else 0)
            count, reason = 0, "cancelled"
            if not cancelled():
                for piece in self._decode(chain, sampling, ahead, cancelled):
                    if isinstance(piece, str):
                        reason = piece
                    else:
                        count += piece.id >= 0
                        yield piece
            seconds = prefilled - started, time.perf_counter() - prefilled
            yield Done(reason, len(tokens), reused, count, *seconds, ahead.drafted, ahead.accepted)

    def save_state(self, path: Path) -> int:
        """See `Generator.save_state`."""
        return self._cache.save(path, self._identity)

    def restore_state(self, path: Path) -> int:
        """See `Generator.restore_state`."""
        return self._cache.restore(path, self._identity)

    def logits(self) -> NDArray[np.float32]:
        """The logits after the last token that was read: float32 (vocabulary,)."""
        return self._output(-1).copy()

    def _output(self, row: int) -> NDArray[np.float32]:
        """Logits of output `row` of the last batch, in llama.cpp's own memory."""
        pointer = llama.llama_get_logits_ith(self._context, row)
        floats = self._floats.from_address(ctypes.addressof(pointer.contents))
        return np.frombuffer(memoryview(floats), np.float32)  # ctypeslib.as_array takes longer, for every token

    def score(self, tokens: Sequence[int], answer: Sequence[int] = ()) -> Iterator[NDArray[np.float32]]:
        """Logits after each token, float32 (n, vocabulary), a few positions at a time. Nothing is kept for later.

        With an encoder beside the decoder, `tokens` go into the encoder and the logits belong to `answer`.
        """
        self._cache.forget()
        if self._has_encoder:
            self._read_source(tokens)
            tokens = answer
        if len(tokens) > self._cache.room:
            raise PromptTooLong("text", f"has {len(tokens)} tokens, this model takes {self._cache.room}", "shorten it")
        step = min(int(llama.llama_n_batch(self._context)), max(1, _LOGITS_BYTES // (4 * self.info.vocabulary)))
        for start in range(0, len(tokens), step):
            chunk = tokens[start : start + step]
            self._cache.decode([(0, start + i, token) for i, token in enumerate(chunk)])
            pointer = llama.llama_get_logits(self._context)
            yield np.ctypeslib.as_array(pointer, (len(chunk), self.info.vocabulary))
        self._cache.forget()

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
        self._cache.forget()
        self._cache.decode([(i, position, token) for i, row in enumerate(rows) for position, token in enumerate(row)])
        for i in range(len(rows)):
            pointer = llama.llama_get_embeddings_seq(self._context, i)
            out[i] = np.ctypeslib.as_array(pointer, (out.shape[1],))

    def _read_source(self, tokens: Sequence[int]) -> None:
        """Give `tokens` to the encoder; the decoder attends to them from then on."""
        ids = (ctypes.c_int32 * len(tokens))(*tokens)
        self._cache.check(llama.llama_encode(self._context, llama.llama_batch_get_one(ids, len(tokens))))

    def _begin(self, tokens: Sequence[int], cancelled: Callable[[], bool]) -> Generator[Progress, None, int]:
        """Read the prompt; how many of its tokens were there already."""
        if self._has_encoder:
            self._cache.forget()
            self._read_source(tokens)
            self._cache.read([int(llama.llama_model_decoder_start_token(self._model))])
            return 0
        reused = self._cache.reuse(tokens)
        yield from self._prefill(tokens, reused, cancelled)
        return reused

    def _prefill(self, tokens: Sequence[int], done: int, cancelled: Callable[[], bool]) -> Iterator[Progress]:
        most = int(llama.llama_n_batch(self._context))  # the context asked for; llama.cpp rounds its own up
        while done < len(tokens) and not cancelled():
            size = min(most, max(16, int(self._rate * _CHUNK_SECONDS)) if self._rate else _FIRST_CHUNK)
            chunk = list(tokens[done : done + size])
            started = time.perf_counter()
            self._cache.read(chunk)
            self._rate = len(chunk) / max(1e-9, time.perf_counter() - started)
            done += len(chunk)
            yield Progress("prefill", done, len(tokens), "tokens")

    def _decode(
        self, chain: Chain, sampling: Sampling, ahead: Lookup, cancelled: Callable[[], bool]
    ) -> Iterator[Token | str]:
        """Tokens, and at last the reason of the end."""
        text = StreamText(sampling.stop)
        with closing(self._sampled(chain, sampling.max_tokens, ahead)) as sampled:
            for token, row in sampled:
                piece = self._vocabulary.piece(token)
                if piece is None:
                    yield from text.rest()
                    yield "stop"
                    return
                yield self._token(token, text.add(piece), row, sampling.top_logprobs)
                if text.stopped or cancelled():
                    yield "stop" if text.stopped else "cancelled"
                    return
        yield from text.rest()
        yield "length"

    def _sampled(self, chain: Chain, most: int, ahead: Lookup) -> Generator[tuple[int, int], None, None]:
        """At most `most` tokens, each with the output row that it was chosen after.

        A draft is read together with the token before it, and holds as far as the sampler chooses the same tokens;
        the rest is taken out of the KV cache (Leviathan et al. 2023).
        """
        draft: list[int] = []
        kept, count, spent = len(self._cache), 0, 0.0
        try:
            while count < most:
                for row in range(len(draft) + 1):
                    started = time.perf_counter()
                    token = chain.choose(row if draft else -1)
                    spent += time.perf_counter() - started
                    count += 1
                    ahead.add(token)
                    yield token, row if draft else -1
                    if row == len(draft) or token != draft[row]:
                        break
                    kept += 1
                    ahead.accepted += 1
                self._cache.rewind(kept)
                if count > 1:
                    self._costs.measure(len(draft) + 1, spent)
                if kept >= self._cache.room:
                    return
                draft = ahead.draft(min(most - count, self._cache.room - kept) - 1)
                started = time.perf_counter()
                (self._cache.read_each if draft else self._cache.read)([token, *draft])
                spent = time.perf_counter() - started
                kept += 1
        finally:
            self._cache.rewind(kept)

    def _token(self, token: int, text: str, row: int, count: int) -> Token:
        if not count:
            return Token(token, text)
        logprob, top = likeliest(self._output(row), token, count)
        return Token(token, text, logprob, tuple((self._vocabulary.text(t), share, t) for t, share in top))

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
