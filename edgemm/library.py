"""The user's documents: folders in, passages out. The index, the models that give it vectors, and what searches it.

Models are opened when they are first needed, and remembered by the index: what was embedded with one is searched with
it. Without one, words alone are searched, and `notes` says so. It knows no terminal.
"""

import hashlib
import json
import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from edgemm import attachments, cite, ingest, models, search
from edgemm.attachments import Attachment
from edgemm.batches import BatchOptions
from edgemm.catalog import EMBED_MODEL
from edgemm.documents.kinds import Kind
from edgemm.documents.reader import Limits
from edgemm.embed import Kind as Side
from edgemm.errors import BadFile, EdgemmError, MissingExtra, UnknownModel, UsageError, disk_errors
from edgemm.events import Note, Work
from edgemm.fusion import fuse
from edgemm.index import Chunk, Medium, Model, Pending, Root, Scope, Status, Store
from edgemm.index.pages import Float
from edgemm.index.records import picture_hash
from edgemm.ingest import Encoder, Report
from edgemm.package import Package
from edgemm.search import Hit, Part, Probe, Rerank
from edgemm.tokenizer import Overflow

_LARGEST = Limits().file  # bytes: a picture that was read had no more
_FINGERPRINTED = (".onnx", ".gguf", "tokenizer.json")


@dataclass(frozen=True, slots=True)
class Engine:
    """One model at work. `text` and `picture` embed a query, float32 (dimensions,); None: it cannot."""

    encoder: Encoder
    text: Callable[[str], Float] | None
    picture: Callable[[Path], Float] | None
    close: Callable[[], None]


Opener = Callable[[str, Medium], Engine]


