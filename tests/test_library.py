"""The user's documents behind one door: folders and roots, models that are remembered, missing or changed, pictures."""

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from word_bags import Bag, Colours, Models, found_names, write

from edgemm import ingest
from edgemm.errors import BadFile, ResourceError, UsageError
from edgemm.events import Note
from edgemm.index import Store
from edgemm.library import Index
from edgemm.search import Part


@pytest.fixture
def models() -> Models:
    return Models(Bag("bag"), Bag("other"), Colours())


@pytest.fixture
def index(tmp_path: Path, models: Models) -> Iterator[Index]:
    with opened(tmp_path, models, model="bag", pictures="colours") as found:
        yield found
        assert found.store.verify() == []


def opened(tmp_path: Path, models: Models, **asked: str) -> Index:
    return Index(Store(tmp_path / "data" / "index.sqlite"), opener=models, **asked)  # type: ignore[arg-type]


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    return write(
        tmp_path / "docs", {"a.txt": "An ibex climbs.", "sub/b.txt": "A heron stands.", "sub/c.txt": "An otter."}
    )


def names(index: Index, text: str = "", **more: object) -> list[str]:
    return [hit.chunk.path.name for hit in index.search(text, **more)]  # type: ignore[arg-type]


def notes(events: ingest.Events) -> list[str]:
    return [event.text for event in events if isinstance(event, Note)]


# Folders


def test_a_folder_is_added_and_searched_by_words_and_meaning(index: Index, docs: Path) -> None:
    report = index.add(docs)
    assert (report.files, report.added, report.embedded) == (3, 3, 3)
    [first, *_] = index.search("ibex")
    assert first.chunk.path == docs / "a.txt"
    assert set(first.parts) == {Part.WORDS, Part.MEANING}
    assert index.notes == []


