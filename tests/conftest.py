"""Fixtures of the whole suite: an empty store for every test, tiny seeded models, and the two starter models.

The starter models are real weights; they are downloaded once into the checkout's own store, and the tests that
need them carry the marker `starter`.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
STARTER_STORE = ROOT / "quantized"

Cli = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty store, and no setting of the developer's own shell."""
    for name in [n for n in os.environ if n.startswith("EDGEMM_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("EDGEMM_HOME", str(tmp_path / "store"))
    return tmp_path / "store"


@pytest.fixture
def cli() -> Cli:
    """Run `edgemm ARGS` as a user does: a process of its own; text in, text out."""

    def run(*args: object, stdin: str = "", timeout: float = 120, **env: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "edgemm", *map(str, args)],
            input=stdin,
            env=os.environ | env,
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=timeout,
        )

    return run


@pytest.fixture(scope="session")
def starter_store() -> Path:
    """The store with both starter models."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("EDGEMM_")}
    command = [sys.executable, "-m", "edgemm", "pull", "starter"]
    done = subprocess.run(
        command, env=environment | {"EDGEMM_HOME": str(STARTER_STORE)}, capture_output=True, text=True, timeout=1200
    )
    assert done.returncode == 0, done.stderr
    return STARTER_STORE


@pytest.fixture(scope="session")
def smollm2(starter_store: Path) -> Path:
    """SmolLM2-135M-Instruct, a GGUF file."""
    return next((starter_store / "smollm2-135m-instruct").glob("*.gguf"))


@pytest.fixture(scope="session")
def minilm_checkpoint(starter_store: Path) -> Path:
    """The original checkpoint of all-MiniLM-L6-v2, a folder."""
    return starter_store / ".checkpoints" / "all-minilm-l6-v2"
