"""The checkpoint through transformers itself, where the extra `export` is installed; in a process of its own.

The converter never imports torch: this module starts `python -m converters.oracle FOLDER OUT`, which reads rows of
token ids as JSON from stdin and writes arrays to the file OUT. No code of the checkpoint is run.
"""

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from converters.architectures.qwen3 import ANSWERS
from converters.checkpoint import Array, Checkpoint
from converters.gguf_vocab import token_ids
from edgemm.errors import MissingExtra

_SECONDS = 600


def available() -> bool:
    return find_spec("torch") is not None and find_spec("transformers") is not None


def vectors(checkpoint: Checkpoint, rows: Sequence[Sequence[int]]) -> Array:
    """float32 (len(rows), dimensions), pooled, projected and normalized as the checkpoint says.

    Raises `MissingExtra` when transformers cannot run it.
    """
    found = np.concatenate(_ask(checkpoint, "embed", [(row, ()) for row in rows]))
    for name in sorted(n for n in checkpoint.tensors if re.fullmatch(r"\d_Dense\.linear\.weight", n)):
        found = found @ checkpoint.read(name).T  # the projections of sentence-transformers
    return found / np.linalg.norm(found, axis=1, keepdims=True) if checkpoint.normalize else found


def logits(checkpoint: Checkpoint, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[Array]:
    """Logits of each text, float32 (tokens, vocabulary), or (1, labels) of a classifier.

    A pair is a text and, for a model with an encoder and a decoder, what the decoder reads. A reranker's labels are
    its logits of two tokens behind the text.
    """
    return _ask(checkpoint, checkpoint.task, pairs)


def _ask(checkpoint: Checkpoint, task: str, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[Array]:
    request = {
        "task": task,
        "pairs": [(list(text), list(answer)) for text, answer in pairs],
        "pooling": checkpoint.pooling,
        "answers": list(token_ids(checkpoint, ANSWERS).values()) if task == "rerank" else [],
    }
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.npz"
        command = [sys.executable, "-m", "converters.oracle", str(checkpoint.folder), str(out)]
        done = subprocess.run(command, input=json.dumps(request), capture_output=True, text=True, timeout=_SECONDS)
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1][:200]
            raise MissingExtra(
                "transformers", f"cannot run the checkpoint ({reason})", "add --no-oracle to go on without it"
            )
        with np.load(out, allow_pickle=False) as arrays:
            return [arrays[f"arr_{i}"] for i in range(len(pairs))]


def _main(folder: str, out: str) -> None:
    import torch
    import transformers

    request = json.load(sys.stdin)
    config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    kinds = {"classify": "AutoModelForSequenceClassification", "embed": "AutoModel"}
    chat = "AutoModelForSeq2SeqLM" if config.is_encoder_decoder else "AutoModelForCausalLM"
    kind = getattr(transformers, kinds.get(request["task"], chat))
    options = {"local_files_only": True, "trust_remote_code": False, "use_safetensors": True}
    model = kind.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager", **options).eval()
    with torch.inference_mode():
        results = [_answer(model, torch.tensor([a]), torch.tensor([b]), request) for a, b in request["pairs"]]
    np.savez(out, *results)


def _answer(model: Any, text: Any, answer: Any, request: dict[str, Any]) -> Array:
    inputs = {"input_ids": text, "attention_mask": text * 0 + 1}
    if request["task"] != "embed":
        inputs |= {"decoder_input_ids": answer} if model.config.is_encoder_decoder else {}
        logits = model(**inputs).logits.float().numpy()
        if request["answers"]:
            return logits[:, -1, request["answers"]]  # type: ignore[no-any-return]
        return logits.reshape(-1, logits.shape[-1])  # type: ignore[no-any-return]
    hidden = model(**inputs).last_hidden_state[0].float()
    vector = {"cls": hidden[0], "last": hidden[-1], "mean": hidden.mean(dim=0)}[request["pooling"]]
    return vector.numpy().reshape(1, -1)  # type: ignore[no-any-return]


if __name__ == "__main__":
    _main(sys.argv[1], sys.argv[2])
