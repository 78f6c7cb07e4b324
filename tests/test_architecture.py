"""The layout's rules, held by parsing the imports: one direction, no cycle, heavy modules only where they belong."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

# Each name may import from its own row and from the rows above it.
LAYERS = (
    ("errors", "events"),
    ("settings", "paths", "device", "drafts", "manifest", "package", "catalog", "words", "sqlite", "snippets"),
    ("guard", "tokenizer", "prompt", "image", "fetch"),
    ("backends",),
    (
        "batches",
        "embed",
        "spans",
        "vision",
        "classify",
        "fusion",
        "sessions",
        "transcripts",
        "kv",
        "context",
        "attachments",
        "cite",
        "reasoning",
        "fit",
        "speeds",
        "personas",
        "chat_settings",
        "chat",
        "answer",
        "conversation",
        "desk",
        "documents",
        "index",
        "search",
        "ingest",
        "library",
        "evaluation",
        "known_items",
        "parquet",
        "polite",
        "watch",
        "models",
        "doctor",
    ),
    ("terminal",),
    ("commands",),
    ("vectors", "plain", "talk", "predict", "hits", "server", "tui", "cli_chat", "cli_index", "cli_eval"),
    ("cli_ask",),
    ("cli", "__main__"),
)
# What converting may use of the runtime: everything below the doors.
CONVERTERS_MAY = {name for row in LAYERS[:5] for name in row} | {"terminal"}
# Heavy modules, and the only files that may import them.
OWNERS = {
    "onnxruntime": {"edgemm/backends/ort.py"},
    "llama_cpp": {"edgemm/backends/llamacpp.py"},
    "textual": {"edgemm/tui"},
    "PIL": {"edgemm/image.py"},
    "pypdfium2": {"edgemm/documents/parsers/pdf.py"},
    "python_calamine": {"edgemm/documents/parsers/sheet.py"},
    "pathspec": {"edgemm/documents/walk.py"},
    "pyarrow": {"edgemm/parquet.py"},
    "watchfiles": {"edgemm/watch.py"},
    "huggingface_hub": {"edgemm/fetch"},
    "torch": {"converters/oracle.py", "converters/export_optimum.py"},
    "transformers": {"converters/oracle.py", "converters/export_optimum.py"},
    "optimum": {"converters/export_optimum.py"},
}
MAX_LINES = 400


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Dotted names that the file imports at any depth, function bodies included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def noun(path: Path) -> str:
    part = path.relative_to(ROOT / "edgemm").parts[0]
    return part.removesuffix(".py")


def runtime_edges(path: Path) -> set[str]:
    return {name.split(".")[1] for name in imports(path) if name.startswith("edgemm.")} - {"__version__"}


def rank(name: str) -> int:
    return next(i for i, row in enumerate(LAYERS) if name in row)


def test_every_module_has_a_layer() -> None:
    known = {name for row in LAYERS for name in row} | {"__init__"}
    assert {noun(p) for p in modules("edgemm")} <= known


@pytest.mark.parametrize("path", modules("edgemm"), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_down(path: Path) -> None:
    if noun(path) == "__init__":
        return
    upward = {edge for edge in runtime_edges(path) - {noun(path)} if rank(edge) > rank(noun(path))}
    assert not upward, f"{path.name} imports from a layer above it: {upward}"


def test_no_cycle() -> None:
    graph: dict[str, set[str]] = {}
    for path in modules("edgemm"):
        graph.setdefault(noun(path), set()).update(runtime_edges(path) - {noun(path)})
    graph.pop("__init__")
    while leaves := {name for name, edges in graph.items() if not edges & set(graph)}:
        graph = {name: edges for name, edges in graph.items() if name not in leaves}
    assert not graph, f"these modules import each other: {sorted(graph)}"


def test_the_runtime_never_imports_converters() -> None:
    for path in modules("edgemm"):
        assert not any(name.split(".")[0] == "converters" for name in imports(path)), path


def test_converters_import_only_the_lower_layers() -> None:
    for path in modules("converters"):
        assert runtime_edges(path) <= CONVERTERS_MAY, (path, runtime_edges(path) - CONVERTERS_MAY)


@pytest.mark.parametrize("heavy", OWNERS)
def test_heavy_modules_are_imported_by_their_owner_alone(heavy: str) -> None:
    for path in [*modules("edgemm"), *modules("converters")]:
        if any(name.split(".")[0] == heavy for name in imports(path)):
            place = path.relative_to(ROOT).as_posix()
            assert any(place.startswith(owner) for owner in OWNERS[heavy]), f"{place} imports {heavy}"


def test_no_pickle() -> None:
    for path in [*modules("edgemm"), *modules("converters")]:
        assert not imports(path) & {"pickle", "marshal", "shelve", "dill", "multiprocessing"}, path
        assert "allow_pickle=True" not in path.read_text("utf-8")


@pytest.mark.parametrize("package", ["edgemm", "converters", "tests"])
def test_files_stay_short(package: str) -> None:
    for path in modules(package):
        assert len(path.read_text("utf-8").splitlines()) <= MAX_LINES, f"{path} outgrew one file: make it a folder"


@pytest.mark.parametrize("package", ["edgemm", "converters"])
def test_every_module_says_what_it_does(package: str) -> None:
    for path in modules(package):
        assert len(ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "") > 30, path


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['edgemm', '--help']\n"
        "from edgemm.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code\n"
        "print(' '.join({m.split('.')[0] for m in sys.modules}), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stderr.split())
    assert not loaded & {*OWNERS, "numpy", "tokenizers", "onnx", "gguf", "jinja2"}
    assert "run" in done.stdout
    assert "convert" in done.stdout
