"""T5 and Flan-T5 (Raffel et al. 2020): an encoder and a decoder, relative positions by bucket."""

from converters.architectures import Config, GGUFArchitecture, Key, Module, Value
from converters.operations import ScaleIfTied

_DISTANCE = 128  # fixed in llama.cpp's graph


def _context(config: Config) -> int:
    return config.integer("n_positions", 512)


def _decoder_layers(config: Config) -> int:
    return config.integer("num_decoder_layers", config.integer("num_layers"))


def _start(config: Config) -> Value:
    start = config.get("decoder_start_token_id", config.get("pad_token_id", 0))
    return int(start)


def _heads(config: Config) -> int:
    return config.integer("num_heads")


def _key(config: Config) -> int:
    return config.integer("d_kv")


def _check(config: Config) -> None:
    if not config.get("is_encoder_decoder", True) or "T5EncoderModel" in config.get("architectures", []):
        raise config.unsupported("an encoder without its decoder")
    layers, decoder = config.integer("num_layers"), _decoder_layers(config)
    if decoder > layers:
        raise config.unsupported(f"{decoder} decoder layers, more than the {layers} of the encoder")


def _attention(gguf: str, checkpoint: str) -> tuple[Module, ...]:
    return (
        Module(f"{gguf}_q", f"{checkpoint}.q", "qh"),
        Module(f"{gguf}_k", f"{checkpoint}.k", "qh"),
        Module(f"{gguf}_v", f"{checkpoint}.v", "qh"),
        Module(f"{gguf}_o", f"{checkpoint}.o", "hq"),
    )


def _feed_forward(gguf: str, checkpoint: str) -> tuple[Module, ...]:
    dense = f"{checkpoint}.DenseReluDense"
    return (
        Module(f"{gguf}.ffn_norm", f"{checkpoint}.layer_norm", "h"),
        Module(f"{gguf}.ffn_gate", f"{dense}.wi_0", "fh", optional=True),
        Module(f"{gguf}.ffn_up", f"{dense}.wi_1", "fh", optional=True),
        Module(f"{gguf}.ffn_up", f"{dense}.wi", "fh", optional=True),
        Module(f"{gguf}.ffn_down", f"{dense}.wo", "hf"),
    )


def _blocks(gguf: str, checkpoint: str, feed_forward: int) -> tuple[Module, ...]:
    return (
        Module(f"{gguf}.attn_norm", f"{checkpoint}.layer.0.layer_norm", "h"),
        *_attention(f"{gguf}.attn", f"{checkpoint}.layer.0.SelfAttention"),
        Module(
            f"{gguf}.attn_rel_b", f"{checkpoint}.layer.0.SelfAttention.relative_attention_bias", "bn", optional=True
        ),
        *_feed_forward(gguf, f"{checkpoint}.layer.{feed_forward}"),
    )


_ENCODER = _blocks("enc.blk.{i}", "encoder.block.{i}", 1)
_DECODER = (
    *_blocks("dec.blk.{j}", "decoder.block.{j}", 2),
    Module("dec.blk.{j}.cross_attn_norm", "decoder.block.{j}.layer.1.layer_norm", "h"),
    *_attention("dec.blk.{j}.cross_attn", "decoder.block.{j}.layer.1.EncDecAttention"),
)


GGUF = GGUFArchitecture(
    name="t5",
    keys=(
        Key("block_count", "num_layers"),
        Key("decoder_block_count", _decoder_layers),
        Key("context_length", _context),
        Key("embedding_length", "d_model"),
        Key("feed_forward_length", "d_ff"),
        Key("attention.head_count", _heads),
        Key("attention.key_length", _key),
        Key("attention.value_length", _key),
        Key("attention.layer_norm_epsilon", "layer_norm_epsilon", 1e-6, float),
        Key("attention.layer_norm_rms_epsilon", "layer_norm_epsilon", 1e-6, float),
        Key("attention.relative_buckets_count", "relative_attention_num_buckets", 32),
        Key("decoder_start_token_id", _start),
        Key("vocab_size", "vocab_size"),
    ),
    modules=(
        Module("token_embd", "shared", "vh"),
        Module("enc.output_norm", "encoder.final_layer_norm", "h"),
        Module("dec.output_norm", "decoder.final_layer_norm", "h", ScaleIfTied()),
        Module("output", "lm_head", "vh", optional=True),
        *_ENCODER,
        *_DECODER,
    ),
    ignored=(r"^(encoder|decoder)\.embed_tokens\.weight$", r"EncDecAttention\.relative_attention_bias"),
    only={
        "feed_forward_proj": ("relu", "gated-gelu"),
        "relative_attention_max_distance": (_DISTANCE,),
    },
    check=_check,
    defaults={"tie_word_embeddings": True},
)
