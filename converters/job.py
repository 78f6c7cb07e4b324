"""What every conversion needs and gives, whatever its format: options in, an outcome out."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from converters.checkpoint import Checkpoint
from converters.recipe import Recipe
from converters.verify import Comparison
from edgemm import __version__
from edgemm.manifest import MadeBy, Manifest, Source

CHECK_TEXT = "edgemm checks that nothing was swapped: 1, 2, 3."
CHECK_VALUES = 8  # of the vector of `CHECK_TEXT`, kept in the manifest
BUILT_IN, NONE = "builtin", "none"


@dataclass(frozen=True, slots=True)
class Budget:
    """How large the result may be: `bytes` of file, or `bits` per weight, or `ram` bytes with `context` tokens."""

    bytes: int = 0
    bits: float = 0.0
    ram: int = 0
    context: int = 0


@dataclass(frozen=True, slots=True)
class Options:
    """How to convert.

    `accept_below_floor`: keep a bad package. `oracle`: compare with transformers too, where it is installed.
    `calibrate`: "builtin", "none", a text file, an importance matrix (GGUF) or a folder of pictures (ONNX).
    GGUF: `compare`: run the result beside a high-precision build. `budget`: of its size. `threads` 0: one for each
    core. `save_importance`: where to write the matrix.
    ONNX: `task` "" is the checkpoint's own; `plan` is a report.json whose build is made again; `min_quality` is the
    least mean cosine, 0 the target's own; `max_size` the most bytes of weights, 0 for any number.
    """

    accept_below_floor: bool = False
    oracle: bool = True
    calibrate: str = BUILT_IN
    compare: bool = True
    budget: Budget | None = None
    threads: int = 0
    save_importance: Path | None = None
    task: str = ""
    plan: Path | None = None
    min_quality: float = 0.0
    max_size: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """A finished model in a staged folder: its manifest without files, the verdict, and what the report adds."""

    manifest: Manifest
    comparison: Comparison
    notes: list[str]
    details: dict[str, Any] = field(default_factory=dict)


def made_by(recipe: Recipe, options: Options) -> MadeBy:
    """The version and the command, with what decides the bytes."""
    words = ["edgemm convert --to", "gguf" if options.budget else recipe.target]
    if budget := options.budget:
        words += [f"--fit {budget.bytes}"] if budget.bytes else []
        words += [f"--bpw {budget.bits:g}"] if budget.bits else []
        words += [f"--device ram={budget.ram},ctx={budget.context}"] if budget.ram else []
    words += [f"--task {options.task}"] if options.task else []
    words += [f"--plan {options.plan.name}"] if options.plan else []
    words += [f"--min-quality {options.min_quality:g}"] if options.min_quality else []
    words += [f"--max-size {options.max_size}"] if options.max_size else []
    if options.calibrate != BUILT_IN:
        words.append(f"--calibrate {Path(options.calibrate).name}")
    return MadeBy(__version__, " ".join(words))


def source_of(checkpoint: Checkpoint) -> Source:
    """Where the checkpoint came from, as `pull` noted it beside the files; else the folder's name."""
    path = checkpoint.folder / "source.json"
    noted: dict[str, str] = {}
    if path.is_file():
        try:
            noted = {k: str(v) for k, v in json.loads(path.read_bytes()).items() if k in ("id", "revision", "licence")}
        except (ValueError, AttributeError):
            noted = {}
    return Source(**{"id": checkpoint.folder.resolve().name} | noted, sha256=checkpoint.hashes())
