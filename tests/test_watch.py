"""Watching folders: what counts as a change, when it is told, and what happens where the system cannot tell."""

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from edgemm import watch
from edgemm.events import Note

Event = Note | frozenset[Path]
Watching = Callable[..., Iterator[Event]]
SECONDS = 30  # then a test that waits in vain fails
linux = pytest.mark.skipif(sys.platform != "linux", reason="is about inotify")


@pytest.fixture
def watching() -> Iterator[Watching]:
    """`changes` with short times, which ends by itself."""
    stop = threading.Event()
    timer = threading.Timer(SECONDS, stop.set)
    timer.daemon = True
    timer.start()
    yield lambda *roots, **more: watch.changes(roots, stop, more.pop("quiet", 0.1), **more)
    timer.cancel()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "notes" / "old").mkdir(parents=True)
    (tmp_path / "notes" / "a.txt").write_text("a")
    return tmp_path / "notes"


@pytest.fixture
def other(tmp_path: Path) -> Path:
    (tmp_path / "other").mkdir()
    return tmp_path / "other"


def after(events: Iterator[Event], past: Path) -> Event:
    """The next event that is not the rest of an earlier change in `past`."""
    return next(event for event in events if event != {past})


def replace(root: Path) -> None:
    root.rename(root.with_name("away"))
    root.mkdir()


