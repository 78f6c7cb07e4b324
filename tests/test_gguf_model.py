"""What is refused before a weight is read, each in one line that names it; and what real checkpoints look like."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_bert
import tiny_tokenizers
from safetensors.numpy import load_file, save_file

from converters import gguf_prepare
from converters.architectures import ONNX_ONLY, supported
from converters.checkpoint import open_checkpoint
from converters.gguf_model import Blueprint, blueprint
from edgemm.errors import EdgemmError

WIDTH, INNER, HEADS, KV, LAYERS, TOKENS = 16, 24, 4, 2, 2, 903
HEAD = WIDTH // HEADS


@dataclass
class Decoder:
    """A Llama-like checkpoint without transformers: config.json and tensors, to be changed before it is written."""

    config: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, Any] = field(default_factory=dict)

    def write(self, folder: Path, model_type: str = "llama", kind: str = "LlamaForCausalLM") -> Path:
        sizes = {"hidden_size": WIDTH, "intermediate_size": INNER, "num_hidden_layers": LAYERS, "vocab_size": TOKENS}
        heads = {"num_attention_heads": HEADS, "num_key_value_heads": KV, "rms_norm_eps": 1e-5, "hidden_act": "silu"}
        config = {"model_type": model_type, "architectures": [kind], **sizes, **heads} | self.config
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not ...}))
        tiny_tokenizers.write(folder, "qwen3-reranker")
        save_file({k: v for k, v in (weights() | self.tensors).items() if v is not None}, folder / "model.safetensors")
        return folder


def ones(*shape: int) -> Any:
    return np.ones(shape, np.float32)


def weights() -> dict[str, Any]:
    found = {"model.embed_tokens.weight": ones(TOKENS, WIDTH), "model.norm.weight": ones(WIDTH)}
    found["lm_head.weight"] = ones(TOKENS, WIDTH)
    for i in range(LAYERS):
        layer = f"model.layers.{i}."
        shapes = {"q_proj": (WIDTH, WIDTH), "k_proj": (KV * HEAD, WIDTH), "v_proj": (KV * HEAD, WIDTH)}
        found |= {f"{layer}self_attn.{name}.weight": ones(*shape) for name, shape in shapes.items()}
        found[f"{layer}self_attn.o_proj.weight"] = ones(WIDTH, WIDTH)
        found |= {f"{layer}mlp.{name}.weight": ones(INNER, WIDTH) for name in ("gate_proj", "up_proj")}
        found[f"{layer}mlp.down_proj.weight"] = ones(WIDTH, INNER)
        found |= {f"{layer}{name}.weight": ones(WIDTH) for name in ("input_layernorm", "post_attention_layernorm")}
    return found


def made(folder: Path) -> Blueprint:
    return blueprint(open_checkpoint(folder))


def refused(folder: Path) -> str:
    with pytest.raises(EdgemmError) as caught:
        made(folder)
    text = str(caught.value)
    assert "\n" not in text
    assert caught.value.exit_code == 3
    return text


def settings(found: Blueprint) -> dict[str, Any]:
    return {key.split(".", 1)[1]: item.value for key, item in found.settings.items()}  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"hidden_size": ...}, "hidden_size is None"),
        ({"num_hidden_layers": ...}, "num_hidden_layers is None"),
        ({"num_attention_heads": ...}, "num_attention_heads is None"),
        ({"intermediate_size": "x"}, "intermediate_size is 'x'"),
        ({"rms_norm_eps": True}, "rms_norm_eps is True"),
        ({"num_hidden_layers": -1}, "num_hidden_layers is -1"),
        ({"rope_scaling": 8}, "rope_scaling is 8, expected an object"),
        ({"rope_scaling": {"type": "linear"}}, "factor is None"),
        ({"rope_scaling": {"rope_type": "dynamic", "factor": 2}}, "rope type 'dynamic' is not known"),
        ({"rope_scaling": {"rope_type": "longrope", "long_factor": [1.0]}}, "long_factor does not have 2 numbers"),
        ({"rope_scaling": {"type": "yarn", "factor": 4, "beta_fast": 16}}, "beta_fast of yarn is 16"),
        ({"rope_scaling": {"type": "yarn", "factor": 4, "truncate": False}}, "truncate of yarn is False"),
        ({"rope_parameters": {"rope_type": "mystery"}}, "rope type 'mystery' is not known"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'; llama.cpp's graph needs 'silu'"),
        ({"partial_rotary_factor": 0.5}, "rotary positions on a part of each head"),
        ({"intermediate_size": 48}, "has the shape [24, 16], config.json says [48, 16]"),
        ({"num_key_value_heads": 4}, "k_proj.weight has the shape [8, 16], config.json says [16, 16]"),
        ({"num_hidden_layers": 3}, "no tensor layers.2."),
        ({"num_hidden_layers": 1}, "model.layers.1."),
    ],
)
def test_a_wrong_setting_is_named(config: dict[str, Any], why: str, tmp_path: Path) -> None:
    assert why in refused(Decoder(config).write(tmp_path / "x"))


@pytest.mark.parametrize(
    ("tensors", "why"),
    [
        ({"model.norm.weight": None}, "no tensor norm.weight"),
        ({"model.embed_tokens.weight": None}, "no tensor embed_tokens.weight"),
        ({"model.norm.weight": ones(8)}, "model.norm.weight has the shape [8], config.json says [16]"),
        ({"model.norm.weight": np.array(1, np.float32)}, "model.norm.weight has the shape []"),
        ({"model.norm.bias": ones(WIDTH)}, "model.norm.bias has no place in llama.cpp's graph"),
        ({"model.layers.0.mlp.router.weight": ones(4, 4)}, "router.weight has no place in llama.cpp's graph"),
        ({"model.vision.weight": ones(4, 4)}, "model.vision.weight has no place in llama.cpp's graph"),
    ],
)
def test_a_wrong_tensor_is_named(tensors: dict[str, Any], why: str, tmp_path: Path) -> None:
    assert why in refused(Decoder(tensors=tensors).write(tmp_path / "x"))


def test_a_missing_output_matrix_is_named_when_it_is_not_the_embedding(tmp_path: Path) -> None:
    untied = Decoder({"tie_word_embeddings": False}, {"lm_head.weight": None})
    assert "no tensor lm_head.weight" in refused(untied.write(tmp_path / "x"))


NO_GRAPH = "a classifier of this family has no llama.cpp graph"
SCALED_NEOX = {"hidden_act": ..., "rope_parameters": {"rope_type": "linear"}}
UNEVEN = {"head_dim": 4, "query_pre_attn_scalar": 4, "layer_types": ["full_attention", "sliding_attention"]}
QWEN3_NORMS = {f"model.layers.{i}.self_attn.{n}_norm.weight": ones(HEAD) for i in range(LAYERS) for n in "qk"}
O_BIAS = {"model.layers.0.self_attn.o_proj.bias": ones(WIDTH)}


@pytest.mark.parametrize(
    ("model_type", "kind", "config", "tensors", "why"),
    [
        ("qwen2", "Qwen2ForCausalLM", {}, O_BIAS, "o_proj.bias has no place in llama.cpp's graph"),
        ("qwen2", "Qwen2ForCausalLM", {"head_dim": 8}, {}, "4 heads of 8 on a width of 16"),
        ("qwen2", "Qwen2ForCausalLM", {"rope_scaling": {"type": "llama3"}}, {}, "rope type 'llama3'"),
        ("smollm3", "SmolLM3ForCausalLM", {}, O_BIAS, "o_proj.bias has no place in llama.cpp's graph"),
        ("smollm3", "SmolLM3ForCausalLM", {"no_rope_layers": [0, 1]}, {}, "no_rope_layers is not every 4th layer"),
        ("smollm3", "SmolLM3ForCausalLM", {"no_rope_layer_interval": 3}, {}, "no_rope_layers is not every 4th layer"),
        ("gemma2", "Gemma2ForCausalLM", {"head_dim": HEAD}, {}, "query_pre_attn_scalar is 256"),
        ("gemma2", "Gemma2ForCausalLM", {"tie_word_embeddings": False}, {}, "tie_word_embeddings is False"),
        ("gemma3_text", "Gemma3ForCausalLM", {"hidden_activation": "silu"}, {}, "hidden_activation is 'silu'"),
        ("gemma3_text", "Gemma3ForCausalLM", UNEVEN, {}, "a full layer at regular distances"),
        ("phi3", "Phi3ForCausalLM", {"rope_scaling": {"type": "llama3"}}, {}, "rope type 'llama3'"),
        ("gpt_neox", "GPTNeoXForCausalLM", SCALED_NEOX, {}, "rope type 'linear'"),
        ("gpt_neox", "GPTNeoXForCausalLM", {"hidden_act": ..., "attention_bias": False}, {}, "attention_bias is False"),
        ("gpt2", "GPT2LMHeadModel", {"activation_function": "relu"}, {}, "activation_function is 'relu'"),
        ("gpt2", "GPT2LMHeadModel", {"scale_attn_by_inverse_layer_idx": True}, {}, "scale_attn_by_inverse_layer_idx"),
        ("t5", "T5EncoderModel", {"num_layers": 2}, {}, "an encoder without its decoder"),
        ("t5", "T5ForConditionalGeneration", {"feed_forward_proj": "gated-silu"}, {}, "feed_forward_proj"),
        ("modernbert", "ModernBertModel", {"norm_bias": True}, {}, "norm_bias is True"),
        ("modernbert", "ModernBertModel", {"classifier_pooling": "max"}, {}, "classifier_pooling is 'max'"),
        ("nomic_bert", "NomicBertModel", {"num_experts": 8}, {}, "num_experts is 8"),
        ("nomic_bert", "NomicBertModel", {"rotary_emb_fraction": 0.5}, {}, "rotary positions on a part of each head"),
        ("xlm-roberta", "XLMRobertaModel", {"hidden_act": "gelu", "pad_token_id": 0}, {}, "pad_token_id is 0"),
        ("distilbert", "DistilBertForSequenceClassification", {}, {}, NO_GRAPH),
        ("llama", "LlamaForSequenceClassification", {}, {}, NO_GRAPH),
        ("qwen3", "Qwen3ForSequenceClassification", {"id2label": {"0": "x"}}, QWEN3_NORMS, "a softmax over the labels"),
    ],
)  # fmt: skip
def test_what_llama_cpp_s_graph_of_a_family_cannot_do_is_refused(
    model_type: str, kind: str, config: dict[str, Any], tensors: dict[str, Any], why: str, tmp_path: Path
) -> None:
    assert why in refused(Decoder(config, tensors).write(tmp_path / "x", model_type, kind))


@pytest.mark.parametrize("model_type", ["albert", "mpnet", "gptj", "vit"])
def test_families_without_a_llama_cpp_graph_name_the_onnx_target(model_type: str, tmp_path: Path) -> None:
    assert model_type in ONNX_ONLY
    text = refused(Decoder().write(tmp_path / "x", model_type))
    assert f"llama.cpp has no graph for {model_type}" in text
    assert "onnx-int8" in text


def test_an_unknown_family_lists_the_known_ones(tmp_path: Path) -> None:
    text = refused(Decoder().write(tmp_path / "x", "mystery"))
    assert "'mystery' has no gguf builder" in text
    assert all(name in text for name in supported("gguf"))


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"quantization_config": {"quant_method": "gptq"}}, "quantized already (gptq)"),
        ({"quantization_config": {"quant_method": "awq"}}, "quantized already (awq)"),
        ({"quantization_config": {"quant_method": "fp8"}}, "quantized already (fp8)"),
        ({"quantization": {"bits": 4, "group_size": 64}}, "quantized already (MLX)"),
    ],
)
def test_checkpoints_that_are_quantized_already_are_refused(config: dict[str, Any], why: str, tmp_path: Path) -> None:
    assert why in refused(Decoder(config).write(tmp_path / "x"))


def test_integer_weights_are_refused_even_when_config_json_is_silent(tmp_path: Path) -> None:
    packed = {"model.layers.0.mlp.up_proj.weight": np.ones((INNER, WIDTH), np.uint32)}
    text = refused(Decoder(tensors=packed).write(tmp_path / "x"))
    assert "up_proj.weight is stored as U32: the checkpoint is quantized already" in text


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused(value: float, tmp_path: Path) -> None:
    bad = ones(WIDTH, INNER)
    bad[3, 5] = value
    folder = Decoder(tensors={"model.layers.1.mlp.down_proj.weight": bad}).write(tmp_path / "x")
    tensor = next(t for t in made(folder).tensors if t.name == "blk.1.ffn_down.weight")
    with pytest.raises(EdgemmError, match=r"model\.layers\.1\.mlp\.down_proj\.weight holds values that are not finite"):
        tensor.source.read(0, WIDTH)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    folder = Decoder().write(tmp_path / "x")
    names = dict.fromkeys(weights(), "model.safetensors") | {"lm_head.weight": "model-2.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    assert "model-2.safetensors: the file is missing" in refused(folder)


def test_other_weights_beside_the_model_are_left_alone(tmp_path: Path) -> None:
    folder = Decoder().write(tmp_path / "x")
    save_file({"layers.0.attention.wq.weight": ones(4, 4)}, folder / "consolidated.safetensors")
    assert made(folder).architecture == "llama"


def test_names_with_and_without_prefix_are_the_same_model(tmp_path: Path) -> None:
    whole = made(Decoder().write(tmp_path / "whole"))
    bare = {name.removeprefix("model."): array for name, array in weights().items()}
    lost = dict.fromkeys(weights())
    found = made(Decoder(tensors=lost | bare).write(tmp_path / "bare"))
    assert [(t.name, t.shape) for t in found.tensors] == [(t.name, t.shape) for t in whole.tensors]


@pytest.mark.parametrize(("said", "stored", "tied"), [
    (True, True, True), (True, False, True), (False, True, False), (..., True, False), (..., False, True),
])  # fmt: skip
def test_the_output_matrix_is_the_embedding_when_config_json_says_so(
    said: Any, stored: bool, tied: bool, tmp_path: Path
) -> None:
    tensors = {} if stored else {"lm_head.weight": None}
    found = made(Decoder({"tie_word_embeddings": said}, tensors).write(tmp_path / "x"))
    assert found.tied == tied
    assert any(t.name == "output.weight" for t in found.tensors) == (not tied)


def test_rope_parameters_of_newer_files_are_read(tmp_path: Path) -> None:
    old = {"rope_theta": 5e5, "rope_scaling": {"rope_type": "linear", "factor": 4.0}}
    new = {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 5e5}}
    found = [settings(made(Decoder(config).write(tmp_path / str(i)))) for i, config in enumerate((old, new))]
    assert found[0] | {"name": ""} == found[1] | {"name": ""}
    assert (found[0]["rope.freq_base"], found[0]["rope.scaling.factor"]) == (5e5, 4.0)


@pytest.mark.parametrize(
    ("model_type", "config", "length", "note"),
    [
        ("llama", {"max_position_embeddings": 2048}, 2048, False),
        ("mistral", {"sliding_window": None, "max_position_embeddings": 8192}, 8192, False),
        ("mistral", {"sliding_window": 4096, "max_position_embeddings": 32768}, 4096, True),
        ("qwen2", {"sliding_window": 4096, "max_position_embeddings": 32768}, 32768, False),
        ("qwen2", {"sliding_window": 4096, "use_sliding_window": True}, 4096, True),
    ],
)
def test_a_sliding_window_ends_the_context(
    model_type: str, config: dict[str, Any], length: int, note: bool, tmp_path: Path
) -> None:
    found = made(Decoder(config).write(tmp_path / "x", model_type, "MistralForCausalLM"))
    assert settings(found)["context_length"] == length
    assert any("sliding window" in text for text in found.notes) == note


@pytest.mark.parametrize(
    ("files", "folder", "task"),
    [
        ({}, "x", "chat"),
        ({"README.md": "---\ntags:\n- a\npipeline_tag: text-ranking\n---\n"}, "x", "classify"),
        ({"README.md": "pipeline_tag: text-ranking"}, "x", "chat"),
        ({"README.md": "---\npipeline_tag: text-generation\n---\npipeline_tag: text-ranking"}, "x", "chat"),
        ({}, "Qwen3-Reranker-0.6B", "classify"),
    ],
)
def test_the_card_or_the_name_makes_a_reranker(files: dict[str, str], folder: str, task: str, tmp_path: Path) -> None:
    place = Decoder({"head_dim": HEAD}, QWEN3_NORMS).write(tmp_path / folder, "qwen3", "Qwen3ForCausalLM")
    for name, text in files.items():
        (place / name).write_text(text)
    found = made(place)
    assert found.task == task
    if task == "classify":
        head = next(t for t in found.tensors if t.name == "cls.output.weight")
        assert head.shape == (2, WIDTH)
        assert settings(found)["classifier.output_labels"] == ["yes", "no"]
        assert not any(t.name == "output.weight" for t in found.tensors)


def test_a_reranker_of_a_family_without_one_is_refused(tmp_path: Path) -> None:
    assert "no llama.cpp graph" in refused(Decoder().write(tmp_path / "llama-reranker"))


GPT2 = {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "n_embd": 8, "n_layer": 1, "n_head": 2}


def gpt2(folder: Path, prefix: str, extra: dict[str, Any]) -> Path:
    shapes = {
        "wte.weight": (12, 8), "wpe.weight": (16, 8), "ln_f.weight": (8,), "ln_f.bias": (8,), "h.0.ln_1.weight": (8,),
        "h.0.ln_1.bias": (8,), "h.0.ln_2.weight": (8,), "h.0.ln_2.bias": (8,), "h.0.attn.c_attn.weight": (8, 24),
        "h.0.attn.c_attn.bias": (24,), "h.0.attn.c_proj.weight": (8, 8), "h.0.attn.c_proj.bias": (8,),
        "h.0.mlp.c_fc.weight": (8, 32), "h.0.mlp.c_fc.bias": (32,), "h.0.mlp.c_proj.weight": (32, 8),
        "h.0.mlp.c_proj.bias": (8,),
    }  # fmt: skip
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(GPT2 | {"n_positions": 16}))
    tiny_tokenizers.write(folder, "gpt2")
    save_file({prefix + name: ones(*shape) for name, shape in shapes.items()} | extra, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize("prefix", ["", "transformer."])
@pytest.mark.parametrize("buffers", [False, True])
def test_gpt_2_with_and_without_prefix_and_buffers(prefix: str, buffers: bool, tmp_path: Path) -> None:
    masks = {f"{prefix}h.0.attn.bias": ones(1, 1, 16, 16), f"{prefix}h.0.attn.masked_bias": np.array(-1e4, np.float32)}
    found = made(gpt2(tmp_path / "x", prefix, masks if buffers else {}))
    shapes = {t.name: t.shape for t in found.tensors}
    assert shapes["blk.0.attn_qkv.weight"] == (24, 8)
    assert shapes["blk.0.ffn_down.weight"] == (8, 32)
    assert len(shapes) == 16


@pytest.mark.parametrize("prefix", ["", "bert."])
def test_old_bert_names_and_buffers_are_known(prefix: str, tmp_path: Path) -> None:
    folder = tiny_bert.write(tmp_path / "x", prefix=prefix)
    arrays = load_file(folder / "model.safetensors")
    old = {n.replace("Norm.weight", "Norm.gamma").replace("Norm.bias", "Norm.beta"): a for n, a in arrays.items()} | {
        f"{prefix}embeddings.position_ids": np.arange(128)[None],
        f"{prefix}pooler.dense.weight": ones(64, 64),
        "cls.predictions.bias": ones(4),
    }
    save_file(old, folder / "model.safetensors")
    assert len(made(folder).tensors) == len(arrays)


def test_newer_gemma_and_modernbert_files_say_the_bases_of_both_kinds_of_layer() -> None:
    from converters.architectures import Config, gemma3_text, modernbert

    bases = {"full_attention": {"rope_theta": 7e5}, "sliding_attention": {"rope_theta": 9e3, "rope_type": "default"}}
    config = Config({"rope_parameters": bases}, Path("config.json"))
    for row in (gemma3_text.GGUF, modernbert.GGUF):
        found = {key.name: key.value(config) for key in row.keys if key.name.startswith("rope.freq_base")}
        assert found == {"rope.freq_base": 7e5, "rope.freq_base_swa": 9e3}


def test_the_whole_file_is_settled_before_a_weight_is_read(tmp_path: Path) -> None:
    job = gguf_prepare.from_checkpoint(open_checkpoint(Decoder().write(tmp_path / "x")), tmp_path)
    assert job.blueprint.vocabulary_rows == TOKENS
    assert job.agreement is not None
    assert job.agreement.complete
    reads: Callable[[int, int], Any] = job.blueprint.tensors[0].source.read
    assert reads(0, 2).shape == (2, WIDTH)
