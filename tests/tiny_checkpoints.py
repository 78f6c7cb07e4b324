"""Tiny checkpoints of every family with random weights, saved by transformers as real ones are.

The sizes are awkward on purpose: fewer key heads than heads, heads that do not divide the width, windows shorter than
the text. Norm weights and biases are random too, because ones and zeros hide a shifted norm and a lost bias.
Families that transformers does not have are in tiny_nomic.py.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import tiny_tokenizers
import torch
import transformers

SPREAD, NORM_SPREAD = 0.12, 0.25
# llama.cpp reads GELU from a table of f16 values; with larger weights behind it that rounding shows, not a mistake.
GELU_SPREAD, QUIET = 0.06, 0.2
WIDTH = 64


@dataclass(frozen=True)
class Family:
    """`model` is a class of transformers; `task` and `pooling` say how it is used; `dense`: sizes of 2_Dense, 3_Dense.

    `attention` and `spread` are the deviations of the weights of attention and of all others;
    `files` are more files, `change` is called on the finished folder.
    """

    model: str
    tokenizer: str
    settings: dict[str, Any]
    task: str = "chat"
    pooling: str = "mean"
    dense: tuple[int, ...] = ()
    files: dict[str, Any] = field(default_factory=dict)
    spread: float = SPREAD
    attention: float = SPREAD
    seed: int = 7
    change: Callable[[Path], None] | None = None  # the folder, after saving


def _block(**changes: Any) -> dict[str, Any]:
    """Sizes of a decoder."""
    return {
        "hidden_size": WIDTH,
        "intermediate_size": 112,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "rms_norm_eps": 0.01,
    } | changes


def _encoder(**changes: Any) -> dict[str, Any]:
    return _block(**{"max_position_embeddings": 256, "num_hidden_layers": 2, "layer_norm_eps": 0.01, **changes})


def _rope(kind: str, **settings: Any) -> dict[str, Any]:
    return {"rope_scaling": {"rope_type": kind, **settings}}


_LLAMA3 = _rope("llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=64)
_YARN = _rope("yarn", factor=4.0, original_max_position_embeddings=128)
_LONG = {
    "rope_scaling": {
        "type": "longrope",
        "long_factor": [1.0, 1.5, 2, 3, 4, 6],
        "short_factor": [1.0, 1.1, 1.2, 1.3, 1.4, 1.5],
    },
    "original_max_position_embeddings": 256,
    "partial_rotary_factor": 0.75,
}
_GPT2 = {"n_embd": WIDTH, "n_layer": 2, "n_head": 4, "n_positions": 256, "layer_norm_epsilon": 0.01}
_NEOX = {
    **_block(intermediate_size=256, num_hidden_layers=2),
    "rotary_pct": 0.5,
    "rotary_emb_base": 5000,
    "layer_norm_eps": 0.01,
}
_GEMMA = _block(head_dim=24, sliding_window=16, query_pre_attn_scalar=24)
_CAPS = {"attn_logit_softcapping": 5.0, "final_logit_softcapping": 3.0}
_GEMMA3 = _GEMMA | {"num_hidden_layers": 7, "rope_theta": 1e6, "rope_local_base_freq": 5e3}
_PICTURES = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2} | {
    "image_size": 28,
    "patch_size": 14,
}
_T5 = {
    "d_model": WIDTH,
    "d_ff": 112,
    "num_layers": 3,
    "num_decoder_layers": 2,
    "num_heads": 3,
    "d_kv": 24,
    "layer_norm_epsilon": 0.01,
}
_MODERN = _encoder(
    num_hidden_layers=4, local_attention=16, norm_eps=0.01, reference_compile=False, attn_implementation="eager"
)
_ROBERTA = _encoder(max_position_embeddings=258, type_vocab_size=1, pad_token_id=1)
_PHI3 = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}

CHATS = {
    "gpt2": Family("GPT2LMHeadModel", "gpt2", _GPT2, spread=GELU_SPREAD),
    "gpt2-gelu": Family(
        "GPT2LMHeadModel", "gpt2", _GPT2 | {"activation_function": "gelu", "n_inner": 96}, spread=GELU_SPREAD
    ),
    "gpt-neox": Family("GPTNeoXForCausalLM", "neox", _NEOX, spread=GELU_SPREAD),
    "gpt-neox-serial": Family(
        "GPTNeoXForCausalLM", "neox", _NEOX | {"use_parallel_residual": False}, spread=GELU_SPREAD
    ),
    "gpt-neox-tied": Family("GPTNeoXForCausalLM", "neox", _NEOX | {"tie_word_embeddings": True}, spread=GELU_SPREAD),
    "llama": Family("LlamaForCausalLM", "llama2", _block()),
    "llama-tied": Family("LlamaForCausalLM", "smollm", _block(tie_word_embeddings=True)),
    "llama-biased": Family("LlamaForCausalLM", "llama2", _block(attention_bias=True, mlp_bias=True, head_dim=24)),
    "llama-llama3": Family("LlamaForCausalLM", "llama3", _block(rope_theta=5e5, **_LLAMA3)),
    "llama-linear": Family("LlamaForCausalLM", "llama2", _block(**_rope("linear", factor=4.0))),
    "llama-yarn": Family("LlamaForCausalLM", "llama2", _block(**_YARN)),
    "llama-yarn-factor": Family(
        "LlamaForCausalLM", "llama2", _block(**_rope("yarn", factor=4.0, attention_factor=1.3))
    ),
    "mistral": Family("MistralForCausalLM", "llama2", _block(sliding_window=None, head_dim=24)),
    "mistral-window": Family("MistralForCausalLM", "llama2", _block(sliding_window=230)),
    "qwen2": Family("Qwen2ForCausalLM", "qwen2", _block()),
    "qwen2-tied": Family("Qwen2ForCausalLM", "qwen2", _block(tie_word_embeddings=True, **_YARN)),
    "qwen3": Family("Qwen3ForCausalLM", "qwen2", _block(head_dim=24)),
    "gemma2": Family("Gemma2ForCausalLM", "gemma", _GEMMA | _CAPS, spread=GELU_SPREAD),
    "gemma3-text": Family("Gemma3ForCausalLM", "gemma", _GEMMA3 | _rope("linear", factor=8.0), spread=GELU_SPREAD),
    "gemma3": Family(
        "Gemma3ForConditionalGeneration",
        "gemma",
        {"text_config": _GEMMA3, "vision_config": _PICTURES, "mm_tokens_per_image": 4},
        spread=GELU_SPREAD,
    ),
    "phi3": Family("Phi3ForCausalLM", "phi3", _block(sliding_window=None) | _PHI3),
    "phi4": Family("Phi3ForCausalLM", "dolma", _block(sliding_window=None) | _PHI3),
    "smollm3": Family("SmolLM3ForCausalLM", "llama3", _block(num_hidden_layers=5)),
    "olmo2": Family("Olmo2ForCausalLM", "dolma", _block()),
    "olmo2-tied": Family("Olmo2ForCausalLM", "dolma", _block(tie_word_embeddings=True)),
    "granite": Family(
        "GraniteForCausalLM",
        "smollm",
        _block(embedding_multiplier=6.0, attention_multiplier=0.1, residual_multiplier=0.4, logits_scaling=3.0),
    ),
    "t5": Family("T5ForConditionalGeneration", "t5", _T5 | {"num_decoder_layers": 3}, spread=0.2),
    "t5-v1.1": Family(
        "T5ForConditionalGeneration",
        "t5",
        _T5 | {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
        spread=GELU_SPREAD,
        attention=GELU_SPREAD,
    ),
}

LONGROPE = Family("Phi3ForCausalLM", "phi3", _block(sliding_window=400) | _LONG | _PHI3)

EMBEDDERS = {
    "bert": Family("BertModel", "bert", _encoder(), "embed"),
    "bert-cls": Family("BertForMaskedLM", "bert-cased", _encoder(hidden_act="gelu_new"), "embed", "cls"),
    "bert-unigram": Family("BertModel", "xlm-roberta", _encoder(), "embed"),
    "roberta": Family("RobertaModel", "roberta", _ROBERTA, "embed"),
    "xlm-roberta": Family("XLMRobertaModel", "xlm-roberta", _ROBERTA, "embed", "cls"),
    "distilbert": Family(
        "DistilBertModel",
        "bert",
        {"dim": WIDTH, "hidden_dim": 112, "n_layers": 2, "n_heads": 4, "max_position_embeddings": 256},
        "embed",
    ),
    "modernbert": Family("ModernBertModel", "modernbert", _MODERN, "embed", "cls"),
    "modernbert-mean": Family("ModernBertForMaskedLM", "modernbert", _MODERN, "embed"),
    "qwen2-embedding": Family("Qwen2Model", "qwen3-embedding", _block(), "embed", "last"),
    "qwen3-embedding": Family("Qwen3Model", "qwen3-embedding", _block(head_dim=24), "embed", "last"),
    "gemma-embedding": Family(
        "Gemma3TextModel",
        "embedding-gemma",
        _GEMMA3 | {"use_bidirectional_attention": True},
        "embed",
        dense=(96, WIDTH),
        change=lambda folder: edit(folder / "config.json", sliding_window=16),  # transformers saves it halved
    ),
}


def _classifiers() -> dict[str, Family]:
    found = {}
    for labels in (1, 3):
        rows = {
            "bert": ("BertForSequenceClassification", "bert", _encoder()),
            "roberta": ("RobertaForSequenceClassification", "roberta", _ROBERTA | {"type_vocab_size": 2}),
            "xlm-roberta": ("XLMRobertaForSequenceClassification", "xlm-roberta", _ROBERTA | {"type_vocab_size": 2}),
            "modernbert": ("ModernBertForSequenceClassification", "modernbert", _MODERN),
            "modernbert-mean": (
                "ModernBertForSequenceClassification",
                "modernbert",
                _MODERN | {"classifier_pooling": "mean"},
            ),
        }
        found |= {
            f"{name}-{labels}": Family(
                model, tokenizer, settings | {"num_labels": labels}, "classify", spread=GELU_SPREAD
            )
            for name, (model, tokenizer, settings) in rows.items()
        }
    qwen3 = _block(head_dim=24, num_labels=3, pad_token_id=0)
    return found | {"qwen3-3": Family("Qwen3ForSequenceClassification", "qwen2", qwen3, "classify")}


CLASSIFIERS = _classifiers()
# Seeds under which no two logits lie so close that another processor's rounding could swap the likeliest tokens.
_SEEDS = {
    "gpt2": 6, "gpt-neox": 6, "gpt-neox-tied": 4, "llama-llama3": 0, "gemma2": 3, "gemma3-text": 1, "gemma3": 5,
    "olmo2-tied": 0,
}  # fmt: skip
CHATS = {name: replace(family, seed=_SEEDS.get(name, family.seed)) for name, family in CHATS.items()}
CARD = "---\nlicense: apache-2.0\npipeline_tag: text-ranking\n---\n# A reranker\n"
RERANKERS = {
    "qwen3-reranker": Family(
        "Qwen3ForCausalLM", "qwen3-reranker", _block(head_dim=24, tie_word_embeddings=True), "rerank",
        files={"README.md": CARD},
    ),
    "qwen3-reranker-untied": Family(
        "Qwen3ForCausalLM", "qwen3-reranker", _block(head_dim=24), "rerank", files={"README.md": CARD}
    ),
}  # fmt: skip
FAMILIES = CHATS | {"phi3-longrope": LONGROPE} | EMBEDDERS | CLASSIFIERS | RERANKERS


def model(family: Family) -> Any:
    """The model with seeded weights, float32."""
    kind = getattr(transformers, family.model)
    rows = tiny_tokenizers.size(family.tokenizer) + 3  # more rows than tokens, as many real ones have
    settings = {"vocab_size": rows, "pad_token_id": None, **family.settings}
    if "text_config" in settings:
        settings["text_config"] = {**settings["text_config"], "vocab_size": rows}
    config = kind.config_class(**settings)
    made = kind(config).eval()
    generator = torch.Generator().manual_seed(family.seed)
    with torch.no_grad():
        for name, weights in made.named_parameters():
            noise = torch.randn(weights.shape, generator=generator)
            if weights.dim() > 1:
                weights.copy_((family.attention if "att" in name.lower() else family.spread) * noise)
            else:
                weights.add_(NORM_SPREAD * noise)
            if "post_feedforward" in name and not family.model.startswith("Olmo"):
                weights.copy_(QUIET * (1 + weights) - 1)  # Gemma stores its norms less one
    return made


def write(folder: Path, family: Family, dtype: torch.dtype = torch.float32) -> Path:
    """Save the checkpoint, its tokenizer and its sentence-transformers modules."""
    model(family).to(dtype).save_pretrained(folder, safe_serialization=True)
    tiny_tokenizers.write(folder, family.tokenizer)
    if family.task == "embed":
        write_modules(folder, family.pooling, family.dense)
    for name, text in family.files.items():
        (folder / name).write_text(text)
    if family.change is not None:
        family.change(folder)
    return folder


def write_modules(folder: Path, pooling: str, dense: tuple[int, ...] = ()) -> None:
    """modules.json and the folders it names. `dense`: the outputs of each projection, one behind the other."""
    kinds = ["Transformer", "Pooling", *(["Dense"] * len(dense)), "Normalize"]
    rows = [
        {"idx": i, "name": str(i), "path": f"{i}_{kind}" if i else "", "type": f"sentence_transformers.models.{kind}"}
        for i, kind in enumerate(kinds)
    ]
    (folder / "modules.json").write_text(json.dumps(rows))
    (folder / "1_Pooling").mkdir(exist_ok=True)
    names = {"mean": "mean_tokens", "cls": "cls_token", "last": "lasttoken"}
    modes = {f"pooling_mode_{name}": short == pooling for short, name in names.items()}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": WIDTH} | modes))
    inputs = WIDTH
    for i, outputs in enumerate(dense):
        _write_dense(folder / f"{i + 2}_Dense", inputs, outputs)
        inputs = outputs


def _write_dense(folder: Path, inputs: int, outputs: int) -> None:
    from safetensors.torch import save_file

    folder.mkdir(exist_ok=True)
    weight = torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(outputs)) * SPREAD
    save_file({"linear.weight": weight}, folder / "model.safetensors")
    settings = {"in_features": inputs, "out_features": outputs, "bias": False}
    (folder / "config.json").write_text(
        json.dumps(settings | {"activation_function": "torch.nn.modules.linear.Identity"})
    )


def project(folder: Path, vectors: torch.Tensor) -> torch.Tensor:
    """`vectors` through the projections of the checkpoint."""
    from safetensors.torch import load_file

    for place in sorted(folder.glob("*_Dense")):
        vectors = vectors @ load_file(place / "model.safetensors")["linear.weight"].T
    return vectors


def edit(path: Path, **changes: Any) -> None:
    """Change keys of a JSON object; None drops one."""
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))
