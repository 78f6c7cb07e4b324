"""The beginning of an encoder's ONNX graph: tokens or patches as vectors, their positions, and who may look at whom."""

import numpy as np
from onnx import TensorProto

from converters.checkpoint import Array
from converters.onnx_blocks import MASKED, Blocks
from converters.positions import relative_buckets, resized_positions
from edgemm.backends.ort import PIXELS


def words(b: Blocks, *, token_types: bool, longest: int) -> str:
    """Word, position and type embeddings, normed and brought to the encoder's width."""
    g, w = b.graph, b.weights
    ids = g.input("input_ids", TensorProto.INT64, ["batch", "length"])
    if w.row.masked:
        g.input("attention_mask", TensorProto.INT64, ["batch", "length"])
    words = g.add("Gather", g.constant(w.array("words", part="weight"), "words"), ids, name="words")
    types = w.array("types", part="weight") if w.has("types") else None
    if types is not None and token_types:
        kinds = g.input("token_type_ids", TensorProto.INT64, ["batch", "length"])
        words = g.add("Add", words, g.add("Gather", g.constant(types), kinds))
        types = None
    if w.has("positions"):
        start = w.row.skipped_positions
        table = w.array("positions", part="weight")[start : start + longest]
        words = g.add("Add", words, _first_rows(b, table if types is None else table + types[0]))
    elif types is not None:
        words = g.add("Add", words, g.constant(types[0]))
    if w.has("embedding_norm"):
        words = b.norm(words, "embedding_norm")
    return b.linear(words, "embedding_projection") if w.has("embedding_projection") else words


def _first_rows(b: Blocks, table: Array) -> str:
    # A Gather over a Range would be rewritten to a Slice that onnxruntime 1.32 cannot run.
    g = b.graph
    return g.add("Slice", g.constant(table), g.ints(0), b.length(), g.ints(0))


