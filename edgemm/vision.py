"""The engine for pictures: vectors, labels, and labels that nobody trained it for, by a text encoder of the same space.

Pictures are decoded by some threads and encoded by others, a few at a time, so that neither waits long and memory does
not grow with their number. What the pixels should be comes from the manifest. It knows no store and no screen.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from edgemm import device
from edgemm.backends.ort import PIXELS
from edgemm.batches import Array, BatchOptions
from edgemm.classify import Label, output_names, ranked, shares
from edgemm.embed import Embedder, Vectors, normalized
from edgemm.errors import BadFile, UsageError
from edgemm.image import load_images
from edgemm.manifest import Manifest

Source = str | Path | bytes
TASKS = ("image-embed", "image-classify", "image-text")
_BATCH = 4  # pictures a call: more gain nothing on a CPU, and each has hundreds of tokens
_AHEAD = 2  # batches in flight for each thread


class PictureEncoder(Protocol):
    """A model that takes `pixel_values`, float32 (batch, channels, height, width). Called by several threads."""

    def run(self, feeds: dict[str, Any]) -> Array:
        """float32 (batch, dimensions or labels)."""
        ...

    def close(self) -> None: ...


class VisionModel:
    """Vectors or labels of pictures, and of texts where the model has both; the package's task says which."""

    def __init__(
        self,
        encoder: PictureEncoder,
        manifest: Manifest,
        texts: Embedder | None = None,
        options: BatchOptions | None = None,
        labels: Sequence[str] = (),
    ) -> None:
        """`texts`: the encoder of captions, which refuses long ones unless its own options say otherwise.

        `labels`: other names than the manifest's for a classifier's outputs. Raises `BadFile` without `inputs.image`.
        """
        if manifest.inputs is None or manifest.inputs.image is None:
            raise BadFile(manifest.name, "the manifest has no `inputs.image`", "convert or pull the model again")
        self._encoder, self._manifest = encoder, manifest
        self._inputs, self._image = manifest.inputs, manifest.inputs.image
        self._texts, self._labels = texts, tuple(labels)
        self._threads = (options or BatchOptions()).threads or device.cores()
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="edgemm-vision")

    @property
    def task(self) -> str:
        return self._manifest.task

    @property
    def dimensions(self) -> int:
        return self._inputs.dimensions

    def embed_images(self, sources: Sequence[Source]) -> Vectors:
        """float32 (len(sources), dimensions) of picture files (paths) or their bytes. Raises `BadFile`."""
        if isinstance(sources, str | bytes):
            raise UsageError("embed_images", "got one picture", "pass a list: embed_images([path])")
        found = list(self.stream_images(sources))
        return np.concatenate(found) if found else np.empty((0, self.dimensions), np.float32)

    def stream_images(self, sources: Iterable[Source]) -> Iterator[Vectors]:
        """The same, a few at a time, in input order, in memory that does not grow with the input."""
        self._require("image-embed", "image-text")
        for vectors in self._run(sources):
            yield normalized(vectors) if self._inputs.normalize else vectors

    def embed_texts(self, texts: Sequence[str]) -> Vectors:
        """float32 (len(texts), dimensions), in the space of the pictures. Raises `PromptTooLong` over the window."""
        return self._captions().embed(texts)

    def stream_texts(self, texts: Iterable[str]) -> Iterator[Vectors]:
        """The same, a window of texts at a time."""
        return self._captions().stream(texts)

    def classify_image(self, source: Source, top_k: int = 0) -> list[Label]:
        """The labels of one picture, the best first; `top_k` 0: all."""
        return next(self.classify_images([source], top_k))

    def classify_images(self, sources: Iterable[Source], top_k: int = 0) -> Iterator[list[Label]]:
        """The labels of each picture, in input order."""
        self._require("image-classify")
        for logits in self._run(sources):
            names = output_names(self._manifest, self._labels, logits.shape[1])
            for scores in shares(logits, self._manifest.scores):
                yield ranked(scores, names, top_k)

    def zero_shot(
        self, sources: Iterable[Source], labels: Sequence[str], template: str | None = None, top_k: int = 0
    ) -> list[list[Label]]:
        """How well each of `labels` fits each picture, the best first.

        A label becomes a caption by `template`, in which it stands for {} (None: the manifest's). With "softmax" the
        scores of a picture add up to 1, with "sigmoid" each is a share of its own.
        """
        return list(self.stream_zero_shot(sources, labels, template, top_k))

    def stream_zero_shot(
        self, sources: Iterable[Source], labels: Sequence[str], template: str | None = None, top_k: int = 0
    ) -> Iterator[list[Label]]:
        """The same, picture by picture, in input order."""
        self._require("image-text")
        rule = self._manifest.zero_shot
        if rule is None:
            raise BadFile(self._manifest.name, "the manifest has no `zero_shot`", "convert or pull the model again")
        template = rule.template if template is None else template
        if not labels or "{}" not in template:
            why = "there are no labels" if not labels else f"the template {template!r} holds no {{}}"
            raise UsageError("zero-shot", why, 'give labels, and a template such as "a photo of a {}"')
        captions = normalized(self.embed_texts([template.replace("{}", label) for label in labels]))
        for vectors in self.stream_images(sources):
            logits = rule.scale * (normalized(vectors) @ captions.T) + rule.bias
            for scores in shares(logits, rule.scores):
                yield ranked(scores, labels, top_k)

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._encoder.close()
        if self._texts is not None:
            self._texts.close()

    def __enter__(self) -> "VisionModel":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _require(self, *tasks: str) -> None:
        if self.task not in tasks:
            fix = "call classify_images(paths)" if self.task == "image-classify" else "choose another model"
            raise UsageError(self._manifest.name, f"is for {self.task}, not for {tasks[0]}", fix)

    def _captions(self) -> Embedder:
        if self.task != "image-text":
            raise UsageError(self._manifest.name, f"is for {self.task}, and reads no texts", "give it pictures")
        if self._texts is None:
            raise BadFile(self._manifest.name, "the package has no text encoder", "convert or pull the model again")
        return self._texts

    def _run(self, sources: Iterable[Source]) -> Iterator[Array]:
        """What the model gives, batch by batch, in input order; a few batches are in flight."""
        paths = (Path(source) if isinstance(source, str) else source for source in sources)
        waiting: deque[Future[Array]] = deque()
        try:
            for batch in _batches(load_images(paths, self._image, self._threads)):
                waiting.append(self._pool.submit(self._encoder.run, {PIXELS: np.stack(batch)}))
                if len(waiting) > _AHEAD * self._threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:  # Ctrl-C, errors and callers that stop: what has not begun never will
            for future in waiting:
                future.cancel()


def _batches(pictures: Iterable[Array]) -> Iterator[list[Array]]:
    """Up to `_BATCH` neighbours of one shape."""
    batch: list[Array] = []
    for picture in pictures:
        if batch and (len(batch) == _BATCH or picture.shape != batch[0].shape):
            yield batch
            batch = []
        batch.append(picture)
    if batch:
        yield batch
