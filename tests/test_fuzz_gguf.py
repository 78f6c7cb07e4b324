"""300 damaged GGUF files: each one runs or is refused on one line, and this process is still here afterwards.

A file that passes the guard is really loaded and asked, in a child process with a limit on its memory. The child is
kept from file to file, which is what takes the time; one that dies is replaced and counted.
"""

import queue
import random
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
import tiny_gguf

from edgemm.backends import Sampling
from edgemm.backends.process import ChildProcess
from edgemm.backends.worker import LoadOptions, _load_request
from edgemm.errors import EdgemmError

FILES, SEED = 300, 20261124
MEMORY = 4 << 30
SECONDS = 20.0


@pytest.fixture
def _memory_limit() -> Iterator[None]:
    """Children inherit it; a model that asks for absurd memory must fail, not fill the machine."""
    if sys.platform == "win32":
        yield
        return
    import resource

    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


class Loader:
    """Loads one file after the other in a child, as worker.py does with one."""

    def __init__(self) -> None:
        self.child = ChildProcess()

    def outcome(self, path: Path) -> str:
        """ "ran", the name of an error class, "died" or "hung"."""
        try:
            request = _load_request(path, LoadOptions(context=64, threads=1))
        except EdgemmError as error:
            return type(error).__name__ if len(str(error).splitlines()) == 1 else "several lines"
        sampling = asdict(Sampling(max_tokens=3, temperature=0))
        for message in (request, {"op": "generate", "id": 1, "tokens": [70, 71, 72], "sampling": sampling}):
            result = self.ask(message)
            if result != "done":
                return result
        return "ran"

    def ask(self, message: dict[str, object]) -> str:
        self.child.write(message)
        try:
            while (frame := self.child.read(SECONDS)) is not None:
                if frame[0]["event"] == "error":
                    return str(frame[0]["kind"])
                if frame[0]["event"] in ("done", "reply"):
                    return "done"
            return self.replaced("died")
        except queue.Empty:
            return self.replaced("hung")

    def replaced(self, why: str) -> str:
        self.child.kill()
        self.child = ChildProcess()
        return why


@pytest.mark.usefixtures("_memory_limit")
def test_no_damaged_file_kills_this_process(tmp_path: Path) -> None:
    data = tiny_gguf.write(tmp_path / "good.gguf").read_bytes()
    rng, outcomes, loader = random.Random(SEED), Counter[str](), Loader()
    assert loader.outcome(tmp_path / "good.gguf") == "ran"
    for number in range(FILES):
        mutate = tiny_gguf.flip_weights if number % 10 == 0 else tiny_gguf.MUTATIONS[number % 3]
        path = tmp_path / f"{number}.gguf"  # never in place: the child may have the last one mapped
        path.write_bytes(mutate(data, rng))
        outcomes[loader.outcome(path)] += 1
    loader.child.kill()
    print(f"{FILES} damaged GGUF files, seed {SEED}: {dict(outcomes)}")
    assert outcomes["BadFile"] > FILES // 3
    assert not outcomes["several lines"]
    assert outcomes["died"] + outcomes["hung"] <= FILES // 100, "the guard should see nearly all of them"
