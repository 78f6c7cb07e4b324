"""From a model's name to a running engine: which package a name means, and which backend runs it.

A name is a package in the store, a model of the catalog, or a path to a package folder or a .gguf file. When
a catalog model is there only as a checkpoint, the converter, if installed, is called by its entry point.
No socket is opened here: what is missing is named with the command that fetches it.
"""

import difflib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import cast

from edgemm import catalog, package, paths
from edgemm.backends import Encoder, Sampling
from edgemm.chat import Chat
from edgemm.embed import Embedder, EmbedOptions
from edgemm.errors import BadFile, EdgemmError, MissingExtra, UnknownModel, UsageError
from edgemm.events import Note, Progress
from edgemm.package import Package
from edgemm.settings import Settings
from edgemm.tokenizer import FILE, open_tokenizer

Events = Iterator[Progress | Note | Package]


@dataclass(frozen=True, slots=True)
class ChatOptions:
    """`context` 0: the model's own, at most 4,096 tokens. `threads` 0: one for each core."""

    context: int = 0
    threads: int = 0
    system: str = ""
    sampling: Sampling = field(default_factory=Sampling)


def open_model(name: str | Path, *, context: int = 0, threads: int = 0) -> Embedder | Chat:
    """Open the model `name` for what it can do: an `Embedder` with `.embed(texts)`, or a `Chat` with `.ask(text)`.

    Raises `UnknownModel`, `BadFile`, `ChecksumMismatch`, `NotEnoughMemory` or `MissingExtra`.
    """
    if is_gguf(name) or find(name).manifest.task == "chat":
        return open_chat(name, ChatOptions(context=context, threads=threads))
    return open_embedder(name, EmbedOptions(threads=threads))


def open_embedder(name: str | Path, options: EmbedOptions | None = None) -> Embedder:
    """Open an embedding model. Raises `UsageError` when `name` is something else."""
    found = find(name)
    if found.manifest.task != "embed":
        raise UsageError(found.name, f"is for {found.manifest.task}, not for embedding texts", "choose with -m")
    return _embedder(found, options or EmbedOptions())


def open_chat(name: str | Path, options: ChatOptions | None = None) -> Chat:
    """Open a chat model: a package, or the path of a .gguf file. Raises `UsageError` when it is something else."""
    from edgemm.backends.worker import LoadOptions, Worker

    options = options or ChatOptions()
    model, tokenizer = _chat_files(name)
    load = LoadOptions(context=options.context, threads=_threads(options.threads), tokenizer=tokenizer)
    return Chat(Worker(model, load), system=options.system, sampling=options.sampling)


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


def _embedder(found: Package, options: EmbedOptions) -> Embedder:
    inputs = found.manifest.inputs
    if inputs is None:
        raise BadFile(found.path / package.MANIFEST, "an embedding model without `inputs`", "convert it again")
    tokenizer = open_tokenizer(found)
    options = replace(options, threads=_threads(options.threads))
    return Embedder(_encoder(found, options.threads), tokenizer, inputs, options)


def _encoder(found: Package, threads: int) -> Encoder:
    from edgemm.backends.ort import OrtEncoder
    from edgemm.backends.worker import LoadOptions, Worker

    onnx, gguf = found.file(".onnx"), found.file(".gguf")
    if onnx is not None:
        return OrtEncoder(onnx, int8=found.manifest.quantization.recipe.endswith("int8"))
    if gguf is not None:
        return Worker(gguf, LoadOptions(embedding=True, threads=threads))
    raise BadFile(found.path, "the package holds neither an .onnx nor a .gguf file", "pull or convert it again")


def _chat_files(name: str | Path) -> tuple[Path, Path | None]:
    """The model, and its tokenizer.json where llama.cpp does not split text as the model was trained."""
    if is_gguf(name):
        return Path(name), None
    found = find(name)
    gguf = found.file(".gguf")
    if found.manifest.task != "chat" or gguf is None:
        raise UsageError(found.name, f"is for {found.manifest.task}, not for chat", "choose with -m")
    if found.manifest.chat is None or found.manifest.chat.tokenizer != FILE:
        return gguf, None
    tokenizer = found.file(FILE)
    if tokenizer is None:
        raise BadFile(found.path, f"the manifest names {FILE}, which is not there", "convert or pull the model again")
    return gguf, tokenizer


def is_gguf(name: str | Path) -> bool:
    """Whether `name` is the path of a .gguf file that is there."""
    return Path(name).suffix == ".gguf" and Path(name).is_file()


def _threads(threads: int) -> int:
    return threads or Settings.from_environment().threads
