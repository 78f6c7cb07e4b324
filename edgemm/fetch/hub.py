"""Models of a hub repository: which files, and each of them resumable and hashed.

`huggingface_hub` tells the files, their sizes and sha256; the bytes are fetched by download.py, because the library
deletes a partial download and checks no hash. HF_ENDPOINT and HF_TOKEN are honoured by the library.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgemm import paths
from edgemm.errors import BadFile, Offline, UnknownModel, Unsupported
from edgemm.events import Note, Progress
from edgemm.fetch import local
from edgemm.fetch.download import Remote, fetch
from edgemm.package import Package

_PART = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_PATTERN = re.compile(rf"({_PART})/({_PART})(?:@([A-Za-z0-9._/-]+))?(?::({_PART}(?:/{_PART})*))?")
_SETTINGS = re.compile(
    r"(config|modules|tokenizer|tokenizer_config|special_tokens_map|sentence_bert_config"
    r"|config_sentence_transformers|model\.safetensors\.index)\.json|\d+_[A-Za-z]+/config\.json|README\.md|LICENSE\S*"
)
_PREFERRED = ("q4_k_m", "q5_k_m", "q8_0", "q4_0", "f16")


@dataclass(frozen=True, slots=True)
class Reference:
    """`owner/name`, `owner/name@revision` or `owner/name:file.gguf`."""

    repository: str
    file: str = ""
    revision: str = "main"

    @staticmethod
    def matches(text: str) -> bool:
        return _PATTERN.fullmatch(text) is not None and ".." not in text

    @classmethod
    def parse(cls, text: str) -> "Reference":
        match = _PATTERN.fullmatch(text)
        if match is None or ".." in text:
            raise UnknownModel(text[:80], "is no hub repository", "write owner/name or owner/name:file.gguf")
        owner, name, revision, file = match.groups()
        return cls(f"{owner}/{name}", file or "", revision or "main")

    @property
    def name(self) -> str:
        """The name in the store: the repository's, or the file's."""
        return paths.check_name(Path(self.file).stem.lower() if self.file else self.repository.split("/")[1].lower())

    def __str__(self) -> str:
        return f"{self.repository}:{self.file}" if self.file else self.repository


def pull(reference: Reference, name: str, licence: str) -> Iterator[Progress | Note | Package | Path]:
    """Download a checkpoint, or one GGUF file, into the store as `name`. The last event is the result."""
    info = _info(reference)
    remotes = {remote.name: remote for remote in _remotes(reference, info)}
    chosen = _choose(reference, list(remotes))
    licence = licence or str((getattr(info, "card_data", None) or {}).get("license") or "")
    partial = paths.partial() / f"hub-{reference.repository.replace('/', '--')}-{info.sha}"
    local.check_room(2 * sum(remotes[file].bytes for file in chosen) - local.size(partial))
    arrived = {}
    for file in chosen:
        arrived[file] = yield from fetch(remotes[file], partial)
    if chosen[0].endswith(".gguf"):
        try:
            yield local.gguf_package(arrived[chosen[0]], name, reference.repository, str(info.sha), licence)
        except BadFile:  # it came as published, so that a second try would be refused as well
            local.discard(partial)
            raise
    else:
        with local.incoming_checkpoint(name) as folder:
            for file, path in arrived.items():
                (folder / file).parent.mkdir(parents=True, exist_ok=True)
                path.rename(folder / file)
            local.note_source(folder, reference.repository, str(info.sha), licence)
        yield paths.checkpoints() / name
    local.discard(partial)


def _info(reference: Reference) -> Any:
    """What the hub says about the repository at this revision."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    try:
        return HfApi().model_info(reference.repository, revision=reference.revision, files_metadata=True)
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        fix = "check the spelling; a gated model needs HF_TOKEN"
        raise UnknownModel(str(reference), "the hub has no such repository or revision", fix) from error
    except Exception as error:  # the library's HTTP client, and its errors, differ between its releases
        why = f"the hub cannot be reached ({type(error).__name__}: {_first(error)})"
        raise Offline(str(reference), why, "check the network, or try again later") from error


def _remotes(reference: Reference, info: Any) -> Iterator[Remote]:
    from huggingface_hub import hf_hub_url
    from huggingface_hub.utils import build_hf_headers

    headers = {k: v for k, v in build_hf_headers().items() if k.lower() in ("authorization", "user-agent")}
    for sibling in info.siblings or ():
        name, lfs = str(sibling.rfilename), sibling.lfs
        if ".." in name or name.startswith("/") or set(name) & set("\\:") or not name.isprintable():
            raise BadFile(str(reference), f"names the file {name[:80]!r}, which leaves the folder", "do not use it")
        digest = (lfs.get("sha256") if isinstance(lfs, dict) else getattr(lfs, "sha256", None)) if lfs else None
        url = hf_hub_url(reference.repository, name, revision=info.sha)
        yield Remote(name, url, int(sibling.size or 0), str(digest or ""), headers)


def _choose(reference: Reference, files: list[str]) -> list[str]:
    """The files that edgemm needs: one GGUF, or a checkpoint's settings and safetensors."""
    if reference.file:
        if reference.file not in files:
            near = ", ".join(f for f in files if f.endswith(".gguf"))[:200] or "no GGUF file"
            raise UnknownModel(str(reference), f"the repository has no such file; it has {near}", "choose one of them")
        return [reference.file]
    tensors = [f for f in files if f.endswith(".safetensors") and "/" not in f]
    if "config.json" in files and tensors:
        single = ["model.safetensors"] if "model.safetensors" in tensors else tensors
        return [f for f in files if _SETTINGS.fullmatch(f)] + single
    models = sorted(f for f in files if f.lower().endswith(".gguf"))
    for wanted in _PREFERRED:
        if found := [f for f in models if wanted in f.lower() and "-of-" not in f]:
            return found[:1]
    have = ", ".join(models)[:200] or "neither safetensors nor GGUF files"
    raise Unsupported(
        str(reference), f"nothing to choose from: {have}", f"name a file: {reference.repository}:FILE.gguf"
    )


def _first(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
