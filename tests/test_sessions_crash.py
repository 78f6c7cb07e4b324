"""Chats in SQLite under bad weather: kills, several processes, full disks, damaged, foreign and older files."""

import os
import random
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from conftest import ROOT

from edgemm.errors import BadFile, DiskFull, EdgemmError, ResourceError
from edgemm.sessions import Sessions, State, database


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "chats.sqlite"


@pytest.fixture
def sessions(path: Path) -> Iterator[Sessions]:
    with Sessions(path) as opened:
        yield opened


def integrity(path: Path) -> str:
    with closing(sqlite3.connect(path)) as db:
        db.execute("INSERT INTO words (words) VALUES ('integrity-check')")
        return str(db.execute("PRAGMA integrity_check").fetchone()[0])


WRITER = """
import sys
from pathlib import Path
from edgemm.sessions import Sessions, State
sessions = Sessions(Path(sys.argv[1]))
chat = sessions.create("m").id
parent = None
for i in range(int(sys.argv[2])):
    question = sessions.add(chat, parent, "user", f"question {i} of {sys.argv[3]}")
    answer = sessions.add(chat, question.id, "assistant", "", state=State.STREAMING)
    sessions.update(answer.id, f"ans {i}", "", range(200))
    text = f"answer {i} of {sys.argv[3]} " * 20
    sessions.finish(answer.id, State.DONE, text, "", range(400))
    print(question.id, answer.id, flush=True)
    parent = answer.id
"""


def start(path: Path, count: int, name: str) -> "subprocess.Popen[bytes]":
    """What it acknowledges goes to a file of its own name beside the folder of `path`."""
    command = [sys.executable, "-c", WRITER, str(path), str(count), name]
    with (path.parent.parent / name).open("wb") as out:
        return subprocess.Popen(command, cwd=ROOT, stdout=out)


def acknowledged(path: Path, name: str) -> list[tuple[int, int]]:
    lines = (path.parent.parent / name).read_text().splitlines(keepends=True)
    return [(int(q), int(a)) for q, a in (line.split() for line in lines if line.endswith("\n"))]


def test_what_was_acknowledged_survives_kill_9(path: Path) -> None:
    seeded = random.Random(7)
    for attempt in range(30):
        name = f"run{attempt}"
        process = start(path, 100_000, name)
        while not acknowledged(path, name):
            assert process.poll() is None
            time.sleep(0.005)
        time.sleep(seeded.uniform(0, 0.06))
        process.kill()
        process.wait(60)
        pairs = acknowledged(path, name)
        with Sessions(path) as sessions:
            turns = {turn.id: turn for turn in sessions.turns(sessions.chats()[0].id)}
            assert all(turns[question].role == "user" for question, _ in pairs)
            assert all((turns[a].state, len(turns[a].tokens)) == (State.DONE, 400) for _, a in pairs)
            assert len(turns) <= 2 * len(pairs) + 2  # at most one unfinished answer more
            assert sessions.search(f"answer {len(pairs) - 1} of {name}")
    assert integrity(path) == "ok"


def test_processes_write_and_even_create_the_same_file(path: Path) -> None:
    writers = [start(path, 40, f"writer{n}") for n in range(4)]
    for writer in writers:
        assert writer.wait(120) == 0
    with Sessions(path) as sessions:
        assert [chat.messages for chat in sessions.chats()] == [80] * 4
    assert integrity(path) == "ok"


def test_opening_waits_for_a_reader_of_an_old_journal(path: Path) -> None:
    first_version(path)
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM chat").fetchall()
        timer = threading.Timer(0.3, reader.execute, ("COMMIT",))
        timer.start()
        with Sessions(path) as sessions:
            assert len(sessions.chats()) == 1
        timer.join()


def test_a_lock_that_is_never_given_back_is_reported(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "_BUSY_SECONDS", 0.1)
    with Sessions(path) as sessions, closing(sqlite3.connect(path, isolation_level=None)) as other:
        chat = sessions.create("m").id
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(ResourceError, match="another program"):
            sessions.add(chat, None, "user", "hello")
        other.execute("ROLLBACK")
        assert sessions.add(chat, None, "user", "hello").text == "hello"


