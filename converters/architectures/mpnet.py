"""MPNet (Song et al. 2020): BERT with a learned bias for each distance, and no token types."""

from converters.architectures._onnx import BERT_EMBEDDINGS, BERT_LAYER, DEFAULTS, ROBERTA_HEADS, TEXT_SIZES
from converters.encoder import Encoder

_ATTENTION = "encoder.layer.{i}.attention."
_PADDING = 1

ONNX = Encoder(
    sizes={name: key for name, key in TEXT_SIZES.items() if name != "token_types"},
    tensors={role: name for role, name in (BERT_EMBEDDINGS | BERT_LAYER).items() if role != "types"}
    | {
        "query": _ATTENTION + "attn.q",
        "key": _ATTENTION + "attn.k",
        "value": _ATTENTION + "attn.v",
        "attention_output": _ATTENTION + "attn.o",
        "attention_norm": _ATTENTION + "LayerNorm",
        "relative": "encoder.relative_attention_bias",
    },
    defaults=DEFAULTS | {"vocab_size": 30527, "max_position_embeddings": 512},
    prefixes=("", "mpnet."),
    skipped_positions=_PADDING + 1,
    only={"pad_token_id": (_PADDING,), "relative_attention_num_buckets": (32,)},
    heads=ROBERTA_HEADS,
)
