"""What an update gives vectors to; models that are built beside others and replace them; folders of any name."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from word_bags import Bag, Colours, found_names, picture, run, vector, write

from edgemm import ingest
from edgemm.errors import ResourceError, UsageError
from edgemm.events import Note, Progress
from edgemm.image import from_pixels
from edgemm.index import Medium, ModelState, Root, Store

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


def test_sentinels_at_the_very_ends_of_a_long_document_are_found(store: Store, root: Root, folder: Path) -> None:
    bag = Bag()
    filler = "the grass grows and the water flows over the stones\n" * 4000
    write(folder, {"long.txt": f"xylophone {filler} zeppelin"})
    report = run(store, root, bag)
    assert report.chunks > 900
    for word, at in (("xylophone", "first"), ("zeppelin", "last")):
        [id] = [id for id, _ in store.words(word)]
        model = store.ready()
        assert model is not None
        chunk = store.chunk(id)
        assert (chunk.order == 0, at) in ((True, "first"), (False, "last"))
        embedded = [text for text in bag.embedded if word in text]
        assert len(embedded) == 1
        assert store.nearest(model.id, vector(embedded[0]), 1)[0][0] == id


def test_no_chunk_is_longer_than_the_window(store: Store, root: Root, folder: Path) -> None:
    bag = Bag()
    write(
        folder, {"long.txt": "word " * 5000, "lines.txt": "x" * 100_000, "wide.md": "# " + "title " * 50 + "\n\ntext"}
    )
    run(store, root, bag)
    assert max(len(text.split()) for text in bag.embedded) <= 41  # and the file's name, of which one word was counted


def test_what_was_read_without_a_model_is_embedded_when_there_is_one(store: Store, root: Root) -> None:
    report = run(store, root)
    assert (report.added, report.embedded) == (3, 0)
    assert store.ready() is None
    bag = Bag()
    report = run(store, root, bag)
    assert (report.unchanged, report.embedded) == (3, 3)


def test_a_text_that_cannot_be_embedded_does_not_hold_up_the_others(store: Store, root: Root, folder: Path) -> None:
    write(folder, {f"{n}.txt": f"number {n}" for n in range(20)})
    bag = Bag(broken="number 13")
    events = list(ingest.update(store, [root], [bag.encoder()]))
    report = events[-1]
    assert isinstance(report, ingest.Report)
    assert (report.failed, report.embedded) == (1, 22)
    assert [event.text for event in events if isinstance(event, Note)] == [f"{folder / '13.txt'}: has no vector"]
    assert found_names(store, "13") == {"13.txt"}
    bag.broken = "\0"
    assert run(store, root, bag).embedded == 1


def test_vectors_that_are_no_numbers_do_not_hold_up_the_others(store: Store, root: Root) -> None:
    bag = Bag()

    def embed(some: list[ingest.Pending]) -> np.ndarray:
        found = bag.embed(some)
        found[[n for n, each in enumerate(some) if "heron" in each.text]] = np.nan
        return found

    encoder = ingest.Encoder("nan", "f", found_dimensions := len(vector("x")), Medium.TEXT, embed)
    *_, report = ingest.update(store, [root], [encoder])
    assert isinstance(report, ingest.Report)
    assert (found_dimensions, report.failed, report.embedded) == (48, 1, 2)


def test_a_damaged_picture_fails_alone(store: Store, root: Root, folder: Path) -> None:
    colours = Colours()
    for n in range(6):
        picture(folder / f"{n}.png", ("red", "green", "blue")[n % 3], size=8 + n)
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    from_pixels(noise).save(folder / "broken.jpg")
    write(folder, {"broken.jpg": (folder / "broken.jpg").read_bytes()[:1500]})  # its header is whole
    report = run(store, root, Bag(), colours)
    assert (report.failed, report.embedded, len(colours.embedded)) == (1, 9, 6)
    assert store.pending_size(store.models()[1].id)[0] == 1


def test_progress_ends_where_it_said_it_would(store: Store, root: Root, folder: Path) -> None:
    picture(folder / "sea.png", "blue")
    events = list(ingest.update(store, [root], [Bag().encoder(), Colours().encoder()]))
    for stage in ("read", "embed with bag", "embed with colours"):
        last = [event for event in events if isinstance(event, Progress) and event.stage == stage][-1]
        assert last.done == last.total > 0


# Models


def test_a_new_model_is_built_beside_the_old_one_which_serves_meanwhile(store: Store, root: Root) -> None:
    old, new = Bag("old"), Bag("new")
    run(store, root, old)
    names = []

    def embed(some: list[ingest.Pending]) -> np.ndarray:
        model = store.ready()
        assert model is not None
        names.append((model.name, len(store.nearest(model.id, vector("ibex"), 9))))
        return new.embed(some)

    encoder = ingest.Encoder("new", "f1", 48, Medium.TEXT, embed)
    list(ingest.update(store, [root], [encoder]))
    assert names == [("old", 3)]
    assert [(model.name, model.state) for model in store.models()] == [("new", ModelState.READY)]


def test_the_first_model_serves_while_it_is_built(store: Store, root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest, "_BATCH", 1)
    counts = []
    for event in ingest.update(store, [root], [Bag().encoder()]):
        if isinstance(event, Progress) and event.stage.startswith("embed"):
            model = store.ready()
            assert model is not None
            counts.append(len(store.nearest(model.id, vector("x"), 9)))
    assert counts == [1, 2, 3]


def test_words_are_found_while_vectors_are_made(store: Store, root: Root) -> None:
    bag = Bag()

    def embed(some: list[ingest.Pending]) -> np.ndarray:
        assert found_names(store, "ibex") == {"a.txt"}
        return bag.embed(some)

    list(ingest.update(store, [root], [ingest.Encoder("m", "f", 48, Medium.TEXT, embed)]))
    assert len(bag.embedded) == 3


def test_a_switch_that_was_interrupted_and_taken_back_leaves_one_model(store: Store, root: Root) -> None:
    old, new = Bag("old"), Bag("new", broken="heron")

    def stopped(some: list[ingest.Pending]) -> np.ndarray:
        raise KeyboardInterrupt

    run(store, root, old)
    with pytest.raises(KeyboardInterrupt):
        list(ingest.update(store, [root], [ingest.Encoder("new", "f1", 48, Medium.TEXT, stopped)]))
    assert [model.name for model in store.models()] == ["old", "new"]
    assert run(store, root, old).embedded == 0
    assert [model.name for model in store.models()] == ["old"]
    run(store, root, new)
    assert [model.name for model in store.models()] == ["new"]


def test_an_interrupted_run_is_gone_on_with(
    store: Store, root: Root, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest, "_BATCH", 5)
    write(folder, {f"{n}.txt": f"number {n}" for n in range(20)})
    bag = Bag()
    calls = []

    def embed(some: list[ingest.Pending]) -> np.ndarray:
        calls.append(len(some))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return bag.embed(some)

    with pytest.raises(KeyboardInterrupt):
        list(ingest.update(store, [root], [ingest.Encoder("bag", "f1", 48, Medium.TEXT, embed)]))
    assert len(bag.embedded) == 10
    assert run(store, root, bag).embedded == 13
    assert len(set(bag.embedded)) == len(bag.embedded) == 23


def test_a_caller_that_stops_in_the_middle_lets_go_of_the_lock_and_the_children(store: Store, root: Root) -> None:
    events = ingest.update(store, [root], [])
    assert isinstance(next(event for event in events if isinstance(event, Progress)), Progress)
    with pytest.raises(ResourceError), store.exclusive():
        raise AssertionError
    events.close()  # type: ignore[attr-defined]
    with store.exclusive():
        pass


def test_a_root_that_was_removed_elsewhere_is_said(store: Store, root: Root) -> None:
    store.remove_root(root.id)
    with pytest.raises(UsageError, match="removed elsewhere"):
        run(store, root)


# Where a folder lies


def test_two_roots_are_counted_together(store: Store, root: Root, tmp_path: Path) -> None:
    other = store.add_root(write(tmp_path / "other", {"x.txt": "A stoat.", "empty.txt": ""}))
    report = run(store, [root, other], Bag())
    assert (report.files, report.added, report.refused.total(), report.embedded) == (5, 4, 1, 4)


def test_a_root_may_lie_in_a_hidden_folder(store: Store, tmp_path: Path) -> None:
    root = store.add_root(write(tmp_path / ".hidden" / "venv" / "notes", {"x.txt": "A stoat."}))
    assert run(store, root).added == 1


@pytest.mark.skipif(sys.platform == "win32", reason="such names cannot exist there")
def test_any_name_of_a_file_or_a_folder_is_taken(store: Store, tmp_path: Path) -> None:
    names = ["a\nb.txt", "tab\there.txt", "bad\udcff\udcfe.txt", "-rf.txt", "\x1b[2J.txt", "'; DROP.txt", "e\u0301.txt"]
    root = store.add_root(write(tmp_path / "ro\not\udcff", dict.fromkeys(names, "A stoat.")))
    assert run(store, root, Bag()).added == len(names)
    assert found_names(store, "stoat") == set(names)
    again = run(store, root, Bag())
    assert (again.unchanged, again.embedded) == (len(names), 0)


def test_many_files_cost_no_more_than_a_look_each(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """20,000 files that are the same, of which half have gone below folders that cannot be listed."""
    folder = tmp_path / "many"
    folder.mkdir()
    root = store.add_root(folder)
    known = {f"d{n}/f.txt": ingest.Known(1, 1, "h", ingest.PARSER) for n in range(20_000)}

    def listed(path: Path) -> Iterator[ingest.Found | ingest.Skipped]:
        for n in range(20_000):
            found = ingest.Found(path / f"d{n}/f.txt", f"d{n}/f.txt", 1, 1, ingest.Kind.TEXT)
            yield found if n % 2 else ingest.Skipped(f"d{n}/", "cannot be listed: input/output error")

    monkeypatch.setattr(ingest, "walk", listed)
    monkeypatch.setattr(store, "known", lambda root: known)
    started = time.process_time()
    report = run(store, root)
    assert (report.files, report.unchanged, report.removed) == (10_000, 10_000, 0)
    assert time.process_time() - started < 3
