"""Mistral 7B and its relatives (Jiang et al. 2023): Llama's graph; a sliding window ends the context."""

from dataclasses import replace

from converters.architectures import llama

GGUF = replace(llama.GGUF, defaults={"max_position_embeddings": 131072, "num_key_value_heads": 8})
