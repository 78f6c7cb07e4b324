"""GPT-2 (Radford et al. 2019): learned positions, weights stored as (inputs, outputs)."""

from converters.architectures import Config, GGUFArchitecture, Key, Module
from converters.operations import TRANSPOSE


def _feed_forward(config: Config) -> int:
    return config.integer("n_inner", 4 * config.integer("n_embd"))


GGUF = GGUFArchitecture(
    name="gpt2",
    keys=(
        Key("block_count", "n_layer"),
        Key("context_length", "n_positions"),
        Key("embedding_length", "n_embd"),
        Key("feed_forward_length", _feed_forward),
        Key("attention.head_count", "n_head"),
        Key("attention.layer_norm_epsilon", "layer_norm_epsilon", 1e-5, float),
    ),
    modules=(
        Module("token_embd", "wte", "vh"),
        Module("position_embd", "wpe", "ph"),
        Module("output_norm", "ln_f", "h"),
        Module("output", "lm_head", "vh", optional=True),
        Module("blk.{i}.attn_norm", "h.{i}.ln_1", "h"),
        Module("blk.{i}.attn_qkv", "h.{i}.attn.c_attn", "Qh", TRANSPOSE),
        Module("blk.{i}.attn_output", "h.{i}.attn.c_proj", "hh", TRANSPOSE),
        Module("blk.{i}.ffn_norm", "h.{i}.ln_2", "h"),
        Module("blk.{i}.ffn_up", "h.{i}.mlp.c_fc", "fh", TRANSPOSE),
        Module("blk.{i}.ffn_down", "h.{i}.mlp.c_proj", "hf", TRANSPOSE),
    ),
    strip=("transformer.",),
    ignored=(r"^h\.\d+\.attn\.(bias|masked_bias)$",),
    only={
        "activation_function": ("gelu_new", "gelu_pytorch_tanh", "gelu"),
        "scale_attn_weights": (True,),
        "scale_attn_by_inverse_layer_idx": (False,),
    },
    defaults={"n_positions": 1024, "n_embd": 768, "n_layer": 12, "n_head": 12, "tie_word_embeddings": True},
)
