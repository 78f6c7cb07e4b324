"""A llama of any size with random weights and a byte-level BPE tokenizer, as a Hugging Face checkpoint folder."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import tiny_gguf
from safetensors.numpy import save_file

CONTEXT = 256


def write_tokenizer(folder: Path) -> int:
    """tokenizer.json as GPT-2's family saves it. Gives the number of its tokens."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    tokens, types, merges = tiny_gguf.vocabulary()
    pairs = [(a, b) for a, b in (merge.split(" ") for merge in merges)]
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, pairs))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    controls = [t for t, kind in zip(tokens, types, strict=True) if kind == tiny_gguf.CONTROL_TYPE]
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in controls])
    tokenizer.save(str(folder / "tokenizer.json"))
    return len(tokens)


def write(
    folder: Path,
    *,
    width: int = 256,
    layers: int = 2,
    feed_forward: int = 512,
    heads: int = 4,
    kv_heads: int = 2,
    tied: bool = False,
    dtype: Any = np.float16,
    seed: int = 0,
    **config: Any,
) -> Path:
    """Write the checkpoint into `folder`. Weights are heavy-tailed, as trained ones are."""
    folder.mkdir(parents=True, exist_ok=True)
    tokens = write_tokenizer(folder)
    settings = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": tokens,
        "hidden_size": width,
        "num_hidden_layers": layers,
        "intermediate_size": feed_forward,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "max_position_embeddings": CONTEXT,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": tied,
        "hidden_act": "silu",
        "bos_token_id": 0,
        "eos_token_id": 2,
    }
    (folder / "config.json").write_text(json.dumps(settings | config))
    kv = kv_heads * width // heads
    shapes = {"model.embed_tokens": (tokens, width)} | ({} if tied else {"lm_head": (tokens, width)})
    for i in range(layers):
        block = f"model.layers.{i}."
        shapes |= {
            f"{block}self_attn.q_proj": (width, width),
            f"{block}self_attn.k_proj": (kv, width),
            f"{block}self_attn.v_proj": (kv, width),
            f"{block}self_attn.o_proj": (width, width),
            f"{block}mlp.gate_proj": (feed_forward, width),
            f"{block}mlp.up_proj": (feed_forward, width),
            f"{block}mlp.down_proj": (width, feed_forward),
        }
    rng = np.random.default_rng(seed)
    pool = (rng.standard_t(5, 1 << 20) * 0.5 / np.sqrt(width)).astype(dtype)
    arrays = {f"{n}.weight": np.resize(np.roll(pool, 7919 * i), s) for i, (n, s) in enumerate(shapes.items())}
    norms = [
        "model.norm",
        *(f"model.layers.{i}.{n}_layernorm" for i in range(layers) for n in ("input", "post_attention")),
    ]
    arrays |= {f"{name}.weight": rng.normal(1, 0.1, width).astype(dtype) for name in norms}
    save_file(arrays, folder / "model.safetensors")
    return folder
