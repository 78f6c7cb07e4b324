"""The chats of this user and the one model that is in memory: what a chat window works on.

A model is loaded when a chat needs it and stays until a chat needs another one. Chats that cannot be saved, because the
disk is full or read-only, are kept in memory, and `problem` says why. It knows no terminal.
"""

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from edgemm import cite, models, package, paths
from edgemm.attachments import Attachment
from edgemm.backends import Generator
from edgemm.chat_settings import ChatSettings
from edgemm.conversation import Conversation, Facts
from edgemm.errors import DiskFull, EdgemmError
from edgemm.kv import KvStore
from edgemm.models import ChatOptions
from edgemm.sessions import ChatInfo, Sessions, default_path
from edgemm.speeds import Speeds

if TYPE_CHECKING:
    from edgemm.library import Index

Opener = Callable[[str], Generator]


@dataclass(frozen=True, slots=True)
class Loaded:
    name: str
    generator: Generator
    facts: Facts


class Desk:
    """`options` are those of every model that it opens; `settings` those of new chats. `opener` stands for models.py.

    Its methods may be called from any thread, but not while an answer streams, `sessions` excepted.
    """

    def __init__(
        self,
        options: ChatOptions | None = None,
        settings: ChatSettings | None = None,
        opener: Opener | None = None,
        path: Path | None = None,
    ) -> None:
        self.options, self.settings = options or ChatOptions(), settings or ChatSettings()
        self._opener = opener
        self._turn = threading.RLock()  # one model is loaded at a time
        self._loaded: Loaded | None = None
        self.problem = ""
        self.sessions = self._open_sessions(path or default_path())
        self.speeds = Speeds()
        self.kv = KvStore(paths.cache() / "kv")
        self._library: Index | None = None
        self._opening = threading.Lock()

    def _open_sessions(self, path: Path) -> Sessions:
        try:
            return Sessions(path)
        except EdgemmError as error:
            self.problem = f"chats are not saved: {error}"
            return Sessions()

    @property
    def model(self) -> str:
        """The name of the model in memory, or ""."""
        return self._loaded.name if self._loaded else ""

    @property
    def held(self) -> int:
        """Bytes of memory that the model holds, as far as they are known."""
        memory = getattr(self._loaded.generator, "memory", None) if self._loaded else None
        return int(memory()) if memory is not None else 0

    def new_chat(self, model: str) -> ChatInfo:
        """Where the disk is full, this chat and the next ones are kept in memory."""
        settings = self.settings.to_json()
        try:
            return self.sessions.create(model, settings=settings)
        except DiskFull as error:
            self.problem = f"chats are not saved: {error}"
            self.sessions = Sessions()
            return self.sessions.create(model, settings=settings)

    def open_chat(self, chat: int, before: Conversation | None = None) -> Conversation:
        """Load the model of the chat, if it is not in memory; the KV cache of the chat `before` is kept.

        Raises what stands in the way.
        """
        with self._turn:
            if before is not None:
                before.park()
            loaded = self._load(self.sessions.chat(chat).model)
            return Conversation(self.sessions, chat, loaded.generator, loaded.facts, self.kv, self.quotes)

    @property
    def library(self) -> "Index":
        """The user's documents. Raises what stands in the way of opening them."""
        with self._opening:  # not the lock under which a chat model is loaded: the documents need not wait for it
            if self._library is None:
                from edgemm.library import Index  # late: most chats ask no documents

                self._library = Index.open()
            return self._library

    def quotes(self, docs: str, question: str) -> list[Attachment]:
        """Passages for a question, out of a folder or `cite.ALL`."""
        return self.library.quotes(question, folders=() if docs == cite.ALL else (docs,))

    def chats(self) -> list[ChatInfo]:
        """Those in which something was said, the last one first."""
        return [chat for chat in self.sessions.chats() if chat.messages]

    def last_chat(self) -> int | None:
        """The chat that was used last, if there is one."""
        return next((chat.id for chat in self.chats()), None)

    def forget_if_empty(self, chat: int) -> None:
        """A new chat is stored when it is opened; one that was never used leaves no trace."""
        with suppress(EdgemmError):
            if not self.sessions.chat(chat).messages:
                self.delete(chat)

    def delete(self, chat: int) -> None:
        self.sessions.delete(chat)
        self.kv.forget(chat)

    def unload(self) -> None:
        """Free the memory of the model."""
        with self._turn:
            loaded, self._loaded = self._loaded, None
            if loaded is not None:
                loaded.generator.close()

    def close(self) -> None:
        self.unload()
        if self._library is not None:
            self._library.close()
        self.sessions.close()

    def open_model(self, name: str) -> Generator:
        """A model of the caller's own, beside the one in memory."""
        return self._opener(name) if self._opener else models.open_generator(name, self.options)

    def _load(self, name: str) -> Loaded:
        if self._loaded is None or self._loaded.name != name:
            self.unload()
            facts = Facts(name) if self._opener else _facts(name)
            self._loaded = Loaded(name, self.open_model(name), facts)
        return self._loaded


def _facts(name: str | Path) -> Facts:
    """What an answer of the model `name` is kept with."""
    if models.is_gguf(name):
        return Facts(Path(name).name)
    found = models.find(name)
    hashes = {each.path: each.sha256 for each in found.manifest.files}
    main = next((hashes[path] for path in hashes if path.endswith((".gguf", ".onnx"))), "")
    library = "llama-cpp-python" if found.file(".gguf") else "onnxruntime"
    return Facts(found.name, main, hashes.get(package.TEMPLATE, ""), f"{library} {version(library)}")
