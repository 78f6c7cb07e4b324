"""What an exported encoder becomes as a package: its task, its end in the graph, and how it is fed.

The part of it stands beside those of our own graphs and is treated like them; what it should answer comes from the
exported graph as it is, one input at a time, which is then compared with transformers.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from converters.architectures import Config
from converters.checkpoint import Array, Checkpoint, optional_json
from converters.encoder import Encoder, Head, Sizes
from converters.export_optimum import Exported
from converters.image_config import image_inputs
from converters.labels import labels, scores, text_task
from converters.onnx_graph import Graph
from converters.onnx_parts import Item, Part, answers
from converters.onnx_prepare import MODEL, Prepared, assumptions, mask_token
from converters.onnx_tidy import check_nodes, end_with, places, pooled, spatial_mean, tidy
from edgemm.backends.ort import OrtModel
from edgemm.errors import BadFile
from edgemm.manifest import Inputs

IMAGES = ("image-embed", "image-classify")
_VECTORS = ("embed", "image-embed")
_HEADS = {"fill-mask": Head("masked"), "token-classify": Head("tokens")}
_PAIRS = ("classify", "rerank", "question-answering")
_LABELLED = ("classify", "rerank", "token-classify", "image-classify")
_SHARES = (*_LABELLED, "question-answering")
_WINDOW = 512
# Families whose positions begin behind the id of padding, so that so many rows of the table are never used
_SKIPPED = dict.fromkeys(("camembert", "data2vec-text", "ibert", "longformer", "xlm-roberta-xl"), 2)
_NOTHING = Encoder(sizes={}, tensors={})


@dataclass(frozen=True)
class ExportedPart(Part):
    """A part whose graph an exporter wrote to `exact`. `inputs` are the names of its inputs."""

    exact: Path = Path()
    inputs: tuple[str, ...] = ()

    @property
    def has_types(self) -> bool:
        return self.task in _PAIRS and "token_type_ids" in self.inputs

    def graph(self) -> Graph:
        """float32, tidy, with the end that the task asks for. Raises `Unsupported`, see `check_nodes`."""
        graph = Graph.load(self.exact)
        check_nodes(graph, self.checkpoint.folder)
        return self._ended(tidy(graph))

    def expected(self, items: Sequence[Item]) -> Array:
        """What the graph of the exporter answers to each item alone, as `answers` orders it."""
        file = self.exact.with_name("reference.onnx")
        self._ended(Graph.load(self.exact)).save(file, external=True)
        model = OrtModel(file)
        return np.concatenate([answers(model, self.feeds([item])) for item in items])

    def _ended(self, graph: Graph) -> Graph:
        names = [value.name for value in graph.outputs]
        graph.prefix = "end/"
        wanted = "start_logits" if self.task == "question-answering" else "" if self.head is None else "logits"
        if wanted and wanted not in names:
            raise BadFile(self.exact, f"the export has no {wanted}, only {', '.join(names)}", "try another --task")
        _ENDS[self.task](self, graph, names)
        return graph


def _vectors(part: ExportedPart, graph: Graph, names: list[str]) -> None:
    vector = pooled(graph, names[0], part.pooling, normalize=False)
    for name in part.dense:
        vector = graph.add("MatMul", vector, graph.constant(part.weights.tensor(f"{name}.weight").T))
        if part.weights.find(f"{name}.bias"):
            vector = graph.add("Add", vector, graph.constant(part.weights.tensor(f"{name}.bias")))
    if part.normalize:
        vector = graph.add("LpNormalization", vector, axis=-1, p=2)
    end_with(graph, vector, "embedding", ["batch", "width"])


def _picture_vectors(_: ExportedPart, graph: Graph, names: list[str]) -> None:
    """The mean of the feature maps, or of the patches."""
    axes = _axes(graph, names[0])
    maps = names[0] if axes == 4 else graph.add("ReduceMean", names[0], graph.ints(1), keepdims=0)
    vector = spatial_mean(graph, maps) if axes == 4 else graph.add("LpNormalization", maps, axis=-1, p=2)
    end_with(graph, vector, "embedding", ["batch", "width"])


def _axes(graph: Graph, name: str) -> int:
    value: onnx.ValueInfoProto = next(value for value in graph.outputs if value.name == name)
    return len(value.type.tensor_type.shape.dim)


def _masked(_: ExportedPart, graph: Graph, __: list[str]) -> None:
    end_with(graph, places(graph, "logits"), "logits", ["masks", "vocabulary"])


def _spans(_: ExportedPart, graph: Graph, __: list[str]) -> None:
    both = [graph.add("Unsqueeze", name, graph.ints(-1)) for name in ("start_logits", "end_logits")]
    end_with(graph, graph.add("Concat", *both, axis=-1), "logits", ["batch", "length", 2])


def _tokens(_: ExportedPart, graph: Graph, __: list[str]) -> None:
    end_with(graph, "logits", "logits", ["batch", "length", "labels"])


def _whole(_: ExportedPart, graph: Graph, __: list[str]) -> None:
    end_with(graph, "logits", "logits", ["batch", "labels"])


_ENDS: dict[str, Callable[[ExportedPart, Graph, list[str]], None]] = {
    "embed": _vectors,
    "image-embed": _picture_vectors,
    "fill-mask": _masked,
    "question-answering": _spans,
    "token-classify": _tokens,
    "classify": _whole,
    "rerank": _whole,
    "image-classify": _whole,
}


def task_of(checkpoint: Checkpoint, wanted: str) -> str:
    """`wanted`, or the checkpoint's own task; without a head, pictures and texts become vectors."""
    task = wanted or text_task(checkpoint)
    return "image-embed" if task == "embed" and not wanted and not checkpoint.tokenizer.is_file() else task


