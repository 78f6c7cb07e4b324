"""A folder with every nasty file there is, indexed and searched by the commands: nothing stops them, and each is named.

They run within limits of memory and time, and are watched for sockets.
"""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tiny_pdf
import tiny_words
from test_offline import Watch
from tiny_office import docx, epub, paragraph, pptx, wrapped, xlsx, zipped
from word_bags import is_almighty, picture, write

from edgemm.index import Store
from edgemm.manifest import Inputs

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="most of these files cannot exist there")
MEMORY, SECONDS = 4 << 30, 100
FILLER = "the cat sat on the mat "
_ENTITIES = '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><x>&b;</x>'
_PNG_BOMB = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\1\0\0\0\1\0\0\x08\2\0\0\0" + bytes(20)

# Name -> what is in it, and what is said of it.
REFUSED: dict[str, tuple[bytes, str]] = {
    "empty.txt": (b"", "is empty"),
    "binary.txt": (bytes(range(256)) * 40, "binary"),
    "random.md": (np.random.default_rng(0).bytes(5000), "binary"),
    "locked.pdf": (tiny_pdf.encrypted(), "encrypted: it asks for a password"),
    "scan.pdf": (tiny_pdf.write(["", ""]), "no text on its pages: a scan; run a text recognition (OCR) first"),
    "cut.pdf": (tiny_pdf.write(["text"])[:200], "damaged"),
    "bomb.docx": (zipped({"word/document.xml": b"<a>" + b" " * 50_000_000 + b"</a>"}), "ZIP bomb"),
    "entities.docx": (zipped({"word/document.xml": _ENTITIES}), "declares entities"),
    "deep.docx": (docx("<w:p>" * 50_000 + "</w:p>" * 50_000), "nested too deeply"),
    "many.docx": (zipped({f"{n}": "" for n in range(21_000)}), "files"),
    "secret.docx": (wrapped(), "encrypted"),
    "old.docx": (wrapped()[:500], "before 2007"),
    "cells.xlsx": (xlsx({"A1": "x"} | {f"A{n}": "x" * 30_000 for n in range(2, 1000)}), "ZIP bomb"),
    "cut.xlsx": (xlsx({"A1": "a"})[:-40], "damaged"),
    "cut.pptx": (pptx({1: "one"}, order=[1], notes={})[:300], "damaged"),
    "drm.epub": (epub(locked="o/one.xhtml o/two%20.xhtml"), "DRM"),
    "deep.ipynb": (b"[" * 100_000, "not a notebook"),
    "nothing.eml": (b"\n", "no message"),
    "bomb.png": (_PNG_BOMB, "picture"),
    "cut.png": (b"\x89PNG\r\n\x1a\n" + bytes(50), "no picture"),
    "text.jpg": (b"a text that is called a picture", "no picture"),
    "archive.txt": (zipped({"x": "y"}), "ZIP archive"),
}

# Name -> what is in it. Each holds a word of its own, made from its name; see `word`.
GOOD: dict[str, Callable[[str], bytes]] = {
    "plain.txt": str.encode,
    "crlf.txt": lambda word: f"one\r\ntwo\r{word}\r\n".encode(),
    "sixteen.txt": lambda word: f"{word} in two bytes".encode("utf-16"),
    "latin.txt": lambda word: f"{word} d\xe9j\xe0 vu".encode("latin-1"),
    "escapes.txt": lambda word: (f"\x1b[31m {word}\x1b]0;title\x07 \x9b2J" + FILLER * 20).encode(),
    "marks.txt": lambda word: (f"\x02{word}\x03 [red]{word}[/red] \u202e{word}" + FILLER * 20).encode(),
    "line.txt": lambda word: (f"first{word} " + FILLER * 60_000 + f" last{word}").encode(),
    "unbroken.log": lambda word: (f"first{word} " + "x" * 2_000_000 + f" last{word}").encode(),
    "lines.log": lambda word: (f"first{word}\n" + "\n" * 500_000 + f"last{word}").encode(),
    "headings.md": lambda word: (f"# first{word}\n" + "# a heading\n\ntext\n" * 1500 + f"\n# last{word}\n").encode(),
    "deep.html": lambda word: ("<div>" * 20_000 + f"<p>{word}</p>").encode(),
    "open.html": lambda word: f"<p>{word} <script>alert(1)</script><img src=http://x.invalid/a.png><b".encode(),
    "page.txt": lambda word: tiny_pdf.write([f"first{word}", *["page"] * 50, f"last{word}"]),
    "paper.pdf": lambda word: tiny_pdf.write([word]),
    "text.pdf": lambda word: f"a text that is called a PDF file: {word}".encode(),
    "table.xls": lambda word: f"<html><table><tr><td>{word}</td></tr></table></html>".encode(),
    "letter.docx": lambda word: docx(paragraph(f"first{word}"), *[paragraph("x")] * 500, paragraph(f"last{word}")),
    "costs.xlsx": lambda word: xlsx(
        {"A1": f"first{word}"} | {f"A{n}": "x" for n in range(2, 999)} | {"B999": f"last{word}"}
    ),
    "talk.pptx": lambda word: pptx({1: word}, order=[1], notes={}),
    "mail.eml": lambda word: f"Subject: x\nContent-Type: text/plain; charset=no-such\n\n{word}".encode(),
    "wide.csv": lambda word: (",".join(f"c{n}" for n in range(3000)) + f"\n{word}," + "1," * 2998 + "2\n").encode(),
    "rows.jsonl": lambda word: b'{"a": 1}\n' * 3000 + b"{broken\n" + json.dumps({"text": word}).encode(),
    "bad.json": lambda word: f'{{"a": "{word}"'.encode(),
    "code.py": lambda word: f"def {word}():\n    pass\n".encode(),
    "name\nwith\nlines.txt": str.encode,
    "\x1b[2J\x1b]8;;http:x.txt": str.encode,
    "bad\udcff\udcfename.txt": str.encode,
    "--rebuild.txt": str.encode,
    "[bold]markup[/bold].txt": str.encode,
    "n" * 251 + ".txt": str.encode,
    "\u202etxt.exe.txt": str.encode,
}

