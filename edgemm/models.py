"""From a model's name to a running engine: which package a name means, and which backend runs it.

A name is a package in the store, a model of the catalog, or a path to a package folder or a .gguf file. When
a catalog model is there only as a checkpoint, the converter, if installed, is called by its entry point.
No socket is opened here: what is missing is named with the command that fetches it.
"""

import difflib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, cast

from edgemm import catalog, package, paths
from edgemm.backends import Encoder, Generator, Sampling
from edgemm.batches import BatchOptions
from edgemm.chat import Chat
from edgemm.embed import Embedder
from edgemm.errors import BadFile, EdgemmError, MissingExtra, UnknownModel, UsageError
from edgemm.events import Note, Progress
from edgemm.manifest import ChatFormat
from edgemm.package import Package
from edgemm.settings import Settings
from edgemm.tokenizer import FILE, Overflow, open_tokenizer

if TYPE_CHECKING:
    from edgemm.backends.worker import LoadOptions
    from edgemm.classify import Classifier
    from edgemm.vision import VisionModel

Events = Iterator[Progress | Note | Package]
TEXT_MODEL, VISION_MODEL = "text_model.onnx", "vision_model.onnx"  # the halves of a model of texts and pictures


@dataclass(frozen=True, slots=True)
class ChatOptions:
    """`context` 0: the model's own, at most 4,096 tokens. `threads` 0: one for each core."""

    context: int = 0
    threads: int = 0
    system: str = ""
    sampling: Sampling = field(default_factory=Sampling)


def open_model(name: str | Path, *, context: int = 0, threads: int = 0) -> "Embedder | Chat | Classifier | VisionModel":
    """Open the model `name` for what it can do.

    An `Embedder` with `.embed(texts)`, a `Chat` with `.ask(text)`, a `Classifier` for scores of texts, or a
    `VisionModel` for pictures. Raises `UnknownModel`, `BadFile`, `ChecksumMismatch`, `NotEnoughMemory` or
    `MissingExtra`.
    """
    if is_gguf(name):
        return open_chat(name, ChatOptions(context=context, threads=threads))
    options = BatchOptions(threads=threads)
    match task_of(name):
        case "chat":
            return open_chat(name, ChatOptions(context=context, threads=threads))
        case "embed":
            return open_embedder(name, options)
        case "image-embed" | "image-classify" | "image-text":
            return open_vision(name, options)
        case _:
            return open_classifier(name, options)


def task_of(name: str | Path) -> str:
    """The task of the package that `name` means; see `find`."""
    return find(name).manifest.task


def open_embedder(name: str | Path, options: BatchOptions | None = None, dimensions: int = 0) -> Embedder:
    """Open an embedding model; `dimensions` as in `Embedder`. Raises `UsageError` when `name` is something else."""
    found = find(name)
    if found.manifest.task != "embed":
        raise UsageError(found.name, f"is for {found.manifest.task}, not for embedding texts", "choose with -m")
    return _embedder(found, options or BatchOptions(), dimensions)


def open_classifier(name: str | Path, options: BatchOptions | None = None, labels: Sequence[str] = ()) -> "Classifier":
    """Open a model that scores texts: masks, labels, entities, answers, ranks. `labels` rename its outputs.

    Raises `UsageError` when `name` is something else.
    """
    from edgemm import classify

    found = find(name)
    if found.manifest.task not in classify.TASKS:
        raise UsageError(found.name, f"is for {found.manifest.task}, not for scores of texts", "choose with -m")
    options = _with_threads(options)
    encoder = _encoder(found, options.threads)
    return classify.Classifier(encoder, open_tokenizer(found), found.manifest, options, labels)


