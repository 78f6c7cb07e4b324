"""A conversion is killed, interrupted and starved at many moments: what is visible is whole, and it goes on."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny_gguf
import tiny_llama
from bench import process
from conftest import Cli

from edgemm import drafts, package
from edgemm.errors import UsageError

TARGET, NAME = "gguf-q4_k_m", "tiny-gguf-q4_k_m"
# Files that appear one after the other while a model is built, in the order of their stages.
STAGES = (
    "tokenizer.json", ".work/reference-f16.gguf.part", ".work/reference-f16.gguf", ".work/importance.gguf",
    ".work/model.gguf.part", "model.gguf", "manifest.json", "README.md",
)  # fmt: skip
posix = pytest.mark.skipif(sys.platform == "win32", reason="signals and limits of POSIX")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight million weights, so that every stage takes some time."""
    return tiny_llama.write(tmp_path_factory.mktemp("resume") / "tiny", width=512, layers=3, feed_forward=1024, heads=8)


@pytest.fixture(scope="module")
def expected(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The sha256 of a conversion that nobody interrupted."""
    home = tmp_path_factory.mktemp("expected")
    done = subprocess.run(command(checkpoint), env=environment(home), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return package.sha256(home / NAME / "model.gguf")


def command(checkpoint: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "edgemm", "convert", str(checkpoint), "--to", TARGET, "--no-oracle", *more]


def environment(home: Path) -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if not k.startswith("EDGEMM_")} | {"EDGEMM_HOME": str(home)}


def started(checkpoint: Path, home: Path, *more: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        command(checkpoint, *more), env=environment(home), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def until(running: "subprocess.Popen[str]", home: Path, stage: str, delay: float) -> None:
    """Wait for a file of the draft, written by this process or kept from the last, then `delay` seconds."""
    known = {path: path.stat().st_ino for path in (home / ".partial").glob("*/*")}  # Python is still starting
    while running.poll() is None:
        found = list((home / ".partial").glob(f"{NAME}~draft.*/{stage}"))
        if found and known.get(found[0]) != found[0].stat().st_ino:
            break
        time.sleep(0.002)
    time.sleep(delay)


def killed(checkpoint: Path, home: Path, stage: str, delay: float = 0.0, *more: str) -> None:
    running = started(checkpoint, home, *more)
    until(running, home, stage, delay)
    running.kill()
    running.communicate()


def check_nothing_half(home: Path) -> None:
    """Nothing under the final name, and no file of another process in the draft's package."""
    assert not (home / NAME).exists()
    assert [p.name for p in home.iterdir()] == [".partial"]
    assert len(list((home / ".partial").iterdir())) <= 1


@posix
@pytest.mark.parametrize("seed", [1, 2])
def test_a_killed_conversion_goes_on_to_the_same_bytes(seed: int, checkpoint: Path, expected: str, home: Path) -> None:
    rng = random.Random(seed)
    stages = [*STAGES, *(rng.choice(STAGES[:-2]) for _ in range(2))]
    for kill, stage in enumerate(stages):
        killed(checkpoint, home, stage, 0.0 if kill % 2 == seed % 2 else rng.uniform(0, 0.25))
        if (home / NAME).exists():  # it was faster than the kill
            assert package.sha256(home / NAME / "model.gguf") == expected
            package.remove(NAME)
        elif home.exists():
            check_nothing_half(home)
    running = started(checkpoint, home)
    _, stderr = running.communicate(timeout=120)
    assert running.returncode == 0, stderr
    assert package.sha256(home / NAME / "model.gguf") == expected
    made = package.open_package(home / NAME)
    listed = {entry.path for entry in made.manifest.files}
    assert listed == {"README.md", "model.gguf", "report.json", "tokenizer.json"}
    assert {p.name for p in (home / NAME).iterdir()} <= listed | {"manifest.json", ".verified.json"}
    assert not list((home / ".partial").iterdir())


# Dies before or after the n-th time that a file gets a name; the journal is written at every step.
DIE = """
import os, sys
from pathlib import Path
from converters import quantize
quantize._JOURNAL_SECONDS = -1.0
replace, (name, at, when) = Path.replace, sys.argv[1:4]
left = int(at)
def dying(path, target):
    global left
    left -= target.name == name
    if left == 0 and when == "before": os._exit(9)
    done = replace(path, target)
    if left == 0: os._exit(9)
    return done
Path.replace = dying
sys.argv[1:4] = []
from edgemm.cli import main; main()
"""
PLACES = (
    ("model.gguf.part.journal", 9, "before"), ("model.gguf.part.journal", 21, "before"), ("model.gguf", 1, "before"),
    ("model.gguf", 1, "after"), ("model.gguf", 2, "after"), ("README.md", 1, "before"), ("manifest.json", 1, "after"),
)  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
def test_no_scrap_of_a_dead_process_gets_into_the_package(
    place: tuple[str, int, str], tmp_path: Path, home: Path
) -> None:
    source = tiny_gguf.write(tmp_path / "tiny.gguf")
    fast = ("--no-compare", "--calibrate", "none")
    arguments = command(source, *fast)[3:]
    died = subprocess.run([sys.executable, "-c", DIE, *map(str, place), *arguments], capture_output=True, timeout=60)
    assert died.returncode == 9
    check_nothing_half(home)
    done = subprocess.run(command(source, *fast), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    files = {"README.md", "manifest.json", "model.gguf", "report.json", "chat_template.jinja"}
    assert {p.name for p in (home / NAME).iterdir()} == files
    package.verify(package.open_package(home / NAME))
    assert not list((home / ".partial").iterdir())


@posix
@pytest.mark.parametrize("stage", [".work/reference-f16.gguf.part", ".work/importance.gguf"])
def test_ctrl_c_keeps_what_is_done_and_says_so(stage: str, checkpoint: Path, expected: str, home: Path) -> None:
    running = started(checkpoint, home)
    until(running, home, stage, 0.0)
    begun = time.monotonic()
    running.send_signal(signal.SIGINT)
    _, stderr = running.communicate(timeout=60)
    assert running.returncode == 130, stderr
    assert time.monotonic() - begun < 5
    assert stderr.splitlines()[-1].endswith("what is done is kept — run the same command again to go on")
    assert "Traceback" not in stderr
    check_nothing_half(home)
    draft = next((home / ".partial").iterdir())
    assert (draft / "tokenizer.json").is_file()
    written = {path.name: path.stat().st_ino for path in (draft / ".work").glob("*.gguf")}
    running = started(checkpoint, home, "--json")
    seen = {}
    while running.poll() is None:
        seen |= {p.name: p.stat().st_ino for p in (draft / ".work").glob("*.gguf")} if draft.exists() else {}
        time.sleep(0.002)
    assert running.returncode == 0, running.communicate()
    running.communicate()
    assert {name: seen[name] for name in written} == written, "it began anew"
    assert package.sha256(home / NAME / "model.gguf") == expected


@posix
def test_another_option_or_a_changed_source_starts_anew(tmp_path: Path, home: Path) -> None:
    source = tiny_llama.write(tmp_path / "tiny")
    fast = ("--no-compare", "--calibrate", "none")
    seen = []

    def note() -> None:
        seen.append([path.name for path in (home / ".partial").iterdir()])

    for _ in range(2):
        killed(source, home, "tokenizer.json", 0.0, *fast)
        note()
    tiny_llama.write(source, seed=1)
    killed(source, home, "tokenizer.json", 0.0, *fast)
    note()
    killed(source, home, "tokenizer.json")
    note()
    assert [len(names) for names in seen] == [1, 1, 1, 1]
    assert seen[0] == seen[1] != seen[2] != seen[3]


@posix
def test_two_processes_do_not_write_one_draft(tmp_path: Path, home: Path) -> None:
    checkpoint = tiny_llama.write(tmp_path / "tiny")
    running = started(checkpoint, home)
    until(running, home, "tokenizer.json", 0.0)
    second = subprocess.run(command(checkpoint), env=environment(home), capture_output=True, text=True, timeout=60)
    third = subprocess.run(
        command(checkpoint, "--calibrate", "none"), env=environment(home), capture_output=True, text=True, timeout=60
    )
    _, stderr = running.communicate(timeout=60)
    assert running.returncode == 0, stderr
    for other in (second, third):
        assert other.returncode == 2, other.stderr
        assert f"{NAME}: is being made by process {running.pid}" in other.stderr


def test_a_draft_of_a_dead_process_is_free(home: Path) -> None:
    folder = drafts.find("tiny", "key")
    drafts.own(folder)
    owner = folder / drafts.WORK / "owner"
    (folder / "model.gguf.17.tmp").write_bytes(b"x")
    owner.write_text("1 123.5")  # a process that lives, and was not born then
    assert drafts.find("tiny", "key") == folder
    drafts.own(folder)
    assert not (folder / "model.gguf.17.tmp").exists()
    import psutil

    owner.write_text(f"1 {psutil.Process(1).create_time()!r}")
    with pytest.raises(UsageError, match="tiny: is being made by process 1"):
        drafts.find("tiny", "other")
    owner.write_text("rubbish")
    assert drafts.find("tiny", "other") != folder
    assert not folder.exists()


@posix
@pytest.mark.parametrize("limit", [3_000, 3_000_000, 10_000_000])
def test_a_full_disk_leaves_nothing(limit: int, checkpoint: Path, home: Path) -> None:
    """While the tokenizer, the result and the reference are written."""
    code = (
        "import resource, signal, sys\n"
        f"limit = ({limit}, {limit})\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, limit)\n"
        "from edgemm.cli import main; main()"
    )
    arguments = command(checkpoint)[3:]
    fast = ["--no-compare", "--calibrate", "none"] if limit == 3_000_000 else []
    done = subprocess.run([sys.executable, "-c", code, *arguments, *fast], capture_output=True, text=True, timeout=120)
    assert done.returncode == 4, done.stderr
    assert "the disk is full" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (home / NAME).exists()
    assert not list((home / ".partial").iterdir())


@posix
def test_memory_does_not_grow_with_the_model(tmp_path: Path, cli: Cli) -> None:
    big = tiny_llama.write(tmp_path / "big", width=1024, layers=8, feed_forward=3072, heads=16, kv_heads=16)
    size = (big / "model.safetensors").stat().st_size
    assert size > 200_000_000
    small = tiny_llama.write(tmp_path / "small", width=256, layers=1)
    plain = ("--to", TARGET, "--no-compare", "--calibrate", "none", "--no-oracle")
    home = {"EDGEMM_HOME": str(tmp_path / "store")}
    peak = {}
    for source in (small, big):
        _, _, peak[source.name] = process("-m", "edgemm", "convert", str(source), *plain, **home)
    result = (tmp_path / "store" / "big-gguf-q4_k_m" / "model.gguf").stat().st_size / (1 << 20)
    grown = peak["big"] - peak["small"] - result  # the finished file is mapped once, to measure its speed
    assert grown < size / (1 << 20) / 2, peak
