"""BERT (Devlin et al. 2018): a post-norm encoder with learned positions and two token types.

Settings and tensor names of Hugging Face's BertModel; MiniLM, BGE, E5, GTE and Arctic embedding models use it.
"""

from converters.architectures import GGUFArchitecture
from converters.architectures._encoder import BLOCK, EMBEDDINGS, IGNORED, KEYS, POSITIONS, TOKEN_TYPES, pooled_head
from converters.architectures._onnx import ABSOLUTE, BERT_EMBEDDINGS, BERT_LAYER, DEFAULTS, TEXT_SIZES, TOKEN_HEADS
from converters.encoder import Encoder, Head

ONNX = Encoder(
    sizes=TEXT_SIZES,
    tensors=BERT_EMBEDDINGS | BERT_LAYER,
    defaults=DEFAULTS | {"vocab_size": 30522},
    prefixes=("", "bert."),
    only={**ABSOLUTE, "is_decoder": (False,)},
    heads={
        **TOKEN_HEADS,
        "fill-mask": Head(
            "masked",
            ("cls.predictions.decoder",),
            dense="cls.predictions.transform.dense",
            norm="cls.predictions.transform.LayerNorm",
            tied=True,
            bias="cls.predictions.bias",
        ),
        "classify": Head("first", ("classifier",), dense="pooler.dense", activation="tanh"),
        "next-sentence": Head("first", ("cls.seq_relationship",), dense="pooler.dense", activation="tanh"),
    },
)

GGUF = GGUFArchitecture(
    name="bert",
    keys=(*KEYS, POSITIONS),
    modules=(*EMBEDDINGS, TOKEN_TYPES, *BLOCK),
    strip=("bert.",),
    ignored=(*IGNORED, r"^pooler\."),
    heads={"classify": pooled_head("pooler.dense", "classifier")},
    only={"hidden_act": ("gelu", "gelu_new"), "position_embedding_type": ("absolute",)},
    defaults={"type_vocab_size": 2, "max_position_embeddings": 512},
    encoder=True,
)