def open_vision(name: str | Path, options: BatchOptions | None = None, labels: Sequence[str] = ()) -> "VisionModel":
    """Open a model for pictures. `labels` rename a classifier's outputs. Captions that are too long are refused,
    unless `options.overflow` says that they are cut. Raises `UsageError` when `name` is something else.
    """
    from edgemm import vision
    from edgemm.backends.ort import OrtModel

    found = find(name)
    if found.manifest.task not in vision.TASKS:
        raise UsageError(found.name, f"is for {found.manifest.task}, not for pictures", "choose with -m")
    options = _with_threads(options)
    is_pair = found.manifest.task == "image-text"
    pictures = _file(found, VISION_MODEL if is_pair else ".onnx")
    encoder = OrtModel(pictures, int8=_is_int8(found))
    return vision.VisionModel(encoder, found.manifest, _captions(found, options) if is_pair else None, options, labels)


def open_chat(name: str | Path, options: ChatOptions | None = None) -> Chat:
    """Open a chat model: a package, or the path of a .gguf file. Raises `UsageError` when it is something else."""
    options = options or ChatOptions()
    return Chat(open_generator(name, options), system=options.system, sampling=options.sampling)


def find(name: str | Path) -> Package:
    """The opened package that `name` means; a checkpoint that waits for its conversion is converted first."""
    return [event for event in prepare(name) if isinstance(event, Package)][-1]


def prepare(name: str | Path) -> Events:
    """Like `find`, but as events, so that a caller can show a conversion. The last event is the `Package`."""
    folder = locate(name)
    if folder is not None:
        yield package.open_package(folder)
        return
    from edgemm.fetch import local  # late: it loads the network libraries

    row = catalog.find(str(name))
    checkpoint = paths.checkpoints() / row.name
    if not checkpoint.is_dir():
        raise UnknownModel(row.name, "is not on this machine yet", f"run `edgemm pull {row.name}`")
    if (origin := local.origin(checkpoint)) != row.identity:
        why = f"the checkpoint of this name comes from {origin or 'an unknown source'}, not from {row.identity}"
        raise UsageError(row.name, why, f"run `edgemm convert {row.name}` if you trust it, else `edgemm rm {row.name}`")
    yield Note(f"{row.name}: converting the checkpoint to {row.target}, once")
    yield from converter()(source=checkpoint, target=row.target, name=f"{row.name}-{row.target}")


def locate(name: str | Path) -> Path | None:
    """The folder of the package that `name` means, or None for a catalog model that is not there.

    Raises `UnknownModel` with the nearest names when nothing is known by that name.
    """
    path = Path(name)
    if (path / package.MANIFEST).is_file():
        return path
    if len(path.parts) != 1:
        raise UnknownModel(name, f"there is no {package.MANIFEST} in that folder", "give the folder of a package")
    paths.check_name(str(name))
    package.recover()
    row = catalog.ROWS.get(str(name))
    names = (str(name), f"{row.name}-{row.target}") if row else (str(name),)
    for candidate in names:
        if (paths.store() / candidate / package.MANIFEST).is_file():
            return paths.store() / candidate
    if row is None:
        raise _unknown(str(name))
    return None


def converter() -> Callable[..., Events]:
    """The function behind the entry point `edgemm.converter`. Raises `MissingExtra` when it cannot be loaded."""
    for entry in entry_points(group="edgemm.converter"):
        try:
            return cast(Callable[..., Events], entry.load())
        except ImportError as error:
            raise MissingExtra("converter", str(error), "pip install 'edgemm[convert]'") from error
    raise MissingExtra("converter", "it is not installed", "pip install 'edgemm[convert]'")


def _unknown(name: str) -> EdgemmError:
    if (paths.checkpoints() / name).is_dir():
        return UnknownModel(name, "is a checkpoint that is not converted yet", f"run `edgemm convert {name}`")
    known = sorted({*catalog.ROWS, *(p.name for p in package.installed())})
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    why = f"unknown model; the nearest names are {', '.join(near)}" if near else "unknown model"
    return UnknownModel(name, why, "see `edgemm list --all`, or pull a hub repository by owner/name")


