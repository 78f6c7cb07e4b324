"""What the engines tell their callers while they work: four typed events.

An engine yields them; a door (command line, server, terminal screen) translates them. Nothing here
knows who listens.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Progress:
    """`done` of `total` units of `stage` ("download", "prefill", ...). `total` 0: not known."""

    stage: str
    done: int
    total: int
    unit: str = "it"


@dataclass(frozen=True, slots=True)
class Token:
    """One sampled token. `text` is complete UTF-8; it may be empty while a character is unfinished."""

    id: int
    text: str
    logprob: float | None = None


@dataclass(frozen=True, slots=True)
class Done:
    """The end of a generation. `reason`: "stop" (end token or stop text), "length" or "cancelled"."""

    reason: str
    prompt_tokens: int
    reused_tokens: int
    generated_tokens: int
    prefill_seconds: float
    decode_seconds: float

    @property
    def tokens_per_second(self) -> float:
        return self.generated_tokens / self.decode_seconds if self.decode_seconds > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Failed:
    """The work ended with an error. `kind` is the name of an error class of errors.py."""

    kind: str
    what: str
    why: str
    fix: str
    detail: dict[str, int] = field(default_factory=dict)
