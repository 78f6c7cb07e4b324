"""A checkpoint without a graph of ours to ONNX: optimum's exporter, in a child process.

Torch, transformers and optimum are imported in the child alone, which has no network, reads safetensors and runs no
code of the checkpoint. What comes back is one file with its weights beside it, as the exporter wrote it: a decoder
takes the keys and values of past tokens as inputs and is one graph, also for the first token. It knows no quantization
and no package.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from converters.onnx_graph import OPSET
from edgemm import guard
from edgemm.errors import BadFile, MissingExtra, Unsupported

MODEL = "model.onnx"
SECONDS = 1800.0  # a model of a billion weights takes minutes
# Our task -> optimum's, and the class of transformers that loads it
TASKS = {
    "chat": ("text-generation-with-past", "AutoModelForCausalLM"),
    "embed": ("feature-extraction", "AutoModel"),
    "fill-mask": ("fill-mask", "AutoModelForMaskedLM"),
    "classify": ("text-classification", "AutoModelForSequenceClassification"),
    "rerank": ("text-classification", "AutoModelForSequenceClassification"),
    "token-classify": ("token-classification", "AutoModelForTokenClassification"),
    "question-answering": ("question-answering", "AutoModelForQuestionAnswering"),
    "image-embed": ("feature-extraction", "AutoModel"),
    "image-classify": ("image-classification", "AutoModelForImageClassification"),
}
_PAST = "-with-past"
_UNKNOWN, _MISSING = 3, 4  # exit codes of the child
_FIX = "pip install 'edgemm[export]'"
# Scripted functions would become inner graphs; without a compiler they are traced like all others.
_ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "PYTORCH_JIT": "0"}


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export wrote: the file, and the names of its inputs and outputs in their order."""

    path: Path
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def available() -> bool:
    """Whether the extra `export` is there. Nothing of it is imported."""
    try:
        return bool(version("optimum-onnx")) and all(find_spec(name) for name in ("torch", "transformers"))
    except PackageNotFoundError:
        return False


def export(folder: Path, task: str, out: Path, *, seconds: float = SECONDS) -> Exported:
    """Write the checkpoint in `folder` to `out`/model.onnx, float32, for one of our tasks (`TASKS`).

    Raises `MissingExtra` without the extra `export`, `Unsupported` for an architecture or a task that optimum does not
    know, or for a graph that onnxruntime may not end, and `BadFile` when the exporter fails or takes too long.
    """
    if task not in TASKS:
        raise Unsupported(folder, f"there is no export for {task}", f"known: {', '.join(TASKS)}")
    out.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "converters.export_optimum", str(folder.resolve()), task, str(out.resolve())]
    try:
        done = subprocess.run(
            command, env=os.environ | _ENVIRONMENT, capture_output=True, text=True, errors="replace", timeout=seconds
        )
    except subprocess.TimeoutExpired as error:
        raise BadFile(folder, f"its export takes longer than {seconds:.0f} s", "use a smaller model") from error
    if done.returncode:
        raise _failure(folder, done)
    names = json.loads(done.stdout.splitlines()[-1])
    guard.check_onnx(out / MODEL)
    return Exported(out / MODEL, tuple(names["inputs"]), tuple(names["outputs"]))


def _failure(folder: Path, done: "subprocess.CompletedProcess[str]") -> Exception:
    """The child's last line is its reason."""
    why = (done.stderr.strip().splitlines() or [f"no reason given, exit code {done.returncode}"])[-1][:200]
    if done.returncode == _MISSING:
        return MissingExtra("export", why, _FIX)
    if done.returncode == _UNKNOWN:
        return Unsupported(folder, why, "use --to gguf, or another model")
    return BadFile(folder, f"optimum cannot export it ({why})", "check the checkpoint, or use another model")


def _main(folder: str, task: str, out: str) -> None:
    optimum_task, kind = TASKS[task]
    past = optimum_task.endswith(_PAST)
    optimum_task = optimum_task.removesuffix(_PAST)
    try:
        import torch
        import transformers
        from optimum.exporters.onnx import export as run
        from optimum.exporters.tasks import TasksManager
    except ImportError as error:
        _end(_MISSING, f"{error.name or error} is not installed")
    model_type = _known(transformers, TasksManager, folder, optimum_task, past=past)
    options = {"local_files_only": True, "trust_remote_code": False, "use_safetensors": True}
    loaded = getattr(transformers, kind).from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", **options
    )
    constructor = TasksManager.get_exporter_config_constructor(
        exporter="onnx", model_type=model_type, task=optimum_task, library_name="transformers"
    )
    settings = constructor(loaded.config, **{"use_past": True, "use_past_in_inputs": True} if past else {})
    inputs, outputs = run(loaded.eval(), settings, Path(out) / MODEL, opset=max(OPSET, settings.DEFAULT_ONNX_OPSET))
    print(json.dumps({"inputs": inputs, "outputs": outputs}))  # noqa: T201


def _known(transformers: Any, manager: Any, folder: str, task: str, *, past: bool) -> str:
    """The model type, where transformers and optimum both know it for `task`; else the child ends."""
    import optimum.exporters.onnx.model_configs  # noqa: F401  it registers what optimum knows

    try:
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        tasks = manager.get_supported_tasks_for_model_type(config.model_type, "onnx", library_name="transformers")
    except (KeyError, ValueError) as error:
        if isinstance(error, ValueError) and "does not recognize this architecture" not in str(error):
            raise
        kind = json.loads((Path(folder) / "config.json").read_bytes()).get("model_type")
        _end(_UNKNOWN, f"optimum knows no architecture {str(kind)[:40]!r}")
    if task + _PAST * past not in tasks:
        known = ", ".join(tasks)
        _end(_UNKNOWN, f"optimum exports {config.model_type} for {known}, not for {task}")
    return str(config.model_type)


def _end(code: int, why: str) -> Any:
    print(why, file=sys.stderr)  # noqa: T201
    sys.exit(code)


if __name__ == "__main__":
    _main(*sys.argv[1:])