def test_a_full_disk_changes_nothing(sessions: Sessions) -> None:
    chat = sessions.create("m").id
    kept = sessions.add(chat, None, "user", "before")
    sessions._db.execute("PRAGMA max_page_count = 20")
    with pytest.raises(DiskFull, match="nothing was changed"):
        sessions.add(chat, kept.id, "assistant", "x" * 1_000_000)
    assert sessions.turns(chat) == [kept]
    assert sessions.chat(chat).leaf == kept.id
    sessions._db.execute("PRAGMA max_page_count = 100000")
    assert sessions.add(chat, kept.id, "assistant", "x" * 1_000_000).parent == kept.id


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on file sizes")
def test_a_limit_on_file_sizes_reads_as_a_full_disk(path: Path) -> None:
    code = """
import resource, signal, sys
from pathlib import Path
from edgemm.errors import DiskFull
from edgemm.sessions import Sessions
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
sessions = Sessions(Path(sys.argv[1]))
chat = sessions.create("m").id
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
for i in range(1000):
    try:
        sessions.add(chat, None, "user", "x" * 10_000)
    except DiskFull:
        break
print(i, len(sessions.turns(chat)))
"""
    done = subprocess.run([sys.executable, "-c", code, path], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    stored, there = map(int, done.stdout.split())
    assert stored == there
    assert 0 < stored < 100


def test_no_file_can_be_made_where_a_file_stands(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for place in (tmp_path / "file" / "chats.sqlite", tmp_path):
        with pytest.raises(BadFile):
            Sessions(place)


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="this user may write everywhere")
def test_a_file_that_cannot_be_written_is_found_out_at_once(path: Path) -> None:
    Sessions(path).close()
    path.chmod(0o400)
    with pytest.raises(BadFile, match="written"):
        Sessions(path)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has other rights")
def test_only_the_user_may_read_the_file(path: Path) -> None:
    mask = os.umask(0)
    try:
        with Sessions(path) as sessions:
            sessions.create("m")
            modes = {p.suffix: p.stat().st_mode & 0o777 for p in path.parent.iterdir()}
    finally:
        os.umask(mask)
    assert modes == dict.fromkeys([".sqlite", ".sqlite-wal", ".sqlite-shm"], 0o600)


def test_a_newer_file_is_refused_with_both_versions(path: Path) -> None:
    Sessions(path).close()
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(BadFile, match=r"version 99, this edgemm reads up to 2"):
        Sessions(path)


def test_the_database_of_another_program_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "places.sqlite"
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE bookmarks (url)")
    before = path.read_bytes()
    with pytest.raises(BadFile, match="another program"):
        Sessions(path)
    assert path.read_bytes() == before


def first_version(path: Path) -> None:
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as db:
        for statement in database.MIGRATIONS[0].split("\n\n"):
            db.execute(statement)
        db.execute("INSERT INTO chat VALUES (1, 'old', 'm', '{}', NULL, 1.0, 1.0)")
        db.execute("INSERT INTO message VALUES (1, 1, NULL, 'user', 'an old ibex', '', 'done', '[]', '{}', 1.0, 1.0)")
        db.execute("PRAGMA user_version = 1")
        db.commit()


def test_an_older_file_is_migrated_and_a_copy_is_kept(path: Path) -> None:
    first_version(path)
    with Sessions(path) as sessions:
        assert [hit.snippet for hit in sessions.search("ibex")] == ["an old \x02ibex\x03"]
    copy = path.with_name("chats.sqlite.v1.backup")
    assert sorted(p.name for p in path.parent.iterdir()) == [path.name, copy.name]
    with closing(sqlite3.connect(copy)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (1,)
        assert db.execute("SELECT text FROM message").fetchone() == ("an old ibex",)


def test_a_migration_that_fails_leaves_the_older_version(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first_version(path)
    broken = database.MIGRATIONS[1] + "\n\nINSERT INTO nowhere VALUES (1)"
    with monkeypatch.context() as patch:
        patch.setattr(database, "MIGRATIONS", (database.MIGRATIONS[0], broken))
        with pytest.raises(BadFile):
            Sessions(path)
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (1,)
    with Sessions(path) as sessions:
        assert len(sessions.search("ibex")) == 1


def use(path: Path) -> None:
    """Read and write everything once."""
    with Sessions(path) as sessions:
        for chat in sessions.chats():
            sessions.turns(chat.id)
            sessions.recover(chat.id)
        sessions.search("answer")
        sessions.search("!")
        sessions.prompts()
        chat = sessions.create("m")
        sessions.add(chat.id, None, "user", "hello")
        sessions.delete(chat.id)


@pytest.mark.parametrize("size", [99, 100, 512, 4096, 5000])
def test_a_cut_off_file_is_damaged(path: Path, size: int) -> None:
    with Sessions(path) as sessions:
        sessions.add(sessions.create("m").id, None, "user", "hello")
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(BadFile, match=r"damaged|another program"):
        use(path)


def test_no_damage_ends_in_anything_but_a_typed_error(tmp_path: Path) -> None:
    whole = tmp_path / "whole.sqlite"
    with Sessions(whole) as sessions:
        for _ in range(5):
            answer = sessions.add(sessions.create("m", title="t").id, None, "assistant", "")
            sessions.finish(answer.id, State.DONE, "an answer " * 100, "", range(50), {"seed": 3})
    data, seeded, refused = whole.read_bytes(), random.Random(3), 0
    for attempt in range(60):
        damaged = bytearray(data)
        for _ in range(20):
            damaged[seeded.randrange(len(data))] ^= 1 << seeded.randrange(8)
        path = tmp_path / f"{attempt}.sqlite"
        path.write_bytes(damaged)
        try:
            use(path)
        except EdgemmError:
            refused += 1
    assert refused > 5


def test_one_message_that_cannot_be_read_is_named(path: Path, sessions: Sessions) -> None:
    question = sessions.add(sessions.create("m").id, None, "user", "hello")
    with closing(sqlite3.connect(path)) as db:
        for column, value in [("details", "[1]"), ("details", "{"), ("tokens", "7"), ("text", b"\xff")]:
            db.execute(f"UPDATE message SET {column} = ? WHERE id = ?", (value, question.id))
            db.commit()
            with pytest.raises(BadFile, match=f"message {question.id} is damaged"):
                sessions.turns(question.chat)
            db.execute(f"UPDATE message SET {column} = '{{}}' WHERE id = ?", (question.id,))
