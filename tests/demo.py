"""`make demo`: the whole idea in one run, on real weights, without a question asked.

Download both starter models, convert the BERT checkpoint twice and show the report cards, find passages of this
repository by meaning, find drawn scenes by their captions and by a picture, ask the chat model, and print what all of
it weighs and how fast it runs.
"""

import ast
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Column, Table

from edgemm import fuse, open_model
from edgemm.chat import Chat
from edgemm.embed import Embedder, Kind
from edgemm.events import Done, Token
from edgemm.models import find
from edgemm.terminal import human_bytes, safe

ROOT = Path(__file__).resolve().parent.parent
EMBEDDERS = ("all-minilm-l6-v2-onnx-int8", "all-minilm-l6-v2-gguf-q8_0")
CHAT = "smollm2-135m-instruct"
PICTURES, SCENES = "scenes-clip-onnx-int8", 100
QUERIES = (
    "how do I stop an answer while it is being written?",
    "which folder holds the downloaded models?",
    "what happens when the quantized model is too different from the original?",
)
QUESTION = "Explain in one sentence why the sky is blue."
LEAST_SCORE = 0.25  # cosine; unrelated English sentences stay below it with this model
console = Console(markup=False, highlight=False, soft_wrap=True)


@dataclass(frozen=True)
class Passage:
    path: Path
    line: int
    text: str


def edgemm(*arguments: str) -> None:
    """Run a command of the README, shown as it is typed."""
    print(f"\n$ edgemm {' '.join(arguments)}", flush=True)
    subprocess.run([sys.executable, "-m", "edgemm", *arguments], check=True, stdin=subprocess.DEVNULL)


def passages() -> list[Passage]:
    """The paragraphs of the Markdown files, and the docstrings of the source files."""
    found = []
    for path in [*sorted(ROOT.glob("*.md")), ROOT / "quantized" / "README.md"]:
        found += paragraphs(path)
    for path in sorted([*ROOT.glob("edgemm/**/*.py"), *ROOT.glob("converters/**/*.py")]):
        found += docstrings(path)
    return [p for p in found if len(p.text) > 40]


def paragraphs(path: Path) -> list[Passage]:
    found, start, block = [], 1, []
    for number, line in enumerate([*path.read_text("utf-8").splitlines(), ""], 1):
        if line.startswith("- ") and block:  # a point of a list is a passage of its own
            found.append(Passage(path, start, " ".join(block)))
            block = []
        if line.strip():
            start = start if block else number
            block.append(line)
        elif block:
            found.append(Passage(path, start, " ".join(block)))
            block = []
    return found


def docstrings(path: Path) -> list[Passage]:
    found = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and (text := ast.get_docstring(node)):
            found.append(Passage(path, node.body[0].lineno, " ".join(text.split())))
    return found


def search(embedder: Embedder, library: list[Passage]) -> float:
    """Embed the library, answer the queries, and return texts per second."""
    started = time.perf_counter()
    vectors = embedder.embed([p.text for p in library])
    rate = len(library) / (time.perf_counter() - started)
    for query, scores in zip(QUERIES, embedder.embed(QUERIES, Kind.QUERY) @ vectors.T, strict=True):
        print(f"\n? {query}")
        best = np.argsort(-scores)[:3]
        for index in best:
            hit = library[index]
            console.print(f"  {scores[index]:.2f}  {hit.path.relative_to(ROOT)}:{hit.line}  {safe(hit.text[:90])}")
        if scores[best[0]] < LEAST_SCORE:
            sys.exit(f"demo: nothing was found for {query!r}")
    return rate


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
    print(f"\n? {QUESTION}\n  ", end="")
    done = None
    for event in chat.send(QUESTION):
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

    library = passages()
    table = Table(Column("model", overflow="fold"), "size", "cosine to fp32", "speed", title="What was made")
    for name in EMBEDDERS:
        package = find(name)
        print(f"\n{len(library)} passages of this repository, embedded and searched with {name}:")
        with open_model(name) as embedder:
            rate = search(embedder, library)
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
    console.print()
    console.print(table)
    facts = subprocess.run([sys.executable, "-m", "edgemm", "doctor", "--json"], capture_output=True, check=True)
    machine = json.loads(facts.stdout)["device"]
    print(f"on {machine['cpu']}, {machine['cores']} cores; all of it took {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
