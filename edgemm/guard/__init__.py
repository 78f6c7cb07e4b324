"""Checks that refuse a bad file before native code sees it: GGUF, ONNX and tokenizer.json.

llama.cpp answers a malformed file with abort(), which no `except` can catch; a few milliseconds of bounded Python
in front of it turn that into one line. Nothing here loads a model, and nothing here trusts a length field.
"""

from edgemm.guard.gguf import GGUFHeader, check_gguf, kv_cache_bytes, memory_needed, read_gguf
from edgemm.guard.onnx import check_onnx
from edgemm.guard.tokenizer import check_tokenizer_json

__all__ = [
    "GGUFHeader",
    "check_gguf",
    "check_onnx",
    "check_tokenizer_json",
    "kv_cache_bytes",
    "memory_needed",
    "read_gguf",
]
