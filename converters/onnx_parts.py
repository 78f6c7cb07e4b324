"""The ONNX files that a checkpoint becomes, one or two: how each is built, what it is fed, and what it should answer.

A part knows its row, its task and its items: texts as token ids, or pictures as tensors. What it should answer comes
from reference.py, which shares no code with the graph. It knows no quantization and no package.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.architectures import Config
from converters.checkpoint import Array, Checkpoint
from converters.encoder import Encoder, Head, Sizes, Weights
from converters.onnx_blocks import Blocks
from converters.onnx_encoder import EncoderGraph
from converters.onnx_graph import Graph
from converters.reference import Reference
from edgemm.backends.ort import PIXELS, OrtModel, pad
from edgemm.manifest import ImageInputs

_BATCH_TOKENS, _BATCH_IMAGES = 512, 4
_TYPED_TASKS = ("classify", "rerank", "next-sentence", "question-answering")


@dataclass(frozen=True, slots=True)
class Text:
    """Token ids, the type of each, the places that a fill-mask model is asked for; and the `text` that it was."""

    ids: list[int]
    types: list[int] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    text: str = ""


Item = Text | NDArray[np.float32]


@dataclass(frozen=True)
class Part:
    """One file. `head` None: it gives vectors, else scores. `dense` are modules behind the pooling.

    `image` None: it takes texts of up to `max_tokens`, padded to `pad_to`, where that is not 0.
    """

    file: str
    checkpoint: Checkpoint
    row: Encoder
    sizes: Sizes
    config: Config
    task: str
    head: Head | None = None
    pooling: str = ""
    normalize: bool = True
    dense: tuple[str, ...] = ()
    image: ImageInputs | None = None
    pad_to: int = 0
    pad_id: int = 0
    max_tokens: int = 0
    mask_token: str = ""

    @cached_property
    def weights(self) -> Weights:
        return Weights(self.row, self.checkpoint, self.config)

    @property
    def has_types(self) -> bool:
        """Whether the second text of a pair has a type of its own, and the task has pairs."""
        return self.task in _TYPED_TASKS and self.weights.has("types") and self.sizes.token_types > 1

    def graph(self) -> Graph:
        """float32."""
        image: tuple[int | str, int | str] = (0, 0)
        if self.image is not None:
            image = (self.image.height, self.image.width) if not self.image.max_patches else ("height", "width")
        blocks = Blocks(self.weights, self.sizes, self.config)
        builder = EncoderGraph(blocks, image, self.has_types, self.max_tokens or 1 << 30)
        if self.head is not None:
            return builder.labelled(self.head)
        return builder.embedding(self.pooling, self.dense, normalize=self.normalize)

    def expected(self, items: Sequence[Item]) -> Array:
        """What the checkpoint answers, as `answers` orders it, from numpy."""
        reference = Reference(self.weights, self.sizes, self.config)
        bare: list[Any] = [item.ids if isinstance(item, Text) else item for item in items]
        if self.head is None:
            return reference.embed(bare, self.pooling, self.dense, normalize=self.normalize)
        texts = [item for item in items if isinstance(item, Text)]
        types = [text.types or [0] * len(text.ids) for text in texts] if self.has_types else []
        found = reference.logits(bare, self.head, types, [text.places for text in texts])
        return np.concatenate([np.atleast_2d(each) for each in found])

    def feeds(self, items: Sequence[Item]) -> list[dict[str, Any]]:
        """Batches of neighbours: texts of like length should stand together."""
        return [self._feed(batch) for batch in _batches(items)]

    def _feed(self, items: list[Item]) -> dict[str, Any]:
        texts = [item for item in items if isinstance(item, Text)]
        if not texts:
            return {PIXELS: np.stack([item for item in items if not isinstance(item, Text)])}
        ids, mask = pad([text.ids for text in texts], self.pad_to, self.pad_id)
        types = pad([text.types or [0] * len(text.ids) for text in texts], ids.shape[1])[0]
        places = [(row, place) for row, text in enumerate(texts) for place in text.places]
        return {
            "input_ids": ids,
            "attention_mask": mask,
            "token_type_ids": types,
            "positions": np.array(places, np.int64).reshape(-1, 2),
        }


def answers(model: OrtModel, feeds: Sequence[dict[str, Any]]) -> Array:
    """float32 (rows, width): vectors or scores, those of padding left out, in the order of the items."""
    return np.concatenate([_without_padding(model.run(feed), feed) for feed in feeds])


def _without_padding(values: Array, feed: dict[str, Any]) -> Array:
    if values.ndim < 3:
        return values
    return np.asarray(values[feed["attention_mask"].astype(bool)], np.float32)


def _batches(items: Sequence[Item]) -> Iterator[list[Item]]:
    batch: list[Item] = []
    for item in items:
        if batch and not _fits(batch, item):
            yield batch
            batch = []
        batch.append(item)
    if batch:
        yield batch


def _fits(batch: list[Item], item: Item) -> bool:
    if isinstance(item, Text):
        longest = max(len(item.ids), *(len(other.ids) for other in batch if isinstance(other, Text)))
        return longest * (len(batch) + 1) <= _BATCH_TOKENS
    return len(batch) < _BATCH_IMAGES and all(getattr(other, "shape", ()) == item.shape for other in batch)