OTHERS = {"huge.txt", "future.txt", "past.txt", "rules/kept.txt", "junk.jpg"}


def word(name: str) -> str:
    """A word of letters alone."""
    return "qz" + "".join(chr(ord("a") + ord(letter) % 26) for letter in name[:12]) + f"{sorted(GOOD).index(name)}zq"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write(tmp_path_factory.mktemp("nasty") / "docs", {name: data for name, (data, _) in REFUSED.items()})
    write(root, {name: make(word(name)) for name, make in GOOD.items()})
    with open(root / "huge.txt", "wb") as file:
        file.truncate(2 << 30)
    os.utime(root / "huge.txt", (1_600_000_000, 1_600_000_000))
    os.mkfifo(root / "pipe.txt")
    (root / "endless.txt").symlink_to("/dev/zero")
    (root / "loop").symlink_to(root)
    (root / "circle.txt").symlink_to(root / "circle.txt")
    (root / "nowhere.txt").symlink_to(root / "gone")
    deep = root
    for _ in range(120):
        deep = deep / "d"
    write(deep, {"buried.txt": "too deep"})
    write(root / "rules", {".gitignore": b"a/**/" * 500 + b"b\n[\n!\n\\\n" + bytes(range(256)), "kept.txt": "qzrules"})
    for name, when in (("future.txt", 7_000_000_000), ("past.txt", -5_000_000_000)):
        write(root, {name: f"qz{name[:4]}time"})
        os.utime(root / name, (when, when))
    picture(root / "junk.jpg", "red", taken="\x1b[31m9999:99:99 99:99:99")
    return root


