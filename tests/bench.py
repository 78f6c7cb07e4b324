"""`make bench`: figures of this machine, each a ratio or a difference against a peer measured in the same run.

Repeats take turns, each is compared with its neighbours, and medians are quoted, because machines drift. Ends with
a table of targets; a missed target is shown as missed and makes the exit code 1.
"""

import ast
import ctypes
import os
import random
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

from rich.console import Console
from rich.table import Table

from edgemm.backends import Sampling
from edgemm.backends.ort import pad
from edgemm.backends.worker import LoadOptions, Worker
from edgemm.batches import BatchOptions
from edgemm.device import Device, cores
from edgemm.events import Done
from edgemm.models import find, open_embedder
from edgemm.tokenizer import Overflow, open_tokenizer

CHAT, CHECKPOINT = "smollm2-135m-instruct", "all-minilm-l6-v2"
TEXTS, MAX_TOKENS, REPEATS = 512, 256, 5
DECODE_TOKENS = 128
LIBRARY_SEED = 7


@dataclass(frozen=True)
class Result:
    what: str
    value: float
    target: float
    unit: str
    larger_is_better: bool
    detail: str

    @property
    def met(self) -> bool:
        return self.value >= self.target if self.larger_is_better else self.value <= self.target


@dataclass(frozen=True)
class Ratio:
    """Medians of the two, and of the quotients: each run of `ours` by the mean of its neighbours of `theirs`."""

    value: float
    ours: float
    theirs: float


def ratio(ours: Callable[[], float], theirs: Callable[[], float], repeats: int) -> Ratio:
    """Run `theirs` and `ours` in turns, after one turn that warms up."""
    ours()
    theirs()
    others, runs = [theirs()], []
    for _ in range(repeats):
        runs.append(ours())
        others.append(theirs())
    quotients = [run / statistics.mean(others[i : i + 2]) for i, run in enumerate(runs)]
    return Ratio(statistics.median(quotients), statistics.median(runs), statistics.median(others))


def decode() -> Result:
    """Tokens per second through the worker, against a bare llama_decode loop with a greedy sampler."""
    path = find(CHAT).file(".gguf")
    assert path is not None
    worker = Worker(path, LoadOptions(context=1024))
    # Two prompts in turn, so that nothing is re-used, and both sides read a whole prompt just before they decode.
    systems = ("You are a storyteller.", "Answer at great length.")
    question = {"role": "user", "content": "Tell me a long story about the sea."}
    prompts = cycle([worker.prompt([{"role": "system", "content": s}, question]).tokens for s in systems])
    sampling = Sampling(max_tokens=DECODE_TOKENS, temperature=0, repetition_penalty=1.0)
    bare = BareLoop(path, next(prompts))

    def ours() -> float:
        started = time.perf_counter()
        events = worker.generate(next(prompts), sampling)
        done = next(event for event in events if isinstance(event, Done))
        elapsed = time.perf_counter() - started - done.prefill_seconds
        return done.generated_tokens / elapsed

    speed = ratio(ours, bare.tokens_per_second, repeats=15)
    worker.close()
    detail = f"{speed.ours:.1f} against {speed.theirs:.1f} tokens/s, 15 pairs"
    return Result("decode through the worker / bare llama_decode", speed.value, 0.97, "x", True, detail)


