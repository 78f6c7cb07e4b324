"""Files are read in child processes: in order, with limits, whatever becomes of the child."""

import hashlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny_office import xlsx

from edgemm.documents import Document, Found, Reader, Refused, walk
from edgemm.documents.child import answer
from edgemm.documents.kinds import Kind, of_name
from edgemm.documents.reader import Limits


def file(path: Path, data: bytes = b"text") -> Found:
    path.write_bytes(data)
    facts = path.stat()
    return Found(path, path.name, facts.st_size, facts.st_mtime_ns, of_name(path.name) or Kind.TEXT)


@pytest.fixture
def reader() -> Iterator[Reader]:
    with Reader(2, Limits(seconds=10)) as found:
        yield found


def test_documents_come_in_the_order_of_their_files(tmp_path: Path, reader: Reader) -> None:
    files = [file(tmp_path / f"{n:02}.md", f"# Title {n}\ntext".encode()) for n in range(20)]
    results = list(reader.read(files))
    assert [r.found for r in results] == files
    assert [r.document.title for r in results if isinstance(r.document, Document)] == [f"Title {n}" for n in range(20)]
    assert results[3].hash == hashlib.sha256(b"# Title 3\ntext").hexdigest()


def test_a_refused_file_says_why_and_the_next_one_is_read(tmp_path: Path, reader: Reader) -> None:
    files = [
        file(tmp_path / "empty.md", b""),
        file(tmp_path / "binary.txt", bytes(range(256))),
        file(tmp_path / "broken.pdf", b"%PDF-1.4 nothing"),
        file(tmp_path / "good.md", b"good"),
    ]
    files.insert(3, Found(tmp_path / "gone.md", "gone.md", 1, 1, Kind.MARKDOWN))
    whys = [r.document.why if isinstance(r.document, Refused) else "" for r in reader.read(files)]
    assert whys[0] == "is empty"
    assert "binary" in whys[1]
    assert "damaged" in whys[2]
    assert whys[3] == "no such file or directory"
    assert whys[4] == ""


@pytest.mark.skipif(sys.platform == "win32", reason="no sparse files, links or pipes for everyone there")
def test_what_is_no_plain_file_is_never_waited_for(tmp_path: Path, reader: Reader) -> None:
    huge = file(tmp_path / "huge.txt")
    os.truncate(huge.path, 2 << 30)
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "link.txt").symlink_to("/etc/passwd")
    others = [Found(tmp_path / name, name, 1, 1, Kind.TEXT) for name in ("pipe.txt", "link.txt")]
    whys = [r.document.why for r in reader.read([huge, *others]) if isinstance(r.document, Refused)]
    assert whys[0] == "has 2,147 MB, at most 67 MB are read"
    assert whys[1] == "is no regular file"
    assert len(whys) == 3


@pytest.mark.skipif(sys.platform == "win32", reason="no such limit is set there")
def test_a_document_that_needs_too_much_memory_is_refused(tmp_path: Path) -> None:
    big = file(tmp_path / "big.txt", b"line of words\n" * 4_000_000)
    good = file(tmp_path / "good.md", b"good")
    with Reader(1, Limits(memory=200 << 20)) as reader:
        results = list(reader.read([big, good]))
    assert isinstance(results[0].document, Refused)
    assert isinstance(results[1].document, Document)


def test_a_document_that_takes_too_long_is_refused_and_its_child_replaced(tmp_path: Path) -> None:
    slow = file(tmp_path / "slow.html", b"<p>" + b"<a b=c d>" * 6_000_000)
    good = file(tmp_path / "good.md", b"good")
    with Reader(1, Limits(seconds=1.5, memory=4 << 30)) as reader:
        results = list(reader.read([good, slow, good]))
    assert [type(r.document) for r in results] == [Document, Refused, Document]
    assert "takes longer than 1.5 s" in str(results[1].document)


