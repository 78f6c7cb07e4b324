"""A chat model on onnxruntime, in this process: a decoder that takes the keys and values of past tokens as inputs.

One sequence, one KV cache: the longest prefix that a new prompt shares with the last one is not read again. The cache
stays in onnxruntime's own memory between tokens. Text becomes tokens by tokenizer.json, a conversation a prompt by the
package's chat template. It knows no package, no catalog and no other format.
"""

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemm import device
from edgemm.backends import ModelInfo, Prompt, Sampling, common_prefix
from edgemm.backends.detokenize import StreamText
from edgemm.backends.logprobs import likeliest
from edgemm.backends.ort import OrtModel
from edgemm.backends.pieces import Pieces
from edgemm.backends.sampler import Sampler
from edgemm.errors import BadFile, ModelStopped, PromptTooLong, UsageError
from edgemm.events import Done, Progress, Token
from edgemm.prompt import Message, render
from edgemm.tokenizer import Tokenizer

LOGITS_FROM = "logits_from"  # optional input, int64 (1,): logits are computed from this token on
_PAST, _PRESENT = "past_key_values.", "present."
_DEFAULT_CONTEXT = 4096
_FIRST_CHUNK, _MOST_CHUNK, _LEAST_CHUNK = 32, 512, 8
_CHUNK_SECONDS = 0.25  # so that a cancel between two chunks comes soon
_LOGITS_BYTES = 16 << 20  # logits that are in memory at once while a text is scored
_FIX = "convert or pull the model again"


@dataclass(frozen=True, slots=True)
class DecoderFiles:
    """The files of a decoder: `trained_context` in tokens; `stop` are texts, and control tokens, that end an answer."""

    model: Path
    tokenizer: Path
    trained_context: int
    template: str = ""
    stop: tuple[str, ...] = ()
    architecture: str = ""
    int8: bool = False