def test_a_path_may_be_relative_short_or_a_link(index: Index, docs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(docs)
    root = index.root(".")
    assert root.path == docs
    monkeypatch.setenv("HOME", str(docs.parent))
    if sys.platform != "win32":
        assert index.root("~/docs") == root
        (docs.parent / "link").symlink_to(docs)
        assert index.root(docs.parent / "link") == root
        index.add(docs.parent / "link")
        assert names(index, "ibex", folders=[docs.parent / "link"]) == ["a.txt", *names(index, "ibex")[1:]]
        index.remove(docs.parent / "link")
        assert index.store.roots() == []


def test_what_is_no_folder_is_refused(index: Index, docs: Path) -> None:
    with pytest.raises(BadFile, match="there is no such folder"):
        index.root(docs / "nowhere")
    with pytest.raises(BadFile, match="is a file"):
        index.root(docs / "a.txt")
    with pytest.raises(BadFile, match="home"):
        index.root("~no-such-user-of-this-machine/x")
    with pytest.raises(BadFile):
        index.root("a\0b")
    with pytest.raises(UsageError, match="is not in the index"):
        index.remove(docs)
    with pytest.raises(BadFile, match="home"):
        index.remove("~no-such-user-of-this-machine/x")
    assert index.store.roots() == []


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_a_circle_of_links_is_no_folder(index: Index, tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(BadFile):
        index.root(tmp_path / "a")


@pytest.mark.skipif(not hasattr(os, "seteuid") or os.geteuid() != 0, reason="it takes another user's eyes")
def test_a_folder_in_a_locked_one_is_no_folder(index: Index, docs: Path) -> None:
    docs.parent.chmod(0o700)
    os.seteuid(65534)
    try:
        with pytest.raises(BadFile, match="locked"):
            index.root(docs)
    finally:
        os.seteuid(0)


def test_a_folder_below_a_root_is_brought_up_to_date_with_it(index: Index, docs: Path) -> None:
    index.add(docs)
    write(docs, {"d.txt": "A stoat."})
    assert notes(index.update([index.root(docs / "sub")])) == [
        f"{docs / 'sub'}: is part of {docs}, which is brought up to date"
    ]
    assert [root.path for root in index.store.roots()] == [docs]
    assert "d.txt" in names(index, "stoat")


def test_a_root_that_is_given_twice_is_counted_once(index: Index, docs: Path) -> None:
    *_, report = index.update([index.root(docs), index.root(docs), index.root(docs / "sub")])
    assert isinstance(report, ingest.Report)
    assert (report.files, report.added) == (3, 3)


def test_roots_below_a_new_one_become_part_of_it_and_embed_nothing(index: Index, docs: Path, models: Models) -> None:
    index.add(docs / "sub")
    assert [root.path for root in index.store.roots()] == [docs / "sub"]
    report = index.add(docs)
    assert [root.path for root in index.store.roots()] == [docs]
    assert (report.added, report.embedded) == (3, 1)
    assert found_names(index.store, "heron otter ibex") == {"a.txt", "sub/b.txt", "sub/c.txt"}


def test_a_root_that_has_become_part_of_another_is_passed_over(index: Index, docs: Path) -> None:
    roots = [index.root(docs / "sub"), index.root(docs)]
    list(index.update(roots))
    *_, report = index.update(roots)
    assert isinstance(report, ingest.Report)
    assert (report.files, report.unchanged) == (3, 3)


def test_the_root_of_everything_holds_every_folder_that_it_reaches(index: Index, docs: Path) -> None:
    """As `edgemm index /` does; it is not looked through here."""
    everything = index.store.add_root(Path(docs.anchor))
    assert index.root(docs) == everything
    write(docs, {".hidden/x.txt": "A lynx."})
    hidden = index.root(docs / ".hidden")
    assert hidden != everything
    list(index.update([hidden]))
    assert [hit.chunk.name for hit in index.search("lynx", folders=[docs.anchor])] == ["x.txt"]


@pytest.mark.parametrize("inner", [".config/notes", "node_modules/x", "ignored", "venv"])
@pytest.mark.parametrize("first", ["inner", "outer"])
def test_a_folder_that_a_root_does_not_reach_stays_a_root_of_its_own(
    index: Index, docs: Path, inner: str, first: str
) -> None:
    write(docs, {".gitignore": "ignored/\n", f"{inner}/x.txt": "A lynx."})
    for folder in (docs / inner, docs) if first == "inner" else (docs, docs / inner):
        index.add(folder)
    assert {root.path for root in index.store.roots()} == {docs, docs / inner}
    list(index.update())
    assert names(index, "lynx")[0] == "x.txt"
    assert index.status().roots[0].files + index.status().roots[1].files == 4


def test_an_empty_folder_below_a_root_is_joined_with_it_later(index: Index, docs: Path) -> None:
    index.add(docs)
    (docs / "new").mkdir()
    index.add(docs / "new")
    write(docs, {"new/x.txt": "A lynx."})
    list(index.update())
    assert [root.path for root in index.store.roots()] == [docs]
    assert [hit.copies for hit in index.search("lynx")[:1]] == [()]


def test_a_removed_folder_is_forgotten_with_all_that_was_in_it(index: Index, docs: Path) -> None:
    index.add(docs)
    index.remove(docs)
    assert (index.store.roots(), index.search("ibex")) == ([], [])
    assert index.store.status().models[0].vectors == 0
    assert (docs / "a.txt").exists()


def test_a_root_that_vanished_keeps_its_files_and_can_be_removed(index: Index, docs: Path) -> None:
    index.add(docs)
    shutil.rmtree(docs)
    events = list(index.update())
    report = events[-1]
    assert isinstance(report, ingest.Report)
    assert (report.missing, report.removed) == ([str(docs)], 0)
    assert names(index, "ibex")[0] == "a.txt"
    index.remove(docs)
    assert index.store.roots() == []


def test_a_folder_is_not_removed_under_the_hands_of_another(index: Index, docs: Path, tmp_path: Path) -> None:
    index.add(docs)
    with Store(tmp_path / "data" / "index.sqlite") as other, other.exclusive(), pytest.raises(ResourceError):
        index.remove(docs)
    assert names(index, "ibex")[0] == "a.txt"
