"""What a GGUF conversion starts from: the model as data, its vocabulary as llama.cpp will read it, and where both came
from. A checkpoint and a finished GGUF file give the same kind of job. Nothing is written here but a trial vocabulary.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from converters import agreement, ggml, gguf_model, gguf_source, gguf_vocab
from converters.agreement import Agreement
from converters.checkpoint import Checkpoint
from converters.gguf_file import Setting, Settings, setting
from converters.gguf_model import Blueprint, Tensor
from converters.job import source_of
from converters.quantize import slabs
from edgemm import guard, package
from edgemm.backends.worker import LoadOptions, Worker
from edgemm.errors import BadFile, EdgemmError, Unsupported
from edgemm.manifest import Inputs, Source
from edgemm.tokenizer import FILE, Overflow, Tokenizer

_ENCODER_WINDOW = 2048  # tokens that the runtime reads at once
_GRIDS = ("Q4_0", "Q8_0")  # types that weights of quantization-aware training lie on
_GRID_SAMPLE, _GRID_ERROR = 256, 1e-3


@dataclass(frozen=True)
class Job:
    """`settings` is the whole header but for the file type. `inputs` is None for chats; `template` is theirs.

    `tokenizer` is None where only the GGUF file has one. `feeds_ids`: llama.cpp splits text otherwise than it, so that
    token ids come from it at run time too.
    """

    blueprint: Blueprint
    settings: Settings
    source: Source
    architecture: str
    context: int
    bos: int = -1
    template: str = ""
    tokenizer: Path | None = None
    feeds_ids: bool = False
    agreement: Agreement | None = None
    inputs: Inputs | None = None
    checkpoint: Checkpoint | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def task(self) -> str:
        return self.blueprint.task

    def rows(self, texts: Sequence[str], model: Path) -> list[list[int]]:
        """Token ids of `texts`, with what the model puts around a text, cut to its window."""
        if self.tokenizer is None:
            with Worker(model, LoadOptions(vocabulary_only=True)) as worker:
                return [worker.tokenize(text, add_special=True) for text in texts]
        prefix = self.inputs.document_prefix if self.inputs else ""
        most = self.inputs.max_tokens if self.inputs else self.context
        encoded = Tokenizer(self.tokenizer).encode([prefix + text for text in texts], most, Overflow.CUT)
        return [each.rows[0] for each in encoded]


def from_checkpoint(checkpoint: Checkpoint, folder: Path) -> Job:
    """Raises `Unsupported` or `BadFile`. `folder` is for trial files."""
    blueprint = gguf_model.blueprint(checkpoint)
    general = {key: value for key, value in blueprint.settings.items() if key.startswith("general.")}
    with ThreadPoolExecutor(1) as pool:
        origin = pool.submit(source_of, checkpoint)  # every byte is hashed, meanwhile
        found = agreement.best(gguf_vocab.variants(checkpoint), Tokenizer(checkpoint.tokenizer), general, folder)
    vocabulary = found.vocabulary.padded(blueprint.vocabulary_rows, checkpoint.tokenizer)
    if blueprint.task == "chat" and vocabulary.model == "gpt2" and "eos_token_id" not in vocabulary.keys:
        why = "no token is named that ends an answer, and llama.cpp would take any"
        raise BadFile(checkpoint.folder / "config.json", why, "add eos_token_id to config.json")
    settings = blueprint.settings | vocabulary.settings()
    del settings["general.name"]
    if found.name:
        settings["general.name"] = setting(found.name)
    template = gguf_vocab.chat_template(checkpoint)
    if template:
        settings["tokenizer.chat_template"] = setting(template)
    types = next((t.shape[0] for t in blueprint.tensors if t.name == "token_types.weight"), 1)
    settings["tokenizer.ggml.token_type_count"] = setting(types)
    context = _number(blueprint, "context_length")
    return Job(
        blueprint,
        settings,
        origin.result(),
        checkpoint.model_type,
        context,
        bos=vocabulary.keys.get("bos_token_id", -1) if vocabulary.keys.get("add_bos_token") else -1,
        template=template,
        tokenizer=checkpoint.tokenizer,
        feeds_ids=not found.complete,
        agreement=found,
        inputs=_inputs(checkpoint, blueprint, context) if blueprint.task != "chat" else None,
        checkpoint=checkpoint,
        notes=[*blueprint.notes, *_agreement_notes(found), *_grid_notes(blueprint)],
    )


def from_file(path: Path) -> Job:
    """A finished GGUF file; what lies beside it in its package comes along."""
    blueprint, header = gguf_source.blueprint(path), guard.check_gguf(path)
    inputs, chat, origin = None, None, Source(path.stem, sha256={path.name: package.sha256(path)})
    try:
        manifest = package.read_package(path.parent).manifest
        inputs, chat, origin = manifest.inputs, manifest.chat, replace(manifest.source, sha256=origin.sha256)
    except EdgemmError:
        pass  # a file alone
    tokenizer = path.with_name(FILE) if path.with_name(FILE).is_file() else None
    if blueprint.task != "chat" and (inputs is None or tokenizer is None):
        raise Unsupported(path, "an embedding model needs its tokenizer.json and manifest", "convert its checkpoint")
    metadata = header.metadata
    adds = metadata.get("tokenizer.ggml.add_bos_token", metadata["tokenizer.ggml.model"] == "llama")
    return Job(
        blueprint,
        dict(blueprint.settings),
        origin,
        header.architecture,
        header.context_length,
        bos=metadata.get("tokenizer.ggml.bos_token_id", -1) if adds else -1,
        template=header.chat_template,
        tokenizer=tokenizer,
        feeds_ids=chat is not None and chat.tokenizer == FILE,
        inputs=inputs,
        notes=blueprint.notes or _grid_notes(blueprint),
    )


def _number(blueprint: Blueprint, key: str) -> int:
    item = blueprint.settings[f"{blueprint.architecture}.{key}"]
    assert isinstance(item, Setting)
    return int(item.value)


def _inputs(checkpoint: Checkpoint, blueprint: Blueprint, context: int) -> Inputs:
    wide = next((t.shape[0] for t in blueprint.tensors if t.name == "dense_3.weight"), blueprint.sizes["h"])
    window = min(context, _ENCODER_WINDOW)
    return Inputs(
        max_tokens=min(checkpoint.max_tokens or window, window),
        pooling=checkpoint.pooling,
        normalize=checkpoint.normalize and blueprint.task == "embed",
        dimensions=wide,
        query_prefix=checkpoint.prompts.get("query", ""),
        document_prefix=checkpoint.prompts.get("document", checkpoint.prompts.get("passage", "")),
    )


def _agreement_notes(found: Agreement) -> list[str]:
    if found.complete:
        return []
    return [
        f"llama.cpp splits {100 * (1 - found.share):.2f} % of {found.probes:,} probe texts otherwise than "
        f"tokenizer.json (for example {found.example[:30]!r}): the package keeps tokenizer.json and feeds its ids"
    ]


def _grid_notes(blueprint: Blueprint) -> list[str]:
    """Weights from quantization-aware training already lie on a grid, and only that grid keeps them."""
    matrices = [t for t in blueprint.tensors if t.is_matrix and t.name.startswith("blk.")]
    if not matrices:
        return []
    tensor = matrices[len(matrices) // 2]
    rows = next(slabs(tensor, blueprint.sizes)).load()[:_GRID_SAMPLE]
    for kind in _GRIDS:
        if not ggml.fits(kind, tensor.shape[-1]) or not rows.any():
            continue
        off = ggml.dequantize(ggml.quantize(rows, kind), kind, tensor.shape[-1]) - rows
        if np.linalg.norm(off) <= _GRID_ERROR * np.linalg.norm(rows):
            return [
                f"the weights lie on a {kind} grid (quantization-aware training), which --to gguf-{kind.lower()} keeps"
            ]
    return []


def summary(tensors: Sequence[Tensor], types: Mapping[str, str]) -> dict[str, int]:
    """How many tensors have which type."""
    return dict(Counter(types[tensor.name] for tensor in tensors).most_common())