class OrtGenerator:
    """A `Generator` over an ONNX decoder.

    Inputs: input_ids, attention_mask, position_ids (int64, 1 x tokens; the last two optional), past_key_values.N.key
    and .value (float32, 1 x heads x past x size). Outputs: logits (1 x tokens x vocabulary), present.N.key and .value.
    """

    def __init__(self, files: DecoderFiles, *, context: int = 0, threads: int = 0) -> None:
        """`context` 0: the trained length, at most 4,096 tokens. `threads` 0: one for each core. Raises `BadFile`."""
        if context > files.trained_context:
            why = f"was trained for {files.trained_context} tokens, --ctx asks for {context}"
            raise UsageError(files.model.name, why, "lower --ctx")
        self._files = files
        self._pieces = Pieces(files.tokenizer)
        self._tokenizer = Tokenizer(files.tokenizer)
        self._ends = {self._pieces.ids[text] for text in files.stop if text in self._pieces.controls}
        self._cache = KvCache(OrtModel(files.model, int8=files.int8, threads=threads or device.cores()), files.model)
        self._turn = threading.Lock()  # one request at a time
        self._cancelled = threading.Event()
        self._closed = False
        self._rate = 0.0  # tokens a second of the last prefill chunk
        self.info = ModelInfo(
            architecture=files.architecture,
            context=context or min(files.trained_context, _DEFAULT_CONTEXT),
            trained_context=files.trained_context,
            vocabulary=self._cache.vocabulary or len(self._pieces),
            dimensions=0,
            has_template=bool(files.template),
            can_rewind=True,
        )

    def tokenize(self, text: str) -> list[int]:
        """See `Generator.tokenize`."""
        return self._tokenizer.text_ids(text, add_special=False, parse_special=False)

    def prompt(self, messages: Sequence[Message]) -> Prompt:
        """See `Generator.prompt`."""
        template, first = self._files.template, self._first()
        plain = [text for text in self._pieces.others if len(text) > 1 and text.strip() and text in template]
        bos = next((text for text, token in self._pieces.ids.items() if [token] == first), "")
        eos = next((text for text in self._files.stop if text in self._pieces.controls), "")
        rendered = render(template, messages, [*self._pieces.controls, *plain], bos, eos)
        tokens = [
            token
            for piece in rendered.pieces
            for token in self._tokenizer.text_ids(piece.text, add_special=False, parse_special=piece.special)
        ]
        return Prompt(tokens if tokens[: len(first)] == first else first + tokens, rendered.note)

    def continuation(self, messages: Sequence[Message]) -> Prompt:
        """See `Generator.continuation`."""
        before = self.prompt(messages[:-1])
        return Prompt(before.tokens + self.tokenize(messages[-1]["content"]), before.note)

    def _first(self) -> list[int]:
        """The token that the tokenizer puts before every text; empty for none."""
        return self._tokenizer.text_ids("", add_special=True, parse_special=False)[:1]

    def generate(self, tokens: Sequence[int], sampling: Sampling) -> Iterator[Progress | Token | Done]:
        """See `Generator.generate`. `cancel` is looked at between chunks of the prompt and between tokens."""
        if sampling.schema:
            why = "cannot follow a JSON schema: it runs on onnxruntime"
            raise UsageError(self._files.model.name, why, "ask without one, or choose a GGUF model")
        with self._turn:
            self._check(tokens)
            self._cancelled.clear()
            started = time.perf_counter()
            reused = self._cache.keep(tokens[:-1])  # the last token is always read again: its logits are needed
            yield from self._prefill(tokens, reused)
            prefilled = time.perf_counter()
            count, reason = 0, "cancelled"
            if not self._cancelled.is_set():
                for piece in self._decode(sampling):
                    if isinstance(piece, str):
                        reason = piece
                    else:
                        count += piece.id >= 0
                        yield piece
            yield Done(reason, len(tokens), reused, count, prefilled - started, time.perf_counter() - prefilled)

    def _check(self, tokens: Sequence[int]) -> None:
        if self._closed:
            raise UsageError(self._files.model.name, "the model is closed", "open it again")
        if not 0 < len(tokens) < self.info.context:
            why = f"has {len(tokens)} tokens, this model takes {self.info.context - 1}"
            raise PromptTooLong("prompt", why, "try --ctx or a shorter one")

    def _prefill(self, tokens: Sequence[int], done: int) -> Iterator[Progress]:
        while done < len(tokens) and not self._cancelled.is_set():
            size = min(_MOST_CHUNK, max(_LEAST_CHUNK, int(self._rate * _CHUNK_SECONDS)) if self._rate else _FIRST_CHUNK)
            chunk = tokens[done : done + size]
            started = time.perf_counter()
            self._cache.read(chunk)
            self._rate = len(chunk) / max(1e-9, time.perf_counter() - started)
            done += len(chunk)
            yield Progress("prefill", done, len(tokens), "tokens")

    def _decode(self, sampling: Sampling) -> Iterator[Token | str]:
        """Tokens, and at last the reason of the end."""
        stop = [text for text in self._files.stop if text not in self._pieces.controls]
        text, sampler = StreamText([*sampling.stop, *stop]), Sampler(sampling)
        for _ in range(sampling.max_tokens):
            token = sampler.choose(self._cache.logits)
            if token in self._ends:
                yield from text.rest()
                yield "stop"
                return
            yield self._token(token, text.add(self._pieces[token]), sampling.top_logprobs)
            if text.stopped or self._cancelled.is_set():
                yield "stop" if text.stopped else "cancelled"
                return
            if self._cache.length >= self.info.context:
                break
            self._cache.read([token])
        yield from text.rest()
        yield "length"

    def _token(self, token: int, text: str, count: int) -> Token:
        if not count:
            return Token(token, text)
        logprob, top = likeliest(self._cache.logits, token, count)
        return Token(token, text, logprob, tuple((self._pieces.text(t), share, t) for t, share in top))

    def save_state(self, path: Path) -> int:
        """See `Generator.save_state`. A KV cache of onnxruntime is not saved."""
        return 0

    def restore_state(self, path: Path) -> int:
        """See `Generator.restore_state`."""
        return 0

    def score(self, tokens: Sequence[int]) -> Iterator[NDArray[np.float32]]:
        """Logits after each token, float32 (n, vocabulary), a few positions at a time. Nothing is kept for later."""
        with self._turn:
            if len(tokens) > self.info.context:
                why = f"has {len(tokens)} tokens, this model takes {self.info.context}"
                raise PromptTooLong("text", why, "shorten it")
            self._cache.keep([])
            step = min(_MOST_CHUNK, max(1, _LOGITS_BYTES // (4 * self.info.vocabulary)))
            for start in range(0, len(tokens), step):
                yield self._cache.read(tokens[start : start + step], every=True)
            self._cache.keep([])

    def empty_cache(self) -> dict[str, NDArray[np.float32]]:
        """Keys and values of no token, by the names of their inputs: what the graph is fed for a first token."""
        return self._cache.empty()

    def cancel(self) -> None:
        """See `Generator.cancel`."""
        self._cancelled.set()

    def close(self) -> None:
        """End a running answer, and let go of the model."""
        self._closed = True
        self._cancelled.set()
        with self._turn:
            self._cache.keep([])

    def __enter__(self) -> "OrtGenerator":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class KvCache:
    """A decoder and the keys and values of the tokens that it has read. `logits` are those after the last one.

    `vocabulary` is 0 where the graph does not say it.
    """

    def __init__(self, model: OrtModel, path: Path) -> None:
        self._model, self._path = model, path
        self._names = [name for name in model.inputs if name.startswith(_PAST)]
        self._outputs = ["logits", *(name.replace(_PAST, _PRESENT, 1) for name in self._names)]
        missing = {"input_ids", *self._outputs} - {*model.inputs, *model.outputs}
        if missing or not self._names:
            why = f"no decoder with past keys and values (it lacks {sorted(missing) or [_PAST]})"
            raise BadFile(path, why, _FIX)
        width = model.outputs["logits"][-1]
        self.vocabulary = width if isinstance(width, int) else 0
        self._tokens: list[int] = []
        self._values: list[Any] = list(self.empty().values())
        self.logits: NDArray[np.float32] = np.empty(0, np.float32)

    def empty(self) -> dict[str, NDArray[np.float32]]:
        """By input: float32 (1, heads, 0, size)."""
        return {name: self._empty(name) for name in self._names}

    @property
    def length(self) -> int:
        """Tokens that were read."""
        return len(self._tokens)

    def keep(self, tokens: Sequence[int]) -> int:
        """Drop everything behind the common prefix with `tokens`; how long that is."""
        kept = common_prefix(self._tokens, tokens)
        if kept < len(self._tokens):
            arrays = [each if isinstance(each, np.ndarray) else each.numpy() for each in self._values]
            self._values = [np.ascontiguousarray(array[:, :, :kept]) for array in arrays]
            self._tokens = self._tokens[:kept]
        return kept

    def read(self, tokens: Sequence[int], *, every: bool = False) -> NDArray[np.float32]:
        """Read `tokens`; the logits after the last one, or after `every` one: float32 (tokens or 1, vocabulary)."""
        start, count = len(self._tokens), len(tokens)
        feeds = {
            "input_ids": np.array([tokens], np.int64),
            "attention_mask": np.ones((1, start + count), np.int64),
            "position_ids": np.arange(start, start + count, dtype=np.int64)[None],
            LOGITS_FROM: np.array([0 if every else count - 1], np.int64),
            **dict(zip(self._names, self._values, strict=True)),
        }
        try:
            logits, *values = self._model.run_values(feeds, self._outputs)
        except Exception as error:  # onnxruntime's classes are private, and differ between releases
            reason = str(error).splitlines()[0][:200]
            raise ModelStopped(self._path.name, f"onnxruntime could not go on ({reason})", "ask again") from error
        self._values, self._tokens = values, [*self._tokens, *tokens]
        found = logits.numpy()[0]
        self.logits = np.asarray(found[-1], np.float32)
        return np.asarray(found, np.float32)

    def _empty(self, name: str) -> NDArray[np.float32]:
        shape = self._model.inputs[name]
        if len(shape) != 4 or not all(isinstance(shape[axis], int) for axis in (1, 3)):
            raise BadFile(self._path, f"{name} has the shape {shape}", _FIX)
        return np.zeros((1, shape[1], 0, shape[3]), np.float32)
