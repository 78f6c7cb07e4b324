"""The package format: what opens, what is refused, and that a kill at any moment leaves the old or the new one."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgemm import package, paths
from edgemm.errors import BadFile, BadName, ChecksumMismatch, DiskFull, EdgemmError, UnknownModel
from edgemm.manifest import Inputs, MadeBy, Manifest, Quantization, Source
from edgemm.package import Package

DATA = random.Random(0).randbytes(20_000)


def draft(name: str) -> Manifest:
    return Manifest(name, "embed", "bert", Source("x"), Quantization("onnx-int8"), MadeBy("0"), inputs=Inputs(8))


def write(name: str = "tiny", data: bytes = DATA) -> Package:
    with package.staged(name) as folder:
        (folder / "model.onnx").write_bytes(data)
        manifest = package.write_manifest(folder, draft(name), {"passed": True}, "# card\n")
    return Package(paths.store() / name, manifest)


def edit(found: Package, change: dict[str, object]) -> None:
    path = found.path / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))


def test_written_and_opened_are_equal(home: Path) -> None:
    written = write()
    opened = package.open_package(home / "tiny")
    assert opened.manifest == written.manifest
    assert [e.path for e in opened.manifest.files] == ["README.md", "model.onnx", "report.json"]
    assert opened.report() == {"passed": True}
    assert opened.file(".onnx") == home / "tiny" / "model.onnx"
    assert opened.file(".gguf") is None
    assert [p.name for p in package.installed()] == ["tiny"]
    assert not list((home / ".partial").iterdir())


def test_every_flipped_bit_is_found() -> None:
    found = write()
    rng = random.Random(1)
    for name in ("model.onnx", "report.json", "README.md"):
        good = (found.path / name).read_bytes()
        for _ in range(34):
            bad = bytearray(good)
            bad[rng.randrange(len(bad))] ^= 1 << rng.randrange(8)
            (found.path / name).write_bytes(bytes(bad))
            with pytest.raises(ChecksumMismatch, match="checksum differs"):
                package.open_package(found.path)
        (found.path / name).write_bytes(good)
    package.open_package(found.path)


def test_sizes_and_missing_files_are_named() -> None:
    found = write()
    model = found.path / "model.onnx"
    model.write_bytes(DATA[:-1])
    with pytest.raises(BadFile, match="needs 20000 bytes, has 19999"):
        package.open_package(found.path)
    model.unlink()
    with pytest.raises(BadFile, match="missing"):
        package.open_package(found.path)


def test_hashes_are_remembered_until_the_file_changes() -> None:
    found = write()
    package.open_package(found.path)
    remembered = json.loads((found.path / ".verified.json").read_text())
    assert set(remembered) == {"README.md", "model.onnx", "report.json"}
    os.utime(found.path / "model.onnx", ns=(0, 12345))
    package.open_package(found.path)
    assert json.loads((found.path / ".verified.json").read_text())["model.onnx"][1] == 12345


def test_verify_does_not_trust_what_is_remembered() -> None:
    found = write()
    package.open_package(found.path)
    model = found.path / "model.onnx"
    stat = model.stat()
    model.write_bytes(DATA[:-1] + bytes([DATA[-1] ^ 1]))
    os.utime(model, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    package.open_package(found.path)  # same size, time and inode: not looked at again
    with pytest.raises(ChecksumMismatch):
        package.verify(found)


def test_a_forged_memory_is_ignored() -> None:
    found = write()
    (found.path / ".verified.json").write_text("[1, 2")
    package.open_package(found.path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"surprise": 1}, "unknown key 'surprise'"),
        ({"schema": 2}, "schema 2"),
        ({"schema": "1"}, "schema has the wrong type"),
        ({"task": "fly"}, "unknown task"),
        ({"name": "../x"}, "model name"),
        ({"files": 3}, "files has the wrong type"),
        ({"source": {"id": "x", "url": "y"}}, "unknown key 'url' in Source"),
        ({"source": {}}, "missing 1 required"),
        ({"inputs": {"max_tokens": "8"}}, "max_tokens has the wrong type"),
        ({"inputs": {"max_tokens": True}}, "max_tokens has the wrong type"),
        ({"quantization": None}, "Quantization has the wrong type"),
    ],
    ids=str,
)
def test_a_manifest_that_does_not_fit(change: dict[str, object], message: str) -> None:
    found = write()
    edit(found, change)
    with pytest.raises(EdgemmError, match=message):
        package.open_package(found.path)


@pytest.mark.parametrize("raw", ["", "{", "[]", "3", "null", "[" * 100_000], ids=lambda r: r[:5])
def test_a_damaged_manifest(raw: str) -> None:
    found = write()
    (found.path / "manifest.json").write_text(raw)
    with pytest.raises(BadFile):
        package.open_package(found.path)
    assert list(package.installed()) == []


@pytest.mark.parametrize(
    "path", ["../outside", "/etc/passwd", "a/../../x", "a\\b", "C:x", "", "..", "a\0b", "a\nb", "x" * 5000], ids=ascii
)
def test_no_file_leaves_the_folder(path: str) -> None:
    found = write()
    edit(found, {"files": [{"path": path, "bytes": 1, "sha256": "0"}]})
    with pytest.raises(BadFile, match="leaves the package folder"):
        package.open_package(found.path)


@pytest.mark.skipif(sys.platform == "win32", reason="symbolic links need a privilege on Windows")
def test_a_link_is_refused(tmp_path: Path) -> None:
    found = write()
    (tmp_path / "secret").write_bytes(DATA)
    (found.path / "model.onnx").unlink()
    (found.path / "model.onnx").symlink_to(tmp_path / "secret")
    with pytest.raises(BadFile, match="leaves the package folder"):
        package.open_package(found.path)


def test_no_package() -> None:
    with pytest.raises(UnknownModel, match=r"no manifest\.json"):
        package.open_package(paths.store() / "nothing")


def test_an_error_while_writing_leaves_the_old_package(home: Path) -> None:
    write()
    staged = package.staged("tiny")
    (staged.__enter__() / "model.onnx").write_bytes(b"new")
    assert not staged.__exit__(RuntimeError, RuntimeError("in the middle"), None)
    assert (home / "tiny" / "model.onnx").read_bytes() == DATA
    assert not list((home / ".partial").iterdir())


def test_a_bad_name_is_refused_before_anything_is_written(home: Path) -> None:
    with pytest.raises(BadName), package.staged("../evil"):
        pass
    assert not home.exists()


def test_recover_puts_back_a_package_whose_replacement_never_came(home: Path) -> None:
    found = write()
    found.path.rename(home / ".partial" / "tiny~old")
    assert [p.name for p in package.installed()] == ["tiny"]


def test_recover_deletes_the_drafts_of_dead_processes_alone(home: Path) -> None:
    write()
    dead, alive = home / ".partial" / "a~new.999999999", home / ".partial" / f"b~new.{os.getpid()}"
    dead.mkdir()
    alive.mkdir()
    package.recover()
    assert (dead.exists(), alive.exists()) == (False, True)


def test_remove_frees_and_names_the_unknown(home: Path) -> None:
    write()
    assert package.remove("tiny") > len(DATA)
    assert not (home / "tiny").exists()
    with pytest.raises(UnknownModel):
        package.remove("tiny")


WRITER = (
    "from pathlib import Path; import test_package as t, itertools\n"
    "print('go', flush=True)\n"
    "for n in itertools.count(): t.write(data=bytes([n % 250]) * 20_000)"
)


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9")
def test_kill_in_the_middle_leaves_the_old_or_the_new(home: Path) -> None:
    write()
    rng = random.Random(4)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    for _ in range(12):
        with subprocess.Popen([sys.executable, "-c", WRITER], stdout=subprocess.PIPE, env=environment) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            time.sleep(rng.uniform(0, 0.05))
            os.kill(writer.pid, signal.SIGKILL)
        [found] = package.installed()
        package.verify(found)
        assert len(set((home / "tiny" / "model.onnx").read_bytes())) in (1, 256)
    assert not [p for p in (home / ".partial").iterdir() if "~old" in p.name]


@pytest.mark.skipif(sys.platform == "win32", reason="RLIMIT_FSIZE")
def test_a_full_disk_changes_nothing(home: Path) -> None:
    write()
    code = (
        "import resource, signal\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (9_000, 9_000))\n"
        "import test_package as t; from edgemm.errors import DiskFull\n"
        "try: t.write(data=b'x' * 20_000)\n"
        "except DiskFull as error: print(error)"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=60)
    assert "the disk is full — free some space" in done.stdout, done.stderr
    assert (home / "tiny" / "model.onnx").read_bytes() == DATA
    assert not list((home / ".partial").iterdir())
    assert DiskFull.exit_code == 4
