"""Bringing an index up to date: what is read again and what is not, moves and copies, models that replace others."""

import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from word_bags import Bag, Colours, found_names, picture, run, vector, write

from edgemm import ingest
from edgemm.documents import walk
from edgemm.events import Note
from edgemm.index import Root, Scope, Store

TEXTS: dict[str, str | bytes] = {
    "a.txt": "An ibex climbs the rocks.",
    "sub/b.md": "# Lakes\n\nA heron stands in the water.",
    "sub/deep/c.py": "def wombat():\n    return 'burrow'\n",
}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "data" / "index.sqlite") as opened:
        yield opened
        assert opened.verify() == []


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "docs", TEXTS)


@pytest.fixture
def root(store: Store, folder: Path) -> Root:
    return store.add_root(folder)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are opened."""
    names: list[str] = []
    real = ingest.Reader.read

    def read(self: ingest.Reader, files: list[ingest.Found]) -> Iterator[object]:
        names.extend(each.name for each in files)
        return real(self, files)

    monkeypatch.setattr(ingest.Reader, "read", read)
    return names


def test_files_are_found_by_words_and_by_meaning(store: Store, root: Root) -> None:
    bag = Bag()
    report = run(store, root, bag)
    assert (report.files, report.added, report.changed, report.unchanged, report.removed) == (3, 3, 0, 0, 0)
    assert (report.chunks, report.embedded, report.failed) == (3, 3, 0)
    assert report.tokens == sum(len(text.split()) for text in bag.embedded) > 0
    assert found_names(store, "heron") == {"sub/b.md"}
    model = store.ready()
    assert model is not None
    [(chunk, score)] = store.nearest(model.id, vector("wombat burrow"), 1)
    assert (store.chunk(chunk).name, score > 0.3) == ("sub/deep/c.py", True)


def test_nothing_that_is_the_same_is_opened(store: Store, root: Root, reads: list[str]) -> None:
    bag = Bag()
    run(store, root, bag)
    reads.clear()
    again = run(store, root, bag)
    assert reads == []
    assert (again.files, again.unchanged, again.added + again.changed + again.removed) == (3, 3, 0)
    assert (again.chunks, again.embedded, again.tokens) == (0, 0, 0)


def test_a_changed_file_is_read_and_only_its_new_text_is_embedded(
    store: Store, root: Root, folder: Path, reads: list[str]
) -> None:
    bag = Bag()
    run(store, root, bag)
    reads.clear()
    write(folder, {"a.txt": "A chamois climbs."}, age=-9)
    report = run(store, root, bag)
    assert reads == ["a.txt"]
    assert (report.changed, report.unchanged, report.embedded) == (1, 2, 1)
    assert bag.embedded[-1] == "a.txt\nA chamois climbs."
    assert found_names(store, "ibex") == set()
    assert found_names(store, "chamois") == {"a.txt"}


def test_a_file_that_was_only_touched_is_read_once_and_embeds_nothing(
    store: Store, root: Root, folder: Path, reads: list[str]
) -> None:
    bag = Bag()
    run(store, root, bag)
    reads.clear()
    os.utime(folder / "a.txt", (1_650_000_000, 1_650_000_000))
    report = run(store, root, bag)
    assert (report.unchanged, report.changed, report.embedded) == (3, 0, 0)
    run(store, root, bag)
    assert reads == ["a.txt"]
    assert store.known(root.id)["a.txt"].mtime_ns == 1_650_000_000_000_000_000


def test_moved_and_copied_files_embed_nothing(store: Store, root: Root, folder: Path) -> None:
    bag, colours = Bag(), Colours()
    picture(folder / "sea.png", "blue")
    write(folder, {"a.txt": "# no title of its own"})  # a title is embedded: a text file's is its name
    run(store, root, bag, colours)
    count = len(bag.embedded)
    (folder / "moved").mkdir()
    (folder / "sub/b.md").rename(folder / "moved/other.md")
    (folder / "sea.png").rename(folder / "moved/lake.png")
    shutil.copy(folder / "moved/other.md", folder / "copy.md")
    shutil.copytree(folder / "sub", folder / "again")
    shutil.copy(folder / "moved/lake.png", folder / "copy.png")
    report = run(store, root, bag, colours)
    assert (report.embedded, report.tokens, len(bag.embedded), len(colours.embedded)) == (0, 0, count, 1)
    assert (report.added, report.removed) == (5, 2)
    assert found_names(store, "heron") == {"moved/other.md", "copy.md"}
    assert found_names(store, "wombat") == {"sub/deep/c.py", "again/deep/c.py"}


def test_removed_files_disappear(store: Store, root: Root, folder: Path) -> None:
    bag = Bag()
    run(store, root, bag)
    shutil.rmtree(folder / "sub")
    report = run(store, root, bag)
    assert (report.files, report.removed) == (1, 2)
    assert found_names(store, "heron wombat") == set()
    model = store.ready()
    assert model is not None
    assert [store.chunk(id).name for id, _ in store.nearest(model.id, vector("heron"), 9)] == ["a.txt"]


def test_a_file_that_becomes_ignored_disappears(store: Store, root: Root, folder: Path) -> None:
    run(store, root)
    write(folder, {".edgemmignore": "sub/deep/\n"})
    assert run(store, root).removed == 1
    assert found_names(store, "wombat") == set()


def test_a_name_in_another_case_is_the_file_of_that_name(store: Store, root: Root, folder: Path) -> None:
    run(store, root, Bag())
    (folder / "a.txt").rename(folder / "A.TXT")
    run(store, root)
    assert found_names(store, "ibex") == {"A.TXT"}


def test_a_root_that_is_gone_keeps_its_files(store: Store, root: Root, folder: Path) -> None:
    run(store, root)
    folder.rename(folder.with_name("unplugged"))
    events = list(ingest.update(store, [root], []))
    assert [event.text for event in events if isinstance(event, Note)] == [
        f"{folder}: is not there now; what the index holds of it is kept"
    ]
    report = events[-1]
    assert isinstance(report, ingest.Report)
    assert (report.missing, report.files, report.removed) == ([str(folder)], 0, 0)
    assert found_names(store, "ibex") == {"a.txt"}


@pytest.fixture
def deny(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Folders that cannot be listed, for any user."""
    denied: set[str] = set()
    real = os.scandir

    def scandir(path: str | Path) -> object:
        if str(path) in denied:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    return lambda path: denied.add(str(path))


