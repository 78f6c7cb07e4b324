"""What the outputs of a classifier are called, and what makes shares of its scores: from config.json alone."""

from converters.checkpoint import Checkpoint
from edgemm.errors import BadFile

_NEXT = ("is the next sentence", "is not the next sentence")


def text_task(checkpoint: Checkpoint) -> str:
    """The checkpoint's own task; a classifier with one label judges how well two texts fit, as rerankers do."""
    if checkpoint.task == "classify" and (len(labels(checkpoint)) == 1 or checkpoint.ranks):
        return "rerank"
    return checkpoint.task


def labels(checkpoint: Checkpoint) -> tuple[str, ...]:
    """Names of a classifier's outputs, in order."""
    if checkpoint.task == "next-sentence":
        return _NEXT
    names = checkpoint.config.get("id2label")
    if isinstance(names, dict) and names:
        try:
            return tuple(str(names[key]) for key in sorted(names, key=int))
        except ValueError as error:
            path = checkpoint.folder / "config.json"
            raise BadFile(path, f"id2label has a key that is no number ({error})", "check config.json") from error
    count = checkpoint.config.get("num_labels", 2)
    return tuple(f"LABEL_{i}" for i in range(count if isinstance(count, int) else 2))


def scores(checkpoint: Checkpoint) -> str:
    """What makes shares of the model's scores; a single one is between 0 and 1 by itself."""
    several = checkpoint.config.get("problem_type") == "multi_label_classification"
    single = checkpoint.task == "classify" and len(labels(checkpoint)) == 1
    return "sigmoid" if several or single else "softmax"
