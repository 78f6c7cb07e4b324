"""Indexing under bad weather: kills at any moment, several processes at once, full disks, folders that change."""

import hashlib
import multiprocessing
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest
from conftest import ROOT
from word_bags import Bag, found_names, is_almighty, run, vector, write

from edgemm import ingest
from edgemm.errors import DiskFull, ResourceError
from edgemm.events import Progress
from edgemm.index import Store

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL, and no limit on file sizes")
KILLS = 100
WORDS = "ibex heron wombat stoat marten chamois lynx otter badger raven salmon viper".split()


def zygote() -> "multiprocessing.context.ForkServerContext":
    """Children from a process that has imported everything, so that a hundred of them cost little."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["edgemm.ingest", "edgemm.library", "test_ingest_crash"])
    return context


def index(path: Path, folder: Path, log: Path, others: float = 0.0) -> None:
    """Bring the index up to date, and write down what is stored as soon as it is. Waits for `others`, in seconds."""
    ingest._BATCH = 4
    bag = Bag()
    with Store(path) as store, log.open("a") as out:
        root = store.add_root(folder)
        before = store.known(root.id)
        deadline = time.monotonic() + others
        while True:
            try:
                for event in ingest.update(store, [root], [bag.encoder()], workers=1):
                    if isinstance(event, Progress) and event.stage == "read":
                        now = store.known(root.id)
                        print("read", *(name for name in now if now[name] != before.get(name)), file=out, flush=True)
                        before = now
                    elif isinstance(event, Progress) and event.stage.startswith("embed"):
                        print("left", store.pending_size(store.models()[0].id)[0], file=out, flush=True)
                break
            except ResourceError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
        print("embedded", len(bag.embedded), file=out, flush=True)


def lines(log: Path) -> list[list[str]]:
    """Whole lines: what the child was killed in is none."""
    text = log.read_text() if log.exists() else ""
    return [line.split() for line in text.splitlines(keepends=True) if line.endswith("\n")]


class Shelf:
    """A folder of real files that changes, and what it should be found by."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.random, self.texts = folder, random.Random(seed), dict[str, str]()
        self.age = 0.0
        folder.mkdir()

    def put(self, name: str, text: str) -> None:
        self.age -= 1
        write(self.folder, {name: text}, self.age)
        self.texts[name] = text

    def change(self, number: int) -> None:
        """Two new files, a changed, a moved and a removed one."""
        for n in range(2):
            words = " ".join(self.random.choices(WORDS, k=30))
            self.put(
                f"d{number % 7}/new{number}-{n}.md",
                f"# Sentinel{number}x{n}\n\n{words}\n\n## Second\n\n{words} end{number}",
            )
        if number % 3 == 0:
            self.put(self.random.choice(sorted(self.texts)), f"changed {number} {self.random.choice(WORDS)}")
        if number % 4 == 0:
            name = self.random.choice(sorted(self.texts))
            (self.folder / f"moved{number}").mkdir()
            (self.folder / name).rename(self.folder / f"moved{number}" / "file.md")
            self.texts[f"moved{number}/file.md"] = self.texts.pop(name)
        if number % 2 == 0 and len(self.texts) > 20:
            name = self.random.choice(sorted(self.texts))
            (self.folder / name).unlink()
            del self.texts[name]

    def hashes(self) -> dict[str, str]:
        return {name: hashlib.sha256(text.encode()).hexdigest() for name, text in self.texts.items()}


def whole(path: Path, shelf: Shelf) -> None:
    """The index holds exactly the files of the folder, with a vector for each of their texts."""
    with Store(path) as store:
        assert store.verify() == []
        [root] = store.roots()
        assert {name: known.hash for name, known in store.known(root.id).items()} == shelf.hashes()
        model = store.ready()
        assert model is not None
        assert store.pending_size(model.id)[0] == 0
        for name, text in random.Random(1).sample(sorted(shelf.texts.items()), 10):
            word = text.split()[1]
            assert name in found_names(store, word)
            chunks = [store.chunk(id) for id, _ in store.nearest(model.id, vector(text), 20)]
            assert any(chunk.text in text for chunk in chunks)


def test_what_was_acknowledged_survives_a_hundred_kills(tmp_path: Path) -> None:
    path, log, shelf, context = (
        tmp_path / "data" / "index.sqlite",
        tmp_path / "log",
        Shelf(tmp_path / "docs", 3),
        zygote(),
    )
    seeded, readers, stages = random.Random(5), set[psutil.Process](), set[str]()
    for attempt in range(KILLS):
        shelf.change(attempt)
        log.unlink(missing_ok=True)
        process = context.Process(target=index, args=(path, shelf.folder, log))
        process.start()
        wanted, deadline = seeded.randrange(8), time.monotonic() + 20
        while len(lines(log)) < wanted and process.is_alive() and time.monotonic() < deadline:
            time.sleep(0.003)
            readers |= children(process.pid)
        time.sleep(seeded.uniform(0, 0.02 if wanted else 0.2))
        readers |= children(process.pid)
        process.kill()
        process.join(60)
        acknowledged = lines(log)
        stages |= {line[0] for line in acknowledged} or {"nothing"}
        check(path, shelf, acknowledged)
    last = context.Process(target=index, args=(path, shelf.folder, log))
    last.start()
    last.join(60)
    whole(path, shelf)
    assert stages == {"nothing", "read", "left", "embedded"}, "the kills came at every stage"
    _, alive = psutil.wait_procs(readers, timeout=10)
    assert not alive, "what reads the files ends with the process that it reads for"


def children(pid: int | None) -> set[psutil.Process]:
    try:
        return set(psutil.Process(pid).children())
    except psutil.NoSuchProcess:
        return set()


