"""The report card: what was compared, how it came out, on which machine; as JSON and as a page for people."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from converters.calibrate import HELD_OUT
from converters.recipe import Recipe
from converters.verify import Comparison
from edgemm.device import Device
from edgemm.manifest import Manifest

_LABELS = {
    "cosine_mean": "cosine to the fp32 checkpoint, mean",
    "cosine_min": "cosine to the fp32 checkpoint, least",
    "top10_overlap": "ten nearest neighbours that stay",
    "batch_invariance": "cosine of an input alone and in a batch, least",
    "tokenizer_agreement": "probe texts with equal ids in llama.cpp and tokenizers",
    "transformers_correlation_min": "correlation of our reference's scores with those of transformers",
    "transformers_cosine_min": "cosine of our full-precision model to transformers, least",
    "transformers_divergence": "divergence of our full-precision build from transformers, nats a token",
    "transformers_label_error": "difference of a label's score from transformers, share of the largest",
    "divergence_mean": "divergence from the high-precision build, mean, nats a token",
    "divergence_999": "divergence from the high-precision build, 99.9 % below",
    "same_top_token": "tokens whose likeliest successor stays",
    "perplexity": "perplexity on held-out text",
    "perplexity_ratio": "perplexity, times that of the high-precision build",
    "label_correlation": "correlation of the scores with full precision",
    "same_label": "highest scores that stay",
    "tensors_exact": "tensors whose values are the checkpoint's own",
    "tensor_error_max": "largest error of a tensor, share of its size",
    "bytes": "size, MB",
    "size_ratio": "size, share of fp32",
    "bits_per_weight": "bits per weight",
    "load_seconds": "load time, s",
    "tokens_per_second": "speed, tokens/s",
    "images_per_second": "speed, pictures/s",
    "prefill_tokens_per_second": "speed of reading, tokens/s",
    "memory_bytes": "peak memory while running, MB",
    "convert_seconds": "conversion, s",
}
_TASKS = {
    "embed": "An embedding model",
    "chat": "A chat model",
    "classify": "A classifier of texts",
    "fill-mask": "A model that fills masks",
    "token-classify": "A classifier of tokens",
    "next-sentence": "A model of which sentence follows",
    "question-answering": "A model that finds answers in texts",
    "rerank": "A reranker",
    "image-embed": "An embedding model of pictures",
    "image-classify": "A classifier of pictures",
    "image-text": "An embedding model of texts and pictures",
}
_PERCENT = {
    "top10_overlap",
    "same_label",
    "tokenizer_agreement",
    "size_ratio",
    "same_top_token",
    "tensors_exact",
    "tensor_error_max",
}
_PRECISE = {
    "batch_invariance",
    "transformers_correlation_min",
    "perplexity_ratio",
    "label_correlation",
    "transformers_label_error",
}
_LIBRARIES = ("edgemm", "numpy", "onnx", "onnxruntime", "llama-cpp-python", "tokenizers")


def report(recipe: Recipe, comparison: Comparison, notes: list[str]) -> dict[str, Any]:
    """report.json: figures, floor, verdict, machine and versions."""
    return {
        "target": recipe.target,
        "passed": comparison.passed,
        "failures": list(comparison.failures),
        "metrics": comparison.metrics,
        "floor": asdict(recipe.floor),
        "compared": f"{len(HELD_OUT)} texts",
        "notes": notes,
        "machine": Device.detect().summary(),
        "versions": dict(_versions()),
    }


def _versions() -> Iterator[tuple[str, str]]:
    for name in _LIBRARIES:
        with suppress(PackageNotFoundError):
            yield name, version(name)


def card(manifest: Manifest, content: dict[str, Any]) -> str:
    """The package's README.md."""
    verdict = "passed" if content["passed"] else "**below the floor**: " + "; ".join(content["failures"])
    facts = [
        f"- made from: {manifest.source.id} {manifest.source.revision}".rstrip(),
        f"- licence of the weights: {manifest.source.licence or 'see the source'}",
        f"- stored as: {manifest.quantization.scheme}",
        f"- in higher precision: {', '.join(manifest.quantization.kept) or 'nothing'}",
    ]
    lines = [
        f"# {manifest.name}",
        "",
        f"{_TASKS[manifest.task]} ({manifest.architecture}), made by edgemm {manifest.made_by.version}.",
        "",
        *facts,
        "",
        f"Compared with the checkpoint on {content['compared']} that it was not calibrated on: {verdict}.",
        "",
        "| figure | value |",
        "| --- | --- |",
        *(f"| {label} | {value} |" for label, value in rows(content)),
        "",
        *_trials(content.get("trials", {})),
        f"Measured on {content['machine']}.",
        *(f"\nNote: {note}" for note in content["notes"]),
    ]
    return "\n".join(lines) + "\n"


def _trials(trials: dict[str, list[dict[str, Any]]]) -> Iterator[str]:
    """The builds that were tried on calibration inputs, a table for each file."""
    for file, tried in trials.items():
        yield from (f"Tried for {file}, on calibration inputs:", "")
        yield from ("| build | times float32 | MB | likeness, mean | least |", "| --- | --- | --- | --- | --- |")
        for trial in tried:
            mean, least = trial.get("cosine_mean", trial.get("label_correlation")), trial.get("cosine_min")
            shown = [f"{value:.5f}" if value is not None else "-" for value in (mean, least)]
            yield f"| {trial['what']} | {trial['speed']:.2f} | {trial['bytes'] / 1e6:.1f} | {shown[0]} | {shown[1]} |"
        yield ""


def rows(content: dict[str, Any]) -> list[tuple[str, str]]:
    """(label, value) of every figure of a report."""
    metrics = content["metrics"]
    return [(label, _shown(name, metrics[name])) for name, label in _LABELS.items() if name in metrics]


def _shown(name: str, value: float) -> str:
    if name in _PERCENT:
        return f"{100 * value:.1f} %"
    if name.endswith("bytes"):
        return f"{value / 1e6:,.1f}"
    precise = "cosine" in name or "divergence" in name or name in _PRECISE
    return f"{value:.5f}" if precise else f"{value:,.2f}"
