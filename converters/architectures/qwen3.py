"""Qwen 3 (Qwen team 2025), chat, embedding and reranking models: Qwen 2 without biases, with a norm on each head."""

from dataclasses import replace

from converters.architectures import Config, Module, qwen2
from converters.architectures._decoder import head_norms, plain_rotary
from converters.operations import Rows

ANSWERS = ("yes", "no")  # a reranker's: what is the likelier next token?


def _check(config: Config) -> None:
    plain_rotary(config)
    labels = len(config.section("id2label").values) or config.get("num_labels", 2)
    ranks = str(config.get("architectures", [""])[0]).endswith("ForSequenceClassification")
    if ranks and (labels == 1 or config.get("problem_type") in ("regression", "multi_label_classification")):
        raise config.unsupported("scores that do not add up to 1; llama.cpp's graph puts a softmax over the labels")


GGUF = replace(
    qwen2.GGUF,
    name="qwen3",
    check=_check,
    heads={
        "classify": (Module("cls.output", "score", "ch", bias=False),),
        "rerank": (Module("cls.output", "lm_head", "ch", Rows(ANSWERS), bias=False),),
    },
    shares=True,
    modules=(*qwen2.GGUF.modules, *head_norms()),
    defaults={**qwen2.GGUF.defaults, "head_dim": 128},
)
