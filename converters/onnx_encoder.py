"""An encoder of text or pictures as an ONNX graph, straight from arrays: no torch, no exporter, no clean-up passes.

Query, key and value are one product, pooling, heads and normalization are part of the graph, and nothing is shaped so
that onnxruntime fuses SkipLayerNormalization. Everything is float32; onnx_int8.py rewrites the linear layers, which it
finds by their names.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from converters.encoder import Head
from converters.onnx_blocks import Blocks
from converters.onnx_graph import Graph
from converters.onnx_head import head_output, pool
from converters.onnx_stem import biases, patches, words


@dataclass(frozen=True, slots=True)
class EncoderGraph:
    """The graph of one encoder, made by one call of `embedding` or `labelled`.

    `longest`: positions behind it are left out. `image`: height and width of its pictures in pixels; names, where they
    may differ. `token_types`: there is an input for the types of tokens, else all are of the first type.
    """

    blocks: Blocks
    image: tuple[int | str, int | str] = (0, 0)
    token_types: bool = False
    longest: int = 1 << 30

    def embedding(self, pooling: str, dense: Sequence[str], *, normalize: bool) -> Graph:
        """Output `embedding`: float32 (batch, dimensions), pooled, through the modules `dense`, and of length 1."""
        b = self.blocks
        pooled = pool(b, pooling, self.hidden())
        width = b.sizes.hidden
        if b.weights.has("projection"):
            pooled, width = b.linear(pooled, "projection"), b.weights.matrix("projection").shape[1]
        for name in dense:
            weight = b.weights.tensor(f"{name}.weight")
            pooled, width = b.product(pooled, name, weight.T, b.maybe(f"{name}.bias")), len(weight)
        if normalize:
            pooled = b.graph.add("LpNormalization", pooled, axis=-1, p=2)
        b.graph.output(pooled, "embedding", ["batch", width])
        return b.graph

    def labelled(self, head: Head) -> Graph:
        """Output `logits`: float32, (batch, labels), (batch, length, labels), or (masks, vocabulary)."""
        b = self.blocks
        hidden = self.hidden(normed=not head.before_norm)
        outputs = [head_output(b, head, hidden, i) for i in range(max(1, len(head.output)))]
        logits = outputs[0]
        if len(outputs) > 1:
            total = b.graph.add("Sum", *outputs)
            logits = b.graph.add("Mul", total, b.graph.number(1 / len(outputs)))
        shape = {"tokens": ["batch", "length", "labels"], "masked": ["masks", "vocabulary"]}
        b.graph.output(logits, "logits", shape.get(head.pool, ["batch", "labels"]))
        return b.graph

    def hidden(self, *, normed: bool = True) -> str:
        """float32 (batch, length, hidden): what the last layer gives, behind the final norm.

        Between the embeddings and here all tokens of a batch are rows of one matrix, as linear layers want them.
        """
        b = self.blocks
        g, is_text = b.graph, b.weights.has("words")
        hidden = words(b, token_types=self.token_types, longest=self.longest) if is_text else patches(b, self.image)
        looks = biases(b) if is_text else {}
        shape = g.add("Shape", hidden)
        b.batch = g.add("Slice", shape, g.ints(0), g.ints(2))
        rows = g.add("Reshape", hidden, g.ints(-1, b.sizes.hidden))
        for layer in range(b.sizes.layers):
            reach = b.weights.row.window(b.config, layer)
            rows = b.layer(rows, looks.get(reach, ""), layer)
        if normed and b.weights.has("final_norm"):
            rows = b.norm(rows, "final_norm")
        return g.add("Reshape", rows, shape)
