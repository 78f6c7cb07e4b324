"""What `edgemm predict` and `edgemm rerank` read, and how they show what a model says of it.

Texts are arguments, files (`@notes.txt`) or lines of stdin; pictures are paths. Results are a table on a terminal,
tab-separated values for a pipe, or JSON, one object a line. What a task means is the business of the engines.
"""

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from edgemm import models, terminal, vision
from edgemm.batches import BatchOptions, groups
from edgemm.classify import Classifier, Ranked
from edgemm.errors import BadFile, UsageError
from edgemm.spans import Answer
from edgemm.vectors import Lines, read_text

_RENAMED = ("classify", "token-classify", "next-sentence", "image-classify", "image-text")  # tasks that have labels
_BEST, _BEST_ANSWERS = 5, 1  # shown unless the user says how many
_DIGITS = 6
_MAX_PATH = 250
_FOLD = ("INPUT", "TEXT", "LABEL")
_HEADS = {"name": "LABEL"}
# What to call for tasks that `predict` is not for
_ELSEWHERE = {"chat": "edgemm run", "embed": "edgemm embed", "image-embed": "edgemm embed", "rerank": "edgemm rerank"}


@dataclass(frozen=True, slots=True)
class Request:
    """What the user typed. `labels`: names with commas between them, or a file; `top_k` None: as many as usual."""

    inputs: tuple[str, ...] = ()
    labels: str = ""
    question: str = ""
    top_k: int | None = None
    threads: int = 0


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the file that was ranked."""

    line: int
    score: float
    text: str


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a model says of one input: results of one kind, each a dataclass of the engines."""

    source: str
    results: Sequence[Any]


def predictions(model: str, request: Request) -> Iterator[Prediction]:
    """One for each input, in input order. What the task does not take is refused before the model is loaded."""
    task = models.task_of(model)
    if task in _ELSEWHERE:
        raise UsageError(model, f"is for {task}, not for predicting", f"use `{_ELSEWHERE[task]} -m {model}`")
    if request.labels and task not in _RENAMED:
        raise UsageError("--labels", f"{model} is for {task}, which has no labels", "leave --labels out")
    if bool(request.question) != (task == "question-answering"):
        why = f"{model} is for {task}"
        fix = "leave --question out" if request.question else 'add --question "..."'
        raise UsageError("--question", why, fix)
    labels = read_labels(request.labels) if request.labels else ()
    return (_pictures if task in vision.TASKS else _texts)(model, task, request, labels)


def rerank(model: str, query: str, file: Path | None, top_k: int, threads: int) -> Prediction:
    """The lines of `file`, or of stdin, in the order of their worth for `query`."""
    source = enumerate(read_text(file).splitlines(), 1) if file else ((int(n), line) for n, line in Lines(sys.stdin))
    lines = [(number, line) for number, line in source if line.strip()]
    with models.open_classifier(model, BatchOptions(threads=threads)) as engine:
        found: list[Ranked] = engine.rerank(query, [line for _, line in lines], top_k)
    return Prediction(query, [Line(lines[each.index][0], each.score, each.text) for each in found])


def show(found: Iterable[Prediction], *, as_json: bool, with_source: bool = True) -> None:
    """On stdout, each as it comes; a table for a terminal when all are there."""
    if as_json:
        for each in found:
            results = [_rounded(asdict(result)) for result in each.results]
            terminal.print_json({"input": each.source, "results": results}, indent=None)
        return
    for some in [list(found)] if sys.stdout.isatty() else ([each] for each in found):
        rows = [[each.source, *_cells(result)] for each in some for result in each.results]
        kinds = [result for each in some for result in each.results][:1]
        head = ["INPUT", *(_HEADS.get(field.name, field.name.upper()) for kind in kinds for field in fields(kind))]
        start = 0 if with_source else 1
        flat = [[" ".join(cell.split()) for cell in row[start:]] for row in rows]  # a tab would be another column
        terminal.print_table(head[start:], flat, fold=_FOLD)


