"""300 damaged GGUF files: each one runs or is refused on one line, and this process is still here afterwards.

The child has a limit on its memory; a file that passes the guard is really loaded and asked.
"""

import random
import sys
from collections import Counter
from pathlib import Path

import pytest
import tiny_gguf

from edgemm import guard
from edgemm.backends import Sampling
from edgemm.backends.worker import LoadOptions, Worker
from edgemm.errors import EdgemmError, ModelStopped

FILES, SEED = 300, 20261124
MEMORY = 4 << 30


@pytest.fixture
def memory_limit() -> None:
    """Children inherit it; a model that asks for absurd memory must fail, not fill the machine."""
    if sys.platform != "win32":
        import resource

        before = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, before[1]))
        yield
        resource.setrlimit(resource.RLIMIT_AS, before)
    else:
        yield


def outcome(path: Path) -> str:
    try:
        guard.check_gguf(path)  # Worker checks again, but only after it has started a child
        with Worker(path, LoadOptions(context=64, threads=1)) as worker:
            list(worker.generate(worker.tokenize("hello")[:20] or [5], Sampling(max_tokens=3, temperature=0)))
    except EdgemmError as error:
        return "\n" if "\n" in str(error) else type(error).__name__
    return "ran"


@pytest.mark.usefixtures("memory_limit")
def test_no_damaged_file_kills_this_process(tmp_path: Path) -> None:
    data = tiny_gguf.write(tmp_path / "good.gguf").read_bytes()
    rng, path, outcomes = random.Random(SEED), tmp_path / "mutant.gguf", Counter[str]()
    for number in range(FILES):
        mutate = tiny_gguf.flip_weights if number % 10 == 0 else tiny_gguf.MUTATIONS[number % 3]
        path.write_bytes(mutate(data, rng))
        outcomes[outcome(path)] += 1
    print(f"{FILES} damaged GGUF files, seed {SEED}: {dict(outcomes)}")
    assert "\n" not in outcomes
    assert outcomes["BadFile"] > FILES // 3
    assert outcomes[ModelStopped.__name__] <= FILES // 20, "the guard should see nearly all of them"
