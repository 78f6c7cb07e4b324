"""Looks at what flows into the matrices of a model while llama.cpp computes: the importance matrix.

For every product with a weight of the model the squares of its inputs are summed by column, as llama.cpp's own
imatrix tool does. It reads ggml's tensors through their C layout, which is checked against the library before it is
trusted. Layout: struct ggml_tensor of ggml.h. It knows no model file and no quantization.
"""

import ctypes
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemm.errors import MissingExtra

_MUL_MAT = b"MUL_MAT"
_F32 = 0
_LEAST_COLUMNS = 32  # smaller products are no layer
_OPERATIONS = 64  # ggml has more, and no name behind the last: MUL_MAT is among the first


class _Tensor(ctypes.Structure):
    """struct ggml_tensor, as far as its name."""


_Tensor._fields_ = [
    ("type", ctypes.c_int),
    ("buffer", ctypes.c_void_p),
    ("ne", ctypes.c_int64 * 4),
    ("nb", ctypes.c_size_t * 4),
    ("op", ctypes.c_int),
    ("op_params", ctypes.c_int32 * 16),
    ("flags", ctypes.c_int32),
    ("src", ctypes.POINTER(_Tensor) * 10),
    ("view_src", ctypes.c_void_p),
    ("view_offs", ctypes.c_size_t),
    ("data", ctypes.c_void_p),
    ("name", ctypes.c_char * 64),
]


class Observer:
    """Give `callback` to llama.cpp's scheduler. `sums` and `counts`, by tensor, grow with every batch."""

    def __init__(self, library: ctypes.CDLL, callback_type: Any) -> None:
        self._library = library
        self._sums: dict[str, NDArray[np.float64]] = {}
        self.counts: dict[str, int] = {}
        self.callback = callback_type(self._look)  # kept: the library holds only a pointer
        library.ggml_op_name.restype = ctypes.c_char_p
        library.ggml_get_name.restype = ctypes.c_char_p
        library.ggml_get_name.argtypes = (ctypes.c_void_p,)
        library.ggml_nelements.restype = ctypes.c_int64
        library.ggml_nelements.argtypes = (ctypes.c_void_p,)
        library.ggml_backend_tensor_get.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t)
        self._product = next(op for op in range(_OPERATIONS) if library.ggml_op_name(op) == _MUL_MAT)
        self._failure = ""  # an exception would not get through the native caller

    @property
    def sums(self) -> dict[str, NDArray[np.float64]]:
        """float64 (columns,) by tensor. Raises `MissingExtra` when ggml's tensors could not be read."""
        if self._failure:
            raise MissingExtra("llama.cpp", self._failure, "install the llama-cpp-python that edgemm names")
        return self._sums

    def _look(self, pointer: int, ask: bool, _data: Any) -> bool:
        tensor = ctypes.cast(pointer, ctypes.POINTER(_Tensor)).contents
        if tensor.op != self._product or not tensor.src[0] or not tensor.src[1]:
            return not ask  # asked: not interested; told: go on
        weight, inputs = tensor.src[0].contents, tensor.src[1].contents
        name = weight.name.decode("utf-8", "replace")
        wanted = name.endswith(".weight") and inputs.type == _F32 and inputs.ne[0] >= _LEAST_COLUMNS
        if not ask and wanted:
            self._add(name, tensor.src[1], inputs)
        return bool(wanted) or not ask

    def _add(self, name: str, pointer: Any, inputs: _Tensor) -> None:
        address = ctypes.cast(pointer, ctypes.c_void_p)
        if self._library.ggml_nelements(address) != int(np.prod(list(inputs.ne))):
            self._failure = "the layout of ggml's tensors has changed"
            return
        if inputs.nb[0] != 4 or inputs.nb[1] != 4 * inputs.ne[0]:
            return  # a view that is not contiguous: no layer of these architectures has one
        values = np.empty(tuple(inputs.ne)[::-1], np.float32)
        self._library.ggml_backend_tensor_get(address, values.ctypes.data, 0, values.nbytes)
        rows = values.reshape(-1, inputs.ne[0])
        squares = np.einsum("ij,ij->j", rows, rows, dtype=np.float64)
        self._sums[name] = self._sums.get(name, 0) + squares
        self.counts[name] = self.counts.get(name, 0) + len(rows)