class BareLoop:
    """The least code that can generate with llama.cpp: one decode and one greedy sample a token."""

    def __init__(self, path: Path, prompt: Sequence[int]) -> None:
        import llama_cpp

        self.lib = llama_cpp
        self.quiet = llama_cpp.llama_log_callback(lambda *_: None)
        llama_cpp.llama_log_set(self.quiet, ctypes.c_void_p())
        model_options = llama_cpp.llama_model_default_params()
        self.model = llama_cpp.llama_model_load_from_file(str(path).encode(), model_options)
        options = llama_cpp.llama_context_default_params()
        options.n_ctx, options.n_threads, options.n_threads_batch = 1024, cores(), cores()
        self.context = llama_cpp.llama_init_from_model(self.model, options)
        self.sampler = llama_cpp.llama_sampler_init_greedy()
        self.prompt = (ctypes.c_int32 * len(prompt))(*prompt)

    def tokens_per_second(self) -> float:
        lib = self.lib
        lib.llama_memory_clear(lib.llama_get_memory(self.context), True)
        lib.llama_decode(self.context, lib.llama_batch_get_one(self.prompt, len(self.prompt)))
        token = (ctypes.c_int32 * 1)(lib.llama_sampler_sample(self.sampler, self.context, -1))
        started = time.perf_counter()
        for _ in range(DECODE_TOKENS):
            lib.llama_decode(self.context, lib.llama_batch_get_one(token, 1))
            token[0] = lib.llama_sampler_sample(self.sampler, self.context, -1)
        return DECODE_TOKENS / (time.perf_counter() - started)


def docstrings(count: int) -> list[str]:
    """Docstrings of the standard library, a seeded sample in random order."""
    found = []
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8", "replace"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and (text := ast.get_docstring(node)):
                found.append(text)
    return random.Random(LIBRARY_SEED).sample(found, count)


def embedding() -> list[Result]:
    """Our engine in fp32, and fastembed's pattern: batches of 256 in input order, padded to the longest."""
    texts = docstrings(TEXTS)
    fp32 = find(f"{CHECKPOINT}-onnx-fp32")
    rows = [t.rows[0] for t in open_tokenizer(fp32).encode(texts, MAX_TOKENS, Overflow.CUT)]
    tokens = sum(map(len, rows))
    options = BatchOptions(overflow=Overflow.CUT)
    pattern = InputOrder(fp32.file(".onnx"), rows)
    with open_embedder(fp32.name, options) as ours:

        def mine() -> float:
            return tokens / seconds(lambda: ours.embed(texts))

        against = ratio(mine, lambda: tokens / seconds(pattern.run), repeats=3)
    what = f"{len(texts)} docstrings, mean {tokens / len(texts):.0f} tokens"
    slow = f"{against.ours:,.0f} against {against.theirs:,.0f} tokens/s, {what}, 3 pairs"
    return [
        Result("embedding, our fp32 / batch 256 in input order, fp32", against.value, 5.0, "x", True, slow),
    ]


class InputOrder:
    """onnxruntime as it comes (all cores in one session, every fusion), 256 texts at a time as they arrive."""

    def __init__(self, path: Path | None, rows: list[list[int]]) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = cores()
        self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.rows = rows

    def run(self) -> None:
        for start in range(0, len(self.rows), 256):
            ids, mask = pad(self.rows[start : start + 256])
            self.session.run(None, {"input_ids": ids, "attention_mask": mask})


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def help_cpu() -> Result:
    cpu = statistics.median(process("-m", "edgemm", "--help")[1] for _ in range(REPEATS))
    return Result("edgemm --help", cpu, 0.3, "s CPU", False, "user + system, median of 5")


def cold_run() -> Result:
    """From the start of the process to the first byte of the answer, less a process that only loads the model."""
    path = find(CHAT).file(".gguf")
    load = (
        "import llama_cpp as l, ctypes\n"
        "quiet = l.llama_log_callback(lambda *_: None); l.llama_log_set(quiet, ctypes.c_void_p())\n"
        f"m = l.llama_model_load_from_file({os.fsencode(str(path))!r}, l.llama_model_default_params())\n"
        "p = l.llama_context_default_params(); p.n_ctx = 4096; l.llama_init_from_model(m, p)\n"
        "print('ready', flush=True)"
    )
    run = ("-m", "edgemm", "run", "Hello", "--max-tokens", "4")
    pairs = [(first_byte(*run), first_byte("-c", load)) for _ in range(REPEATS + 1)][1:]
    ours, bare = (statistics.median(column) for column in zip(*pairs, strict=True))
    detail = f"{ours:.2f} s to the first token, {bare:.2f} s to load the model bare"
    extra = statistics.median(a - b for a, b in pairs)
    return Result("cold `edgemm run`, over loading the model bare", extra, 0.7, "s", False, detail)


