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

from edgemm import ingest, models, search
from edgemm.batches import BatchOptions
from edgemm.catalog import EMBED_MODEL
from edgemm.documents.kinds import Kind
from edgemm.embed import Kind as Side
from edgemm.errors import BadFile, EdgemmError, MissingExtra, UnknownModel, UsageError
from edgemm.events import Note, Work
from edgemm.fusion import fuse
from edgemm.index import Medium, Model, Pending, Root, Scope, Status, Store
from edgemm.index.pages import Float
from edgemm.ingest import Encoder, Report
from edgemm.package import Package
from edgemm.search import Hit, Part, Probe, Rerank
from edgemm.tokenizer import Overflow

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
        return _report(self.update([self.root(folder)]))

    def update(self, roots: Sequence[Root] | None = None) -> ingest.Events:
        """Bring `roots`, or every folder, up to date; ends with the `Report`. A waiting checkpoint is converted."""
        found = []
        for medium in Medium:
            found.append((yield from self._encoder(medium)))
        encoders = [encoder for encoder in found if encoder]
        for note in self._take_notes():
            yield Note(note)
        chosen = self.store.roots() if roots is None else roots
        for event in ingest.update(self.store, chosen, encoders):
            if isinstance(event, Report):
                self._merge(chosen)
            yield event

    def root(self, folder: Path | str) -> Root:
        """The root that `folder` is, or is in; else a new one. Roots below a new one become part of it."""
        path = Path(folder).expanduser().resolve()
        if not path.is_dir():
            why = "is a file" if path.is_file() else "there is no such folder"
            raise BadFile(folder, why, "give the folder that holds your documents")
        roots = self.store.roots()
        if around := next((root for root in roots if path.is_relative_to(root.path)), None):
            if around.path != path:
                self.notes.append(f"{path}: is part of {around.path}, which is brought up to date")
            return around
        return self.store.add_root(path)

    def remove(self, folder: Path | str) -> None:
        """Forget a folder. Raises `UsageError` when it is not in the index."""
        path = Path(folder).expanduser()
        for root in self.store.roots():
            if root.path in (path.absolute(), path.resolve()):
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
        probes = self._probes(text, Path(picture) if picture is not None else None)
        again = self._reranker(rerank) if rerank else None
        return search.search(self.store, text, probes, scope=scope, limit=limit, rerank=again)

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
            raise UsageError(picture, "the index has no pictures", "index them with `--pictures MODEL`")
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
        remembered = self.store.ready(medium)
        name = self._asked[medium] or (remembered.name if remembered else "")
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
        """Forget the roots below one of `roots`, which holds their files by now."""
        for other in self.store.roots():
            if any(other.id != root.id and other.path.is_relative_to(root.path) for root in roots):
                self.store.remove_root(other.id)

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
        if text not in self.notes:
            self.notes.append(text)

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
        return vision.embed_images([each.path for each in some])

    encoder = Encoder(name, fingerprint(found), vision.dimensions, Medium.PICTURE, embed)
    of_text = partial(_only, vision.embed_texts) if vision.task == "image-text" else None
    return Engine(encoder, of_text, partial(_only, vision.embed_images), vision.close)


def _only(embed: Callable[..., Float], source: object) -> Float:
    vector: Float = embed([source])[0]
    return vector


def _place(folder: Path | str) -> Path:
    return Path(folder).expanduser().resolve()


def _report(events: ingest.Events) -> Report:
    report = Report()
    for event in events:
        if isinstance(event, Report):
            report = event
    return report
