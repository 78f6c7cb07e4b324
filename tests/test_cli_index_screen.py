"""What `edgemm search` draws on a screen: links that are ours, marks, 80 columns; and no name of a file draws there."""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest
from conftest import ROOT, Cli
from test_ingest_hostile import raw
from word_bags import write

# What a terminal obeys: OSC, such as a link, and CSI, such as a colour.
_OBEYED = re.compile(rb"\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b\[[0-?]*[ -/]*[@-~]")
posix = pytest.mark.skipif(sys.platform == "win32", reason="such names, and terminals, cannot exist there")


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    return write(
        tmp_path / "docs",
        {
            "work/contract.md": "# Contract\n\n## Ending it\n\nYou may cancel the contract within 14 days.\n",
            "work/code.py": "def cancel(contract):\n    return None\n",
            "notes.txt": "The dog sat on the mat.",
            "empty.txt": "",
        },
    )


@pytest.fixture
def indexed(docs: Path, cli: Cli) -> Path:
    done = cli("index", docs)
    assert done.returncode == 0, done.stderr
    return docs


def rows(text: str) -> list[list[str]]:
    return [line.split("\t") for line in text.splitlines()]


@pytest.fixture
def screen(home: Path) -> Callable[..., bytes]:
    """What a command draws on a terminal of 80 columns."""
    from pty_driver import Program

    def draw(*arguments: object, **env: str) -> bytes:
        program = Program([sys.executable, "-m", "edgemm", *map(str, arguments)], (80, 24), **env)
        while program.read(5):
            pass
        return program.seen

    return draw


def shown(data: bytes) -> list[str]:
    """The lines as they are read: without colours and links."""
    return _OBEYED.sub(b"", data).decode().replace("\r\n", "\n").split("\n")


@posix
def test_hits_on_a_screen_have_links_marks_and_80_columns(indexed: Path, screen: Callable[..., bytes]) -> None:
    write(indexed, {"deep/" * 12 + "a long name of a file.txt": "contract " * 50 + "cancel " * 30})
    screen("index", indexed)
    data = screen("search", "cancel contract", "--explain")
    lines = shown(data)
    assert max(map(len, lines)) <= 80
    [head] = [line for line in lines if line.startswith("1 ")]
    assert "work/contract.md" in "".join(lines)
    assert "lines 3-5" in "".join(lines)
    assert "Contract > Ending it" in "".join(lines)
    assert head
    assert b"\x1b[1;33mcancel" in data
    links = re.findall(rb"\x1b\]8;[^;]*;([^\x1b\x07]*)", data)
    assert f"file://{quote(str(indexed / 'work/contract.md'))}".encode() in links
    assert all(link == b"" or link.startswith(b"file:///") for link in links)


@posix
def test_without_colour_there_is_none_and_no_link(indexed: Path, screen: Callable[..., bytes]) -> None:
    data = screen("search", "cancel contract", NO_COLOR="1")
    assert b"\x1b]8" not in data
    assert not re.search(rb"\x1b\[[0-9;]*3[0-7]", data)
    assert "cancel the contract within 14 days." in "\n".join(shown(data))


@posix
def test_no_file_name_draws_on_the_screen(tmp_path: Path, screen: Callable[..., bytes], cli: Cli) -> None:
    names = [
        "line\nfeed.txt",
        "\x1b[2J\x1b]8;;http://x.invalid\x07click\x1b]8;;\x07.txt",
        "\x9b2J.txt",
        "[link=http:x.invalid]a[/link].txt",
        "bad\udcff.txt",
        "\u202etxt.exe.txt",
    ]
    folder = write(tmp_path / "ro\not", {f"{n}{name}".replace("/", "-"): f"wombat {n}" for n, name in enumerate(names)})
    indexed = screen("index", folder)
    data = screen("search", "wombat") + screen("index", "status") + indexed
    lines = shown(data)
    text = "\n".join(lines)
    assert raw(text) <= {"\r"}  # of the bar
    assert "\u202e" not in text
    for link in re.findall(rb"\x1b\]8;[^;]*;([^\x1b\x07]*)", data):
        assert link == b"" or link.startswith(b"file:///")
    assert b"\x1b[2J" not in data
    assert "[link=http" in text
    for number in range(6):
        assert len([line for line in lines if line.startswith(f"{number + 1} ")]) == 1, "a name adds no line"
    for row in rows(cli("search", "wombat").stdout):
        assert len(row) == 4


def test_blanks_in_a_name_stay_as_they_are(tmp_path: Path, cli: Cli) -> None:
    """macOS writes a narrow blank, U+202F, into the names of its screenshots."""
    names = ["two  blanks.txt", "Shot at 3.04\u202fPM.txt", "\u3000wide.txt"]
    folder = write(tmp_path / "docs", dict.fromkeys(names, "wombat"))
    cli("index", folder)
    hits = json.loads(cli("search", "wombat", "--json").stdout)
    assert {hits[0]["path"], *hits[0]["copies"]} == {str(folder / name) for name in names}
    path = cli("search", "wombat").stdout.split("\t")[0]
    assert Path(path).is_file()


@posix
def test_a_search_works_where_the_current_folder_is_gone(
    indexed: Path, tmp_path: Path, screen: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert "work/contract.md" in "".join(shown(screen("search", "cancel contract")))
