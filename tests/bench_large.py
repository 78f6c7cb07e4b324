"""A checkpoint of a billion seeded weights to gguf-q4_k_m: peak memory, other bytes on disk, and time against
llama.cpp's own quantizer on a finished f16 file. Part of `make bench-quant`; needs 6 GB of free disk.

The vocabulary is the starter chat model's; the shapes are those of a Llama of 1B. llama.cpp's quantizer only quantizes,
ours also reads the checkpoint, hashes it, reads every tensor of the result again and runs it.
"""

import contextlib
import json
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import llama_quantize
import numpy as np
from bench import Result, process

from converters.recipe import RECIPES
from edgemm import guard, models

CHAT = "smollm2-135m-instruct"
TARGET = "gguf-q4_k_m"
LAYERS, WIDTH, FEED_FORWARD, HEADS, KV_HEADS = 16, 2048, 8192, 32, 8
MEMORY, OTHER, TIMES, REPEATS = 1500, 8, 1.2, 3  # MB, MB (tokenizer, vocabulary trial, report), times, runs


def shapes(vocabulary: int) -> dict[str, tuple[int, ...]]:
    kv = WIDTH // HEADS * KV_HEADS
    found: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (vocabulary, WIDTH),
        "model.norm.weight": (WIDTH,),
    }
    for i in range(LAYERS):
        rows = {"self_attn.q_proj": WIDTH, "self_attn.k_proj": kv, "self_attn.v_proj": kv, "self_attn.o_proj": WIDTH}
        rows |= {"mlp.gate_proj": FEED_FORWARD, "mlp.up_proj": FEED_FORWARD}
        found |= {f"model.layers.{i}.{name}.weight": (count, WIDTH) for name, count in rows.items()}
        found[f"model.layers.{i}.mlp.down_proj.weight"] = (WIDTH, FEED_FORWARD)
        for norm in ("input_layernorm", "post_attention_layernorm"):
            found[f"model.layers.{i}.{norm}.weight"] = (WIDTH,)
    return found


def write_checkpoint(folder: Path) -> int:
    """A llama checkpoint in bf16, written tensor by tensor. Gives the number of its weights."""
    gguf = models.find(CHAT).file(".gguf")
    assert gguf is not None
    metadata = guard.check_gguf(gguf).metadata
    folder.mkdir()
    tokens = write_tokenizer(folder, metadata)
    config = {
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": WIDTH,
        "num_hidden_layers": LAYERS, "intermediate_size": FEED_FORWARD, "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS, "vocab_size": tokens, "max_position_embeddings": 8192, "rms_norm_eps": 1e-5,
        "tie_word_embeddings": True, "hidden_act": "silu", "bos_token_id": 1, "eos_token_id": 2,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    table, at = {}, 0
    for name, shape in shapes(tokens).items():
        size = 2 * int(np.prod(shape))
        table[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    head = json.dumps(table).encode()
    with open(folder / "model.safetensors", "wb") as file:
        file.write(len(head).to_bytes(8, "little") + head)
        for part in parts(tokens):
            file.write(part)
    return at // 2


def parts(tokens: int) -> Iterator[bytes]:
    rng = np.random.default_rng(5)
    for shape in shapes(tokens).values():
        scale = 0.02 if len(shape) == 2 else 1.0
        values = rng.standard_normal(shape, np.float32) * np.float32(scale)
        values[np.abs(values) < 2.0**-17] = 0  # below, f16 has fewer bits than bf16, and the peer reads f16
        yield (values.view(np.uint32) >> 16).astype(np.uint16).tobytes()


def write_tokenizer(folder: Path, metadata: dict[str, object]) -> int:
    """tokenizer.json with the tokens and merges of a GGUF vocabulary."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    tokens, types = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.token_type"]
    merges = [tuple(str(m).split(" ", 1)) for m in metadata["tokenizer.ggml.merges"]]  # type: ignore[attr-defined]
    vocabulary = {str(token): i for i, token in enumerate(tokens)}  # type: ignore[arg-type]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    digits = pre_tokenizers.Digits(individual_digits=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    control = [t for t, kind in zip(tokens, types, strict=True) if kind == 3]  # type: ignore[arg-type]
    tokenizer.add_special_tokens([AddedToken(str(t), special=True) for t in control])
    tokenizer.save(str(folder / "tokenizer.json"))
    return len(vocabulary)


class DiskWatch:
    """The most bytes that lay in a folder while a block ran, looked at twenty times a second."""

    def __init__(self, folder: Path) -> None:
        self._folder, self.most, self._ended = folder, 0, threading.Event()

    def __enter__(self) -> "DiskWatch":
        self._thread = threading.Thread(target=self._look)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._ended.wait(0.05):
            sizes = 0
            for path in self._folder.rglob("*"):
                with contextlib.suppress(OSError):  # renamed meanwhile
                    sizes += path.stat().st_size if path.is_file() else 0
            self.most = max(self.most, sizes)


def measure() -> list[Result]:
    with tempfile.TemporaryDirectory() as name:
        folder, store = Path(name), Path(name) / "store"
        weights = write_checkpoint(folder / "billion")
        options = ("--no-compare", "--no-oracle", "--calibrate", "none")
        command = ("-m", "edgemm", "convert", str(folder / "billion"), *options)
        process(*command, "--to", "gguf-f16", "--out", "f16", EDGEMM_HOME=str(folder / "f16"))
        f16, ours = folder / "f16" / "f16" / "model.gguf", store / "ours" / "model.gguf"
        runs = []
        for _ in range(REPEATS):
            started = time.perf_counter()
            peer = llama_quantize.quantize(f16, folder, {"theirs": RECIPES[TARGET].file_type})["theirs"]
            theirs = time.perf_counter() - started
            shutil.rmtree(store, ignore_errors=True)
            with DiskWatch(store) as disk:
                wall, _, memory = process(*command, "--to", TARGET, "--out", "ours", EDGEMM_HOME=str(store))
            runs.append((wall / theirs, memory, disk.most - ours.stat().st_size, wall, theirs))
        if llama_quantize.contents(peer) != llama_quantize.contents(ours):
            raise SystemExit("the tensors are not those of llama.cpp's quantizer")
    ratio, _, _, wall, theirs = (statistics.median(column) for column in zip(*runs, strict=True))
    memory, other = (max(run[i] for run in runs) for i in (1, 2))
    what = f"{weights / 1e9:.2f}G weights to {TARGET}"
    took = f"{wall:.1f} s against {theirs:.1f} s, {REPEATS} pairs, the same bytes"
    return [
        Result(f"{what}: peak memory", memory, MEMORY, "MB", False, f"the largest process, most of {REPEATS}"),
        Result(f"{what}: other bytes on disk meanwhile", other / 1e6, OTHER, "MB", False, f"most of {REPEATS}"),
        Result(f"{what}: whole command / llama.cpp's quantizer", ratio, TIMES, "x", False, took),
    ]
