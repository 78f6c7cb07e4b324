"""Shared by the two training scripts: progress with an ETA, atomic output folders, and the log's facts.

Nothing here knows a model: a script hands over its rows and files, and gets them printed and written.
"""

from __future__ import annotations

import json
import math
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch


class Progress:
    """Prints one line now and then on stderr: step, value and the time still to go."""

    def __init__(self, name: str, total: int, every_s: float = 5.0) -> None:
        self.name, self.total, self.every_s = name, total, every_s
        self.started = time.monotonic()
        self.shown = -math.inf

    def seconds(self) -> float:
        """Return the seconds since this work began."""
        return time.monotonic() - self.started

    def step(self, done: int, note: str = "") -> None:
        """Tell that `done` of the steps are finished."""
        now = time.monotonic()
        if now - self.shown < self.every_s and done < self.total:
            return
        self.shown = now
        eta = self.seconds() / done * (self.total - done)
        print(f"{self.name} {done}/{self.total}  {note}  ETA {eta:.0f} s", file=sys.stderr, flush=True)


@contextmanager
def output_folder(out: Path) -> Iterator[Path]:
    """Yield an empty folder whose files replace those of `out` one by one, once the block ends well."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=".partial-") as name:
        yield Path(name)
        for file in sorted(Path(name).iterdir()):
            file.chmod(0o644)  # safetensors writes for its owner alone
            file.replace(out / file.name)


def write_json(path: Path, value: Any) -> None:
    """Write `value` with a final newline, so that diffs stay short."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def machine() -> dict[str, Any]:
    """Return the processor's name and how many of its cores this process may use."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line for line in cpuinfo.read_text(encoding="utf-8").splitlines() if line.startswith("model name")]
        model = names[0].split(":", 1)[1].strip() if names else model
    return {"cpu": model, "cores": os.cpu_count(), "threads": torch.get_num_threads()}


def versions(*modules: Any) -> dict[str, str]:
    """Return Python's version and those of the given modules."""
    return {"python": platform.python_version()} | {module.__name__: str(module.__version__) for module in modules}


def cosine(warmup: int, total: int) -> Callable[[int], float]:
    """Return a learning-rate factor: a straight rise over `warmup` steps, then half a cosine down to zero."""

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))

    return factor


def optimizer_for(model: torch.nn.Module, rate: float, decay: float) -> torch.optim.AdamW:
    """Return AdamW that decays the matrices only: shrinking norms, biases and scalars does harm."""
    matrices = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=rate)
