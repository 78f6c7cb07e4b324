"""A tiny Nomic-BERT, which transformers does not have: a checkpoint, and its forward pass in numpy as oracle.

Written after the model's paper (Nussbaum et al. 2024) and the checkpoint's tensor names; it shares nothing with the
converter.
"""

import json
from pathlib import Path

import numpy as np
import tiny_tokenizers
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

WIDTH, HEADS, INNER, LAYERS, BASE, EPSILON = 64, 4, 112, 2, 1000.0, 1e-12
CONFIG = {
    "model_type": "nomic_bert",
    "architectures": ["NomicBertModel"],
    "auto_map": {"AutoModel": "modeling.NomicBertModel"},
    "n_embd": WIDTH,
    "n_head": HEADS,
    "n_inner": INNER,
    "n_layer": LAYERS,
    "n_positions": 256,
    "type_vocab_size": 2,
    "rotary_emb_base": BASE,
    "rotary_emb_fraction": 1.0,
    "layer_norm_epsilon": EPSILON,
    "activation_function": "swiglu",
    "prenorm": False,
}
Array = NDArray[np.float32]


def write(folder: Path) -> Path:
    rng = np.random.default_rng(5)
    tiny_tokenizers.write(folder, "bert")
    (folder / "config.json").write_text(json.dumps(CONFIG | {"vocab_size": tiny_tokenizers.size("bert")}))

    def normal(*shape: int) -> Array:
        return rng.normal(0, 0.12, shape).astype(np.float32)

    weights = {
        "embeddings.word_embeddings.weight": normal(tiny_tokenizers.size("bert"), WIDTH),
        "embeddings.token_type_embeddings.weight": normal(2, WIDTH),
    }
    norms = ["emb_ln"]
    for i in range(LAYERS):
        layer = f"encoder.layers.{i}."
        weights |= {
            f"{layer}attn.Wqkv.weight": normal(3 * WIDTH, WIDTH),
            f"{layer}attn.out_proj.weight": normal(WIDTH, WIDTH),
            f"{layer}mlp.fc11.weight": normal(INNER, WIDTH),
            f"{layer}mlp.fc12.weight": normal(INNER, WIDTH),
            f"{layer}mlp.fc2.weight": normal(WIDTH, INNER),
        }
        norms += [f"{layer}norm1", f"{layer}norm2"]
    for name in norms:
        weights |= {f"{name}.weight": 1 + 2 * normal(WIDTH), f"{name}.bias": 2 * normal(WIDTH)}
    save_file(weights, folder / "model.safetensors")
    return folder


def embed(folder: Path, row: list[int]) -> Array:
    """The mean of the last hidden states, float32 (WIDTH,)."""
    w = load_file(folder / "model.safetensors")
    x = w["embeddings.word_embeddings.weight"][row] + w["embeddings.token_type_embeddings.weight"][0]
    x = _norm(x, w, "emb_ln")
    for i in range(LAYERS):
        layer = f"encoder.layers.{i}."
        x = _norm(x + _attention(x, w, layer), w, layer + "norm1")
        gate = x @ w[f"{layer}mlp.fc12.weight"].T
        inner = x @ w[f"{layer}mlp.fc11.weight"].T * gate / (1 + np.exp(-gate))
        x = _norm(x + inner @ w[f"{layer}mlp.fc2.weight"].T, w, layer + "norm2")
    return np.asarray(x.mean(axis=0), np.float32)


def _norm(x: Array, w: dict[str, Array], name: str) -> Array:
    x = x - x.mean(axis=-1, keepdims=True)
    scaled = x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + EPSILON)
    return np.asarray(scaled * w[f"{name}.weight"] + w[f"{name}.bias"], np.float32)


def _attention(x: Array, w: dict[str, Array], layer: str) -> Array:
    size = WIDTH // HEADS
    parts = (x @ w[f"{layer}attn.Wqkv.weight"].T).reshape(len(x), 3, HEADS, size)
    query, key, value = (parts[:, i].swapaxes(0, 1) for i in range(3))  # (heads, tokens, size)
    scores = _rotated(query) @ _rotated(key).swapaxes(1, 2) / np.sqrt(size)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    mixed = (weights @ value).swapaxes(0, 1).reshape(len(x), WIDTH)
    return np.asarray(mixed @ w[f"{layer}attn.out_proj.weight"].T, np.float32)


def _rotated(x: Array) -> Array:
    """Pairs (i, i + size / 2) turned by the position."""
    half = x.shape[-1] // 2
    angles = np.arange(x.shape[1])[:, None] * BASE ** (-np.arange(half) / half)
    a, b = x[..., :half], x[..., half:]
    turned = [a * np.cos(angles) - b * np.sin(angles), a * np.sin(angles) + b * np.cos(angles)]
    return np.concatenate(turned, axis=-1)
