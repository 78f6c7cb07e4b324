"""Encoders on onnxruntime, in this process: rows of token ids or pictures in, one vector or row of scores out.

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
from edgemm.backends.onnx_bytes import one_node
from edgemm.errors import BadFile

CPU = "CPUExecutionProvider"
PIXELS = "pixel_values"  # the input of an image encoder: float32 (batch, channels, height, width)
_ACCELERATED = ("CUDAExecutionProvider", "CoreMLExecutionProvider")
# SkipLayerNormalization is a scalar kernel on CPU and costs 25 to 33 % of an INT8 encoder's time.
_SLOWER_ON_CPU = ["SkipLayerNormFusion"]


class OrtModel:
    """An ONNX model: named arrays in, its first output out. Safe to call from several threads."""

    def __init__(self, path: Path, *, int8: bool = False, lean: bool = False, threads: int = 1) -> None:
        """`lean`: no second copy of the weights in the order that the processor likes best; slower, half the memory."""
        guard.check_onnx(path)
        self._session = _open(path, int8, lean, threads)
        self._output = self._session.get_outputs()[0].name
        self.inputs = {i.name: tuple(i.shape) for i in self._session.get_inputs()}
        self.outputs = {o.name: tuple(o.shape) for o in self._session.get_outputs()}

    @property
    def providers(self) -> list[str]:
        return list(self._session.get_providers())

    def run(self, feeds: dict[str, Any]) -> NDArray[np.float32]:
        """Those of `feeds` that the model has an input for are passed on."""
        return self.run_all(feeds, [self._output])[0]

    def run_all(self, feeds: dict[str, Any], outputs: Sequence[str]) -> list[NDArray[np.float32]]:
        known = {name: value for name, value in feeds.items() if name in self.inputs}
        return self._session.run(list(outputs), known)  # type: ignore[no-any-return]

    def run_values(self, feeds: dict[str, Any], outputs: Sequence[str]) -> list[Any]:
        """Like `run_all`, but results are values of onnxruntime, which `feeds` may hold again: nothing is copied."""
        from onnxruntime import OrtValue

        known = {name: value for name, value in feeds.items() if name in self.inputs}
        values = {n: v if isinstance(v, OrtValue) else OrtValue.ortvalue_from_numpy(v) for n, v in known.items()}
        return self._session.run_with_ort_values(list(outputs), values)  # type: ignore[no-any-return]

    def close(self) -> None:
        """Nothing to do: the session is freed with the object."""


class OrtEncoder(OrtModel):
    """An ONNX encoder of texts: `input_ids`, and perhaps `attention_mask` and `token_type_ids` (int64, batch x length).

    `pad_to`: every row is padded with `pad_id` to so many tokens; 0: to the longest one.
    """

    def __init__(self, path: Path, *, int8: bool = False, pad_to: int = 0, pad_id: int = 0) -> None:
        super().__init__(path, int8=int8)
        self._pad_to, self._pad_id = pad_to, pad_id
        unknown = set(self.inputs) - {"input_ids", "attention_mask", "token_type_ids", "positions"}
        if unknown or "input_ids" not in self.inputs:
            raise BadFile(path, f"unexpected inputs {sorted(self.inputs)}", "convert the checkpoint with edgemm")

    def encode(
        self, rows: Sequence[Sequence[int]], types: Sequence[Sequence[int]] = (), positions: Any = None
    ) -> NDArray[np.float32]:
        """The first output for `rows` of token ids: one vector a row, or what the model's head gives.

        Rows are padded to the longest one, so pass rows of like length. `types` of the tokens are 0 where none are
        given; `positions`, int64 (masks, 2), are the rows and places that a fill-mask model is asked for.
        """
        ids, mask = pad(rows, self._pad_to, self._pad_id)
        feeds = {"input_ids": ids, "attention_mask": mask, "positions": positions}
        if "token_type_ids" in self.inputs:
            feeds["token_type_ids"] = pad(types, ids.shape[1])[0] if types else np.zeros_like(ids)
        return self.run(feeds)


def pad(rows: Sequence[Sequence[int]], length: int = 0, pad_id: int = 0) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Ids and attention mask, int64 (batch, longest row, or `length`). The mask hides what is padded."""
    ids = np.full((len(rows), max([length, *map(len, rows)])), pad_id, np.int64)
    mask = np.zeros_like(ids)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = row
        mask[i, : len(row)] = 1
    return ids, mask


def choose_providers(available: Sequence[str], *, int8: bool) -> list[str]:
    """Execution providers in order of preference. INT8 files stay on the CPU: elsewhere they fall back op by op."""
    return [CPU] if int8 else [*(p for p in _ACCELERATED if p in available), CPU]


def _open(path: Path, int8: bool, lean: bool, threads: int) -> Any:
    configs = {"session.disable_prepacking": "1"} if lean else {}
    if not (int8 and device.saturates_int8()):
        return _session(path, int8, threads, configs)
    try:  # uint8 weights: slower, and exact
        return _session(path, int8, threads, configs | {"session.x64quantprecision": "1"})
    except BadFile:  # it cannot be done to a weight that several layers share; those hold 7 bits, which never overflow
        return _session(path, int8, threads, configs)


def _session(path: Path | bytes, int8: bool, threads: int, configs: dict[str, str]) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    if threads > 1:  # threads that spin while they wait take the cores of what else runs: a third of the speed is left
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4  # native lines on stderr would break a progress bar; errors are raised anyway
    for key, value in configs.items():
        options.add_session_config_entry(key, value)
    providers = choose_providers(onnxruntime.get_available_providers(), int8=int8)
    disabled = _SLOWER_ON_CPU if providers == [CPU] else None
    try:
        return onnxruntime.InferenceSession(
            path if isinstance(path, bytes) else str(path),
            sess_options=options,
            providers=providers,
            disabled_optimizers=disabled,
        )
    except Exception as error:  # onnxruntime's classes are private, and differ between releases
        reason = str(error).splitlines()[0][:200]
        raise BadFile(path, f"onnxruntime cannot load it ({reason})", "convert or pull the model again") from error


_INT8, _INT32 = 3, 6  # TensorProto.DataType
_PRODUCTS = one_node(
    "MatMulInteger",
    [("rows", _INT8, ("count", "width")), ("columns", _INT8, ("width", "queries"))],
    ("products", _INT32, ("count", "queries")),
    opset=10,
)


class Int8Scan:
    """Dot products of many int8 rows with a few int8 columns: one MatMulInteger. Safe to call from several threads.

    Where `device.saturates_int8()`, columns within -63..63 are exact; larger ones may overflow.
    """

    def __init__(self) -> None:
        self._session = _session(_PRODUCTS, True, 1, {})

    def products(self, rows: NDArray[np.int8], columns: NDArray[np.int8]) -> NDArray[np.int32]:
        """int32 (count, queries) of `rows`, int8 (count, width), and `columns`, int8 (width, queries)."""
        return self._session.run(None, {"rows": rows, "columns": columns})[0]  # type: ignore[no-any-return]
