"""Indexing against the bare embedding engine and against other libraries, its memory, and a second look at a folder.

Part of `make bench`. The corpus is a seeded sample of the standard library's sources. Other libraries embed the same
chunks with the same weights, each in a process of its own and by its defaults; one that is not installed is left out.
"""

import json
import os
import random
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from bench import CHECKPOINT, WATCH, Result, find_checkpoint, process, ratio, seconds

from edgemm import known_items, models
from edgemm.batches import BatchOptions
from edgemm.evaluation import Candidate, Ranking, Report, evaluate
from edgemm.events import value_of
from edgemm.index import Medium, Store
from edgemm.library import Engine, Index, Opener, open_engine
from edgemm.models import open_embedder
from edgemm.tokenizer import Overflow

INT8, FP32 = f"{CHECKPOINT}-onnx-int8", f"{CHECKPOINT}-onnx-fp32"
SEED, BYTES = 5, 2_750_000  # of sources: about 5,000 chunks
SHARE, MEMORY, FILES, RESCAN, KEPT = 0.85, 500, 20_000, 1.5, 99.5
QUERIES, PASSAGES = 1000, 4000
LARGE = 30_000_000  # bytes
PEER_CHUNKS = 1000


def sources(folder: Path) -> None:
    """Copy files of the standard library, in a random order, until there are enough."""
    found = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")) + sorted(
        path for path in Path(sysconfig.get_path("stdlib")).glob("*/*.py") if "packages" not in str(path)
    )
    random.Random(SEED).shuffle(found)
    size = 0
    for path in found:
        if size > BYTES:
            break
        size += path.stat().st_size
        shutil.copy(path, folder / f"{path.parent.name}-{path.name}")


@contextmanager
def corpus() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "library").mkdir()
        sources(Path(folder) / "library")
        yield Path(folder)


def texts_of(path: Path) -> list[str]:
    """Every text that the index at `path` has embedded."""
    with Store(path) as store:
        model = store.add_model("none", "", 1)
        return [each.text for each in store.pending(model.id, 1_000_000)]


