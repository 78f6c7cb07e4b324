"""The checkpoint through transformers itself, where the extra `export` is installed; in a process of its own.

The converter never imports torch: this module starts `python -m converters.oracle FOLDER OUT PIXELS`, which reads
rows of token ids as JSON from stdin and pictures from the file PIXELS, and writes arrays to the file OUT. No code of
the checkpoint is run.
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
from converters.onnx_parts import Item, Part, Text
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


def answers(part: Part, items: Sequence[Item]) -> Array:
    """What transformers answers to `items`, as `Part.expected` orders it. Raises `MissingExtra` when it cannot."""
    request = {
        "task": part.task,
        "kind": part.checkpoint.kind,
        "pooling": "" if part.head else part.pooling,
        "texts": [[item.ids, item.types, item.places] for item in items if isinstance(item, Text)],
    }
    pixels = [item for item in items if not isinstance(item, Text)]
    found = np.concatenate(_run(part.checkpoint, request, len(items), pixels))
    for name in part.dense:
        found = found @ part.weights.tensor(f"{name}.weight").T
        found += part.weights.tensor(f"{name}.bias") if part.weights.find(f"{name}.bias") else 0
    is_unit = part.head is None and part.normalize
    return found / np.linalg.norm(found, axis=1, keepdims=True) if is_unit else found


def _ask(checkpoint: Checkpoint, task: str, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[Array]:
    request = {
        "task": task,
        "pairs": [(list(text), list(answer)) for text, answer in pairs],
        "pooling": checkpoint.pooling,
        "answers": list(token_ids(checkpoint, ANSWERS).values()) if task == "rerank" else [],
    }
    return _run(checkpoint, request, len(pairs))


def _run(checkpoint: Checkpoint, request: dict[str, Any], count: int, pixels: Sequence[Array] = ()) -> list[Array]:
    """Ask a child process for `count` arrays."""
    with tempfile.TemporaryDirectory() as folder:
        out, pictures = Path(folder) / "out.npz", Path(folder) / "pixels.npz"
        np.savez(pictures, *pixels)
        command = [sys.executable, "-m", "converters.oracle", str(checkpoint.folder), str(out), str(pictures)]
        done = subprocess.run(command, input=json.dumps(request), capture_output=True, text=True, timeout=_SECONDS)
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1][:200]
            raise MissingExtra(
                "transformers", f"cannot run the checkpoint ({reason})", "add --no-oracle to go on without it"
            )
        with np.load(out, allow_pickle=False) as arrays:
            return [arrays[f"arr_{i}"] for i in range(count)]


def _main(folder: str, out: str, pictures: str) -> None:
    import torch

    request = json.load(sys.stdin)
    model = _load(folder, request)
    with torch.inference_mode():
        if "pairs" in request:
            results = [_answer(model, torch.tensor([a]), torch.tensor([b]), request) for a, b in request["pairs"]]
        else:
            with np.load(pictures, allow_pickle=False) as arrays:
                pixels = [arrays[f"arr_{i}"] for i in range(len(arrays))]
            results = [_of_text(model, text, request) for text in request["texts"]]
            results += [_of_picture(model, torch.tensor(each[None]), request) for each in pixels]
    np.savez(out, *results)


def _load(folder: str, request: dict[str, Any]) -> Any:
    import torch
    import transformers

    config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    options = {"local_files_only": True, "trust_remote_code": False, "use_safetensors": True}
    kind = getattr(transformers, _class(request, is_encoder_decoder=config.is_encoder_decoder))
    return kind.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager", **options).eval()


def _class(request: dict[str, Any], *, is_encoder_decoder: bool) -> str:
    task, kind = request["task"], request.get("kind", "")
    if task in ("embed", "image-text") or (task == "image-embed" and not kind.endswith("WithProjection")):
        return "AutoModel"
    if kind:
        return str(kind)
    if task == "classify":
        return "AutoModelForSequenceClassification"
    return "AutoModelForSeq2SeqLM" if is_encoder_decoder else "AutoModelForCausalLM"


def _of_text(model: Any, item: list[list[int]], request: dict[str, Any]) -> Array:
    import torch

    ids, types, places = item
    text = torch.tensor([ids])
    inputs = {"input_ids": text, "attention_mask": text * 0 + 1}
    if request["task"] == "image-text":
        wants_mask = model.config.model_type == "clip"
        return model.get_text_features(**inputs if wants_mask else {"input_ids": text}).numpy()  # type: ignore[no-any-return]
    if types and getattr(model.config, "type_vocab_size", 1) > 1:
        inputs["token_type_ids"] = torch.tensor([types])
    found = model(**inputs)
    if request["pooling"]:
        return _pooled(found.last_hidden_state[0], request["pooling"])
    if "start_logits" in found:
        return torch.stack([found.start_logits[0], found.end_logits[0]], -1).numpy()  # type: ignore[no-any-return]
    logits = found["logits" if "logits" in found else "prediction_logits"][0]
    return (logits[places] if places else logits.reshape(-1, logits.shape[-1])).numpy()  # type: ignore[no-any-return]


def _of_picture(model: Any, pixels: Any, request: dict[str, Any]) -> Array:
    import torch

    inputs = {"pixel_values": pixels}
    if "siglip2" in model.config.model_type:
        patch = getattr(model.config, "vision_config", model.config).patch_size
        rows, columns = (size // patch for size in pixels.shape[2:])
        parts = pixels.reshape(1, 3, rows, patch, columns, patch).permute(0, 2, 4, 3, 5, 1)
        inputs = {"pixel_values": parts.reshape(1, rows * columns, -1)}
        inputs["pixel_attention_mask"] = torch.ones(1, rows * columns)
        inputs["spatial_shapes"] = torch.tensor([[rows, columns]])
    if request["task"] == "image-text":
        return model.get_image_features(**inputs).numpy()  # type: ignore[no-any-return]
    found = model(**inputs)
    if "logits" in found:
        return found.logits.numpy()  # type: ignore[no-any-return]
    if "image_embeds" in found:
        return found.image_embeds.numpy()  # type: ignore[no-any-return]
    return found.pooler_output.numpy() if request["pooling"] == "probe" else _picture(model, found)


def _picture(model: Any, found: Any) -> Array:
    """The class token, or the mean of maps; CLIP's vision model norms it in its pooler."""
    if found.last_hidden_state.ndim == 4:  # the maps of a convolutional network
        return found.last_hidden_state.mean((2, 3)).numpy()  # type: ignore[no-any-return]
    is_clip = model.config.model_type.startswith("clip")
    return (found.pooler_output if is_clip else found.last_hidden_state[:, 0]).numpy()  # type: ignore[no-any-return]


def _pooled(hidden: Any, pooling: str) -> Array:
    vector = {"cls": hidden[0], "last": hidden[-1], "mean": hidden.mean(dim=0)}[pooling]
    return vector.float().numpy().reshape(1, -1)  # type: ignore[no-any-return]


def _answer(model: Any, text: Any, answer: Any, request: dict[str, Any]) -> Array:
    inputs = {"input_ids": text, "attention_mask": text * 0 + 1}
    if request["task"] != "embed":
        inputs |= {"decoder_input_ids": answer} if model.config.is_encoder_decoder else {}
        logits = model(**inputs).logits.float().numpy()
        if request["answers"]:
            return logits[:, -1, request["answers"]]  # type: ignore[no-any-return]
        return logits.reshape(-1, logits.shape[-1])  # type: ignore[no-any-return]
    return _pooled(model(**inputs).last_hidden_state[0], request["pooling"])


if __name__ == "__main__":
    _main(*sys.argv[1:])
