"""DistilBERT (Sanh et al. 2019): half of BERT's layers, no token types."""

from converters.architectures import GGUFArchitecture, Key, Module
from converters.architectures._encoder import EMBEDDINGS, IGNORED

_LAYER = "transformer.layer.{i}."

GGUF = GGUFArchitecture(
    name="bert",
    keys=(
        Key("block_count", "n_layers"),
        Key("embedding_length", "dim"),
        Key("feed_forward_length", "hidden_dim"),
        Key("attention.head_count", "n_heads"),
        Key("attention.layer_norm_epsilon", "layer_norm_eps", 1e-12, float),
        Key("context_length", "max_position_embeddings"),
    ),
    modules=(
        *EMBEDDINGS,
        Module("blk.{i}.attn_q", _LAYER + "attention.q_lin", "hh"),
        Module("blk.{i}.attn_k", _LAYER + "attention.k_lin", "hh"),
        Module("blk.{i}.attn_v", _LAYER + "attention.v_lin", "hh"),
        Module("blk.{i}.attn_output", _LAYER + "attention.out_lin", "hh"),
        Module("blk.{i}.attn_output_norm", _LAYER + "sa_layer_norm", "h"),
        Module("blk.{i}.ffn_up", _LAYER + "ffn.lin1", "fh"),
        Module("blk.{i}.ffn_down", _LAYER + "ffn.lin2", "hf"),
        Module("blk.{i}.layer_output_norm", _LAYER + "output_layer_norm", "h"),
    ),
    strip=("distilbert.",),
    ignored=(*IGNORED, r"^vocab_", r"^pre_classifier\."),
    only={"activation": ("gelu",), "sinusoidal_pos_embds": (False, True)},
    defaults={"n_layers": 6, "dim": 768, "hidden_dim": 3072, "n_heads": 12, "max_position_embeddings": 512},
    encoder=True,
)
