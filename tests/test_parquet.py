"""An index as Parquet: what other engines read, in parts that are complete or not there, in bounded memory."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_index import DIMENSIONS, a_model, embed, facts, library, passages, vector

from edgemm.errors import BadFile, MissingExtra, UsageError
from edgemm.events import Note, Progress
from edgemm.index import FileFacts, Medium, Model, Passage, Store
from edgemm.index.records import text_hash
from edgemm.parquet import Exported, Numbers, export

parquet = pytest.importorskip("pyarrow.parquet")


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "index.sqlite") as opened:
        yield opened


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "out"


def ready(index: Store, medium: Medium = Medium.TEXT) -> Model:
    model = a_model(index, f"mini-{medium}", medium)
    embed(index, model)
    index.model_ready(model.id)
    return model


def done(*arguments: Any, **more: Any) -> Exported:
    last = list(export(*arguments, **more))[-1]
    assert isinstance(last, Exported)
    return last


def rows(folder: Path) -> list[dict[str, Any]]:
    return [row for path in sorted(folder.iterdir()) for row in parquet.read_table(path).to_pylist()]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_chunk_is_a_row_with_all_that_is_known_of_it(index: Store, folder: Path, tmp_path: Path) -> None:
    root = index.add_root(tmp_path / "notes").id
    place = {"line": 3, "end_line": 9}
    passage = Passage("Keys and values.", ("Caches", "KV"), place, 5, 21, "Caches > KV")
    index.put(root, FileFacts("a/b.md", 7, 1, "abc", "markdown", title="On caches"), [passage])
    index.put(root, FileFacts("t.ods", 7, 1, "def", "sheet"), [Passage("1 2", (), {"sheet": "Q1", "cells": "A1:B1"})])
    ready(index)
    assert done(index, folder) == Exported((folder / "chunks-00000.parquet",), 2, 2)
    first, second = rows(folder)
    assert first.pop("vector") == pytest.approx(vector("Caches > KV\nKeys and values."), abs=0.01)
    assert len(first.pop("chunk_id")) == 32
    where = {"root": str(tmp_path / "notes"), "name": "a/b.md", "path": str(tmp_path / "notes" / "a" / "b.md")}
    file = {"kind": "markdown", "title": "On caches", "taken": None, "file_hash": "abc", "medium": "text"}
    part = {"order": 0, "text": "Keys and values.", "heading": ["Caches", "KV"], "start": 5, "end": 21}
    no_place = dict.fromkeys(("page", "slide", "sheet", "cells"))
    assert first == where | file | part | place | no_place
    assert (second["sheet"], second["cells"], second["line"], second["heading"]) == ("Q1", "A1:B1", None, [])


def test_the_files_say_which_model_the_vectors_are_of(index: Store, folder: Path, tmp_path: Path) -> None:
    library(index, tmp_path)
    ready(index)
    done(index, folder)
    schema = parquet.read_schema(folder / "chunks-00000.parquet")
    assert schema.metadata[b"edgemm.model"] == b"mini-text"
    assert schema.metadata[b"edgemm.model.fingerprint"] == b"f1"
    assert schema.metadata[b"edgemm.vectors"] == b"float32"
    assert schema.field("vector").type.list_size == DIMENSIONS


def test_int8_vectors_are_those_that_are_stored(index: Store, folder: Path, tmp_path: Path) -> None:
    library(index, tmp_path)
    model = ready(index)
    stored = [record for records in index.each([model]) for record in records]
    done(index, folder / "a", Numbers.INT8)
    done(index, folder / "b", Numbers.FLOAT32)
    for record, small, large in zip(stored, rows(folder / "a"), rows(folder / "b"), strict=True):
        assert record.vector is not None
        assert small["vector"] == record.vector.data.tolist()
        assert small["scale"] == pytest.approx(record.vector.scale)
        assert large["vector"] == pytest.approx(np.array(small["vector"]) * small["scale"])


def test_a_chunk_without_a_vector_has_none(index: Store, folder: Path, tmp_path: Path) -> None:
    root = library(index, tmp_path, files=1)
    ready(index)
    index.put(root, facts("late.txt"), passages("not embedded yet"))
    result = done(index, folder, Numbers.INT8)
    assert (result.chunks, result.vectors) == (5, 4)
    assert [row["vector"] is None for row in rows(folder)] == [False] * 4 + [True]
    assert rows(folder)[-1]["scale"] is None


def test_pictures_have_a_column_of_their_own(index: Store, folder: Path, tmp_path: Path) -> None:
    root = library(index, tmp_path, files=1, each=1)
    index.put(root, facts("cat.jpg", "f00", taken="2024-05-01T10:00:00"), [Passage("", medium=Medium.PICTURE)])
    for medium in Medium:
        ready(index, medium)
    done(index, folder)
    text, picture = rows(folder)
    assert text["vector"]
    assert text["picture_vector"] is None
    assert picture["vector"] is None
    assert len(picture["picture_vector"]) == DIMENSIONS
    assert picture["taken"] == "2024-05-01T10:00:00"
    metadata = parquet.read_schema(folder / "chunks-00000.parquet").metadata
    assert metadata[b"edgemm.picture"] == b"mini-picture"


def test_an_index_without_a_model_has_texts_alone(index: Store, folder: Path, tmp_path: Path) -> None:
    library(index, tmp_path, files=2, each=3)
    assert done(index, folder).vectors == 0
    assert "vector" not in rows(folder)[0]
    assert len(rows(folder)) == 6


def test_an_empty_index_gives_a_file_without_rows(index: Store, folder: Path) -> None:
    assert done(index, folder).chunks == 0
    assert names(folder) == ["chunks-00000.parquet"]
    assert parquet.read_table(folder / "chunks-00000.parquet").num_rows == 0


def test_a_chunk_has_the_same_id_on_another_machine(tmp_path: Path) -> None:
    found = []
    for machine in ("here", "there"):
        with Store(tmp_path / machine / "index.sqlite") as index:
            if machine == "there":  # other rows, other root, other order
                index.put(index.add_root(tmp_path / "other").id, facts("z.txt"), passages("before", "all"))
            root = index.add_root(tmp_path / machine).id
            for file in (1, 2) if machine == "here" else (2, 1):
                index.put(root, facts(f"f{file}.txt", "same"), passages("one", f"two {file}", "one"))
            done(index, tmp_path / machine / "out")
        kept = [row for row in rows(tmp_path / machine / "out") if row["name"] != "z.txt"]
        found.append({row["chunk_id"]: (row["name"], row["order"]) for row in kept})
    assert found[0] == found[1]
    assert len(found[0]) == 6


def test_another_text_place_or_name_is_another_id(index: Store, tmp_path: Path) -> None:
    root = index.add_root(tmp_path).id
    for name, passage in {
        "a": Passage("text", start=0, end=4),
        "b": Passage("text", start=0, end=4),
        "c": Passage("text", start=1, end=5),
        "c2": Passage("texts", start=1, end=5),
    }.items():
        index.put(root, facts(name), [passage])
    keys = [record.key for records in index.each() for record in records]
    assert len(set(keys)) == 4


def test_the_id_is_the_documented_hash(index: Store, tmp_path: Path) -> None:
    import hashlib

    index.put(index.add_root(tmp_path).id, facts("a/ä.txt"), [Passage("text", start=7, end=11)])
    [[record]] = index.each()
    expected = hashlib.blake2b("a/ä.txt\x000\x007\x0011\x00".encode() + text_hash("text"), digest_size=16)
    assert record.key == expected.hexdigest()


def test_names_that_are_no_unicode_are_escaped(index: Store, folder: Path, tmp_path: Path) -> None:
    root = index.add_root(tmp_path).id
    index.put(root, facts("caf\udce9.txt"), [Passage("text", ("\ud800",), {"sheet": "\udc01"})])
    index.put(root, facts("caf\udcea.txt"), [Passage("text")])
    done(index, folder)
    first, second = rows(folder)
    assert first["name"] == r"caf\udce9.txt"
    assert first["path"].endswith(r"caf\udce9.txt")
    assert (first["heading"], first["sheet"]) == ([r"\ud800"], r"\udc01")
    assert first["chunk_id"] != second["chunk_id"]


def test_parts_hold_so_many_rows_and_no_more(index: Store, folder: Path, tmp_path: Path) -> None:
    library(index, tmp_path, files=5, each=5)
    result = done(index, folder, part_rows=10)
    assert [path.name for path in result.files] == [f"chunks-0000{n}.parquet" for n in range(3)]
    assert [parquet.read_metadata(path).num_rows for path in result.files] == [10, 10, 5]
    assert [row["text"] for row in rows(folder)] == [f"passage {n} of file {f}" for f in range(5) for n in range(5)]
    done(index, folder, part_rows=25)
    assert names(folder) == ["chunks-00000.parquet"]  # the earlier export is gone


def test_the_last_event_is_the_result(index: Store, folder: Path, tmp_path: Path) -> None:
    library(index, tmp_path)
    *progress, last = export(index, folder)
    assert progress == [Progress("export", 0, 20, "chunks"), Progress("export", 20, 20, "chunks")]
    assert isinstance(last, Exported)


def test_a_folder_with_anything_else_is_refused(index: Store, folder: Path, tmp_path: Path) -> None:
    folder.mkdir()
    (folder / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"thesis\.txt, which is no part of an export — choose an empty folder"):
        done(index, folder)
    (folder / "thesis.txt").rename(folder / "chunks-00000.parquet")  # of our name, but not ours
    with pytest.raises(UsageError, match="no part of an export"):
        done(index, folder)
    assert (folder / "chunks-00000.parquet").read_text() == "mine"
    with pytest.raises(BadFile):
        done(index, folder / "chunks-00000.parquet")


def test_a_parquet_file_of_another_program_is_refused(index: Store, folder: Path) -> None:
    import pyarrow as pa

    folder.mkdir()
    parquet.write_table(pa.table({"a": [1]}), folder / "chunks-00000.parquet")
    with pytest.raises(UsageError, match="no part of an export"):
        done(index, folder)


def test_what_a_killed_export_left_is_cleared_away(index: Store, folder: Path) -> None:
    folder.mkdir()
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    (folder / f"chunks-00003.parquet.{gone.pid}.tmp").write_bytes(b"half")
    done(index, folder)
    assert names(folder) == ["chunks-00000.parquet"]


def test_two_do_not_export_to_one_folder(index: Store, folder: Path) -> None:
    folder.mkdir()
    (folder / f"chunks-00000.parquet.{os.getppid()}.tmp").write_bytes(b"half")
    with pytest.raises(UsageError, match=f"process {os.getppid()} is writing"):
        done(index, folder)


def test_an_interrupted_export_leaves_complete_parts_alone(index: Store, folder: Path, tmp_path: Path) -> None:
    library(index, tmp_path, files=3, each=1000)
    work = export(index, folder, part_rows=1500)
    for _ in range(3):  # the second thousand ends the first part and begins the second
        next(work)
    assert len(names(folder)) == 2
    with pytest.raises(KeyboardInterrupt):
        work.throw(KeyboardInterrupt)  # type: ignore[attr-defined]
    assert names(folder) == ["chunks-00000.parquet"]
    assert parquet.read_metadata(folder / "chunks-00000.parquet").num_rows == 1500


def test_until_a_part_is_complete_the_earlier_export_stays(index: Store, folder: Path, tmp_path: Path) -> None:
    library(index, tmp_path, files=2, each=1000)
    done(index, folder, part_rows=800)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    work = export(index, folder)
    next(work)
    next(work)
    work.close()  # type: ignore[attr-defined]
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_a_writer_is_not_kept_waiting_and_what_it_replaces_is_said(index: Store, folder: Path, tmp_path: Path) -> None:
    root = library(index, tmp_path, files=3, each=1000)
    work = export(index, folder)
    next(work)
    next(work)
    with Store(index.path) as other:
        other.put(root, facts("f2.txt", "new"), passages("a new text"))
    *_, note, result = work
    assert isinstance(note, Note)
    assert "3,000 chunks became 2,000 while they were read" in note.text
    assert isinstance(result, Exported)
    assert {row["name"] for row in rows(folder)} == {"f0.txt", "f1.txt"}
    assert len(rows(folder)) == result.chunks == 2000


def test_a_model_that_is_replaced_meanwhile_ends_it(index: Store, folder: Path, tmp_path: Path) -> None:
    library(index, tmp_path, files=2, each=1000)
    ready(index)
    work = export(index, folder)
    next(work)
    next(work)
    other = a_model(index, "other")
    embed(index, other, batch=500)
    index.model_ready(other.id)
    with pytest.raises(UsageError, match="was replaced"):
        list(work)
    assert names(folder) == []


def test_a_damaged_index_is_a_bad_file(index: Store, folder: Path, tmp_path: Path) -> None:
    library(index, tmp_path, files=1)
    ready(index)
    with index._write() as db:
        db.execute("UPDATE vector SET slot = 3 - slot")
    with pytest.raises(BadFile, match="damaged"):
        done(index, folder)
    with index._write() as db:
        db.execute("UPDATE vector SET slot = 3 - slot")
        db.execute("""UPDATE chunk SET place = '{"line": "many"}' WHERE id = 2""")
    with pytest.raises(BadFile, match="damaged"):
        done(index, folder)
    assert names(folder) == []


def test_without_pyarrow_it_says_what_to_install(index: Store, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtra, match=r"pyarrow is not installed — pip install 'edgemm\[parquet\]'"):
        done(index, folder)
    assert not folder.exists()


_FULL = """
import resource, sys
from pathlib import Path
from edgemm.errors import DiskFull
from edgemm.index import Store
from edgemm.parquet import export
with Store(Path(sys.argv[1])) as index:
    list(index.each())
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    try:
        list(export(index, Path(sys.argv[2]), part_rows=1000))
    except DiskFull as error:
        print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on file sizes")