def test_a_root_that_cannot_be_listed_keeps_its_files(
    store: Store, root: Root, folder: Path, deny: Callable[[Path], None]
) -> None:
    run(store, root)
    deny(folder)
    report = run(store, root)
    assert (report.removed, dict(report.skipped)) == (0, {"cannot be listed: permission denied": 1})
    assert found_names(store, "ibex") == {"a.txt"}


def test_a_folder_that_cannot_be_listed_keeps_its_files_and_no_others(
    store: Store, root: Root, folder: Path, deny: Callable[[Path], None]
) -> None:
    write(folder, {"sub2/d.txt": "A stoat."})
    run(store, root)
    deny(folder / "sub")
    (folder / "sub2/d.txt").unlink()
    assert run(store, root).removed == 1
    assert found_names(store, "heron wombat stoat") == {"sub/b.md", "sub/deep/c.py"}


def test_files_of_which_the_system_tells_nothing_are_kept(
    store: Store, root: Root, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder without the right to search it: its names are listed, and each of them is denied."""
    run(store, root)

    def listed(path: Path) -> Iterator[ingest.Found | ingest.Skipped]:
        for each in walk(path):
            closed = each.name.startswith("sub/")
            yield ingest.Skipped(each.name, "permission denied") if closed else each

    monkeypatch.setattr(ingest, "walk", listed)
    assert run(store, root).removed == 0
    assert found_names(store, "heron wombat") == {"sub/b.md", "sub/deep/c.py"}


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_a_file_that_became_a_link_or_a_pipe_disappears(store: Store, root: Root, folder: Path) -> None:
    run(store, root)
    for name in ("a.txt", "sub/b.md"):
        (folder / name).unlink()
    (folder / "a.txt").symlink_to(folder / "sub/deep/c.py")
    os.mkfifo(folder / "sub/b.md")
    report = run(store, root)
    assert report.removed == 2
    assert dict(report.skipped) == {"symbolic link": 1, "pipe, device or socket": 1}


def test_a_folder_that_is_skipped_by_its_name_keeps_nothing(store: Store, root: Root, folder: Path) -> None:
    write(folder, {".gitignore": "!build/\n", "build/notes.txt": "A marten."})
    run(store, root)
    assert found_names(store, "marten") == {"build/notes.txt"}
    (folder / ".gitignore").unlink()
    assert run(store, root).removed == 1
    assert found_names(store, "marten") == set()


# Times


def test_a_young_file_is_read_again_until_its_time_is_of_the_past(
    store: Store, root: Root, folder: Path, reads: list[str]
) -> None:
    (folder / "young.txt").write_text("first")
    now = time.time_ns()
    os.utime(folder / "young.txt", ns=(now, now))
    run(store, root)
    (folder / "young.txt").write_text("other")  # of the same length, and within the same tick of a coarse clock
    os.utime(folder / "young.txt", ns=(now, now))
    run(store, root)
    assert found_names(store, "other") == {"young.txt"}
    assert reads.count("young.txt") == 2


def test_a_young_file_is_found_by_its_date(store: Store, root: Root, folder: Path) -> None:
    (folder / "young.txt").write_text("A stoat.")
    run(store, root)
    today = store.mask(Scope(since=time.time() - 3600, until=time.time() + 3600))
    assert [store.chunk(id).name for id in np.flatnonzero(today)] == ["young.txt"]


@pytest.mark.parametrize("when", [4_000_000_000, 1_000, -5_000_000])
def test_a_file_of_the_far_future_or_past_is_read_once(
    store: Store, root: Root, folder: Path, reads: list[str], when: int
) -> None:
    os.utime(folder / "a.txt", (when, when))
    run(store, root)
    run(store, root)
    assert reads.count("a.txt") == 1


# Files that are refused


def test_a_refused_file_is_named_and_not_read_at_every_run(
    store: Store, root: Root, folder: Path, reads: list[str]
) -> None:
    write(folder, {"empty.txt": "", "bad.pdf": b"%PDF-1.4 nothing"})
    report = run(store, root)
    assert (report.files, report.added, sum(report.refused.values())) == (5, 3, 2)
    [status] = store.status().roots
    assert [name for name, _ in status.refused] == ["bad.pdf", "empty.txt"]
    run(store, root)
    assert reads.count("empty.txt") == reads.count("bad.pdf") == 1


def test_a_file_that_could_not_be_opened_is_tried_again(
    store: Store, root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change of rights changes neither the size nor the time of a file."""
    real = ingest.Reader.read

    def denied(self: ingest.Reader, files: list[ingest.Found]) -> Iterator[ingest.Result]:
        for each in real(self, files):
            closed = each.found.name == "a.txt"
            yield ingest.Result(each.found, ingest.Refused("permission denied")) if closed else each

    with monkeypatch.context() as patch:
        patch.setattr(ingest.Reader, "read", denied)
        assert dict(run(store, root).refused) == {"permission denied": 1}
    report = run(store, root)
    assert (report.changed, report.refused.total()) == (1, 0)
    assert found_names(store, "ibex") == {"a.txt"}


def test_a_file_that_becomes_unreadable_is_no_longer_found(store: Store, root: Root, folder: Path) -> None:
    run(store, root)
    write(folder, {"a.txt": bytes(range(256))}, age=-5)
    assert dict(run(store, root).refused) == {"is a binary file": 1}
    assert found_names(store, "ibex") == set()


def test_a_file_that_vanishes_before_it_is_read_stops_nothing(
    store: Store, root: Root, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def listed(path: Path) -> Iterator[ingest.Found | ingest.Skipped]:
        yield from list(walk(path))
        (folder / "a.txt").unlink()

    with monkeypatch.context() as patch:
        patch.setattr(ingest, "walk", listed)
        assert dict(run(store, root).refused) == {"no such file or directory": 1}
    report = run(store, root)
    assert (report.files, report.removed) == (2, 1)


def test_a_file_that_is_replaced_before_it_is_read_is_read_again(
    store: Store, root: Root, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def listed(path: Path) -> Iterator[ingest.Found | ingest.Skipped]:
        yield from list(walk(path))
        write(folder, {"a.txt": "A chamois climbs the rocks, and rests."}, age=-77)

    with monkeypatch.context() as patch:
        patch.setattr(ingest, "walk", listed)
        run(store, root)
    report = run(store, root)
    assert (report.unchanged, report.changed) == (3, 0)
    assert store.known(root.id)["a.txt"].size == 38
    assert found_names(store, "chamois") == {"a.txt"}


def test_a_file_that_grows_all_the_time_is_refused_or_read_and_then_read_again(
    store: Store, root: Root, folder: Path
) -> None:
    done = threading.Event()

    def grow() -> None:
        with open(folder / "a.txt", "a") as file:
            while not done.is_set():
                file.write("and another line of the log\n")
                file.flush()
                time.sleep(0.001)

    writer = threading.Thread(target=grow)
    writer.start()
    try:
        report = run(store, root)
    finally:
        done.set()
        writer.join()
    assert set(report.refused) <= {"changed while it was read"}
    run(store, root)
    assert found_names(store, "ibex") == {"a.txt"}
