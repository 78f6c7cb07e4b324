"""A model of vectors for tests: a text is the bag of its words, some of which mean the same. It can be made to wait."""

import re
import threading
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edgemm.index import Medium
from edgemm.ingest import Encoder
from edgemm.library import Engine

NAME, DIMENSIONS = "bag-of-words", 64
SAME = {"automobile": "car", "cancel": "terminate", "feline": "cat"}


def vector(text: str) -> NDArray[np.float32]:
    found = np.full(DIMENSIONS, 1e-3, np.float32)
    for word in re.findall(r"\w+", text.lower()):
        found[zlib.crc32(SAME.get(word, word).encode()) % DIMENSIONS] += 1
    return found / np.linalg.norm(found)


def an_event(is_set: bool = True) -> Callable[[], threading.Event]:
    def make() -> threading.Event:
        event = threading.Event()
        if is_set:
            event.set()
        return event

    return make


@dataclass
class Words:
    """`opener` for an `Index`. While `loads`, `embeds` or `answers` is not set, that waits; queries are kept."""

    loads: threading.Event = field(default_factory=an_event())
    embeds: threading.Event = field(default_factory=an_event())
    answers: threading.Event = field(default_factory=an_event())
    queries: list[str] = field(default_factory=list)
    tokens: int = 0

    def __call__(self, name: str, medium: Medium) -> Engine:
        self.loads.wait(20)
        encoder = Encoder(name, "1", DIMENSIONS, medium, self._embed, lambda: self.tokens)
        return Engine(encoder, self._query, None, lambda: None)

    def _embed(self, some: object) -> NDArray[np.float32]:
        self.embeds.wait(20)
        texts = [each.text for each in some]  # type: ignore[attr-defined]
        self.tokens += sum(len(text.split()) for text in texts)
        return np.stack([vector(text) for text in texts])

    def _query(self, text: str) -> NDArray[np.float32]:
        self.answers.wait(20)
        self.queries.append(text)
        return vector(text)
