"""`make demo`: the whole idea in one run, on real weights, without a question asked.

Download both starter models, convert the BERT checkpoint twice and show the report cards, find drawn scenes by their
captions and by a picture, ask the chat model; index this repository and documentation strings of the standard library,
search them and ask them; and print what all of it weighs and how fast it runs.
"""

import ast
import json
import os
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Column, Table

from edgemm import fuse, open_model
from edgemm.chat import Chat
from edgemm.embed import Embedder
from edgemm.events import Done, Token
from edgemm.models import find
from edgemm.terminal import human_bytes, safe

ROOT = Path(__file__).resolve().parent.parent
EMBEDDERS = ("all-minilm-l6-v2-onnx-int8", "all-minilm-l6-v2-gguf-q8_0")
CHAT = "smollm2-135m-instruct"
PICTURES, SCENES = "scenes-clip-onnx-int8", 100
MODULES = ("bisect", "csv", "heapq", "shlex", "shutil", "statistics", "tempfile", "textwrap", "zipfile")
# What is looked for, and a file that must be among the first three.
QUERIES = {
    "how do I stop an answer while it is being written": "README.md",
    "split a command line into words as a shell does": "shlex.md",
    "the middle value of some numbers": "statistics.md",
}
PROMPT = "Explain in one sentence why the sky is blue."
QUESTION, CITED = "What does the function nlargest find?", "heapq.md"
console = Console(markup=False, highlight=False, soft_wrap=True)


def edgemm(*arguments: str) -> None:
    """Run a command of the README, shown as it is typed."""
    print(f"\n$ edgemm {' '.join(arguments)}", flush=True)
    subprocess.run([sys.executable, "-m", "edgemm", *arguments], check=True, stdin=subprocess.DEVNULL)


def embedding_rate(embedder: Embedder, texts: list[str]) -> float:
    """Texts a second."""
    started = time.perf_counter()
    embedder.embed(texts)
    return len(texts) / (time.perf_counter() - started)


def edgemm_json(*arguments: str) -> Any:
    """What such a command says to a script."""
    command = [sys.executable, "-m", "edgemm", *arguments, "--json"]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL).stdout)


def write_docstrings(folder: Path) -> None:
    """The documentation strings of some modules of the standard library, a Markdown file each."""
    for name in MODULES:
        source = (Path(sysconfig.get_path("stdlib")) / f"{name}.py").read_text("utf-8")
        parts = [f"# {name}\n"]
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and (text := ast.get_docstring(node)):
                parts.append(f"## {getattr(node, 'name', name)}\n\n{text}\n")
        (folder / f"{name}.md").write_text("\n".join(parts), "utf-8")


def documents(folder: Path) -> None:
    """Index this repository and the documentation strings, find passages, and ask."""
    write_docstrings(folder)
    edgemm("index", str(ROOT), str(folder), "-m", EMBEDDERS[0])
    for query, expected in QUERIES.items():
        edgemm("search", query, "--limit", "3", "--type", "markdown")
        hits = edgemm_json("search", query, "--limit", "3", "--type", "markdown")
        found = [Path(hit["path"]).name for hit in hits]
        if expected not in found:
            sys.exit(f"demo: {query!r} did not find {expected}")
    edgemm("ask", QUESTION, "--in", str(folder), "--seed", "1")
    sources = [Path(each["path"]).name for each in edgemm_json("ask", QUESTION, "--in", str(folder))["sources"]]
    if CITED not in sources:
        sys.exit(f"demo: the answer was not given {CITED} to read")


def find_scenes(name: str) -> float:
    """Draw a hundred scenes, find some by what they show, and one by a few words and a picture; pictures per second."""
    sys.path.insert(0, str(ROOT / "tests" / "reference"))
    import scenes

    shown = scenes.held_out(SCENES)
    captions = [scenes.caption(scene) for scene in shown]
    with open_model(name) as model, tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{i}.png" for i in range(SCENES)]
        for file, scene in zip(files, shown, strict=True):
            scenes.render(scene, 256).save(file)
        started = time.perf_counter()
        pictures = model.embed_images(files)
        rate = SCENES / (time.perf_counter() - started)
        queries = model.embed_texts(captions[:3])
    for caption, scores in zip(captions, queries @ pictures.T, strict=False):
        print(f"\n? {caption}\n  {scores.max():.2f}  a picture of {captions[int(scores.argmax())]}")
    mixed = fuse([queries[0], pictures[3]]) @ pictures.T
    print(f"\n? {captions[0]} + a picture of {captions[3]}")
    for index in np.argsort(-mixed)[:2]:
        print(f"  {mixed[index]:.2f}  a picture of {captions[index]}")
    if (queries @ pictures.T).argmax(axis=1).tolist() != [0, 1, 2]:
        sys.exit("demo: a caption did not find its picture")
    return rate


def ask(chat: Chat) -> Done:
    print(f"\n? {PROMPT}\n  ", end="")
    done = None
    for event in chat.send(PROMPT):
        if isinstance(event, Token):
            print(safe(event.text), end="", flush=True)
        elif isinstance(event, Done):
            done = event
    print()
    if done is None or not done.generated_tokens:
        sys.exit("demo: the chat model gave no answer")
    return done


def main() -> None:
    started = time.perf_counter()
    edgemm("pull", "starter")
    for target in ("onnx-int8", "gguf-q8_0"):
        edgemm("convert", "all-minilm-l6-v2", "--to", target)

    table = Table(Column("model", overflow="fold"), "size", "cosine to fp32", "speed", title="What was made")
    texts = [path.read_text("utf-8")[:1000] for path in sorted(ROOT.glob("edgemm/**/*.py"))]
    for name in EMBEDDERS:
        package = find(name)
        with open_model(name) as embedder:
            rate = embedding_rate(embedder, texts)
        metrics = package.manifest.report.metrics
        cosine = f"mean {metrics['cosine_mean']:.4f}, min {metrics['cosine_min']:.4f}"
        size = f"{human_bytes(package.manifest.bytes)} ({100 * metrics['size_ratio']:.0f} % of fp32)"
        table.add_row(name, size, cosine, f"{rate:.0f} passages/s")
    edgemm("convert", "tests/reference/scenes-clip", "--to", "onnx-int8", "--out", PICTURES)
    print(f"\n{SCENES} drawn scenes, found by their captions with {PICTURES}:")
    rate, made = find_scenes(PICTURES), find(PICTURES).manifest
    cosine = f"mean {made.report.metrics['cosine_mean']:.4f}, min {made.report.metrics['cosine_min']:.4f}"
    table.add_row(PICTURES, human_bytes(made.bytes), cosine, f"{rate:.0f} pictures/s")
    print(f"\n{CHAT}, asked without a network:")
    with open_model(CHAT) as chat:
        done = ask(chat)
    speed = f"{done.tokens_per_second:.0f} tokens/s"
    table.add_row(CHAT, human_bytes(find(CHAT).manifest.bytes), "as published", speed)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["EDGEMM_INDEX"] = str(Path(folder) / "index.sqlite")  # not the user's own
        (Path(folder) / "docstrings").mkdir()
        documents(Path(folder) / "docstrings")
    console.print()
    console.print(table)
    facts = subprocess.run([sys.executable, "-m", "edgemm", "doctor", "--json"], capture_output=True, check=True)
    machine = json.loads(facts.stdout)["device"]
    print(f"on {machine['cpu']}, {machine['cores']} cores; all of it took {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
