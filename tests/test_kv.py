"""Saved KV caches: they restore exactly, never from a byte that changed, and their folder stays below its limit."""

import os
import random
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tiny_gguf

from edgemm import models
from edgemm.backends import Sampling, state
from edgemm.backends.worker import LoadOptions, Worker
from edgemm.errors import BadFile
from edgemm.events import Done, Token
from edgemm.kv import KvStore

GREEDY = Sampling(max_tokens=30, temperature=0, repetition_penalty=1.0, draft=0)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_gguf.write(tmp_path_factory.mktemp("gguf") / "tiny.gguf")


@pytest.fixture
def worker(tiny: Path) -> Iterator[Worker]:
    with Worker(tiny) as worker:
        yield worker


def run(worker: Worker, prompt: list[int], sampling: Sampling = GREEDY) -> tuple[list[int], Done]:
    *events, done = worker.generate(prompt, sampling)
    assert isinstance(done, Done)
    return [e.id for e in events if isinstance(e, Token)], done


def saved(worker: Worker, path: Path) -> list[int]:
    """A file of the cache after one answer; the prompt of the next."""
    prompt = worker.tokenize("the cat sat on the mat")
    said, _ = run(worker, prompt)
    assert worker.save_state(path) == path.stat().st_size > 1000
    return [*prompt, *said, *worker.tokenize("!and ran")]


def test_an_answer_goes_on_exactly_after_a_restart(worker: Worker, tiny: Path, tmp_path: Path) -> None:
    prompt = saved(worker, tmp_path / "1.kv")
    expected, before = run(worker, prompt)
    with Worker(tiny) as fresh:
        assert fresh.info.can_save
        assert fresh.restore_state(tmp_path / "1.kv") == before.reused_tokens
        said, after = run(fresh, prompt)
    assert said == expected
    assert after.reused_tokens == before.reused_tokens


def test_no_changed_byte_is_ever_loaded(worker: Worker, tiny: Path, tmp_path: Path) -> None:
    path = tmp_path / "1.kv"
    saved(worker, path)
    good = path.read_bytes()
    draw = random.Random(7)
    places = [*range(0, 60, 5), *(draw.randrange(len(good)) for _ in range(50))]
    with Worker(tiny) as fresh:
        for place in places:
            changed = bytearray(good)
            changed[place] ^= 1 << draw.randrange(8)
            path.write_bytes(changed)
            assert fresh.restore_state(path) == 0, place
            assert not path.exists()
        for content in (b"", good[:40], good[:200], good[:-1], good + b"x", b"\0" * len(good)):
            path.write_bytes(content)
            assert fresh.restore_state(path) == 0
            assert not path.exists()
        path.write_bytes(good)
        assert fresh.restore_state(path) > 0


def test_a_header_of_a_wrong_shape_is_refused(tmp_path: Path) -> None:
    blob = np.arange(100, dtype=np.uint8)
    path = tmp_path / "1.kv"
    state.write(path, "me", [1, 2], blob)
    found = state.read(path, "me")
    assert found is not None
    assert found[0] == [1, 2]
    assert found[1].tolist() == blob.tolist()
    assert state.read(path, "other") is None
    assert state.read(tmp_path / "none.kv", "me") is None


@pytest.mark.parametrize(
    "options",
    [
        LoadOptions(context=512, fingerprint="x"),
        LoadOptions(context=1024, exact=True, fingerprint="x"),
        LoadOptions(context=1024, fingerprint="y"),
        LoadOptions(context=1024),
    ],
    ids=["context", "types", "model", "file"],
)
def test_another_setting_or_model_is_refused(tmp_path: Path, options: LoadOptions) -> None:
    model = tiny_gguf.write(tmp_path / "long.gguf", {"context_length": 1024})
    with Worker(model, LoadOptions(context=1024, fingerprint="x")) as worker:
        saved(worker, tmp_path / "1.kv")
        assert worker.restore_state(tmp_path / "1.kv") > 0
    with Worker(model, options) as other:
        assert other.restore_state(tmp_path / "1.kv") == 0
    assert not (tmp_path / "1.kv").exists()


