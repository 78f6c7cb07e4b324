"""`edgemm doctor`: the machine, and whether the installed libraries use it. Opens no socket, changes nothing.

Native libraries are asked in a child process: one that does not fit the processor dies there, and its absence is a
finding.
"""

import json
import platform
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from edgemm import package, paths
from edgemm.device import Device
from edgemm.settings import Settings

_LIBRARIES = (
    "edgemm",
    "llama-cpp-python",
    "onnxruntime",
    "tokenizers",
    "numpy",
    "huggingface-hub",
    "textual",
    "onnx",
    "gguf",
)
_SECONDS = 60
_ILLEGAL_INSTRUCTION = (-signal.SIGILL, 0xC000001D)  # how a child ends by it on Unix, on Windows
# Printed by the child as one line of JSON: what each library says it can use.
_ASK = {
    "llama_cpp": "import llama_cpp as l; r = {'gpu': bool(l.llama_supports_gpu_offload()),"
    " 'system': l.llama_print_system_info().decode()}",
    "onnxruntime": "import onnxruntime as o; r = {'providers': o.get_available_providers()}",
}


@dataclass(frozen=True, slots=True)
class Examination:
    """`versions` holds "" for what is not installed; `problems` are (what, remedy)."""

    device: Device
    python: str
    versions: dict[str, str]
    llama_cpp: dict[str, object]
    onnxruntime: dict[str, object]
    store: str
    store_packages: int
    store_bytes: int
    disk_free: int
    offline: bool
    problems: tuple[tuple[str, str], ...]


def examine() -> Examination:
    device = Device.detect()
    answers = {name: _ask(code) for name, code in _ASK.items()}
    packages = list(package.installed())
    return Examination(
        device=device,
        python=platform.python_version(),
        versions={name: _version(name) for name in _LIBRARIES},
        llama_cpp=answers["llama_cpp"],
        onnxruntime=answers["onnxruntime"],
        store=str(paths.store()),
        store_packages=len(packages),
        store_bytes=sum(p.manifest.bytes for p in packages),
        disk_free=_disk_free(),
        offline=Settings.from_environment().offline,
        problems=tuple(_problems(device, answers)),
    )


def rows(found: Examination) -> list[tuple[str, str, str]]:
    """(what, found, remark) for a table."""
    d = found.device
    gb = 1e9
    table = [
        ("processor", d.cpu, f"{d.machine}, {d.cores} cores, {d.threads} threads"),
        ("instruction sets", ", ".join(d.features) or "none known", ""),
        ("memory", f"{d.memory / gb:.1f} GB", f"{d.free / gb:.1f} GB free"),
        ("Metal", "yes" if d.metal else "no", ""),
        ("CUDA", ", ".join(d.cuda) or "no", ""),
        ("system", d.system, f"Python {found.python}"),
        ("llama.cpp", found.versions["llama-cpp-python"] or "not installed", _llama_remark(found.llama_cpp)),
        ("onnxruntime", found.versions["onnxruntime"] or "not installed", _providers(found.onnxruntime)),
        ("store", found.store, f"{found.store_packages} packages, {found.store_bytes / gb:.2f} GB"),
        ("free disk", f"{found.disk_free / gb:.1f} GB", ""),
        ("downloads", "forbidden by EDGEMM_OFFLINE" if found.offline else "only by `edgemm pull`", ""),
    ]
    named = ("edgemm", "tokenizers", "numpy", "huggingface-hub", "textual", "onnx", "gguf")
    table.append(("versions", ", ".join(f"{n} {found.versions[n] or '-'}" for n in named), ""))
    return table + [("PROBLEM", what, fix) for what, fix in found.problems]


def _problems(device: Device, answers: dict[str, dict[str, object]]) -> list[tuple[str, str]]:
    found = [(f"{name}: {a['error']}", "reinstall it on this machine") for name, a in answers.items() if "error" in a]
    offload = bool(answers["llama_cpp"].get("gpu"))
    if device.cuda and not offload:
        fix = "CMAKE_ARGS=-DGGML_CUDA=on pip install --force-reinstall --no-cache-dir llama-cpp-python"
        found.append(("an NVIDIA device is there, but llama.cpp was built without CUDA", fix))
    if device.metal and not offload:
        fix = "CMAKE_ARGS=-DGGML_METAL=on pip install --force-reinstall --no-cache-dir llama-cpp-python"
        found.append(("Metal is there, but llama.cpp was built without it", fix))
    if device.machine.lower() in ("x86_64", "amd64") and device.features and "AVX2" not in device.features:
        found.append(("this processor has no AVX2", "expect slow answers; small models only"))
    return found


def _ask(code: str) -> dict[str, object]:
    """The answer of a library in a child process, or {"error": why}."""
    script = f"import json; {code}; print(json.dumps(r))"
    command = [sys.executable, "-P", "-c", script]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        return {"error": "does not answer"}
    if done.returncode in _ILLEGAL_INSTRUCTION:
        return {"error": "this CPU lacks an instruction that the installed build uses"}
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1][:200]}
    answer: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return answer


def _llama_remark(answer: dict[str, object]) -> str:
    if "error" in answer:
        return str(answer["error"])
    return "uses the GPU" if answer.get("gpu") else "runs on the CPU"


def _providers(answer: dict[str, object]) -> str:
    providers = answer.get("providers")
    return ", ".join(map(str, providers)) if isinstance(providers, list) else str(answer.get("error", ""))


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _disk_free() -> int:
    folder = paths.store()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free