class Commands:
    """`edgemm` within limits, in a store of its own, under a watch for sockets."""

    def __init__(self, home: Path, watch: Watch) -> None:
        self.env = os.environ | {"EDGEMM_HOME": str(home)} | watch.env
        self.watch = watch

    def __call__(self, *arguments: object) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "edgemm", *map(str, arguments)],
            env=self.env,
            preexec_fn=_limited,
            capture_output=True,
            encoding="utf-8",
            errors="strict",
            timeout=SECONDS,
        )

    def json(self, *arguments: object) -> object:
        done = self(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


def _limited() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Commands:
    hook = tmp_path_factory.mktemp("hook")
    home = tmp_path_factory.mktemp("store") / "models"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEMM_HOME", str(home))
        graph = tiny_words.looked_up(tiny_words.table(cat=(1, 0, 0), dog=(0, 1, 0), the=(0.1, 0.1, 0.1)), pooled=True)
        tiny_words.write_package("words", "embed", {"model.onnx": graph}, inputs=Inputs(256, dimensions=3))
    return Commands(home, Watch(hook))


@pytest.fixture(scope="module")
def first(commands: Commands, folder: Path) -> "tuple[subprocess.CompletedProcess[str], float]":
    started = time.monotonic()
    return commands("index", folder, "-m", "words"), time.monotonic() - started


@pytest.fixture(scope="module")
def store(commands: Commands, first: object) -> Store:
    return Store(Path(commands.env["EDGEMM_HOME"]) / ".data" / "index.sqlite")


def test_nothing_stops_the_command(first: "tuple[subprocess.CompletedProcess[str], float]", commands: Commands) -> None:
    done, seconds = first
    print(f"the folder of nasty files: {seconds:.1f} s")
    assert done.returncode == 0, done.stderr
    assert "files in the index: " in done.stdout
    assert "Traceback" not in done.stderr
    assert commands.watch.processes >= 2, "the children that read are watched too"
    assert not commands.watch.log.exists(), commands.watch.log.read_text()


def test_the_index_is_intact_and_no_second_run_reads_anything(commands: Commands, first: object) -> None:
    assert commands("index", "verify").stdout == "the index is intact\n"
    report = commands.json("index")
    assert isinstance(report, dict)
    assert (report["added"], report["changed"], report["removed"], report["embedded"]) == (0, 0, 0, 0)
    assert report["unchanged"] == report["files"] == len(REFUSED) + len(GOOD) + len(OTHERS)
    assert report["skipped"] == {
        "symbolic link": 4,
        "pipe, device or socket": 1,
        "below 100 other folders": 1,
    }


def test_each_refusal_is_named_with_its_reason(commands: Commands, first: object) -> None:
    status = commands.json("index", "status")
    assert isinstance(status, dict)
    [root] = status["roots"]
    refused = dict(root["refused"])
    for name, (_, why) in REFUSED.items():
        assert why in refused.pop(name)
    assert refused.pop("huge.txt") == "has 2,147 MB, at most 67 MB are read"
    assert refused == {}
    done = commands("index", "status")
    for name, (_, why) in REFUSED.items():
        assert re.search(f"{re.escape(name)}: .*{re.escape(why)}", done.stderr)


def test_the_most_frequent_reasons_are_told_in_a_few_lines(
    first: "tuple[subprocess.CompletedProcess[str], float]",
) -> None:
    lines = first[0].stderr.splitlines()
    assert "4 not read: symbolic link" in lines
    assert len([line for line in lines if " not read: " in line]) == 10
    assert re.fullmatch(r"and \d+ other reasons: see `edgemm index status`", lines[-1])


@pytest.mark.parametrize("name", GOOD, ids=lambda name: ascii(name)[:30])
def test_every_good_file_is_found_by_its_words(name: str, store: Store) -> None:
    data = GOOD[name](word(name))
    both_ends = f"first{word(name)}".encode() in data or name in ("letter.docx", "costs.xlsx", "page.txt")
    for query in (f"first{word(name)}", f"last{word(name)}") if both_ends else (word(name),):
        assert {chunk.name for chunk in store.chunks(id for id, _ in store.words(query))} == {name}


def test_files_of_any_time_and_beside_any_rules_are_found(store: Store) -> None:
    for query, name in (("qzfututime", "future.txt"), ("qzpasttime", "past.txt"), ("qzrules", "rules/kept.txt")):
        assert [chunk.name for chunk in store.chunks(id for id, _ in store.words(query))] == [name]
    [chunk] = store.chunks(id for id, _ in store.words("junk"))
    assert (chunk.kind, chunk.taken) == ("image", "")


def test_no_file_is_left_out(store: Store) -> None:
    assert set(store.known(store.roots()[0].id)) == {*REFUSED, *GOOD, *OTHERS}


def test_everything_has_a_vector(store: Store) -> None:
    [model] = store.status().models
    assert (model.model.name, model.pending) == ("words", 0)
    assert model.vectors > 50


def raw(text: str) -> set[str]:
    return {letter for letter in text if (ord(letter) < 32 and letter not in "\n\t") or 0x7F <= ord(letter) < 0xA0}


def test_no_name_and_no_text_reaches_the_terminal_raw(commands: Commands, first: object) -> None:
    for arguments in (("index", "status"), ("search", "the", "-n", 200), ("search", "-n", 200, "txt title more")):
        done = commands(*arguments)
        assert done.returncode == 0, done.stderr
        assert not raw(done.stdout + done.stderr)
        assert "\u202e" not in done.stdout + done.stderr


@pytest.mark.parametrize("name", ["name\nwith\nlines.txt", "\x1b[2J\x1b]8;;http:x.txt", "bad\udcff\udcfename.txt"])
def test_a_hit_is_one_line_whatever_the_file_is_called(
    name: str, commands: Commands, folder: Path, first: object
) -> None:
    done = commands("search", word(name), "-n", 2)  # the model knows no such word, and ranks as it likes
    [line] = [line for line in done.stdout.splitlines() if word(name) in line]
    path, where, score, snippet = line.split("\t")
    assert path == str(folder / name).translate({10: "\u240a", 27: "\u241b", 0xDCFF: "?", 0xDCFE: "?"})
    assert (where, float(score) > 0, word(name) in snippet) == ("line 1", True, True)
    hits = commands.json("search", word(name), "-n", 2)
    assert isinstance(hits, list)
    assert str(folder / name) in {hit["path"] for hit in hits}


@pytest.mark.skipif(is_almighty(), reason="this user may read everything")
def test_what_may_not_be_read_is_said_and_read_when_it_may(commands: Commands, tmp_path: Path) -> None:
    root = write(tmp_path / "docs", {"a.txt": "qzdenied", "sub/b.txt": "qzhidden"})
    (root / "a.txt").chmod(0)
    (root / "sub").chmod(0)
    try:
        err = commands("index", root).stderr
        assert "permission denied" in err
        assert "cannot be listed" in err
    finally:
        (root / "a.txt").chmod(0o600)
        (root / "sub").chmod(0o700)
    assert "1 new, 1 changed" in commands("index", root).stdout