CHANGES: dict[str, Callable[[Path], object]] = {
    "a new file": lambda root: (root / "b.txt").write_text("b"),
    "a changed file": lambda root: (root / "a.txt").write_text("aa"),
    "a moved file": lambda root: (root / "a.txt").rename(root / "old" / "a.txt"),
    "a deleted file": lambda root: (root / "a.txt").unlink(),
    "a file in a new folder": lambda root: ((root / "n").mkdir(), (root / "n" / "b.txt").write_text("b")),
    "a deleted folder": lambda root: (root / "old").rmdir(),
    "rules of what is read": lambda root: (root / ".gitignore").write_text("a*"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_names_its_root(change: Callable[[Path], object], watching: Watching, root: Path) -> None:
    events = watching(root)
    change(root)
    assert next(events) == {root}


def test_only_the_roots_that_have_changed_are_named(watching: Watching, root: Path, other: Path) -> None:
    events = watching(root, other)
    (other / "b.txt").write_text("b")
    assert next(events) == {other}
    (root / "b.txt").write_text("b")
    assert root in after(events, other)


def test_a_folder_within_another_is_named_as_well(watching: Watching, root: Path) -> None:
    events = watching(root, root / "old")
    (root / "old" / "b.txt").write_text("b")
    assert next(events) == {root, root / "old"}


def test_many_changes_are_told_once_or_twice(watching: Watching, root: Path, other: Path) -> None:
    events = watching(root, other, quiet=0.4)
    for number in range(200):
        (root / f"{number}.txt").write_text("text")
    assert next(events) == {root}
    (other / "b.txt").write_text("b")
    rest = next(events)
    assert other in (rest if rest != {root} else next(events))


def test_hidden_files_and_the_files_of_the_index_do_not_count(watching: Watching, root: Path, other: Path) -> None:
    (root / ".git").mkdir()
    events = watching(root, other, index=root / "index.sqlite")
    (root / ".git" / "HEAD").write_text("main")
    (root / ".notes.txt.swp").write_text("b")
    for suffix in ("", "-wal", "-shm", ".lock"):
        (root / f"index.sqlite{suffix}").write_text("x")
    (other / "b.txt").write_text("b")
    assert next(events) == {other}
    (root / "c.txt").write_text("c")
    assert root in after(events, other)


def test_a_root_in_a_hidden_folder_is_watched(watching: Watching, tmp_path: Path) -> None:
    root = tmp_path / ".config" / "notes"
    root.mkdir(parents=True)
    events = watching(root)
    (root / "b.txt").write_text("b")
    assert next(events) == {root}


def test_a_root_that_goes_and_comes_again_does_not_end_it(watching: Watching, root: Path) -> None:
    events = watching(root)
    shutil.rmtree(root)
    assert next(events) == {root}
    root.mkdir()
    assert next(events) == {root}
    (root / "b.txt").write_text("b")
    assert next(events) == {root}


@pytest.mark.parametrize("change", [replace, lambda root: (shutil.rmtree(root), root.mkdir())])
def test_another_folder_in_its_place_is_watched(
    change: Callable[[Path], object], watching: Watching, root: Path, other: Path
) -> None:
    events = watching(root, other)
    change(root)
    assert next(events) == {root}
    (other / "b.txt").write_text("b")  # so that nothing of the change itself is left
    assert other in after(events, root)
    (root / "b.txt").write_text("b")
    assert root in after(events, other)


def test_a_root_that_is_not_there_yet_is_awaited(watching: Watching, tmp_path: Path) -> None:
    events = watching(tmp_path / "later")
    (tmp_path / "later").mkdir()
    assert next(events) == {tmp_path / "later"}


def test_it_ends_when_it_is_told_to(root: Path) -> None:
    stop = threading.Event()
    events = watch.changes([root], stop, 0.1)
    (root / "b.txt").write_text("b")
    assert next(events) == {root}
    stop.set()
    assert list(events) == []


def test_changes_are_held_back_while_others_follow() -> None:
    settling = watch._Settling(quiet=1.0, longest=10.0)
    first, second = Path("a"), Path("b")
    assert settling.take(0.0) == set()
    settling.add(first, 100.0)
    settling.add(second, 100.9)
    assert settling.take(101.8) == set()
    assert settling.take(101.9) == {first, second}
    assert settling.take(300.0) == set()


def test_changes_that_do_not_end_are_told_after_ten_seconds() -> None:
    settling = watch._Settling(quiet=1.0)
    told = []
    for tick in range(210):
        settling.add(Path("a"), tick / 10)
        if settling.take(tick / 10):
            told.append(tick / 10)
    assert told == [10.0, 20.1]


def test_without_watchers_it_looks_for_itself(
    watching: Watching, root: Path, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    events = watching(root, poll=0.05)
    why = "edgemm looks for changes every 0.05 s or less often, as watchfiles is not installed"
    assert next(events) == Note(f"{root}: {why}")
    for name in ("a.txt", ".gitignore"):
        (root / name).write_text("a*")
        assert next(events) == {root}
    shutil.rmtree(root)
    assert next(events) == {root}
    other.rename(root)
    assert next(events) == {root}


def test_a_network_share_is_looked_through(watching: Watching, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = [SimpleNamespace(mountpoint=root.anchor, fstype="ext4"), SimpleNamespace(mountpoint=root, fstype="nfs4")]
    monkeypatch.setattr(psutil, "disk_partitions", lambda all: mounts)
    monkeypatch.setattr(sys, "platform", "linux")
    events = watching(root, poll=0.05)
    note = next(events)
    assert isinstance(note, Note)
    assert note.text.endswith("as it is on a network share")
    (root / "b.txt").write_text("b")
    assert next(events) == {root}


def test_a_local_folder_is_not_remote(root: Path) -> None:
    assert not watch.is_remote(root)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/home/ann/notes", "ext4"),
        ("/home/ann/share", "cifs"),
        ("/home/ann/share/notes", "cifs"),
        ("/home/ann/shared", "ext4"),
        ("/mnt/c/notes", "9p"),
        ("relative", ""),
    ],
)
def test_the_innermost_mount_decides(path: str, expected: str) -> None:
    mounts = [
        *((Path("/home/ann/share"), "autofs"), (Path("/home/ann/share"), "cifs")),
        *((Path("/"), "ext4"), (Path("/mnt/c"), "9p")),
    ]
    assert watch.file_system(Path(path), mounts) == expected


@linux
def test_names_that_are_no_unicode_are_looked_for(watching: Watching, root: Path) -> None:
    events = watching(root, poll=0.05)
    with open(os.fsencode(root) + b"/caf\xe9.txt", "w") as file:
        file.write("text")
    found = [next(events), next(events)]
    assert isinstance(found[0], Note)
    assert "a name in it is no valid Unicode" in found[0].text
    assert found[1] == {root}
    (root / "b.txt").write_text("b")
    assert next(events) == {root}
    odd = Path(os.fsdecode(os.fsencode(root) + b"/caf\xe9"))
    odd.mkdir()
    note = next(watching(odd))
    assert isinstance(note, Note)
    assert "its name is no valid Unicode" in note.text


_NO_FILES = """
import os, resource, sys, watchfiles
from pathlib import Path
from edgemm.watch import changes
root = Path(sys.argv[1])
warm = changes([root], quiet=0.1)  # everything is imported
(root / "c.txt").write_text("c")
next(warm)
warm.close()
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
held = []
try:
    while True:
        held.append(os.open(os.devnull, os.O_RDONLY))
except OSError:
    pass
for _ in range(2):
    os.close(held.pop())
events = changes([root], quiet=0.1, poll=0.05)
print(next(events).text, flush=True)
(root / "b.txt").write_text("b")
print(next(events) == {root})
"""

_NO_WATCHERS = """
import sys
from pathlib import Path
from edgemm.watch import changes
root = Path(sys.argv[1])
events = changes([root], quiet=0.1, poll=0.05)
(root / "a.txt").write_text("aa")
print(next(events) == {root}, flush=True)
for number in range(30):
    (root / str(number)).mkdir()
while isinstance(event := next(events), frozenset):
    pass
print(event.text, flush=True)
next(events)
(root / "29" / "b.txt").write_text("b")
print(next(events) == {root})
print(next(changes([root])).text)
"""


def run(code: str, *arguments: object, before: tuple[str, ...] = ()) -> "subprocess.CompletedProcess[str]":
    command = [*before, sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)


@linux
def test_when_the_system_has_no_watcher_it_looks_for_itself(root: Path) -> None:
    done = run(_NO_FILES, root)
    note, changed = done.stdout.splitlines()
    assert note.endswith("as the system has no watchers left"), done
    assert changed == "True"


@linux
def test_watchers_that_run_out_later_are_noticed(root: Path) -> None:
    limit = 'echo 10 > /proc/sys/user/max_inotify_watches && exec "$@"'
    apart = ("unshare", "--user", "--map-root-user", "sh", "-c", limit, "sh")
    if not shutil.which("unshare") or run("", before=apart).returncode:
        pytest.skip("this system gives no limits of one's own")
    done = run(_NO_WATCHERS, root, before=apart)
    told, note, changed, again = done.stdout.splitlines()
    assert (told, changed) == ("True", "True"), done
    assert note.endswith("as the system has no watchers left")
    assert again == note.replace("0.05", "5")


_WATCHER = """
import sys
from pathlib import Path
from edgemm.watch import changes
events = changes([Path(sys.argv[1])])
try:
    print("watching", flush=True)
    next(events)
except KeyboardInterrupt:
    print("stopped")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="sends a signal")
def test_ctrl_c_ends_it_at_once(root: Path) -> None:
    command = [sys.executable, "-c", _WATCHER, str(root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        child.stdout.readline()
        child.send_signal(signal.SIGINT)
        assert child.communicate(timeout=SECONDS) == ("stopped\n", "")
    assert child.returncode == 0
