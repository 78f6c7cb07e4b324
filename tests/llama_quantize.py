"""llama.cpp's own quantizer, in a process of its own: what our bytes are compared with.

Started as a program it reads a job from stdin; `quantize` is the function that tests call.
"""

import ctypes
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFReader


def quantize(
    source: Path, folder: Path, file_types: Mapping[str, int], importance: Mapping[str, np.ndarray] | None = None
) -> dict[str, Path]:
    """`source` stored as each of `file_types` (enum llama_ftype, by a name of ours): the files by that name."""
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "importance.npz", **(importance or {}))
    targets = {str(folder / f"{name}.gguf"): number for name, number in file_types.items()}
    job = {"source": str(source), "targets": targets, "importance": str(folder / "importance.npz")}
    done = subprocess.run(
        [sys.executable, __file__], input=json.dumps(job), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return {name: folder / f"{name}.gguf" for name in file_types}


def contents(path: Path) -> dict[str, tuple[str, bytes]]:
    """Type and bytes of each tensor."""
    return {t.name: (t.tensor_type.name, t.data.tobytes()) for t in GGUFReader(path).tensors}


def _run(job: dict[str, Any]) -> None:
    import llama_cpp as lib

    importance = dict(np.load(job["importance"]))
    rows = (lib.llama_model_imatrix_data * (len(importance) + 1))()
    for row, (name, array) in zip(rows, importance.items(), strict=False):
        row.name, row.size = name.encode(), array.size
        row.data = array.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
    for path, number in job["targets"].items():
        options = lib.llama_model_quantize_default_params()
        options.ftype, options.nthread, options.allow_requantize = number, 2, True
        if importance:
            options.imatrix = ctypes.cast(rows, type(options.imatrix))
        if lib.llama_model_quantize(job["source"].encode(), path.encode(), ctypes.byref(options)):
            sys.exit(f"llama.cpp does not quantize {path}")


if __name__ == "__main__":
    _run(json.load(sys.stdin))
