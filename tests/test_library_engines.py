"""The models behind the door to the documents: remembered, missing, changed, replaced; pictures and what finds them."""

import hashlib
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tiny_words
from word_bags import Bag, Colours, Models, picture, write

from edgemm import ingest, library
from edgemm.errors import BadFile, UnknownModel, UsageError
from edgemm.events import Note, Progress
from edgemm.index import Medium, Store
from edgemm.library import Index
from edgemm.manifest import ImageInputs, Inputs, ZeroShot
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


# Models of texts


def test_a_model_is_opened_once_and_only_when_it_is_needed(tmp_path: Path, docs: Path, models: Models) -> None:
    with opened(tmp_path, models, model="bag", pictures="colours") as index:
        assert models.opened == []
        index.add(docs)
        list(index.update())
        index.search("ibex")
        assert sorted(models.opened) == ["bag", "colours"]
    assert sorted(models.closed) == ["bag", "colours"]


def test_the_index_remembers_its_model(index: Index, docs: Path, tmp_path: Path, models: Models) -> None:
    index.add(docs)
    models.opened.clear()
    with opened(tmp_path, models) as again:
        write(docs, {"d.txt": "A stoat."})
        list(again.update())
        assert names(again, "stoat")[0] == "d.txt"
    assert sorted(models.opened) == ["bag", "colours"]


def test_words_alone_are_indexed_without_a_model(tmp_path: Path, docs: Path) -> None:
    with opened(tmp_path, Models()) as index:
        said = notes(index.update([index.root(docs)]))
        assert said == ["there is no model for vectors, so words alone are indexed: run `edgemm pull all-minilm-l6-v2`"]
        [hit] = index.search("ibex")
        assert set(hit.parts) == {Part.WORDS}
        assert index.notes == []


def test_a_model_that_was_asked_for_and_is_not_there_is_an_error(tmp_path: Path, docs: Path) -> None:
    with opened(tmp_path, Models(), model="bag") as index, pytest.raises(UnknownModel, match="bag"):
        index.add(docs)


def test_a_remembered_model_that_is_gone_leaves_the_search_by_words(index: Index, docs: Path, tmp_path: Path) -> None:
    index.add(docs)
    with opened(tmp_path, Models()) as again:
        for _ in range(2):
            assert names(again, "ibex") == ["a.txt"]
        assert again.notes == ["bag: is not on this machine yet; so words alone are searched", *again.notes[1:]]
        assert len(again.notes) == 2
        with pytest.raises(UnknownModel):
            again.add(docs)


def test_a_model_that_has_changed_is_said_and_embeds_anew(index: Index, docs: Path, tmp_path: Path) -> None:
    index.add(docs)
    changed = Models(Bag("bag", "f2"), Colours())
    with opened(tmp_path, changed) as again:
        [hit] = again.search("ibex")
        assert set(hit.parts) == {Part.WORDS}
        assert again.notes == ["bag has changed since the index was made; run `edgemm index` to embed with it again"]
        report = next(event for event in again.update() if isinstance(event, ingest.Report))
        assert report.embedded == 3
        assert set(again.search("ibex")[0].parts) == {Part.WORDS, Part.MEANING}
        assert [model.fingerprint for model in again.store.models() if model.medium == Medium.TEXT] == ["f2"]


def test_another_model_is_built_beside_the_one_that_serves(index: Index, docs: Path, tmp_path: Path) -> None:
    index.add(docs)
    models = Models(Bag("bag"), Bag("other"), Colours())
    with opened(tmp_path, models, model="other") as again:
        for event in again.update():
            if isinstance(event, Progress) and event.stage == "embed with other":
                assert set(index.search("ibex")[0].parts) == {Part.WORDS, Part.MEANING}
                assert "bag" in {model.name for model in again.store.models()}
        assert again.store.ready().name == "other"  # type: ignore[union-attr]
        assert set(again.search("ibex")[0].parts) == {Part.WORDS, Part.MEANING}


def test_an_interrupted_switch_of_models_is_gone_on_with(index: Index, docs: Path, tmp_path: Path) -> None:
    index.add(docs)
    stopped = Models(Bag("other"), Colours())

    def interrupt(some: object) -> None:
        raise KeyboardInterrupt

    stopped.models["other"].embed = interrupt  # type: ignore[method-assign, assignment]
    with opened(tmp_path, stopped, model="other") as again, pytest.raises(KeyboardInterrupt):
        list(again.update())
    with opened(tmp_path, Models(Bag("bag"), Bag("other"), Colours())) as later:
        assert set(later.search("ibex")[0].parts) == {Part.WORDS, Part.MEANING}  # the old one still serves
        list(later.update())
        assert [model.name for model in later.store.models()] == ["colours", "other"]


def test_a_search_finds_its_way_when_models_change_in_the_middle_of_it(
    index: Index, docs: Path, tmp_path: Path, models: Models
) -> None:
    index.add(docs)
    real = index._probes
    switches = []

    def probes(*arguments: object) -> object:
        found = real(*arguments)  # type: ignore[arg-type]
        if not switches:
            switches.append(True)
            with opened(tmp_path, Models(Bag("other"), Colours()), model="other") as other:
                list(other.update())
        return found

    index._probes = probes  # type: ignore[method-assign, assignment]
    assert set(index.search("ibex")[0].parts) == {Part.WORDS, Part.MEANING}
    assert "other" in models.opened


def test_threads_may_search_and_update_at_once(index: Index, docs: Path, models: Models) -> None:
    index.add(docs)
    failures: list[BaseException] = []
    done = threading.Event()

    def work() -> None:
        try:
            while not done.is_set():
                assert names(index, "ibex")[0] == "a.txt"
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for n in range(5):
        write(docs, {f"new{n}.txt": f"A stoat, number {n}."})
        list(index.update())
    done.set()
    for thread in threads:
        thread.join()
    assert failures == []
    assert models.opened.count("bag") == 1