def _embedder(found: Package, options: BatchOptions, dimensions: int = 0) -> Embedder:
    inputs = found.manifest.inputs
    if inputs is None:
        raise BadFile(found.path / package.MANIFEST, "an embedding model without `inputs`", "convert it again")
    tokenizer = open_tokenizer(found)
    options = _with_threads(options)
    return Embedder(_encoder(found, options.threads), tokenizer, inputs, options, dimensions)


def _captions(found: Package, options: BatchOptions) -> Embedder:
    """The text half of a model of texts and pictures. Halves of a caption mean nothing: it is never split."""
    overflow = Overflow.CUT if options.overflow is Overflow.CUT else Overflow.REFUSE
    return _embedder(found, replace(options, overflow=overflow))


def _encoder(found: Package, threads: int) -> Encoder:
    from edgemm.backends.ort import OrtEncoder
    from edgemm.backends.worker import LoadOptions, Worker

    onnx, gguf, inputs = found.file(TEXT_MODEL) or found.file(".onnx"), found.file(".gguf"), found.manifest.inputs
    if onnx is not None:
        pad_to, pad_id = (inputs.pad_to, inputs.pad_id) if inputs else (0, 0)
        return OrtEncoder(onnx, int8=_is_int8(found), pad_to=pad_to, pad_id=pad_id)
    if gguf is not None:
        return Worker(gguf, LoadOptions(embedding=True, threads=threads))
    raise BadFile(found.path, "the package holds neither an .onnx nor a .gguf file", "pull or convert it again")


def _file(found: Package, suffix: str) -> Path:
    path = found.file(suffix)
    if path is None:
        raise BadFile(found.path, f"the package holds no {suffix} file", "pull or convert it again")
    return path


def open_generator(name: str | Path, options: ChatOptions) -> Generator:
    """A chat model as it is: a GGUF file runs in a child process, an .onnx file in this one. Raises `UsageError`."""
    from edgemm.backends.worker import LoadOptions, Worker

    load = LoadOptions(context=options.context, threads=_threads(options.threads))
    if is_gguf(name):
        return Worker(Path(name), load)
    found = find(name)
    gguf, onnx, chat = found.file(".gguf"), found.file(".onnx"), found.manifest.chat
    if found.manifest.task == "chat" and gguf is not None:
        is_own = chat is not None and chat.tokenizer == FILE  # llama.cpp does not split text as the model was trained
        known = next((e.sha256 for e in found.manifest.files if found.path / e.path == gguf), "")
        return Worker(gguf, replace(load, tokenizer=_chat_tokenizer(found) if is_own else None, fingerprint=known))
    if found.manifest.task == "chat" and onnx is not None and chat is not None:
        return _decoder(found, onnx, chat, load)
    raise UsageError(found.name, f"is for {found.manifest.task}, not for chat", "choose with -m")


def _decoder(found: Package, onnx: Path, chat: ChatFormat, load: "LoadOptions") -> Generator:
    from edgemm.backends.ort_generator import DecoderFiles, OrtGenerator

    template = found.file(package.TEMPLATE)
    files = DecoderFiles(
        onnx,
        _chat_tokenizer(found),
        chat.context,
        template=template.read_text("utf-8", "replace") if template else "",
        stop=chat.stop,
        architecture=found.manifest.architecture,
        int8=_is_int8(found),
    )
    return OrtGenerator(files, context=load.context, threads=load.threads)


def _chat_tokenizer(found: Package) -> Path:
    tokenizer = found.file(FILE)
    if tokenizer is None:
        raise BadFile(found.path, f"the manifest names {FILE}, which is not there", "convert or pull the model again")
    return tokenizer


def is_gguf(name: str | Path) -> bool:
    """Whether `name` is the path of a .gguf file that is there."""
    return Path(name).suffix == ".gguf" and Path(name).is_file()


def _is_int8(found: Package) -> bool:
    return found.manifest.quantization.recipe.endswith("int8")


def _with_threads(options: BatchOptions | None) -> BatchOptions:
    options = options or BatchOptions()
    return replace(options, threads=_threads(options.threads))


def _threads(threads: int) -> int:
    return threads or Settings.from_environment().threads
