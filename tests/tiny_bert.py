"""A BERT of two layers with random weights and a WordPiece tokenizer, as a Hugging Face checkpoint folder."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from edgemm.tokenizer import FILE

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LETTERS = [*"abcdefghijklmnopqrstuvwxyz0123456789.,:;!?'\"()-"]
WORDS = "the a cat dog sat on mat and ran is of to in".split()
VOCABULARY = [*SPECIAL, *LETTERS, *(f"##{c}" for c in LETTERS if c.isalnum()), *WORDS[2:], "the"]
HIDDEN, LAYERS, HEADS, FEED_FORWARD, POSITIONS = 64, 2, 4, 128, 128


def write_tokenizer(folder: Path) -> Path:
    """tokenizer.json as BertTokenizerFast saves it."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    vocabulary = {word: i for i, word in enumerate(VOCABULARY)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.enable_truncation(8)  # must be ignored
    tokenizer.save(str(folder / FILE))
    return folder / FILE


def config(**changes: Any) -> dict[str, Any]:
    return {
        "model_type": "bert",
        "architectures": ["BertModel"],
        "vocab_size": len(VOCABULARY),
        "hidden_size": HIDDEN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "intermediate_size": FEED_FORWARD,
        "max_position_embeddings": POSITIONS,
        "type_vocab_size": 2,
        "layer_norm_eps": 1e-12,
        "hidden_act": "gelu",
    } | changes


def tensors(prefix: str = "", seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> np.ndarray:
        return rng.normal(0, 0.15, shape).astype(np.float32)

    found = {
        "embeddings.word_embeddings.weight": normal(len(VOCABULARY), HIDDEN),
        "embeddings.position_embeddings.weight": normal(POSITIONS, HIDDEN),
        "embeddings.token_type_embeddings.weight": normal(2, HIDDEN),
        "embeddings.LayerNorm.weight": 1 + normal(HIDDEN),
        "embeddings.LayerNorm.bias": normal(HIDDEN),
    }
    for i in range(LAYERS):
        layer = f"encoder.layer.{i}."
        for name, outputs, inputs in (
            ("attention.self.query", HIDDEN, HIDDEN),
            ("attention.self.key", HIDDEN, HIDDEN),
            ("attention.self.value", HIDDEN, HIDDEN),
            ("attention.output.dense", HIDDEN, HIDDEN),
            ("intermediate.dense", FEED_FORWARD, HIDDEN),
            ("output.dense", HIDDEN, FEED_FORWARD),
        ):
            found[f"{layer}{name}.weight"] = normal(outputs, inputs)
            found[f"{layer}{name}.bias"] = normal(outputs)
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            found[f"{layer}{name}.weight"] = 1 + normal(HIDDEN)
            found[f"{layer}{name}.bias"] = normal(HIDDEN)
    return {prefix + name: array for name, array in found.items()}


def write(folder: Path, *, prefix: str = "", pooling: str = "mean", **changes: Any) -> Path:
    """Write the checkpoint, with sentence-transformers modules, into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    write_tokenizer(folder)
    (folder / "config.json").write_text(json.dumps(config(**changes)))
    kinds = ["Transformer", "Pooling", "Normalize"]
    rows = [
        {"idx": i, "name": str(i), "path": f"{i}_{k}" if i else "", "type": f"sentence_transformers.models.{k}"}
        for i, k in enumerate(kinds)
    ]
    (folder / "modules.json").write_text(json.dumps(rows))
    (folder / "1_Pooling").mkdir(exist_ok=True)
    modes = {f"pooling_mode_{m}": m.startswith(pooling) for m in ("mean_tokens", "cls_token", "max_tokens")}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": HIDDEN} | modes))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 100}))
    save_file(tensors(prefix), folder / "model.safetensors")
    return folder