def test_a_refused_file_leaves_the_cache_as_it_was(worker: Worker, tmp_path: Path) -> None:
    prompt = saved(worker, tmp_path / "1.kv")
    (tmp_path / "1.kv").write_bytes(b"nonsense")
    assert worker.restore_state(tmp_path / "1.kv") == 0
    assert run(worker, prompt)[1].reused_tokens > 10


def test_nothing_is_saved_before_anything_was_read(worker: Worker, tmp_path: Path) -> None:
    assert worker.save_state(tmp_path / "1.kv") == 0
    assert worker.restore_state(tmp_path / "1.kv") == 0
    assert list(tmp_path.glob("*.kv")) == []


@pytest.mark.skipif(sys.platform == "win32", reason="modes")
def test_the_file_is_its_owners_alone_and_whole(worker: Worker, tmp_path: Path) -> None:
    saved(worker, tmp_path / "deep" / "1.kv")
    assert stat.S_IMODE((tmp_path / "deep" / "1.kv").stat().st_mode) == 0o600
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["1.kv"]


def test_a_folder_that_is_a_file_is_named(worker: Worker, tmp_path: Path) -> None:
    (tmp_path / "x").write_text("")
    run(worker, [5, 6, 7])
    with pytest.raises(BadFile, match=r"1\.kv"):
        worker.save_state(tmp_path / "x" / "1.kv")


@pytest.mark.starter
def test_a_package_gives_its_hash_as_fingerprint(smollm2: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEMM_HOME", str(smollm2.parent.parent))
    generator = models.open_generator("smollm2-135m-instruct", models.ChatOptions(context=256))
    try:
        entries = models.find("smollm2-135m-instruct").manifest.files
        assert isinstance(generator, Worker)
        assert generator._load["fingerprint"] in {entry.sha256 for entry in entries}
    finally:
        generator.close()


def fill(store: KvStore, sizes: dict[int, int]) -> None:
    """Files by chat, the first one the oldest."""
    for age, (chat, size) in enumerate(sizes.items()):
        path = store.path(chat)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x" * size)
        os.utime(path, (1e9 + age, 1e9 + age))


def chats(store: KvStore) -> set[int]:
    return {int(path.stem) for path in store.path(0).parent.glob("*.kv")}


def test_the_oldest_files_go_first_until_the_rest_fits(tmp_path: Path) -> None:
    store = KvStore(tmp_path / "kv", limit=100)
    fill(store, {1: 40, 2: 40, 3: 40, 4: 30})
    assert store.size() == 150
    assert store.sweep() == 80
    assert chats(store) == {3, 4}
    assert store.sweep() == 0


def test_the_newest_file_stays_whatever_its_size(tmp_path: Path) -> None:
    store = KvStore(tmp_path / "kv", limit=10)
    fill(store, {1: 5, 2: 500})
    store.sweep()
    assert chats(store) == {2}


def test_forgetting_a_chat_deletes_its_file(tmp_path: Path) -> None:
    store = KvStore(tmp_path / "kv")
    fill(store, {1: 5, 2: 5})
    store.forget(1)
    store.forget(99)
    assert chats(store) == {2}


def test_files_that_were_left_half_written_are_swept(tmp_path: Path) -> None:
    store = KvStore(tmp_path / "kv")
    fill(store, {1: 5})
    old, new = tmp_path / "kv" / "1abc.part", tmp_path / "kv" / "1def.part"
    for path in (old, new):
        path.write_bytes(b"x")
    os.utime(old, (1e9, 1e9))
    store.sweep()
    assert (old.exists(), new.exists()) == (False, True)


def test_an_empty_store_needs_no_folder(tmp_path: Path, home: Path) -> None:
    assert KvStore(tmp_path / "none").sweep() == KvStore(tmp_path / "none").size() == 0
    assert KvStore().path(3) == home / ".cache" / "kv" / "3.kv"


def test_a_used_file_counts_as_new(worker: Worker, tmp_path: Path) -> None:
    store = KvStore(tmp_path / "kv", limit=10)
    saved(worker, store.path(1))
    os.utime(store.path(1), (1e9, 1e9))
    fill(store, {2: 50})
    assert worker.restore_state(store.path(1)) > 0
    store.sweep()
    assert chats(store) == {1}
