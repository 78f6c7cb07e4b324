"""Encoders on onnxruntime, in this process: rows of token ids in, one vector for each row out.

One session with one intra-op thread is shared by all threads of the caller (onnxruntime frees the GIL):
spin barriers between intra-op threads collapse as soon as a laptop does anything else. The execution
provider follows from what is installed and from the file's precision. Pooling and normalization are part
of the graph. It knows neither text nor batching policy.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemm import device, guard
from edgemm.errors import BadFile

CPU = "CPUExecutionProvider"
_ACCELERATED = ("CUDAExecutionProvider", "CoreMLExecutionProvider")
# SkipLayerNormalization is a scalar kernel on CPU and costs 25 to 33 % of an INT8 encoder's time.
_SLOWER_ON_CPU = ["SkipLayerNormFusion"]


class OrtEncoder:
    """An ONNX encoder with inputs `input_ids`, `attention_mask` (int64, batch x length) and one vector output."""

    def __init__(self, path: Path, *, int8: bool = False) -> None:
        guard.check_onnx(path)
        self._session = _open(path, int8)
        self._output = self._session.get_outputs()[0].name
        self._inputs = {i.name for i in self._session.get_inputs()}
        if not {"input_ids", "attention_mask"} >= self._inputs or "input_ids" not in self._inputs:
            raise BadFile(path, f"unexpected inputs {sorted(self._inputs)}", "convert the checkpoint with edgemm")

    @property
    def providers(self) -> list[str]:
        return list(self._session.get_providers())

    def encode(self, rows: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """float32 (len(rows), dimensions). Rows are padded to the longest one, so pass rows of like length."""
        ids, mask = pad(rows)
        feeds = {"input_ids": ids, "attention_mask": mask}
        outputs = self._session.run([self._output], {k: v for k, v in feeds.items() if k in self._inputs})
        vectors: NDArray[np.float32] = outputs[0]
        return vectors

    def close(self) -> None:
        """Nothing to do: the session is freed with the object."""


def pad(rows: Sequence[Sequence[int]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Ids and attention mask, int64 (batch, longest row). Padded positions hold id 0, which the mask hides."""
    ids = np.zeros((len(rows), max(map(len, rows))), np.int64)
    mask = np.zeros_like(ids)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = row
        mask[i, : len(row)] = 1
    return ids, mask


def choose_providers(available: Sequence[str], *, int8: bool) -> list[str]:
    """Execution providers in order of preference. INT8 files stay on the CPU: elsewhere they fall back op by op."""
    return [CPU] if int8 else [*(p for p in _ACCELERATED if p in available), CPU]


def _open(path: Path, int8: bool) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # native lines on stderr would break a progress bar; errors are raised anyway
    if int8 and device.saturates_int8():
        options.add_session_config_entry("session.x64quantprecision", "1")  # uint8 weights: slower, and exact
    providers = choose_providers(onnxruntime.get_available_providers(), int8=int8)
    disabled = _SLOWER_ON_CPU if providers == [CPU] else None
    try:
        return onnxruntime.InferenceSession(
            str(path), sess_options=options, providers=providers, disabled_optimizers=disabled
        )
    except Exception as error:  # onnxruntime's classes are private, and differ between releases
        reason = str(error).splitlines()[0][:200]
        raise BadFile(path, f"onnxruntime cannot load it ({reason})", "convert or pull the model again") from error
