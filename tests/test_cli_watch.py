"""`edgemm index DIR --watch`: what changes is indexed, one window at a time, until Ctrl-C."""

import json
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Cli

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for one process")
_SECONDS = 60


class Watching:
    """The command, and its lines as they come."""

    def __init__(self, *arguments: object) -> None:
        command = [sys.executable, "-u", "-m", "edgemm", "index", *map(str, arguments), "--watch"]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        self.process = subprocess.Popen(command, text=True, **pipes)  # type: ignore[call-overload]
        self._lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self.process.stdout:
            self._lines.put(line.rstrip("\n"))

    def until(self, words: str) -> str:
        while words not in (line := self._lines.get(timeout=_SECONDS)):
            pass
        return line

    def end(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(timeout=_SECONDS)


@pytest.fixture
def watching(tmp_path: Path) -> Iterator[Watching]:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.txt").write_text("an ibex")
    found = Watching(tmp_path / "docs")
    yield found
    found.process.kill()
    found.process.wait()


def found(cli: Cli, query: str) -> list[str]:
    return [Path(hit["path"]).name for hit in json.loads(cli("search", query, "--json").stdout)]


def test_what_changes_is_found_and_ctrl_c_is_the_normal_end(watching: Watching, tmp_path: Path, cli: Cli) -> None:
    assert watching.until("in the index") == "1 file in the index: 1 new"
    watching.until("watching")
    (tmp_path / "docs" / "b.txt").write_text("a quokka")
    watching.until("1 new")
    assert found(cli, "quokka") == ["b.txt"]
    (tmp_path / "docs" / "b.txt").write_text("a wombat")
    watching.until("1 changed")
    assert (found(cli, "quokka"), found(cli, "wombat")) == ([], ["b.txt"])
    (tmp_path / "docs" / "a.txt").unlink()
    watching.until("1 gone")
    assert found(cli, "ibex") == []
    assert watching.end() == 0
    watching.until("no longer watching; what was done is kept")


def test_another_folder_is_indexed_while_one_is_watched(watching: Watching, tmp_path: Path, cli: Cli) -> None:
    watching.until("watching")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "c.txt").write_text("a quoll")
    done = cli("index", tmp_path / "other")
    assert done.returncode == 0, done.stderr
    (tmp_path / "docs" / "d.txt").write_text("a dingo")
    watching.until("1 new")
    assert sorted(found(cli, "quoll dingo")) == ["c.txt", "d.txt"]


def test_a_folder_that_goes_and_comes_back_is_kept_meanwhile(watching: Watching, tmp_path: Path, cli: Cli) -> None:
    watching.until("watching")
    (tmp_path / "docs").rename(tmp_path / "away")
    watching.until("is not there now")
    assert found(cli, "ibex") == ["a.txt"]
    (tmp_path / "away").rename(tmp_path / "docs")
    (tmp_path / "docs" / "e.txt").write_text("an emu")
    watching.until("1 new")
    assert sorted(found(cli, "emu ibex")) == ["a.txt", "e.txt"]