class Index:
    """Every method may be called from any thread. Errors are those of `Store`, `models` and `ingest`."""

    def __init__(self, store: Store, model: str = "", pictures: str = "", opener: "Opener | None" = None) -> None:
        """`model` embeds texts and `pictures` embeds pictures from now on; "": what the index remembers."""
        self.store, self.notes = store, list[str]()
        self._asked = {Medium.TEXT: model, Medium.PICTURE: pictures}
        self._opener = opener or open_engine
        self._engines: dict[tuple[str, Medium], Engine] = {}
        self._rerankers: dict[str, Rerank] = {}
        self._closers: list[Callable[[], None]] = []
        self._opening = threading.RLock()

    @classmethod
    def open(cls, path: Path | str | None = None, *, model: str = "", pictures: str = "") -> "Index":
        """The index at `path`, which is made if it is not there; None: the user's own."""
        return cls(Store(Path(path) if path is not None else None), model, pictures)

    # Folders

    def add(self, folder: Path | str) -> Report:
        """Index a folder, or bring it up to date. Raises `BadFile` for what is no folder."""
        return [event for event in self.update([self.root(folder)]) if isinstance(event, Report)][-1]

    def update(self, roots: Sequence[Root] | None = None) -> ingest.Events:
        """Bring `roots`, or every folder, up to date; ends with the `Report`. A waiting checkpoint is converted."""
        found = []
        for medium in Medium:
            found.append((yield from self._encoder(medium)))
        encoders = [encoder for encoder in found if encoder]
        for note in self._take_notes():
            yield Note(note)
        there = self.store.roots()  # one that was given may have become part of another since
        chosen = there if roots is None else [root for root in dict.fromkeys(roots) if root in there]
        for event in ingest.update(self.store, chosen, encoders):
            if isinstance(event, Report):
                self._merge(chosen)
            yield event

    def root(self, folder: Path | str) -> Root:
        """The root that `folder` is, or is in; else a new one. Roots below a new one become part of it.

        A root does not hold what is hidden or ignored below it: such a folder becomes a root of its own.
        """
        path = _place(folder)
        if not ingest.is_folder(path):
            why = "is a file" if _is_file(path) else "there is no such folder, or it is locked"
            raise BadFile(folder, why, "give the folder that holds your documents")
        roots = self.store.roots()
        same = [root for root in roots if root.path == path]
        around = [root for root in roots if path.is_relative_to(root.path) and self._reaches(root, path)]
        if around and not same:
            self._note(f"{path}: is part of {around[0].path}, which is brought up to date")
        return next(iter([*same, *around]), None) or self.store.add_root(path)

    def remove(self, folder: Path | str) -> None:
        """Forget a folder. Raises `UsageError` when it is not in the index."""
        places = (_place(folder), _expanded(folder).absolute())
        for root in self.store.roots():
            if root.path in places:
                with self.store.exclusive():
                    self.store.remove_root(root.id)
                    self.store.compact()
                return
        raise UsageError(folder, "is not in the index", "see `edgemm index status`")

    def status(self) -> Status:
        return self.store.status()

    # Searching

    def search(
        self,
        text: str = "",
        *,
        picture: Path | str | None = None,
        folders: Sequence[Path | str] = (),
        names: Sequence[str] = (),
        kinds: Sequence[str] = (),
        since: float = -math.inf,
        until: float = math.inf,
        limit: int = 10,
        rerank: str = "",
    ) -> list[Hit]:
        """The best passages for a text, a picture file, or both at once; see `Scope` for what narrows the search.

        `rerank` names a model that ranks the first ones again.
        """
        if unknown := sorted(set(kinds) - set(Kind)):
            raise UsageError(unknown[0], "is no kind of document", f"choose {', '.join(Kind)}")
        scope = Scope((), tuple(map(_place, folders)), tuple(names), tuple(kinds), since, until)
        image = Path(picture) if picture is not None else None
        again = self._reranker(rerank) if rerank else None

        def found() -> list[Hit]:
            probes = self._probes(text, image)
            return search.search(self.store, text, probes, scope=scope, limit=limit, rerank=again)

        before = self.store.models()
        try:
            return found()
        except UsageError:
            if self.store.models() == before:
                raise
            return found()  # another model has taken over meanwhile

    def quotes(self, question: str, limit: int = cite.QUOTES, **filters: Any) -> list[Attachment]:
        """Passages for a question as numbered quotes, the best first; `filters` are those of `search`.

        Pictures, which have no text, are left out.
        """
        hits = [hit for hit in self.search(question, limit=2 * limit, **filters) if hit.chunk.text.strip()]
        return [_quote(number, hit.chunk) for number, hit in enumerate(hits[:limit], 1)]

    def close(self) -> None:
        with self._opening:
            for close in [*(engine.close for engine in self._engines.values()), *self._closers]:
                close()
            self._engines, self._closers = {}, []
        self.store.close()

    def __enter__(self) -> "Index":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _probes(self, text: str, picture: Path | None) -> list[Probe]:
        found = []
        if text.strip() and (pair := self._serving(Medium.TEXT)):
            model, engine = pair
            if engine.text:
                found.append(Probe(Part.MEANING, model.id, engine.text(text)))
        if pair := self._serving(Medium.PICTURE):
            model, engine = pair
            vectors = [engine.text(text)] if text.strip() and engine.text else []
            vectors += [engine.picture(picture)] if picture and engine.picture else []
            if vectors:
                found.append(Probe(Part.PICTURES, model.id, fuse(vectors) if len(vectors) > 1 else vectors[0]))
        elif picture:
            why = self.notes[-1] if self.store.ready(Medium.PICTURE) else "the index has no pictures"
            raise UsageError(picture, why, "index them with `--pictures MODEL`")
        return found

    def _serving(self, medium: Medium) -> tuple[Model, Engine] | None:
        """The model whose vectors are searched, at work; None where it cannot be, which is noted."""
        model = self.store.ready(medium)
        if model is None:
            return None
        try:
            engine = self._engine(model.name, medium)
        except EdgemmError as error:
            self._note(f"{model.name}: {error.why}; so words alone are searched")
            return None
        if engine.encoder.fingerprint != model.fingerprint:
            self._note(f"{model.name} has changed since the index was made; run `edgemm index` to embed with it again")
            return None
        return model, engine

    def _encoder(self, medium: Medium) -> Work[Encoder | None]:
        """What embeds new contents of the medium; None where there is no model for it."""
        remembered = [model.name for model in self.store.models() if model.medium == medium]
        name = self._asked[medium] or next(reversed(remembered), "")  # the newest, which may not serve yet
        default = EMBED_MODEL if medium == Medium.TEXT else ""
        if not name and not default:
            return None
        try:
            if self._opener is open_engine:
                yield from (event for event in models.prepare(name or default) if not isinstance(event, Package))
            return self._engine(name or default, medium).encoder
        except (UnknownModel, MissingExtra):
            if name:
                raise
            yield Note(f"there is no model for vectors, so words alone are indexed: run `edgemm pull {default}`")
            return None

    def _merge(self, roots: Sequence[Root]) -> None:
        """Forget the roots below one of `roots`, where that holds their files by now."""
        for other in self.store.roots():
            above = [root for root in roots if root.id != other.id and other.path.is_relative_to(root.path)]
            if any(self._holds(root, other) for root in above):
                self.store.remove_root(other.id)

    def _holds(self, root: Root, below: Root) -> bool:
        """Whether `root` has every file of another root that is still there: hidden and ignored ones it has not."""
        known, prefix = self.store.known(root.id), below.path.relative_to(root.path)
        names = self.store.known(below.id)
        return all((prefix / name).as_posix() in known or not _is_file(below.path / name) for name in names)

    def _reaches(self, root: Root, path: Path) -> bool:
        """Whether `root` has files below `path`, or will have, as far as that is known before it is looked through."""
        if not (known := self.store.known(root.id)):
            return not any(part.startswith(".") for part in path.relative_to(root.path).parts)
        prefix = (path.relative_to(root.path) / "_").as_posix()[:-1]
        return any(name.startswith(prefix) for name in known)

    def _engine(self, name: str, medium: Medium) -> Engine:
        with self._opening:
            if (name, medium) not in self._engines:
                self._engines[name, medium] = self._opener(name, medium)
            return self._engines[name, medium]

    def _reranker(self, name: str) -> Rerank:
        with self._opening:
            if name not in self._rerankers:
                model = models.open_classifier(name, BatchOptions(overflow=Overflow.CUT))
                self._closers.append(model.close)

                def rerank(query: str, texts: Sequence[str]) -> list[float]:
                    scores = {each.index: each.score for each in model.rerank(query, texts)}
                    return [scores[index] for index in range(len(texts))]

                self._rerankers[name] = rerank
            return self._rerankers[name]

    def _note(self, text: str) -> None:
        self.notes = [*(note for note in self.notes if note != text), text]

    def _take_notes(self) -> list[str]:
        found, self.notes = self.notes, []
        return found