def check(path: Path, shelf: Shelf, acknowledged: Sequence[Sequence[str]]) -> None:
    """After a kill: the file is intact, and holds at least what was written down."""
    if not path.exists():
        assert acknowledged == []
        return
    with Store(path) as store:
        assert store.verify() == []
        known = store.known(store.roots()[0].id) if store.roots() else {}
        hashes = {name: each.hash for name, each in known.items()}
        for name in (name for stage, *names in acknowledged if stage == "read" for name in names):
            assert hashes[name] == shelf.hashes()[name]
        left = [int(line[1]) for line in acknowledged if line[0] == "left"]
        if left:  # all was read by then
            assert hashes == shelf.hashes()
            assert store.pending_size(store.models()[0].id)[0] <= left[-1]


def test_four_processes_at_once_do_the_work_once(tmp_path: Path) -> None:
    path, shelf, context = tmp_path / "data" / "index.sqlite", Shelf(tmp_path / "docs", 4), zygote()
    for number in range(30):
        shelf.change(number)
    logs = [tmp_path / f"log{n}" for n in range(4)]
    processes = [context.Process(target=index, args=(path, shelf.folder, log, 60.0)) for log in logs]
    for process in processes:
        process.start()
    seen = set()
    while any(process.is_alive() for process in processes):
        if path.exists():
            with Store(path) as store:
                seen.add(len(found_names(store, "end29 end7 ibex")) > 0)
        time.sleep(0.02)
    assert [process.exitcode for process in processes] == [0] * 4
    whole(path, shelf)
    counts = sorted(int(lines(log)[-1][1]) for log in logs)
    with Store(path) as store:
        assert counts == [0, 0, 0, store.status().models[0].vectors]
    assert True in seen, "it is searched while it is written"


def test_commands_at_once_end_in_a_result_or_one_line(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "docs", 5)
    for number in range(20):
        shelf.change(number)
    command = [sys.executable, "-m", "edgemm", "index", str(shelf.folder)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    ends = [(process.communicate(timeout=60), process.returncode) for process in processes]
    assert {code for _, code in ends} <= {0, 4}
    assert 0 in {code for _, code in ends}
    for (_, err), code in ends:
        if code == 4:
            assert err.splitlines()[-1].startswith("edgemm: ")
            assert "another edgemm is bringing the index up to date" in err
    with Store() as store:
        assert store.verify() == []
        assert set(store.known(store.roots()[0].id)) == set(shelf.texts)


# Full disks


def test_a_full_disk_loses_nothing_that_was_stored(tmp_path: Path) -> None:
    shelf, bag = Shelf(tmp_path / "docs", 6), Bag()
    for number in range(40):
        shelf.change(number)
    with Store(tmp_path / "index.sqlite") as store:
        root = store.add_root(shelf.folder)
        pages = store._writer.execute("PRAGMA page_count").fetchone()[0]
        store._writer.execute(f"PRAGMA max_page_count = {pages + 10}")
        with pytest.raises(DiskFull):
            run(store, root, bag)
        before = set(store.known(root.id))
        assert store.verify() == []
        assert len(before) < len(shelf.texts)
        store._writer.execute("PRAGMA max_page_count = 1000000")
        report = run(store, root, bag)
        assert report.unchanged == len(before)
    whole(tmp_path / "index.sqlite", shelf)


LIMITED = """
import resource, signal, sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from edgemm.errors import DiskFull
from edgemm.index import Store
from word_bags import Bag, run
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
with Store(Path(sys.argv[1])) as store:
    root = store.add_root(Path(sys.argv[2]))
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), resource.RLIM_INFINITY))
    try:
        run(store, root, Bag())
    except DiskFull as error:
        print(error)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    print(len(store.known(root.id)), store.verify())
"""


@pytest.mark.parametrize("limit", [40_000, 300_000])
def test_a_limit_on_file_sizes_reads_as_a_full_disk(tmp_path: Path, limit: int) -> None:
    shelf = Shelf(tmp_path / "docs", 7)
    for number in range(60):
        shelf.change(number)
    code = LIMITED.format(tests=str(ROOT / "tests"))
    arguments = [str(tmp_path / "index.sqlite"), str(shelf.folder), str(limit)]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    said, stored = done.stdout.splitlines()
    assert "the disk is full" in said
    count, problems = stored.split(" ", 1)
    assert problems == "[]"
    assert int(count) < len(shelf.texts)
    with Store(tmp_path / "index.sqlite") as store:
        run(store, store.roots()[0], Bag())
    whole(tmp_path / "index.sqlite", shelf)


# What happens to files meanwhile


def test_a_folder_that_changes_all_the_time_is_right_in_the_end(tmp_path: Path) -> None:
    shelf, bag = Shelf(tmp_path / "docs", 8), Bag()
    with Store(tmp_path / "index.sqlite") as store:
        root = store.add_root(shelf.folder)
        for number in range(8):
            shelf.change(3 * number)
            for event in ingest.update(store, [root], [bag.encoder()]):
                if isinstance(event, Progress) and event.stage == "read" and number % 2:
                    shelf.change(3 * number + 1)
                    break  # as by Ctrl-C, in the middle of it
        run(store, root, bag)
        assert len(bag.embedded) == len(set(bag.embedded)), "nothing was embedded twice"
    whole(tmp_path / "index.sqlite", shelf)


@pytest.mark.skipif(is_almighty(), reason="this user may write everywhere")
def test_an_index_in_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    folder = write(tmp_path / "docs", {"a.txt": "An ibex."})
    data = tmp_path / "store" / ".data"
    data.mkdir(parents=True)
    data.chmod(0o500)
    done = subprocess.run(
        [sys.executable, "-m", "edgemm", "index", str(folder)], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (3, "", 1)