def prepared(checkpoint: Checkpoint, task: str, exported: Exported) -> Prepared:
    """Raises `BadFile` or `Unsupported`, naming the setting."""
    head = None if task in _VECTORS else _HEADS.get(task, Head("first"))
    config = Config(checkpoint.config, checkpoint.folder / "config.json")
    sizes = Sizes(hidden=1, layers=0, heads=1, epsilon=0.0, activation="gelu")  # read by nobody: there is no builder
    fields: dict[str, Any] = {"exact": exported.path, "inputs": exported.inputs}
    part = ExportedPart(MODEL, checkpoint, _NOTHING, sizes, config, task, head, **fields)
    part = _of_pictures(part) if task in IMAGES else _of_texts(part)
    return Prepared(
        checkpoint,
        task,
        [part],
        _inputs(part, _width(part) if head is None else 0),
        labels(checkpoint) if task in _LABELLED else (),
        scores(checkpoint) if task in _SHARES else "",
        notes=assumptions(checkpoint) if task == "embed" else [],
    )


def _of_pictures(part: ExportedPart) -> ExportedPart:
    return replace(part, image=image_inputs(part.checkpoint.folder), pooling="mean" if part.head is None else "")


def _of_texts(part: ExportedPart) -> ExportedPart:
    checkpoint = part.checkpoint
    window = _window(checkpoint)
    names = (name for name in checkpoint.tensors if name.endswith("_Dense.linear.weight"))
    return replace(
        part,
        pooling=checkpoint.pooling if part.head is None else "",
        normalize=checkpoint.normalize,
        dense=tuple(sorted(name.removesuffix(".weight") for name in names)) if part.head is None else (),
        max_tokens=min(checkpoint.max_tokens or window, window),
        mask_token=mask_token(checkpoint) if part.task == "fill-mask" else "",
    )


def _window(checkpoint: Checkpoint) -> int:
    """The most tokens of a text: rows of positions, and what the tokenizer says if it is less."""
    rows = checkpoint.config.get("max_position_embeddings")
    window = rows - _SKIPPED.get(checkpoint.model_type, 0) if type(rows) is int and rows > 2 else _WINDOW
    said = optional_json(checkpoint.folder / "tokenizer_config.json").get("model_max_length")
    return min(window, said) if type(said) is int and said > 2 else window


def _inputs(part: ExportedPart, dimensions: int) -> Inputs:
    prompts = part.checkpoint.prompts
    return Inputs(
        max_tokens=part.max_tokens,
        pooling=part.pooling,
        normalize=part.normalize and part.head is None,
        dimensions=dimensions,
        query_prefix=prompts.get("query", ""),
        document_prefix=prompts.get("document", prompts.get("passage", "")),
        matryoshka=part.checkpoint.is_matryoshka,
        token_types=part.has_types,
        mask_token=part.mask_token,
        image=part.image,
    )


def _width(part: ExportedPart) -> int:
    """Of the vectors, as the graph itself gives them: no setting of config.json says it for every family."""
    file = part.exact.with_name("width.onnx")
    part.graph().save(file, external=True)
    feed: dict[str, Any] = {name: np.ones((1, 4), np.int64) for name in part.inputs}
    if part.image is not None:
        side = (part.image.height or 224, part.image.width or 224)
        feed = {part.inputs[0]: np.zeros((1, part.image.channels, *side), np.float32)}
    return int(OrtModel(file, lean=True).run(feed).shape[-1])