def first_byte(*arguments: str) -> float:
    started = time.perf_counter()
    command = [sys.executable, *arguments]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as child:
        assert child.stdout is not None
        assert child.stdout.read(1)
        elapsed = time.perf_counter() - started
        child.stdout.read()
    return elapsed


# Runs a command and prints its wall seconds, CPU seconds and peak memory. A small process of its own, because a child
# of this one would be charged with the memory that this one held when it was forked.
WATCH = """
import resource, subprocess, sys, time
started = time.perf_counter()
done = subprocess.run(sys.argv[1:], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
scale = 1 << 20 if sys.platform == "darwin" else 1 << 10
print(time.perf_counter() - started, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / scale)
sys.exit(done.stderr.decode() if done.returncode else 0)
"""


def process(*arguments: str, **env: str) -> tuple[float, float, float]:
    """Wall seconds, CPU seconds and peak memory (MB) of the largest process of a Python command."""
    command = [sys.executable, "-c", WATCH, sys.executable, *arguments]
    done = subprocess.run(command, env=os.environ | env, stdout=subprocess.PIPE, text=True, check=True)
    wall, cpu, memory = map(float, done.stdout.split())
    return wall, cpu, memory


def conversion() -> list[Result]:
    code = (
        "import sys; from edgemm.cli import main\n"
        "try: main()\n"
        "finally: assert 'torch' not in sys.modules, 'torch was imported'"
    )
    checkpoint = find_checkpoint()
    with tempfile.TemporaryDirectory() as home:
        arguments = ("convert", str(checkpoint), "--to", "onnx-int8", "--out", "bench", "--no-oracle")
        runs = [process("-c", code, *arguments, EDGEMM_HOME=home) for _ in range(3)]
    wall, _, memory = (statistics.median(column) for column in zip(*runs, strict=True))
    return [
        Result(
            "convert MiniLM to onnx-int8, verified",
            wall,
            10,
            "s",
            False,
            "median of 3; torch not imported, not even to compare",
        ),
        Result("peak memory of that conversion", memory, 600, "MB", False, "the largest process, median of 3"),
    ]


def cold_embed() -> Result:
    code = f"from edgemm import open_model; open_model({CHECKPOINT + '-onnx-int8'!r}).embed(['one sentence'])"
    wall = statistics.median(process("-c", code)[0] for _ in range(REPEATS))
    return Result("open a package and embed one sentence, cold", wall, 1.0, "s", False, "whole process, median of 5")


def find_checkpoint() -> Path:
    from edgemm import paths

    return paths.checkpoints() / CHECKPOINT


def prepare() -> None:
    """Both starter models, and MiniLM in fp32 and INT8."""
    subprocess.run([sys.executable, "-m", "edgemm", "pull", "starter"], check=True, stdout=subprocess.DEVNULL)
    for target in ("onnx-fp32", "onnx-int8"):
        command = [sys.executable, "-m", "edgemm", "convert", CHECKPOINT, "--to", target]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def table(results: Sequence[Result], title: str) -> Table:
    shown = Table("what", "value", "target", "met", "detail", title=title)
    for r in results:
        sign = ">=" if r.larger_is_better else "<="
        value, target = f"{r.value:.2f} {r.unit}", f"{sign} {r.target:g} {r.unit}"
        shown.add_row(r.what, value, target, "yes" if r.met else "NO", r.detail)
    return shown


def main() -> None:
    prepare()
    import bench_chat  # they use what is defined here
    import bench_index
    import bench_onnx
    import bench_screen
    import bench_search
    import bench_tui

    results = [decode(), *embedding(), help_cpu(), cold_run(), *conversion(), cold_embed(), *bench_onnx.results()]
    results += [*bench_chat.results(), *bench_screen.results(), *bench_tui.results()]
    results += [*bench_search.results(), *bench_index.results()]
    Console(width=max(Console().width, 150)).print(table(results, "edgemm bench"))
    print(Device.detect().summary())
    sys.exit(any(not r.met for r in results))


if __name__ == "__main__":
    main()