def read_labels(text: str) -> tuple[str, ...]:
    """Labels with commas between them, or the lines of a file. Raises `BadFile` for a file that is not there."""
    path = Path(text.removeprefix("@"))
    if len(text) < _MAX_PATH and path.is_file():  # of a longer name, systems would complain in words of their own
        found = read_text(path).splitlines()
    elif text.startswith("@") or ("," not in text and (path.suffix or len(path.parts) > 1)):
        raise BadFile(path, "there is no such file", "name a file with a label on each line, or give a,b,c")
    else:
        found = text.split(",")
    labels = tuple(label.strip() for label in found if label.strip())
    if not labels:
        raise UsageError("--labels", f"there is none in {text!r}", "give a,b,c, or a file with a label on each line")
    return labels


def _pictures(model: str, task: str, request: Request, labels: Sequence[str]) -> Iterator[Prediction]:
    if not request.inputs:
        raise UsageError("predict", "there is no picture", f"name some: edgemm predict -m {model} photo.jpg")
    if task == "image-text" and not labels:
        raise UsageError("predict", f"{model} chooses among labels that you give", "add --labels cat,dog,car")
    top_k = _BEST if request.top_k is None else request.top_k
    renamed = labels if task == "image-classify" else ()
    with models.open_vision(model, BatchOptions(threads=request.threads), renamed) as engine:
        if task == "image-text":
            found = engine.stream_zero_shot(request.inputs, labels, top_k=top_k)
        else:
            found = engine.classify_images(request.inputs, top_k)
        for source, result in zip(request.inputs, found, strict=True):
            yield Prediction(source, result)


def _texts(model: str, task: str, request: Request, labels: Sequence[str]) -> Iterator[Prediction]:
    whole = task == "question-answering"
    source = _given(request.inputs) if request.inputs else _piped(whole)
    if task == "next-sentence" and len(request.inputs) != 2:
        raise UsageError("predict", f"{model} compares two texts, {len(request.inputs)} are there", "give two texts")
    usual = _BEST_ANSWERS if whole else _BEST
    top_k = usual if request.top_k is None else request.top_k
    with models.open_classifier(model, BatchOptions(threads=request.threads), labels) as engine:
        for group in groups(source, engine.options, lambda item: len(item[1])):
            yield from _results(engine, request.question, group, top_k)


def _results(engine: Classifier, question: str, group: list[tuple[str, str]], top_k: int) -> Iterator[Prediction]:
    names, texts = [name for name, _ in group], [text for _, text in group]
    match engine.task:
        case "classify":
            yield from map(Prediction, names, engine.classify(texts, top_k))
        case "next-sentence":
            yield Prediction(" | ".join(names), engine.next_sentence(texts[0], texts[1])[: top_k or None])
        case "fill-mask":
            for name, text in group:
                yield Prediction(name, [token for mask in engine.fill_mask(text, top_k) for token in mask])
        case "token-classify":
            yield from (Prediction(name, engine.tokens(text)) for name, text in group)
        case _:
            yield from (_answered(name, engine.answer(question, text, top_k)) for name, text in group)


def _answered(name: str, found: list[Answer]) -> Prediction:
    if not found[0].text:
        terminal.note(f"{name[:60]}: the text does not seem to hold an answer")
    return Prediction(name, found)


def _given(inputs: Sequence[str]) -> list[tuple[str, str]]:
    """Name and text of each argument; `@path` is the file's text."""
    found = [(text[1:], read_text(Path(text[1:]))) if text[:1] == "@" else (text, text) for text in inputs]
    for number, (_, text) in enumerate(found, 1):
        if not text.strip():
            raise UsageError("predict", f"text {number} is empty", "give a text")
    return found


def _piped(whole: bool) -> Iterable[tuple[str, str]]:
    """The lines of stdin, or all of it as one text. Raises `UsageError` when nobody pipes."""
    if sys.stdin is None or sys.stdin.isatty():
        raise UsageError("predict", "there is no text", "give one as an argument, as @file, or pipe some lines in")
    if not whole:
        return Lines(sys.stdin)
    text = sys.stdin.read()
    if not text.strip():
        raise UsageError("predict", "there is no text", "pipe in the text that holds the answer")
    return [("stdin", text)]


def _cells(result: Any) -> list[str]:
    values = [getattr(result, field.name) for field in fields(result)]
    return [f"{value:.4f}" if isinstance(value, float) else str(value) for value in values]


def _rounded(result: dict[str, Any]) -> dict[str, Any]:
    return {key: round(value, _DIGITS) if isinstance(value, float) else value for key, value in result.items()}
