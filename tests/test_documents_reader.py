"""Files are read in child processes: in order, with limits, whatever becomes of the child."""

import hashlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgemm.documents import Document, Found, Reader, Refused
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


def test_a_child_that_dies_is_replaced(tmp_path: Path, reader: Reader) -> None:
    good = file(tmp_path / "good.md", b"good")
    assert isinstance(next(iter(reader.read([good]))).document, Document)
    children = [reader._idle.get() for _ in range(2)]
    for child in children:
        if child is not None:
            child._process.kill()
            child._process.wait()
        reader._idle.put(child)
    results = list(reader.read([good] * 4))
    assert sum(isinstance(r.document, Document) for r in results) >= 3
    assert all(isinstance(r.document, Document) for r in reader.read([good] * 4))