def patches(b: Blocks, image: tuple[int | str, int | str]) -> str:
    """Patches of an image as tokens, behind the class token, with their positions."""
    g, w, s = b.graph, b.weights, b.sizes
    height, width = image
    pixels = g.input(PIXELS, TensorProto.FLOAT, ["batch", s.channels, height, width])
    weight = w.array("patches", part="weight")
    if weight.ndim == 2:  # a linear layer over pixels, the colours of each together
        weight = weight.reshape(-1, s.patch, s.patch, s.channels).transpose(0, 3, 1, 2)
    bias = w.bias("patches")
    parts = [weight] if bias is None else [weight, bias]
    grid = g.add("Conv", pixels, *map(g.constant, parts), kernel_shape=[s.patch] * 2, strides=[s.patch] * 2)
    if not isinstance(height, int):
        grid = g.add("Add", grid, _stretched_positions(b, grid))
    hidden = g.add("Transpose", g.add("Reshape", grid, g.ints(0, 0, -1)), perm=[0, 2, 1])
    first = [role for role in ("class_token", "distillation_token") if w.has(role)]
    if first:
        hidden = g.add("Concat", *(_for_each_image(b, role, hidden) for role in first), hidden, axis=1)
    if isinstance(height, int) and isinstance(width, int):
        shape = (height // s.patch, width // s.patch)
        hidden = g.add("Add", hidden, g.constant(resized_positions(_positions(b), len(first), shape)))
    return b.norm(hidden, "embedding_norm") if w.has("embedding_norm") else hidden


def _positions(b: Blocks) -> Array:
    """float32 (tokens, hidden): a module's weight, or a tensor with a batch axis."""
    w = b.weights
    name = w.name("positions")
    return w.tensor(name if w.find(name) else f"{name}.weight").reshape(-1, b.sizes.hidden)


def _stretched_positions(b: Blocks, grid: str) -> str:
    """float32 (hidden, rows, columns): the square of learned positions, stretched over a grid of any shape.

    Bilinear with antialiasing, as torch does it; onnxruntime's own Resize differs from it by 2e-3.
    """
    g, table = b.graph, _positions(b)
    side = round(len(table) ** 0.5)
    square = g.constant(table.reshape(side, side, -1).transpose(2, 0, 1))
    rows, columns = (_stretch(b, side, g.add("Gather", g.add("Shape", grid), g.index(axis))) for axis in (2, 3))
    return g.add("MatMul", g.add("MatMul", rows, square), g.add("Transpose", columns, perm=[1, 0]))


def _stretch(b: Blocks, old: int, new: str) -> str:
    """float32 (new, old): the weights of old points in each new one, a triangle as wide as the coarser grid."""
    g = b.graph
    count = g.add("Cast", new, to=TensorProto.FLOAT, exact=True)
    steps = g.add("Cast", g.add("Range", g.index(0), new, g.index(1)), to=TensorProto.FLOAT, exact=True)
    scale = g.add("Div", g.number(old), count, exact=True)
    centre = g.add("Mul", g.add("Add", steps, g.number(0.5), exact=True), scale, exact=True)
    places = g.constant(np.arange(old, dtype=np.float32) + np.float32(0.5))
    gap = g.add("Abs", g.add("Sub", g.add("Unsqueeze", centre, g.ints(1)), places, exact=True), exact=True)
    width = g.add("Max", scale, g.number(1), exact=True)
    weights = g.add("Relu", g.add("Sub", g.number(1), g.add("Div", gap, width, exact=True), exact=True), exact=True)
    return g.add("Div", weights, g.add("ReduceSum", weights, g.ints(1), keepdims=1, exact=True), exact=True)


def _for_each_image(b: Blocks, role: str, like: str) -> str:
    """A learned token (1, 1, hidden) for each image of the batch."""
    g = b.graph
    batch = g.shared("batch", lambda: g.add("Slice", g.add("Shape", like), g.ints(0), g.ints(1)))
    token = g.constant(b.weights.array(role).reshape(1, 1, -1))
    return g.add("Expand", token, g.add("Concat", batch, g.ints(1, b.sizes.hidden), axis=0))


def biases(b: Blocks) -> dict[float, str]:
    """By the reach of a layer's attention: what is added to its scores, or "" for nothing."""
    g, row = b.graph, b.weights.row
    base = [_padding(b)] if row.masked else []
    if row.causal:
        ahead = g.add("Greater", _distance(b), g.index(0))
        base.append(g.add("Where", ahead, g.number(MASKED), g.number(0)))
    if b.weights.has("relative"):
        base.append(_relative(b))
    found: dict[float, str] = {}
    for reach in {row.window(b.config, layer) for layer in range(b.sizes.layers)}:
        parts = list(base)
        if reach:
            far = g.add("Greater", g.add("Abs", _distance(b)), g.index(int(reach)))
            parts.append(g.add("Where", far, g.number(MASKED), g.number(0)))
        total = parts[0] if parts else ""
        for part in parts[1:]:
            total = g.add("Add", total, part)
        found[reach] = total
    return found


def _padding(b: Blocks) -> str:
    """float32 (batch, 1, 1, length): 0 where there is a token, `MASKED` where there is padding."""
    g = b.graph
    gap = g.add("Sub", g.number(1), b.mask())
    return g.add("Unsqueeze", g.add("Mul", gap, g.number(MASKED)), g.ints(1, 2))


def _distance(b: Blocks) -> str:
    """int64 (length, length): how far a key stands behind its query."""
    g = b.graph
    rows, columns = (g.add("Unsqueeze", b.steps(), g.ints(axis)) for axis in (1, 0))
    return g.shared("distance", lambda: g.add("Sub", columns, rows))


def _relative(b: Blocks) -> str:
    """float32 (1, heads, length, length): a learned bias for each bucket of distances."""
    g, table = b.graph, b.weights.array("relative", part="weight")
    buckets = g.constant(relative_buckets(b.sizes.positions, len(table)))
    square = g.add("Concat", b.length(), b.length(), axis=0)
    here = g.add("Slice", buckets, g.ints(0, 0), square, g.ints(0, 1))
    chosen = g.add("Gather", g.constant(table), g.add("Cast", here, to=TensorProto.INT64))
    return g.add("Unsqueeze", g.add("Transpose", chosen, perm=[2, 0, 1]), g.ints(0))
