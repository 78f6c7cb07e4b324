"""The index: what is kept of a file, which texts need a vector, copies and moves, models that replace each other."""

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from small_index import DIMENSIONS, a_model, embed, facts, library, passages, texts_of, vector

from edgemm.errors import ResourceError, UsageError
from edgemm.index import FileFacts, FileState, Known, Medium, ModelState, Passage, Scope, Store, default_path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "index.sqlite"


@pytest.fixture
def index(path: Path) -> Iterator[Store]:
    with Store(path) as opened:
        yield opened
        assert opened.verify() == []


def test_the_default_file_lies_in_the_data_folder(home: Path) -> None:
    assert default_path() == home / ".data" / "index.sqlite"
    with Store() as index:
        assert index.path == default_path()


def test_another_file_can_be_the_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEMM_INDEX", str(tmp_path / "other.sqlite"))
    assert default_path() == tmp_path / "other.sqlite"


def test_a_file_is_there_after_a_restart(path: Path, tmp_path: Path) -> None:
    passage = Passage("Keys and values.", ("Caches", "KV"), {"page": 3, "sheet": ""}, 5, 21, "Caches > KV")
    with Store(path) as index:
        root = index.add_root(tmp_path)
        index.put(root.id, FileFacts("a/b.pdf", 77, 123, "abc", "pdf", title="Caches", parser=4), [passage])
    with Store(path) as index:
        assert [(r.id, r.path) for r in index.roots()] == [(root.id, tmp_path)]
        assert index.known(root.id) == {"a/b.pdf": Known(77, 123, "abc", 4)}
        chunk = index.chunk(index.words("values")[0][0])
        assert (chunk.text, chunk.heading, chunk.place) == ("Keys and values.", ("Caches", "KV"), {"page": 3})
        assert (chunk.start, chunk.end, chunk.order, chunk.medium) == (5, 21, 0, Medium.TEXT)
        assert (chunk.path, chunk.kind, chunk.title) == (tmp_path / "a/b.pdf", "pdf", "Caches")