# What is asked


def test_a_kind_that_is_none_is_named(index: Index, docs: Path) -> None:
    index.add(docs)
    with pytest.raises(UsageError, match=r"pdff: is no kind .* pdf"):
        index.search("ibex", kinds=["pdff"])


@pytest.mark.parametrize("text", ["", "  ", "\0", "\ud800", "x" * 100_000, "\x1b[2J"])
def test_any_text_may_be_asked(index: Index, docs: Path, text: str) -> None:
    index.add(docs)
    found = index.search(text)
    assert found == [] if not text.strip() else len(found) <= 3


def test_an_index_without_folders_finds_nothing(index: Index) -> None:
    assert index.search("ibex") == []
    assert index.status().roots == ()


# Pictures


@pytest.fixture
def album(tmp_path: Path) -> Path:
    for name, colour in (("sunset", "red"), ("meadow", "green"), ("sea", "blue")):
        picture(tmp_path / "album" / f"{name}.png", colour)
    return tmp_path / "album"


def test_pictures_are_found_by_a_text_by_a_picture_and_by_both(index: Index, album: Path, tmp_path: Path) -> None:
    index.add(album)
    [first, *_] = index.search("blue")
    assert (first.chunk.name, set(first.parts)) == ("sea.png", {Part.PICTURES})
    example = picture(tmp_path / "example.png", "green", size=32)
    [first, *_] = index.search(picture=example)
    assert (first.chunk.name, round(first.parts[Part.PICTURES].score, 2)) == ("meadow.png", 1)
    fused = index.search("red", picture=example)
    scores = {hit.chunk.name: hit.parts[Part.PICTURES].score for hit in fused}
    assert scores["sunset.png"] == pytest.approx(0.5**0.5, abs=0.02)
    assert scores["meadow.png"] == pytest.approx(0.5**0.5, abs=0.02)
    assert scores["sea.png"] < 0.1


def test_texts_and_pictures_are_found_together(index: Index, album: Path) -> None:
    write(album, {"poem.txt": "the blue sea"})
    index.add(album)
    hits = {hit.chunk.name: set(hit.parts) for hit in index.search("blue sea")[:2]}
    assert hits == {"poem.txt": {Part.WORDS, Part.MEANING}, "sea.png": {Part.WORDS, Part.PICTURES}}


def test_a_picture_is_asked_of_an_index_that_has_none(tmp_path: Path, docs: Path, models: Models) -> None:
    with opened(tmp_path, models, model="bag") as index:
        index.add(docs)
        with pytest.raises(UsageError, match="the index has no pictures"):
            index.search(picture=docs / "a.txt")


def test_a_picture_is_asked_when_the_model_of_pictures_is_gone(index: Index, album: Path, tmp_path: Path) -> None:
    index.add(album)
    with (
        opened(tmp_path, Models(Bag())) as again,
        pytest.raises(UsageError, match="colours: is not on this machine yet"),
    ):
        again.search("sea", picture=album / "sea.png")


def test_a_picture_that_cannot_be_read_is_named(index: Index, album: Path, tmp_path: Path) -> None:
    index.add(album)
    with pytest.raises(BadFile, match=r"nowhere\.png"):
        index.search(picture=tmp_path / "nowhere.png")


def test_a_picture_that_was_replaced_after_it_was_read_gets_no_vector(album: Path) -> None:
    path = album / "sea.png"
    data = path.read_bytes()
    pending = ingest.Pending(1, library.picture_hash(hashlib.sha256(data).hexdigest()), "", path)
    assert library._picture(pending) == data
    picture(path, "red")
    with pytest.raises(BadFile, match=r"sea\.png: has changed since it was read"):
        library._picture(pending)
    path.unlink()
    with pytest.raises(BadFile, match="no longer there"):
        library._picture(pending)
    if hasattr(os, "mkfifo"):
        os.mkfifo(path)
        with pytest.raises(BadFile, match="no longer there"):
            library._picture(pending)


TOWERS = {
    "text_model.onnx": tiny_words.looked_up(tiny_words.table(red=(1, 0, 0), blue=(0, 0, 1)), pooled=True),
    "vision_model.onnx": tiny_words.colours(np.eye(3)),
}


def test_a_picture_that_is_replaced_between_reading_and_embedding_is_embedded_next_time(
    album: Path, tmp_path: Path
) -> None:
    """On a real model. A copy of what was there before must not be found as what took its place."""
    inputs = Inputs(8, dimensions=3, image=ImageInputs(8, 8, resize=(8, 8)))
    tiny_words.write_package("both", "image-text", TOWERS, inputs=inputs, zero_shot=ZeroShot(10, template="{}"))
    shutil.copy(album / "sea.png", album / "zcopy.png")
    with Index.open(tmp_path / "index.sqlite", pictures="both") as index:
        events = index.update([index.root(album)])
        for event in events:
            if isinstance(event, Progress) and event.stage == "read" and event.done == event.total:
                picture(album / "sea.png", "red", size=9)
                break
        *rest, report = events
        assert isinstance(report, ingest.Report)
        assert (report.failed, report.embedded) == (1, 2)
        said = [event.text for event in rest if isinstance(event, Note)]
        assert f"{album / 'sea.png'}: has changed since it was read" in said
        report = index.add(album)
        assert (report.failed, report.embedded, report.changed) == (0, 2, 1)
        blue = index.search("blue", limit=1)[0]
        assert (blue.chunk.name, round(blue.parts[Part.PICTURES].score, 2)) == ("zcopy.png", 1)
        assert {hit.chunk.name for hit in index.search("red", limit=2)} == {"sea.png", "sunset.png"}
