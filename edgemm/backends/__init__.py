"""What a backend is: two small interfaces, and the choice between the implementations.

`ort.py` runs encoders on onnxruntime in this process, `llamacpp.py` runs GGUF files on llama.cpp inside
a child process (`worker.py`), `fake.py` is a scripted stand-in for tests and demonstrations.
Nothing here knows tokenizers of encoders, pooling policy, chats or documents.
"""

from __future__ import annotations  # numpy is needed for types alone, and the command line must start fast

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from edgemm.events import Done, Progress, Token
from edgemm.prompt import Message

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen. `temperature` 0 is greedy; `seed` None draws a new one each time.

    The default temperature is low, because small models ramble above it. `top_logprobs`: how many of the likeliest
    tokens come with each token; at 0 nothing is computed. `schema`: a JSON schema, as text, that the answer must
    follow. `draft`: at most so many tokens are guessed ahead by looking up what the text said before, 0 for none. It
    changes the speed, and the text by no more than rounding does; a greedy answer is never drafted, so that it stays
    the same to the last token.
    """

    max_tokens: int = 512
    temperature: float = 0.3
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    repetition_penalty: float = 1.1
    seed: int | None = None
    stop: tuple[str, ...] = ()
    top_logprobs: int = 0
    schema: str = ""
    draft: int = 16


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """Facts of a loaded model: `context` is what was allocated (tokens), `trained_context` the file's own.

    `can_rewind`: the newest tokens can be taken out of its KV cache. `can_save`: the KV cache can be saved to a file.
    """

    architecture: str
    context: int
    trained_context: int
    vocabulary: int
    dimensions: int
    has_template: bool
    can_rewind: bool = False
    can_save: bool = False


@dataclass(frozen=True, slots=True)
class Prompt:
    """Token ids of a conversation. `note` says why the model's own template was not used, and is empty otherwise."""

    tokens: list[int]
    note: str = ""


class Encoder(Protocol):
    """A model that turns token ids into one vector for each text. Safe to call from several threads."""

    def encode(self, rows: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Pooled (and, if the package says so, normalized) vectors: float32 (len(rows), dimensions)."""
        ...

    def close(self) -> None: ...


class Generator(Protocol):
    """A model that continues token ids. One request at a time."""

    info: ModelInfo

    def tokenize(self, text: str) -> list[int]:
        """Token ids of plain text; text that looks like a control token stays text."""
        ...

    def prompt(self, messages: Sequence[Message]) -> Prompt:
        """A conversation in the model's own chat format, ready for the assistant's turn."""
        ...

    def continuation(self, messages: Sequence[Message]) -> Prompt:
        """Like `prompt`, but the last message is an answer that is not finished: what is generated goes on with it."""
        ...

    def generate(self, tokens: Sequence[int], sampling: Sampling) -> Iterator[Progress | Token | Done]:
        """Read `tokens` (re-using the longest prefix of the previous request) and stream the continuation.

        Closing the iterator stops the work within a second. Raises `PromptTooLong`, `ModelStopped`, and `UsageError`
        for a schema that cannot be followed.
        """
        ...

    def save_state(self, path: Path) -> int:
        """Save the KV cache as the file `path`, whole or not at all; how many bytes. 0: nothing to save.

        Raises `DiskFull` or `BadFile`.
        """
        ...

    def restore_state(self, path: Path) -> int:
        """Fill the KV cache from a file that `save_state` wrote; how many tokens it holds then.

        0: the file is of another model, another setting or damaged. Then it is deleted, and nothing else changes.
        """
        ...

    def cancel(self) -> None:
        """Make a running `generate` end with `Done("cancelled")`. Safe from a signal handler or another thread."""
        ...

    def close(self) -> None: ...


def common_prefix(ours: Sequence[int], theirs: Sequence[int]) -> int:
    """How many tokens both begin with."""
    pairs = enumerate(zip(ours, theirs, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(ours), len(theirs)))