def indexing(folder: Path) -> Iterator[Result]:
    """A new index each time, against the engine that embeds the same texts from a list."""
    engine = open_engine(INT8, Medium.TEXT)
    kept = replace(engine, close=lambda: None)
    numbers = iter(range(1000))

    def index() -> float:
        with Index(Store(folder / f"{next(numbers)}.sqlite"), opener=opener(kept)) as library:
            took = seconds(lambda: library.add(folder / "library"))
            return library.status().models[0].vectors / took

    index()
    texts = texts_of(folder / "0.sqlite")
    with open_embedder(INT8) as embedder:
        against = ratio(index, lambda: len(texts) / seconds(lambda: embedder.embed(texts)), repeats=3)
    engine.close()
    detail = f"{against.ours:.0f} against {against.theirs:.0f} chunks/s, {len(texts):,} chunks, 3 pairs"
    yield Result("indexing files / embedding their chunks from a list", against.value, SHARE, "x", True, detail)
    peers = [peer for peer in PEERS if is_there(peer)]
    yield from against_others(peers, texts[:: max(1, len(texts) // PEER_CHUNKS)], folder)


def opener(engine: Engine) -> Opener:
    return lambda name, medium: engine


def memory(folder: Path) -> Result:
    with tempfile.TemporaryDirectory() as home:
        shutil.copytree(models.find(INT8).path, Path(home) / INT8)
        _, _, peak = process("-m", "edgemm", "index", str(folder / "library"), EDGEMM_HOME=home)
    return Result("peak memory of `edgemm index`", peak, MEMORY, "MB", False, "the largest process")


def large() -> Result:
    """Documents of the largest size that is read, by words alone: to embed one takes an hour."""
    rng = random.Random(SEED)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(3, 9))) for _ in range(20_000)]
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as home:
        for number in range(3):
            lines = (" ".join(rng.choices(words, k=12)) + "\n" for _ in range(LARGE // 90))
            (Path(folder) / f"{number}.txt").write_text("".join(lines))
        _, _, peak = process("-m", "edgemm", "index", folder, EDGEMM_HOME=home)
    what = f"3 texts of {LARGE / 1e6:.0f} MB, by words alone"
    return Result("peak memory of `edgemm index`, large files", peak, MEMORY, "MB", False, what)


def again() -> Iterator[Result]:
    """A tree that has not changed: the time of a second look, and what the first one needed."""
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as home:
        for number in range(FILES):
            path = Path(folder) / f"{number % 100}" / f"{number}.txt"
            path.parent.mkdir(exist_ok=True)
            path.write_text(f"file number {number} speaks of {number * 7919 % 10_007}\n")
            os.utime(path, (1e9, 1e9))
        _, _, peak = process("-m", "edgemm", "index", folder, EDGEMM_HOME=home)
        what = f"{FILES:,} files, by words alone, without a model"
        yield Result("peak memory of `edgemm index`, many files", peak, MEMORY, "MB", False, what)
        with Index.open(Path(home) / ".data" / "index.sqlite") as library:
            took = min(seconds(lambda: library.add(folder)) for _ in range(3))
            assert library.status().roots[0].files == FILES
        yield Result(f"{FILES:,} unchanged files looked at again", took, RESCAN, "s", False, "the best of 3")


# Each embeds the lines of a JSON file as its library does by default, and prints the seconds without and with loading.
_OURS = """
import json, sys, time
started = time.perf_counter()
from edgemm import open_model
model = open_model(sys.argv[2])
model.embed(["one sentence"])
ready = time.perf_counter()
model.embed(json.load(open(sys.argv[1])))
print(json.dumps([ready - started, time.perf_counter() - ready]))
"""
_SENTENCE_TRANSFORMERS = """
import json, sys, time
started = time.perf_counter()
from sentence_transformers import SentenceTransformer
model = SentenceTransformer(sys.argv[2], device="cpu")
model.encode(["one sentence"])
ready = time.perf_counter()
model.encode(json.load(open(sys.argv[1])))
print(json.dumps([ready - started, time.perf_counter() - ready]))
"""
_FASTEMBED = """
import json, sys, time
started = time.perf_counter()
from fastembed import TextEmbedding
from fastembed.common.model_description import ModelSource, PoolingType
source = ModelSource(hf="local/model")
TextEmbedding.add_custom_model(
    "local/model", PoolingType.DISABLED, normalization=True, sources=source, dim=384, model_file="model.onnx"
)
model = TextEmbedding("local/model", specific_model_path=sys.argv[2])
list(model.embed(["one sentence"]))
ready = time.perf_counter()
list(model.embed(json.load(open(sys.argv[1]))))
print(json.dumps([ready - started, time.perf_counter() - ready]))
"""
PEERS = {"sentence_transformers": _SENTENCE_TRANSFORMERS, "fastembed": _FASTEMBED}


def is_there(peer: str) -> bool:
    if find_spec(peer) is None:
        print(f"not compared with {peer}: it is not installed (pip install {peer.replace('_', '-')})")
    return find_spec(peer) is not None


def against_others(peers: list[str], texts: list[str], folder: Path) -> Iterator[Result]:
    file = folder / "texts.json"
    file.write_text(json.dumps(texts))
    for_fastembed = folder / "fastembed"
    shutil.copytree(find_checkpoint(), for_fastembed, ignore=shutil.ignore_patterns("*.safetensors"))
    shutil.copy(models.find(FP32).path / "model.onnx", for_fastembed)
    where = {"sentence_transformers": find_checkpoint(), "fastembed": for_fastembed}
    ours = measured(_OURS, file, INT8, len(texts))
    print(f"{len(texts)} chunks       chunks/s   peak MB   cold start s")
    print(f"edgemm, INT8       {ours[0]:8.0f}  {ours[1]:8.0f}  {ours[2]:8.2f}")
    for peer in peers:
        rate, peak, cold = measured(PEERS[peer], file, where[peer], len(texts))
        print(f"{peer:<18} {rate:8.0f}  {peak:8.0f}  {cold:8.2f}")
        detail = f"{ours[0]:.0f} against {rate:.0f} chunks/s, {ours[1]:.0f} against {peak:.0f} MB"
        detail += f", {ours[2]:.2f} against {cold:.2f} s until ready"
        yield Result(f"chunks/s, INT8 / {peer} in float32", ours[0] / rate, 1.0, "x", True, detail)


def measured(code: str, file: Path, model: object, count: int) -> tuple[float, float, float]:
    """Chunks a second, the peak of memory in MB, and seconds until the first vector."""
    watch = WATCH.replace("stdout=subprocess.DEVNULL", "stdout=None")
    command = [sys.executable, "-c", watch, sys.executable, "-c", code, str(file), str(model)]
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    lines = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment).stdout.splitlines()
    (cold, took), peak = json.loads(lines[-2]), float(lines[-1].split()[2])
    return count / took, peak, cold


def retrieval() -> Iterator[Result]:
    """Known items: docstrings are the questions, and their functions what must be found."""
    collected = value_of(known_items.collect(Path(sysconfig.get_path("stdlib")), QUERIES, PASSAGES))
    options = BatchOptions(overflow=Overflow.CUT)
    report = list(evaluate(collected, [Candidate(m, partial(open_embedder, m, options)) for m in (FP32, INT8)]))[-1]
    assert isinstance(report, Report)
    rows = {(row.model, row.ranking): row for row in report.rows}
    int8, words = rows[INT8, Ranking.INT8], rows["", Ranking.BM25]
    hybrid = rows[INT8, Ranking.HYBRID].scores.ndcg10
    what = f"{report.queries:,} queries, {report.passages:,} passages; +- {100 * int8.margin:.1f}"
    yield Result("nDCG@10, INT8 model and int8 vectors / fp32", 100 * int8.kept, KEPT, "%", True, what)
    parts = max(int8.scores.ndcg10, words.scores.ndcg10)
    detail = f"nDCG@10 {hybrid:.3f}; vectors {int8.scores.ndcg10:.3f}, words {words.scores.ndcg10:.3f}"
    yield Result("hybrid search / the better of its parts", hybrid / parts, 1.0, "x", True, detail)


def results() -> list[Result]:
    with corpus() as folder:
        return [*indexing(folder), memory(folder), large(), *again(), *retrieval()]


if __name__ == "__main__":
    from bench import table
    from rich.console import Console

    Console(width=150).print(table(results(), "index"))
