"""XLM-RoBERTa (Conneau et al. 2020): RoBERTa with a Unigram vocabulary; multilingual E5 and BGE-M3 are built on it."""

from converters.architectures import roberta

GGUF = roberta.GGUF
ONNX = roberta.ONNX
