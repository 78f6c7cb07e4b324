"""How much an error in each matrix costs: measured, because it differs by a factor of a thousand.

One group of matrices after the other (the attention keys of some neighbouring layers, ..., the embedding) is rounded in
a copy of the reference, the judge says what that costs, and the copy is restored. The cost divided by the error that
was made is the weight with which the budget counts errors of that group: small costs add up, as was tried. It decides
no type.
"""

import shutil
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from converters import ggml
from converters.allocate import Choice, layer
from converters.gguf_file import header, offsets
from converters.gguf_model import Tensor
from converters.judge import Judge
from converters.quantize import Draft, Importance, slabs
from edgemm.errors import disk_errors
from edgemm.events import Progress, Work, value_of

_PROBES = ("Q4_0", "F16")  # a type that hurts visibly and is made fast, and where rows have no blocks of 32
_LEAST_ERROR = 1e-9
# Bands of layers that are measured apart; fewer for models that take long each time.
_BANDS, _MANY_WEIGHTS, _FEW_BANDS = 6, 2_000_000_000, 2


def role(name: str) -> str:
    """The kind of a matrix: its name without the layer."""
    return ".".join(part for part in name.split(".") if not part.isdecimal()).removesuffix(".weight")


def measure(
    reference: Path,
    draft: Draft,
    choices: Mapping[str, Sequence[Choice]],
    importance: Importance,
    sizes: Mapping[str, int],
    judge: Judge,
) -> Work[dict[str, float]]:
    """The weight of each tensor's error. `reference` holds `draft`; it is not changed."""
    groups = _groups([tensor for tensor in draft.tensors if tensor.name in choices])
    found: dict[str, float] = {}
    copy = reference.with_name("probe.gguf")
    try:
        with disk_errors(copy):
            shutil.copyfile(reference, copy)
        file = _Patch(copy, draft, sizes)
        for done, tensors in enumerate(groups):
            yield Progress("measure: sensitivity", done, len(groups), "groups of matrices")
            error = 0.0
            for tensor in tensors:
                probe = next(kind for kind in _PROBES if any(c.type == kind for c in choices[tensor.name]))
                error += next(c.error for c in choices[tensor.name] if c.type == probe)
                file.write(tensor, probe, importance)
            figures = value_of(judge.run(copy, ""))  # its own progress would hide how many groups are left
            for tensor in tensors:
                file.write(tensor, "", importance)
            weight = max(0.0, figures["loss"]) / max(error, _LEAST_ERROR)
            found |= {tensor.name: weight for tensor in tensors}
    finally:
        copy.unlink(missing_ok=True)
    return found


def _groups(tensors: Sequence[Tensor]) -> list[list[Tensor]]:
    """Matrices of one kind in one band of layers."""
    bands = _BANDS if sum(tensor.weights for tensor in tensors) < _MANY_WEIGHTS else _FEW_BANDS
    layers = 1 + max(layer(tensor.name) for tensor in tensors)
    found: dict[tuple[str, int], list[Tensor]] = defaultdict(list)
    for tensor in tensors:
        found[role(tensor.name), max(0, layer(tensor.name)) * bands // max(1, layers)].append(tensor)
    return list(found.values())


class _Patch:
    """Writes tensors of an existing file anew, rounded as another type would round them."""

    def __init__(self, path: Path, draft: Draft, sizes: Mapping[str, int]) -> None:
        entries = draft.entries
        start = len(header(draft.settings, entries))
        self._path, self._sizes = path, sizes
        self._places = {e.name: (e, start + at) for e, at in zip(entries, offsets(entries), strict=True)}

    def write(self, tensor: Tensor, probe: str, importance: Importance) -> None:
        """`probe` "": as it was."""
        entry, place = self._places[tensor.name]
        with disk_errors(self._path), open(self._path, "r+b") as file:
            file.seek(place)
            for slab in slabs(tensor, self._sizes):
                rows = slab.load()
                if probe:
                    packed = ggml.quantize(rows, probe, importance.get(tensor.name))
                    rows = ggml.dequantize(packed, probe, rows.shape[1])
                file.write(ggml.quantize(rows, entry.type).data)