def test_a_folder_is_added_once_and_made_absolute(
    index: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert index.add_root(Path("notes")).path == tmp_path / "notes"
    assert index.add_root(tmp_path / "notes") == index.roots()[0]
    assert len(index.roots()) == 1


def test_a_changed_file_replaces_what_was_there(index: Store, tmp_path: Path) -> None:
    root = library(index, tmp_path, files=1)
    before = [id for id, _ in index.words("passage")]
    index.put(root, facts("f0.txt", "new"), passages("an ibex"))
    assert index.words("passage") == []
    assert index.chunks(before) == []
    assert texts_of(index, index.words("ibex")) == ["an ibex"]
    assert index.words("ibex")[0][0] > max(before)  # an id is never given twice
    assert index.known(root)["f0.txt"].hash == "new"


def test_an_unchanged_file_is_only_touched(index: Store, tmp_path: Path) -> None:
    root = library(index, tmp_path, files=1)
    index.touch(root, "f0.txt", 11, 99)
    assert index.known(root)["f0.txt"][:3] == (11, 99, "'f0.txt'")
    assert len(index.words("passage")) == 4
    with pytest.raises(UsageError, match="other"):
        index.touch(root, "other", 1, 1)


def test_what_is_not_there_is_named(index: Store, tmp_path: Path) -> None:
    for call in (
        lambda: index.put(9, facts("a"), []),
        lambda: index.forget(9, ["a"]),
        lambda: index.known(9),
        lambda: index.remove_root(9),
        lambda: index.pending(9, 1),
        lambda: index.model_ready(9),
        lambda: index.nearest(9, vector("x"), 1),
        lambda: index.chunk(9),
    ):
        with pytest.raises(UsageError, match="9"):
            call()
    index.forget(index.add_root(tmp_path).id, ["never seen"])


def test_a_closed_index_says_so(path: Path) -> None:
    index = Store(path)
    index.close()
    index.close()
    with pytest.raises(UsageError, match="closed"):
        index.roots()


def test_only_new_texts_are_embedded(index: Store, tmp_path: Path) -> None:
    root = library(index, tmp_path, files=2)
    model = a_model(index)
    assert index.pending_size(model.id)[0] == 8
    assert embed(index, model) == 8
    index.put(root, facts("f0.txt", "2"), passages("passage 0 of file 0", "passage 2 of file 0", "a new one"))
    assert [p.text for p in index.pending(model.id, 10)] == ["a new one"]


def test_moved_and_copied_files_embed_nothing(index: Store, tmp_path: Path) -> None:
    root = library(index, tmp_path)
    model = a_model(index)
    embed(index, model)
    other = index.add_root(tmp_path / "other").id
    texts = passages(*(f"passage {n} of file 1" for n in range(4)))
    index.put(other, facts("copy.txt"), texts)
    index.put(root, facts("moved.txt"), texts)
    index.forget(root, ["f1.txt"])
    assert index.pending_size(model.id)[0] == 0
    found = index.nearest(model.id, vector("passage 2 of file 1"), 2)
    assert [chunk.name for chunk in index.chunks(id for id, _ in found)] == ["copy.txt", "moved.txt"]
    assert found[0][1] == found[1][1]


def test_a_file_that_comes_back_embeds_nothing(index: Store, tmp_path: Path) -> None:
    root = library(index, tmp_path, files=2)
    model = a_model(index)
    embed(index, model)
    index.forget(root, ["f0.txt"])
    assert all("file 1" in text for text in texts_of(index, index.nearest(model.id, vector("passage 1 of file 0"), 9)))
    assert index.verify() == []
    index.put(root, facts("f0.txt"), passages(*(f"passage {n} of file 0" for n in range(4))))
    assert index.pending_size(model.id)[0] == 0
    assert texts_of(index, index.nearest(model.id, vector("passage 1 of file 0"), 1)) == ["passage 1 of file 0"]


def test_a_removed_file_that_was_never_embedded_is_not_pending(index: Store, tmp_path: Path) -> None:
    root = library(index, tmp_path, files=2)
    model = a_model(index)
    index.forget(root, ["f0.txt"])
    assert {p.text for p in index.pending(model.id, 9)} == {f"passage {n} of file 1" for n in range(4)}
    index.put(root, facts("again.txt"), passages("passage 3 of file 0"))
    assert index.pending_size(model.id)[0] == 5


def test_a_removed_folder_leaves_nothing(index: Store, tmp_path: Path) -> None:
    kept = library(index, tmp_path, files=1)
    gone = library(index, tmp_path / "other", files=130)
    model = a_model(index)
    embed(index, model, 100)
    index.remove_root(gone)
    assert [root.id for root in index.roots()] == [kept]
    assert len(index.words("passage", limit=1000)) == 4
    assert len(index.nearest(model.id, vector("x"), 1000)) == 4
    index.compact()
    [status] = index.status().models
    assert (status.vectors, status.pending) == (4, 0)


def test_the_prefix_is_embedded_but_not_shown(index: Store, tmp_path: Path) -> None:
    root = index.add_root(tmp_path).id
    index.put(
        root, facts("a"), [Passage("text", prefix="Title > Part"), Passage("text", prefix="Other"), Passage("text")]
    )
    waiting = index.pending(a_model(index).id, 9)
    assert [p.text for p in waiting] == ["Title > Part\ntext", "Other\ntext", "text"]
    assert {chunk.text for chunk in index.chunks(range(1, 4))} == {"text"}


def test_a_picture_waits_for_a_vision_model_and_is_known_by_its_bytes(index: Store, tmp_path: Path) -> None:
    root = index.add_root(tmp_path).id
    text, vision = a_model(index), a_model(index, "vision", Medium.PICTURE)
    picture = FileFacts("sea.jpg", 5, 5, "bytes1", "picture", title="Sea", taken="2024-05-01T10:00:00")
    index.put(root, picture, [Passage("", medium=Medium.PICTURE)])
    index.put(root, facts("notes.txt"), passages("the sea"))
    assert [p.path for p in index.pending(vision.id, 9)] == [tmp_path / "sea.jpg"]
    assert [p.text for p in index.pending(text.id, 9)] == ["the sea"]
    assert embed(index, vision) == 1
    index.put(root, FileFacts("copy.jpg", 5, 5, "bytes1", "picture"), [Passage("", medium=Medium.PICTURE)])
    assert index.pending_size(vision.id)[0] == 0
    assert len(index.nearest(vision.id, vector("x"), 9)) == 2
    assert {chunk.name for chunk in index.chunks(id for id, _ in index.words("sea"))} == {"sea.jpg", "notes.txt"}
    assert index.chunk(1).taken == "2024-05-01T10:00:00"


def test_a_new_model_serves_when_it_is_ready_and_the_old_one_goes(index: Store, tmp_path: Path) -> None:
    library(index, tmp_path)
    old = a_model(index, "old")
    embed(index, old)
    assert index.ready() is None
    index.model_ready(old.id)
    new = index.add_model("new", "f2", DIMENSIONS)
    vision = a_model(index, "vision", Medium.PICTURE)
    assert index.add_model("new", "f2", DIMENSIONS) == new
    embed(index, new)
    assert index.ready() == index.models()[0]  # it still serves
    assert len(index.nearest(old.id, vector("x"), 99)) == 20
    index.model_ready(new.id)
    assert [(m.name, m.state) for m in index.models()] == [("new", ModelState.READY), ("vision", ModelState.BUILDING)]
    assert index.ready(Medium.PICTURE) is None
    assert len(index.nearest(new.id, vector("x"), 99)) == 20
    with pytest.raises(UsageError, match="replaced"):
        index.nearest(old.id, vector("x"), 1)
    with pytest.raises(UsageError, match="replaced"):
        index.add_vectors(old.id, [], np.empty((0, DIMENSIONS), np.float32))
    index.model_ready(vision.id)
    assert index.ready(Medium.PICTURE) is not None


def test_another_fingerprint_is_another_model(index: Store, tmp_path: Path) -> None:
    library(index, tmp_path, files=1)
    first = index.add_model("mini", "f1", DIMENSIONS)
    embed(index, first)
    second = index.add_model("mini", "f2", DIMENSIONS)
    assert second.id != first.id
    assert index.pending_size(second.id)[0] == 4


def test_status_tells_what_is_there_and_what_is_missing(index: Store, tmp_path: Path) -> None:
    root = library(index, tmp_path, files=3)
    index.put(root, FileFacts("scan.pdf", 500, 1, "h", "pdf", FileState.REFUSED, "no text on its pages"))
    empty = index.add_root(tmp_path / "empty").id
    model = a_model(index)
    waiting = index.pending(model.id, 5)
    index.add_vectors(model.id, [p.hash for p in waiting], np.stack([vector(p.text) for p in waiting]))
    status = index.status()
    first, second = status.roots
    assert (first.root.id, first.files, first.chunks, first.size, first.pending) == (root, 4, 12, 530, 7)
    assert first.refused == (("scan.pdf", "no text on its pages"),)
    assert (second.root.id, second.files, second.chunks, second.pending) == (empty, 0, 0, 0)
    assert [(m.model, m.vectors, m.pending) for m in status.models] == [(model, 5, 7)]
    assert status.size > 0
    assert "scan.pdf" in index.known(root)  # so that it is not read at every scan


@pytest.mark.parametrize(
    "name", ["plain", "Ä 漢.txt", "bad\udcff\udcfe.txt", "a\nb", "'; DROP TABLE file; --", "\ud800"]
)
def test_any_file_name_can_be_kept(index: Store, tmp_path: Path, name: str) -> None:
    root = index.add_root(tmp_path / name).id
    index.put(root, facts(name, title=name, why=name), [Passage("wombat", (name,), {"sheet": name})])
    assert list(index.known(root)) == [name]
    [chunk] = index.chunks(id for id, _ in index.words("wombat"))
    assert (chunk.name, chunk.root, chunk.heading) == (name, tmp_path / name, (name,))
    assert chunk.place == {"sheet": name}
    assert index.mask(Scope(names=(name[:1] + "*",))).sum() == 1
    index.touch(root, name, 1, 1)
    index.forget(root, [name])
    assert index.known(root) == {}


@pytest.mark.parametrize(
    "text", ["", "\0", "a\0b", "\ud800x", "\x1b[2J", "x" * 2_000_000, "\U0001f469\u200d\U0001f680"]
)
def test_any_text_can_be_kept(index: Store, tmp_path: Path, text: str) -> None:
    root = index.add_root(tmp_path).id
    index.put(root, facts("a"), [Passage(text, prefix=text)])
    assert index.chunk(1).text == text.replace("\ud800", "?")
    model = a_model(index)
    assert embed(index, model) == 1
    index.forget(root, ["a"])


def test_times_beyond_the_numbers_of_sqlite_are_kept_as_the_last_one(index: Store, tmp_path: Path) -> None:
    root = index.add_root(tmp_path).id
    index.put(root, FileFacts("a", 1, 1 << 70, "h", "text"))
    index.touch(root, "a", 1, -(1 << 70))
    assert index.known(root)["a"].mtime_ns == 1 - (1 << 63)


def test_one_writer_brings_the_index_up_to_date_at_a_time(path: Path, index: Store) -> None:
    with Store(path) as other:
        with index.exclusive(), pytest.raises(ResourceError, match="another edgemm"), other.exclusive():
            raise AssertionError
        with other.exclusive():
            pass
        held, free = threading.Event(), threading.Event()

        def hold() -> None:
            with index.exclusive():
                held.set()
                free.wait(30)

        thread = threading.Thread(target=hold)
        thread.start()
        assert held.wait(30)
        threading.Timer(0.2, free.set).start()
        with other.exclusive(wait=30):
            assert free.is_set()
        thread.join()


def test_threads_search_while_others_write(index: Store, tmp_path: Path) -> None:
    root = library(index, tmp_path)
    model = a_model(index)
    embed(index, model)
    failures: list[BaseException] = []
    done = threading.Event()

    def guarded(work) -> None:  # type: ignore[no-untyped-def]
        try:
            work()
        except BaseException as error:
            failures.append(error)

    def search() -> None:
        while not done.is_set():
            assert texts_of(index, index.nearest(model.id, vector("passage 1 of file 1"), 1)) == ["passage 1 of file 1"]
            assert len(index.words("file 3", limit=100)) >= 4

    def write() -> None:
        for n in range(60):
            index.put(root, facts(f"new{n % 7}"), passages(f"made {n}", f"and {n}"))
            embed(index, model)
            index.forget(root, [f"new{(n + 3) % 7}"])
            if n % 20 == 19:
                index.compact()

    searchers = [threading.Thread(target=guarded, args=(search,)) for _ in range(3)]
    for thread in searchers:
        thread.start()
    guarded(write)
    done.set()
    for thread in searchers:
        thread.join(60)
    assert not failures