def test_a_child_that_dies_while_it_is_idle_costs_no_file(tmp_path: Path, reader: Reader) -> None:
    good = file(tmp_path / "good.md", b"good")
    assert all(isinstance(r.document, Document) for r in reader.read([good] * 4))
    for child in reader._children:
        os.kill(child.pid, getattr(signal, "SIGKILL", signal.SIGTERM))
        child._process.wait()
    assert all(isinstance(r.document, Document) for r in reader.read([good] * 4))


@pytest.mark.skipif(sys.platform == "win32", reason="no such limit is set there")
def test_a_child_that_native_code_ends_is_replaced_and_says_why(tmp_path: Path) -> None:
    """Two cells in opposite corners: calamine asks for half a terabyte, and its allocator ends the process."""
    corners = file(tmp_path / "corners.xlsx", xlsx({"A1": "x", "XFD1048576": "y"}))
    good = file(tmp_path / "good.md", b"good")
    with Reader(1) as reader:
        results = list(reader.read([corners, good]))
    assert results[0].document == Refused("needs more memory than a document may take")
    assert isinstance(results[1].document, Document)


def test_a_closed_reader_ends_what_it_reads_at_once(tmp_path: Path) -> None:
    slow = file(tmp_path / "slow.html", b"<p>" + b"<a b=c d>" * 6_000_000)
    reader = Reader(1, Limits(seconds=60, memory=4 << 30))
    done = threading.Thread(target=lambda: list(reader.read([slow])))
    done.start()
    while not reader._children:
        time.sleep(0.01)
    time.sleep(0.3)
    started = time.monotonic()
    reader.close()
    done.join(10)
    assert not done.is_alive()
    assert time.monotonic() - started < 5
    assert not reader._children


def test_a_reader_that_is_left_begins_nothing_more(tmp_path: Path, reader: Reader) -> None:
    files = [file(tmp_path / f"{n}.md") for n in range(50)]
    asked = iter(files)
    for _ in reader.read(asked):
        break
    assert len(list(asked)) >= 40


def test_the_kind_that_was_read_is_told(tmp_path: Path, reader: Reader) -> None:
    [result] = reader.read(
        [
            file(tmp_path / "a.pdf", b"\xff\xd8\xff no picture"),
        ]
    )
    assert isinstance(result.document, Refused)
    [result] = reader.read([file(tmp_path / "a.docx", xlsx({"B2": "x"}))])
    assert result.found.kind is Kind.SHEET
    assert isinstance(result.document, Document)


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    path.write_bytes(b"a line of text\n" * 2_000_000)
    request = {"path": str(path), "name": path.name, "kind": "text", "most": 1 << 26}
    stop = threading.Event()

    def grow() -> None:
        with open(path, "ab", buffering=0) as out:
            while not stop.is_set():
                out.write(b"x\n")

    writer = threading.Thread(target=grow)
    writer.start()
    try:
        header, _ = answer(request)
    finally:
        stop.set()
        writer.join()
    assert header == {"refused": "changed while it was read"}


def test_more_text_than_a_document_may_have_is_refused_with_both_numbers(tmp_path: Path, reader: Reader) -> None:
    long = file(tmp_path / "long.txt", b"a line of text\n" * 2_400_000)
    [result] = reader.read([long])
    assert result.document == Refused("holds 36 M characters of text, at most 34 M are read")


@pytest.mark.skipif(sys.platform != "linux", reason="names are text elsewhere")
def test_a_name_of_any_bytes_is_opened_and_its_title_is_text(tmp_path: Path, reader: Reader) -> None:
    (tmp_path / os.fsdecode(b"bad\xff.txt")).write_text("text")
    [each] = walk(tmp_path)
    assert isinstance(each, Found)
    [result] = reader.read([each])
    assert result.found.name == os.fsdecode(b"bad\xff.txt")
    assert isinstance(result.document, Document)
    assert result.document.title == "bad\ufffd.txt"
