"""Every command but `pull` runs without creating a socket, in its child processes too."""

import os
from pathlib import Path

import pytest
from conftest import Cli

HOOK = """
import os, sys
def watch(event, arguments):
    if event.startswith("socket.") and event != "socket.gethostname":
        with open({log!r}, "a") as file:
            file.write(f"{{event}} {{sys.argv}}\\n")
sys.addaudithook(watch)
with open({started!r}, "a") as file:
    file.write("x")
"""


class Watch:
    """Environment under which every Python process logs the sockets that it creates."""

    def __init__(self, folder: Path) -> None:
        self.log, self.started = folder / "sockets", folder / "started"
        folder.joinpath("sitecustomize.py").write_text(HOOK.format(log=str(self.log), started=str(self.started)))
        self.env = {"PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])}

    @property
    def processes(self) -> int:
        return len(self.started.read_text()) if self.started.exists() else 0


@pytest.fixture
def watch(tmp_path: Path) -> Watch:
    folder = tmp_path / "hook"
    folder.mkdir()
    return Watch(folder)


@pytest.mark.parametrize(
    "arguments", [["--help"], ["list", "--all"], ["doctor", "--json"], ["verify"], ["run", "hi"]], ids=" ".join
)
def test_commands_open_no_socket(arguments: list[str], watch: Watch, cli: Cli) -> None:
    cli(*arguments, **watch.env)
    assert watch.processes >= 1
    assert not watch.log.exists(), watch.log.read_text()


@pytest.mark.starter
def test_running_and_embedding_open_no_socket(watch: Watch, cli: Cli, starter_store: Path) -> None:
    env = watch.env | {"EDGEMM_HOME": str(starter_store)}
    done = cli("run", "hi", "--max-tokens", 3, **env)
    assert done.returncode == 0, done.stderr
    assert watch.processes >= 2, "the model's child process is watched too"
    assert not watch.log.exists(), watch.log.read_text()


def test_the_watch_sees_a_socket(watch: Watch) -> None:
    import subprocess
    import sys

    subprocess.run([sys.executable, "-c", "import socket; socket.socket()"], env=os.environ | watch.env, check=True)
    assert watch.log.exists()


@pytest.mark.parametrize("name", ["starter", "all-minilm-l6-v2", "owner/name"])
def test_offline_refuses_to_pull(name: str, watch: Watch, cli: Cli) -> None:
    done = cli("pull", name, EDGEMM_OFFLINE="1", **watch.env)
    assert done.returncode == 4
    assert "EDGEMM_OFFLINE" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not watch.log.exists()
