"""Which type each tensor is stored as: by a recipe's rules, or by measured error under a byte budget.

The budget is met by a Lagrangian: every tensor takes the type with the least (error + price x bytes), and the price is
raised until the file fits. The error of a type is measured on a sample of each tensor's rows, weighted by the
importance of its inputs, as a share of the tensor's own output. It reads weights and writes nothing.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from converters import ggml
from converters.checkpoint import Array
from converters.gguf_file import Entry, stored_bytes
from converters.gguf_model import Blueprint, Tensor
from converters.gguf_source import Stored
from converters.quantize import Importance, transformed
from converters.recipe import Recipe, Upgrade
from edgemm import device
from edgemm.errors import UsageError
from edgemm.events import Progress, Work

# From large to small. A tensor whose rows are no multiple of a type's block simply does not get that type.
CANDIDATES = (
    "F16", "Q8_0", "Q6_K", "Q5_1", "Q5_K", "Q5_0", "Q4_1", "Q4_K", "IQ4_NL", "Q4_0", "IQ4_XS", "IQ3_S", "Q3_K",
    "IQ3_XXS", "Q2_K",
)  # fmt: skip
_SAMPLE = 1 << 17  # weights of a tensor that are tried
_STEPS = 60
_VALUES = ("attn_v.weight", "attn_qkv.weight", "attn_kv_b.weight")  # one rule for values, fused or not
_DEEP = 80  # layers of the 70B models, whose value matrices are small


def by_recipe(recipe: Recipe, blueprint: Blueprint, *, guided: bool) -> dict[str, str]:
    """The type of each tensor, as llama-quantize chooses it. `guided`: there is an importance matrix."""
    names = [tensor.name for tensor in blueprint.tensors]
    layers = _layers(names)
    conditions = _conditions(blueprint, layers) | {"guided": guided, "blind": not guided}
    places = _places(names, layers)
    found = {}
    for tensor in blueprint.tensors:
        kind = recipe.weights
        for upgrade in recipe.upgrades:
            if _means(upgrade, tensor.name) and conditions[upgrade.when] and _applies(upgrade, *places[tensor.name]):
                kind = upgrade.weights
        if is_output(tensor, blueprint):
            whole = ggml.fits(recipe.weights, tensor.shape[-1]) and not conditions["falcon"]
            kind = recipe.output if whole or recipe.lossless else "Q8_0"
        found[tensor.name] = _stored(tensor, kind)
    return found


def is_output(tensor: Tensor, blueprint: Blueprint) -> bool:
    """The matrix that makes logits: `output`, or the embedding where the file has no other."""
    alone = tensor.name == "token_embd.weight" and all(t.name != "output.weight" for t in blueprint.tensors)
    return alone or tensor.name == "output.weight"


def _stored(tensor: Tensor, kind: str) -> str:
    """A matrix of one row is a vector to llama.cpp."""
    return ggml.fitting(kind, tensor.shape[-1]) if tensor.is_matrix and tensor.shape[0] > 1 else "F32"


def _conditions(blueprint: Blueprint, layers: int) -> dict[str, bool]:
    heads, kv, name = blueprint.sizes.get("heads", 1), blueprint.sizes.get("kv_heads", 1), blueprint.architecture
    deep = layers == _DEEP and (name == "qwen2" or (name == "llama" and heads != kv))
    return {"": True, "grouped": heads >= 4 * kv, "deep": deep, "falcon": name == "falcon"}


def layer(name: str) -> int:
    """The layer of a tensor; -1 for those of no layer."""
    parts = name.split(".")
    return next((int(part) for part in parts if part.isdecimal()), -1)


def _layers(names: Sequence[str]) -> int:
    """Those of the encoder where there is a decoder beside it."""
    return 1 + max((layer(name) for name in names if not name.startswith("dec.")), default=-1)


def _places(names: Sequence[str], layers: int) -> dict[str, tuple[int, int]]:
    """Which of how many a tensor is, in the order in which llama.cpp counts: by layer, then by name.

    It takes only names of the kind `blk.N.` apart. The tensors of T5 are counted by name alone, past `layers`.
    """
    ordered = sorted(names, key=lambda name: (layer(name) if name.startswith("blk.") else -1, name))
    found = dict.fromkeys(names, (0, layers))
    values = [name for name in ordered if any(part in name for part in _VALUES)]
    found |= {name: (i, len(values)) for i, name in enumerate(values)}
    downs = [name for name in ordered if "ffn_down.weight" in name]
    return found | {name: (i, layers) for i, name in enumerate(downs)}


def _means(upgrade: Upgrade, name: str) -> bool:
    return any(part in name for part in (_VALUES if upgrade.part == "attn_v." else (upgrade.part,)))


def _applies(upgrade: Upgrade, place: int, count: int) -> bool:
    eighth = count // 8
    outer = place < eighth or place >= 7 * count // 8 or (place - eighth) % 3 == 2
    return {
        "all": True,
        "first two": place < 2,
        "first eighth": place < eighth,
        "first sixteenth": place < count // 16,
        "outer": outer,
    }[upgrade.layers]


@dataclass(frozen=True, slots=True)
class Choice:
    """What a tensor would cost as `type`: bytes with padding, and its share of the error."""

    type: str
    bytes: int
    error: float


def measure(blueprint: Blueprint, importance: Importance, threads: int = 0) -> Work[dict[str, list[Choice]]]:
    """Try the candidates on every matrix. Gives the choices of each by name."""
    matrices = [tensor for tensor in blueprint.tensors if tensor.is_matrix]
    found: dict[str, list[Choice]] = {}
    with ThreadPoolExecutor(threads or device.cores()) as pool:
        jobs = {t.name: pool.submit(_choices, t, importance.get(t.name), blueprint.sizes) for t in matrices}
        try:
            for done, (name, job) in enumerate(jobs.items()):
                yield Progress("measure: errors", done, len(jobs), "tensors")
                found[name] = job.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    return found


def weighted(choices: Mapping[str, Sequence[Choice]], weights: Mapping[str, float]) -> dict[str, list[Choice]]:
    """The choices with the error of each tensor times its weight."""
    return {
        name: [Choice(c.type, c.bytes, c.error * weights.get(name, 1.0)) for c in options]
        for name, options in choices.items()
    }


def _choices(tensor: Tensor, importance: Array | None, sizes: Mapping[str, int]) -> list[Choice]:
    columns = tensor.shape[-1]
    rows = _sample(tensor, sizes)
    column_weights = np.ones(columns, np.float32) if importance is None else importance
    size = float(np.sum(rows.astype(np.float64) ** 2 * column_weights)) or 1.0
    found = []
    for kind in _candidates(tensor):
        kept = isinstance(tensor.source, Stored) and tensor.source.dtype == kind  # it would be copied
        back = rows if kept else ggml.dequantize(ggml.quantize(rows, kind, importance), kind, columns)
        error = float(np.sum((back - rows).astype(np.float64) ** 2 * column_weights)) / size
        found.append(Choice(kind, _stored_as(tensor, kind), error))
    return found


def smallest(tensor: Tensor) -> int:
    """The least bytes that `tensor` can have."""
    return min(_stored_as(tensor, kind) for kind in _candidates(tensor))


def _candidates(tensor: Tensor) -> list[str]:
    return [kind for kind in CANDIDATES if ggml.fits(kind, tensor.shape[-1])]


def _stored_as(tensor: Tensor, kind: str) -> int:
    return stored_bytes(Entry(tensor.name, tensor.shape, kind))


def _sample(tensor: Tensor, sizes: Mapping[str, int]) -> Array:
    """Rows spread over the whole tensor."""
    count = max(1, min(tensor.shape[0], _SAMPLE // tensor.shape[-1]))
    chosen = np.linspace(0, tensor.shape[0] - 1, count).astype(int)
    if not tensor.operation.by_rows:
        return np.asarray(transformed(tensor, sizes)[chosen])
    rows = np.concatenate([tensor.source.read(int(i), int(i) + 1) for i in chosen])
    return tensor.operation.apply(rows, dict(sizes))


def check_room(smallest: int, room: int, name: str, fixed: int = 0) -> None:
    """Raises `UsageError` with the smallest possible size when matrices of that many bytes have no room."""
    if smallest > room:
        why = f"the smallest possible file has {smallest + fixed:,} bytes, the budget is {max(0, room + fixed):,}"
        raise UsageError(name, why, "give a larger budget, or choose a smaller model")


def fit(choices: Mapping[str, Sequence[Choice]], budget: int, name: str, fixed: int = 0) -> dict[str, str]:
    """The type of each matrix, so that their bytes stay within `budget` and the error is least.

    Raises `UsageError` with the smallest possible size when the budget is below it.
    """
    check_room(sum(min(c.bytes for c in options) for options in choices.values()), budget, name, fixed)
    low, high = 0.0, 1.0
    while _bytes(_at_price(choices, high)) > budget:
        high *= 16
    for _ in range(_STEPS):
        middle = (low + high) / 2 if low else high / 16
        low, high = (low, middle) if _bytes(_at_price(choices, middle)) <= budget else (middle, high)
    chosen = _at_price(choices, high)
    _spend_rest(chosen, choices, budget - _bytes(chosen))
    return {tensor: choice.type for tensor, choice in chosen.items()}


def _at_price(choices: Mapping[str, Sequence[Choice]], price: float) -> dict[str, Choice]:
    return {name: min(options, key=lambda c: (c.error + price * c.bytes, c.error)) for name, options in choices.items()}


def _bytes(chosen: Mapping[str, Choice]) -> int:
    return sum(choice.bytes for choice in chosen.values())


def _spend_rest(chosen: dict[str, Choice], choices: Mapping[str, Sequence[Choice]], rest: int) -> None:
    """Improve tensors one by one with the bytes that the last step of the price left over."""
    while True:
        best: tuple[float, str, Choice] | None = None
        for name, options in choices.items():
            for option in options:
                more, gain = option.bytes - chosen[name].bytes, chosen[name].error - option.error
                if gain > 0 and more <= rest and (best is None or gain / max(1, more) > best[0]):
                    best = (gain / max(1, more), name, option)
        if best is None:
            return
        _, name, option = best
        rest -= option.bytes - chosen[name].bytes
        chosen[name] = option
