"""The commands about how good models are: `eval retrieval`, side by side. One command is one library call.

Nothing heavy is imported before a command runs.
"""

from collections.abc import Generator
from contextlib import closing, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from edgemm import terminal
from edgemm.catalog import EMBED_MODEL
from edgemm.cli_chat import Json, Threads, prepare
from edgemm.errors import UsageError

if TYPE_CHECKING:
    from edgemm.classify import Classifier
    from edgemm.evaluation import Candidate, Collection, Report, Row
    from edgemm.events import Note, Progress, Work

Models = Annotated[list[str] | None, typer.Option("--model", "-m", help="An embedding package; may be repeated.")]
_T = TypeVar("_T")
_SPLIT = "test"
_RECIPES = ("onnx-fp32", "onnx-int8")  # of the default model are compared where they are in the store
_HEAD = ("MODEL", "RANKING", "nDCG@10", "R@10", "R@100", "MRR@10", "KEPT")

app = typer.Typer(
    name="eval",
    help="How good models are, measured here.",
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _group() -> None:
    """Makes `retrieval` a command of its own, though it is the only one."""


@app.command()
def retrieval(
    folder: Annotated[Path, typer.Argument(help="In the layout of BEIR, or any folder of sources and documents.")],
    model: Models = None,
    rerank: Annotated[str, typer.Option(help="A reranker, which puts the first 20 in order again.")] = "",
    split: Annotated[str, typer.Option(help="Which judgements of BEIR: qrels/SPLIT.tsv.")] = _SPLIT,
    queries: Annotated[int, typer.Option(min=0, help="At most so many; 0: 500, of BEIR all.")] = 0,
    passages: Annotated[int, typer.Option(min=0, help="At most so many; 0: 20,000, of BEIR all.")] = 0,
    threads: Threads = 0,
    as_json: Json = False,
) -> None:
    """How well models find things: words, vectors and both, compared on the same queries.

    Without judgements, docstrings and headings are the queries, and the text below them is what should be found.
    """
    from edgemm.evaluation import evaluate

    names = list(dict.fromkeys(model or _usual()))
    for name in names:
        _check(name, "embed", "choose an embedding model with -m")
    if rerank:
        _check(rerank, "rerank", "choose a reranker with --rerank")
    collection = _collection(folder, split, queries, passages)
    for note in collection.notes:
        terminal.note(note)
    candidates = [_candidate(name, threads) for name in names]
    open_reranker = _reranker(rerank, threads) if rerank else nullcontext()
    with open_reranker as reranker, closing(evaluate(collection, candidates, reranker)) as events:
        report = terminal.finish(events)
    _show(report, as_json)


def _usual() -> list[str]:
    """The default model as the store has it: before and after quantization, to see what that costs."""
    names = [f"{EMBED_MODEL}-{recipe}" for recipe in _RECIPES]
    return [name for name in names if _is_here(name)] or [EMBED_MODEL]


def _is_here(name: str) -> bool:
    from edgemm import package, paths

    return (paths.store() / name / package.MANIFEST).is_file()


def _check(name: str, task: str, fix: str) -> None:
    """Before any work is done. A waiting checkpoint is converted. Raises `UsageError` for a model of another task."""
    from edgemm import models

    prepare(name)
    if (found := models.task_of(name)) != task:
        raise UsageError(name, f"is for {found}, not for {task}", fix)


def _collection(folder: Path, split: str, queries: int, passages: int) -> "Collection":
    from edgemm import known_items
    from edgemm.evaluation import beir

    if beir.is_beir(folder):
        if passages:
            raise UsageError("--passages", "the judgements are about the whole corpus", "leave it out")
        return beir.read(folder, split, queries)
    if split != _SPLIT:
        raise UsageError("--split", f"there is no {beir.CORPUS} in {folder}, so nothing is judged", "leave it out")
    wanted = (queries or known_items.QUERIES, passages or known_items.PASSAGES)
    with closing(_ending(known_items.collect(folder, *wanted))) as events:
        return terminal.finish(events)


def _ending(work: "Work[_T]") -> "Generator[Progress | Note | _T, None, None]":
    """The same events, and then the value."""
    yield (yield from work)


def _candidate(name: str, threads: int) -> "Candidate":
    """What is too long for the model is cut, as in published figures: an index has no such passages."""
    from edgemm import models
    from edgemm.batches import BatchOptions
    from edgemm.evaluation import Candidate
    from edgemm.tokenizer import Overflow

    options = BatchOptions(threads=threads, overflow=Overflow.CUT)
    return Candidate(name, lambda: models.open_embedder(name, options))


def _reranker(name: str, threads: int) -> "Classifier":
    from edgemm import models
    from edgemm.batches import BatchOptions

    return models.open_classifier(name, BatchOptions(threads=threads))


def _show(report: "Report", as_json: bool) -> None:
    model, ranking = report.reference
    if as_json:
        rows = [
            {"model": row.model, "ranking": row.ranking, **asdict(row.scores), **_shares(row)} for row in report.rows
        ]
        facts = {"folder": report.name, "passages": report.passages, "queries": report.queries}
        terminal.print_json({**facts, "reference": {"model": model, "ranking": ranking}, "rows": rows})
        return
    terminal.print_table(_HEAD, [_cells(row) for row in report.rows], fold=_HEAD[:2])
    shown = f"{report.queries:,} queries, {report.passages:,} passages; KEPT: nDCG@10 relative to {ranking} of {model}"
    terminal.note(shown)


def _shares(row: "Row") -> dict[str, float]:
    return {"kept": row.kept, "margin": row.margin}


def _cells(row: "Row") -> list[str]:
    scores = row.scores
    figures = (scores.ndcg10, scores.recall10, scores.recall100, scores.mrr10)
    return [row.model, row.ranking, *(f"{figure:.4f}" for figure in figures), f"{100 * row.kept:.1f} %"]