def test_a_full_disk_is_said_and_leaves_nothing_half_written(index: Store, folder: Path, tmp_path: Path) -> None:
    root, numbers = index.add_root(tmp_path).id, np.random.default_rng(0)
    index.put(root, facts("fits.txt"), passages(*map(str, range(1000))))
    index.put(root, facts("does not.txt"), passages(*(numbers.bytes(150).hex() for _ in range(1000))))
    command = [sys.executable, "-c", _FULL, str(index.path), str(folder)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ended.stdout.strip().endswith("the disk is full — free some space and run the command again"), ended
    assert ended.stderr == ""
    assert names(folder) == ["chunks-00000.parquet"]


_LARGE = """
import resource, sys
from pathlib import Path
from edgemm.index import Store
from edgemm.parquet import export
def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) << 10
with Store(Path(sys.argv[1])) as index:
    peaks = [peak() for event in export(index, Path(sys.argv[2]), part_rows=4000)]
print(peaks[3], peaks[-1])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of memory from /proc")
def test_memory_does_not_grow_with_the_index(index: Store, folder: Path, tmp_path: Path) -> None:
    root, model = index.add_root(tmp_path).id, index.add_model("wide", "f1", 768)
    for file in range(4):
        index.put(root, facts(f"{file}.txt"), passages(*(f"{file} {n} " + "word " * 100 for n in range(4000))))
    numbers = np.random.default_rng(0).standard_normal((4000, 768), np.float32)
    while waiting := index.pending(model.id, 4000):
        index.add_vectors(model.id, [pending.hash for pending in waiting], numbers[: len(waiting)])
    index.model_ready(model.id)
    command = [sys.executable, "-c", _LARGE, str(index.path), str(folder)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    early, late = map(int, ended.stdout.split())
    assert len(names(folder)) == 4
    assert late < 200e6
    assert late - early < 30e6  # the vectors alone are 49 MB