def open_engine(name: str, medium: Medium) -> Engine:
    """The model `name` of the store, for texts or for pictures."""
    return _text_engine(name) if medium == Medium.TEXT else _picture_engine(name)


def fingerprint(found: Package) -> str:
    """Changes when the vectors of a text or a picture would: the hash of the files and of how they are fed."""
    hashes = sorted(each.sha256 for each in found.manifest.files if each.path.endswith(_FINGERPRINTED))
    inputs = asdict(found.manifest.inputs) if found.manifest.inputs else {}
    return hashlib.sha256(json.dumps([hashes, inputs], sort_keys=True).encode()).hexdigest()[:32]


def _text_engine(name: str) -> Engine:
    found, embedder = models.find(name), models.open_embedder(name)
    marks = len(embedder.tokenizer.ids([embedder.inputs.document_prefix])[0])
    encoder = Encoder(
        name,
        fingerprint(found),
        embedder.dimensions,
        Medium.TEXT,
        lambda some: embedder.embed([each.text for each in some]),
        lambda: embedder.tokens,
        embedder.tokenizer.spans,
        min(ingest.CHUNK, embedder.inputs.max_tokens) - marks,
    )
    return Engine(encoder, lambda text: embedder.embed([text], Side.QUERY)[0], None, embedder.close)


def _picture_engine(name: str) -> Engine:
    found = models.find(name)
    vision = models.open_vision(name, BatchOptions(overflow=Overflow.CUT))
    if vision.task == "image-classify":
        vision.close()
        raise UsageError(name, "gives labels and no vectors", "choose a model for image-embed or image-text")

    def embed(some: Sequence[Pending]) -> Float:
        return np.concatenate(list(vision.stream_images(map(_picture, some))))

    encoder = Encoder(name, fingerprint(found), vision.dimensions, Medium.PICTURE, embed)
    of_text = partial(_only, vision.embed_texts) if vision.task == "image-text" else None
    return Engine(encoder, of_text, partial(_only, vision.embed_images), vision.close)


def _only(embed: Callable[..., Float], source: object) -> Float:
    vector: Float = embed([source])[0]
    return vector


def _quote(number: int, chunk: Chunk) -> Attachment:
    size = len(chunk.text.encode())
    facts = (chunk.hash, number, str(chunk.path), search.place(chunk).shown(), chunk.mtime_ns)
    return Attachment(chunk.path.name, attachments.Kind.QUOTE, chunk.text, size, *facts)


def _picture(pending: Pending) -> bytes:
    """The bytes that it was indexed by: a vector of others would be found under their hash, for good."""
    if not _is_file(pending.path):  # what is none might never end
        raise BadFile(pending.path, "is no longer there", "run `edgemm index` again")
    with disk_errors(pending.path), pending.path.open("rb") as file:
        data = file.read(_LARGEST + 1)
    if picture_hash(hashlib.sha256(data).hexdigest()) != pending.hash:
        raise BadFile(pending.path, "has changed since it was read", "run `edgemm index` again")
    return data


def _place(folder: Path | str) -> Path:
    """Raises `BadFile` for a path that leads nowhere: the home of an unknown user, links in a circle."""
    try:
        return _expanded(folder).resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise BadFile(folder, str(error), "check the path") from error


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        return False


def _expanded(folder: Path | str) -> Path:
    return Path(folder).expanduser()
