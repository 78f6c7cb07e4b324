"""RoBERTa (Liu et al. 2019): BERT's graph; positions begin behind the padding id."""

from converters.architectures import Config, GGUFArchitecture, Key
from converters.architectures._encoder import BLOCK, IGNORED, KEYS, TOKEN_TYPES, embeddings, pooled_head
from converters.architectures._onnx import ABSOLUTE, BERT_EMBEDDINGS, BERT_LAYER, DEFAULTS, ROBERTA_HEADS, TEXT_SIZES
from converters.encoder import Encoder
from converters.operations import FromRow

_PADDING = 1


def _context(config: Config) -> int:
    return config.integer("max_position_embeddings") - _PADDING - 1


GGUF = GGUFArchitecture(
    name="bert",
    keys=(*KEYS, Key("context_length", _context)),
    modules=(*embeddings(FromRow(_PADDING + 1)), TOKEN_TYPES, *BLOCK),
    strip=("roberta.",),
    ignored=(*IGNORED, r"^pooler\."),
    heads={"classify": pooled_head("classifier.dense", "classifier.out_proj")},
    only={
        "hidden_act": ("gelu", "gelu_new"),
        "position_embedding_type": ("absolute",),
        "pad_token_id": (_PADDING,),
    },
    defaults={"type_vocab_size": 2, "max_position_embeddings": 514},
    encoder=True,
)

ONNX = Encoder(
    sizes=TEXT_SIZES,
    tensors=BERT_EMBEDDINGS | BERT_LAYER,
    defaults=DEFAULTS | {"vocab_size": 50265, "max_position_embeddings": 514},
    prefixes=("", "roberta."),
    skipped_positions=_PADDING + 1,
    only={**ABSOLUTE, "pad_token_id": (_PADDING,), "is_decoder": (False,)},
    heads=ROBERTA_HEADS,
)
