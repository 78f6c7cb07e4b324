"""What a backend is: two small interfaces, and the choice between the implementations.

`ort.py` runs encoders on onnxruntime in this process, `llamacpp.py` runs GGUF files on llama.cpp inside
a child process (`worker.py`), `fake.py` is a scripted stand-in for tests and demonstrations.
Nothing here knows tokenizers of encoders, pooling policy, chats or documents.
"""

from __future__ import annotations  # numpy is needed for types alone, and the command line must start fast

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from edgemm.events import Done, Progress, Token
from edgemm.prompt import Message

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen. `temperature` 0 is greedy; `seed` None draws a new one each time.

    The default temperature is low, because small models ramble above it.
    """

    max_tokens: int = 512
    temperature: float = 0.3
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    repetition_penalty: float = 1.1
    seed: int | None = None
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """Facts of a loaded model: `context` is what was allocated (tokens), `trained_context` the file's own."""

    architecture: str
    context: int
    trained_context: int
    vocabulary: int
    dimensions: int
    has_template: bool


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

    def generate(self, tokens: Sequence[int], sampling: Sampling) -> Iterator[Progress | Token | Done]:
        """Read `tokens` (re-using the longest prefix of the previous request) and stream the continuation.

        Closing the iterator stops the work within a second. Raises `PromptTooLong`, `ModelStopped`.
        """
        ...

    def cancel(self) -> None:
        """Make a running `generate` end with `Done("cancelled")`. Safe from a signal handler or another thread."""
        ...

    def close(self) -> None: ...
