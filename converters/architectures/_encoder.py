"""What encoder families share: the sizes and modules of a post-norm BERT block, as data.

Keys and names are those of llama.cpp's `bert` graph (src/models/bert.cpp).
"""

from converters.architectures import Key, Module
from converters.operations import KEEP, Operation

KEYS = (
    Key("block_count", "num_hidden_layers"),
    Key("embedding_length", "hidden_size"),
    Key("feed_forward_length", "intermediate_size"),
    Key("attention.head_count", "num_attention_heads"),
    Key("attention.layer_norm_epsilon", "layer_norm_eps", 1e-12, float),
)
POSITIONS = Key("context_length", "max_position_embeddings")
IGNORED = (r"^embeddings\.position_ids$", r"^cls\.", r"^lm_head\.", r"^classifier\.", r"^qa_outputs\.")
TOKEN_TYPES = Module("token_types", "embeddings.token_type_embeddings", "th")


def embeddings(positions: Operation = KEEP) -> tuple[Module, ...]:
    return (
        Module("token_embd", "embeddings.word_embeddings", "vh"),
        Module("position_embd", "embeddings.position_embeddings", "ph", positions),
        Module("token_embd_norm", "embeddings.LayerNorm", "h"),
    )


def pooled_head(dense: str, output: str) -> tuple[Module, ...]:
    """A classifier on the first token: a dense layer with tanh, and the labels."""
    return (Module("cls", dense, "hh"), Module("cls.output", output, "ch"))


EMBEDDINGS = embeddings()
BLOCK = (
    Module("blk.{i}.attn_q", "encoder.layer.{i}.attention.self.query", "hh"),
    Module("blk.{i}.attn_k", "encoder.layer.{i}.attention.self.key", "hh"),
    Module("blk.{i}.attn_v", "encoder.layer.{i}.attention.self.value", "hh"),
    Module("blk.{i}.attn_output", "encoder.layer.{i}.attention.output.dense", "hh"),
    Module("blk.{i}.attn_output_norm", "encoder.layer.{i}.attention.output.LayerNorm", "h"),
    Module("blk.{i}.ffn_up", "encoder.layer.{i}.intermediate.dense", "fh"),
    Module("blk.{i}.ffn_down", "encoder.layer.{i}.output.dense", "hf"),
    Module("blk.{i}.layer_output_norm", "encoder.layer.{i}.output.LayerNorm", "h"),
)
