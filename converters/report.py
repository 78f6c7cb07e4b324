"""The report card: what was compared, how it came out, on which machine; as JSON and as a page for people."""

from dataclasses import asdict
from importlib.metadata import version
from typing import Any

from converters.calibrate import HELD_OUT
from converters.recipe import Recipe
from converters.verify import Comparison
from edgemm.device import Device
from edgemm.package import Manifest

_LABELS = {
    "cosine_mean": "cosine to the fp32 checkpoint, mean",
    "cosine_min": "cosine to the fp32 checkpoint, least",
    "top10_overlap": "ten nearest neighbours that stay",
    "batch_invariance": "cosine of a text alone and in a batch, least",
    "tokenizer_agreement": "texts with equal ids in llama.cpp and tokenizers",
    "transformers_cosine_min": "cosine of our fp32 reference to transformers, least",
    "size_ratio": "size, share of fp32",
    "bits_per_weight": "bits per weight",
    "load_seconds": "load time, s",
    "tokens_per_second": "speed, tokens/s",
    "convert_seconds": "conversion, s",
}
_TASKS = {"embed": "An embedding model", "chat": "A chat model"}
_PERCENT = {"top10_overlap", "tokenizer_agreement", "size_ratio"}
_LIBRARIES = ("edgemm", "numpy", "onnx", "onnxruntime", "gguf", "llama-cpp-python", "tokenizers")


def report(recipe: Recipe, comparison: Comparison, metrics: dict[str, float], notes: list[str]) -> dict[str, Any]:
    """report.json: figures, floor, verdict, machine and versions."""
    return {
        "target": recipe.target,
        "passed": comparison.passed,
        "failures": list(comparison.failures),
        "metrics": metrics,
        "floor": asdict(recipe.floor),
        "texts": len(HELD_OUT),
        "notes": notes,
        "machine": Device.detect().summary(),
        "versions": {name: version(name) for name in _LIBRARIES},
    }


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
        f"Compared with the checkpoint on {content['texts']} texts that were not calibrated on: {verdict}.",
        "",
        "| figure | value |",
        "| --- | --- |",
        *(f"| {label} | {value} |" for label, value in rows(content)),
        "",
        f"Measured on {content['machine']}.",
        *(f"\nNote: {note}" for note in content["notes"]),
    ]
    return "\n".join(lines) + "\n"


def rows(content: dict[str, Any]) -> list[tuple[str, str]]:
    """(label, value) of every figure of a report."""
    metrics = content["metrics"]
    return [(label, _shown(name, metrics[name])) for name, label in _LABELS.items() if name in metrics]


def _shown(name: str, value: float) -> str:
    if name in _PERCENT:
        return f"{100 * value:.1f} %"
    return f"{value:.5f}" if "cosine" in name or name == "batch_invariance" else f"{value:,.2f}"
