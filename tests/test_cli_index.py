"""`edgemm index` and `edgemm search` as a user types them: a line for an error, columns for a pipe, JSON, a screen."""

import json
import re
import sqlite3
from contextlib import closing
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import tiny_words
from conftest import ROOT, Cli
from test_cli import one_line
from test_offline import Watch, watch  # noqa: F401 - a fixture
from word_bags import picture, write

from edgemm.cli_index import period
from edgemm.errors import UsageError
from edgemm.manifest import ImageInputs, Inputs, ZeroShot


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


# index


def test_help_says_what_can_be_done(cli: Cli) -> None:
    done = cli("index", "--help")
    for word in ("add", "status", "remove", "verify", "--model", "--pictures", "edgemm index DIR"):
        assert word in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "--explain" in cli("search", "-h").stdout
    assert "index" in cli("--help").stdout


def test_a_folder_is_indexed_and_what_was_done_is_said(docs: Path, cli: Cli) -> None:
    done = cli("index", docs)
    assert (done.returncode, done.stdout) == (0, "4 files in the index: 3 new\n")
    assert done.stderr.splitlines() == [
        "there is no model for vectors, so words alone are indexed: run `edgemm pull all-minilm-l6-v2`",
        "1 not read: is empty",
    ]
    assert cli("index").stdout == "4 files in the index, nothing has changed\n"
    (docs / "notes.txt").unlink()
    write(docs, {"work/code.py": "def other():\n    pass\n", "new.txt": "A stoat."}, age=-5)
    assert cli("index", "add", docs).stdout == "4 files in the index: 1 new, 1 changed, 1 gone\n"


def test_a_report_in_json(docs: Path, cli: Cli) -> None:
    report = json.loads(cli("index", docs, "--json").stdout)
    assert report == {
        "files": 4,
        "added": 3,
        "changed": 0,
        "unchanged": 0,
        "removed": 0,
        "chunks": 4,
        "embedded": 0,
        "tokens": 0,
        "failed": 0,
        "seconds": report["seconds"],
        "refused": {"is empty": 1},
        "skipped": {},
        "missing": [],
    }


def test_a_folder_may_be_the_current_one(docs: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(docs / "work")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    assert cli("index", ".").stdout == "2 files in the index: 2 new\n"
    paths = {row[0] for row in rows(cli("search", "contract").stdout)}
    assert paths == {str(docs / "work" / name) for name in ("contract.md", "code.py")}


def test_calls_that_make_no_sense_are_one_line(docs: Path, cli: Cli) -> None:
    one_line(cli("index"), 2, "there is no folder in the index yet")
    one_line(cli("index", docs / "nowhere"), 3, "there is no such folder")
    one_line(cli("index", docs / "notes.txt"), 3, "is a file")
    one_line(cli("index", "~no-such-user-at-all/x"), 3, "home")
    one_line(cli("index", docs / "a\x1b[2J\nb"), 3, "there is no such folder")
    one_line(cli("index", "remove", docs), 2, "is not in the index")
    one_line(cli("index", "remove"), 2)
    one_line(cli("index", docs, "--no-such-option"), 2)
    one_line(cli("search", "x"), 2, "nothing is indexed yet")
    one_line(cli("search"), 2, "there is no query")
    one_line(cli("search", "  "), 2, "there is no query")
    one_line(cli("index", docs, "-m", "no-such-model"), 2, "no-such-model")


def test_status_is_columns_and_remarks(indexed: Path, cli: Cli) -> None:
    done = cli("index", "status")
    [[folder, files, chunks, pending, refused, size]] = rows(done.stdout)
    assert (folder, files, chunks, pending, refused) == (str(indexed), "4", "4", "0", "1")
    assert re.fullmatch(r"\d+ B", size)
    first, last = done.stderr.splitlines()
    assert first == f"{indexed / 'empty.txt'}: is empty"
    assert last.startswith("the index has ")


def test_status_says_which_folder_is_gone(indexed: Path, cli: Cli) -> None:
    indexed.rename(indexed.with_name("unplugged"))
    assert f"{indexed}: is not there now\n" in cli("index", "status").stderr
    done = cli("index")
    assert done.stderr.splitlines()[-1] == f"{indexed}: is not there now; what the index holds of it is kept"
    assert rows(cli("search", "dog").stdout)[0][0] == str(indexed / "notes.txt")


def test_status_in_json(indexed: Path, cli: Cli) -> None:
    status = json.loads(cli("index", "status", "--json").stdout)
    [root] = status["roots"]
    assert (root["root"]["path"], root["files"], root["refused"]) == (str(indexed), 4, [["empty.txt", "is empty"]])
    assert (status["models"], status["size"] > 0) == ([], True)


def test_a_folder_is_forgotten(indexed: Path, cli: Cli) -> None:
    assert cli("index", "remove", indexed).stdout == f"{indexed}: forgotten\n"
    assert cli("index", "status").stdout == ""
    assert (indexed / "notes.txt").exists()


# A damaged index


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    for at in range(4096, len(data), 4096):
        data[at : at + 64] = b"\xff" * 64
    path.write_bytes(bytes(data))


def test_a_damaged_index_says_so_and_is_made_again_on_request(indexed: Path, cli: Cli, home: Path) -> None:
    assert cli("index", "verify").stdout == "the index is intact\n"
    path = home / ".data" / "index.sqlite"
    with closing(sqlite3.connect(path)) as db:  # its folders stay legible
        db.execute("DELETE FROM chunk")
        db.commit()
    one_line(cli("index", "verify"), 3, str(path), "edgemm index verify --rebuild")
    done = cli("index", "verify", "--rebuild")
    assert (done.returncode, done.stdout) == (0, "4 files in the index: 3 new\n")
    assert "the damaged index is kept as index.sqlite.damaged; its folders are read again" in done.stderr
    assert rows(cli("search", "dog").stdout)[0][0] == str(indexed / "notes.txt")
    assert cli("index", "verify", "--rebuild").stdout == "the index is intact\n"


def test_no_command_ends_in_a_traceback_on_a_wrecked_index(indexed: Path, cli: Cli, home: Path) -> None:
    path = home / ".data" / "index.sqlite"
    damage(path)
    for arguments in (("index",), ("index", "status"), ("search", "contract"), ("index", "verify")):
        one_line(cli(*arguments), 3, "is damaged", "edgemm index verify --rebuild")
    path.write_bytes(b"this is no database at all" * 99)
    one_line(cli("index", "status"), 3, "edgemm index verify --rebuild")
    assert cli("index", "verify", "--rebuild").returncode == 0
    assert cli("index", indexed).stdout == "4 files in the index: 3 new\n"


# search


def test_hits_are_columns_for_a_pipe(indexed: Path, cli: Cli) -> None:
    done = cli("search", "cancel", "contract")
    first, second, _ = rows(done.stdout)
    assert first[0] == str(indexed / "work/contract.md")
    assert first[1] == "lines 3-5"
    assert float(first[2]) > float(second[2]) > 0
    assert first[3] == "## Ending it You may cancel the contract within 14 days."
    assert done.stderr == ""
    explained = rows(cli("search", "cancel contract", "--explain", "-n", 1).stdout)
    assert re.fullmatch(r"1\.0000 from words 1\. \(.*\)", explained[0][3])


def test_nothing_was_found_is_no_error(indexed: Path, cli: Cli) -> None:
    done = cli("search", "xylophone")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "nothing was found\n")
    assert cli("search", "xylophone", "--json").stdout == "[]\n"


def test_hits_in_json(indexed: Path, cli: Cli) -> None:
    [hit] = json.loads(cli("search", "fourteen days", "--json").stdout)
    assert hit == {
        "path": str(indexed / "work/contract.md"),
        "place": {"line": 3, "end_line": 5},
        "heading": ["Contract", "Ending it"],
        "title": "Contract",
        "kind": "markdown",
        "taken": "",
        "text": hit["text"],
        "snippet": "## Ending it You may cancel the contract within 14 days.",
        "score": hit["parts"]["words"]["score"],
        "parts": {"words": {"rank": 1, "score": hit["score"]}},
        "copies": [],
    }
    assert "within 14 days" in hit["text"]
    assert 0 < hit["score"] < 1  # "fourteen" is nowhere


def test_a_search_is_narrowed(indexed: Path, cli: Cli) -> None:
    def found(*options: object) -> set[str]:
        done = cli("search", "contract dog", *options)
        assert done.returncode == 0, done.stderr
        return {Path(row[0]).name for row in rows(done.stdout)}

    assert found() == {"contract.md", "code.py", "notes.txt"}
    assert found("--in", indexed / "work") == {"contract.md", "code.py"}
    assert found("--in", indexed / "notes.txt", "--in", indexed / "work" / "code.py") == {"notes.txt", "code.py"}
    assert found("--type", "code", "--type", "text") == {"code.py", "notes.txt"}
    assert found("--name", "*.md") == {"contract.md"}
    assert found("--until", "2019") == set()
    assert found("--since", "2020-09", "--until", "2020-09-13") == {"contract.md", "code.py", "notes.txt"}
    assert len(found("-n", 1)) == 1
    one_line(cli("search", "x", "--type", "pdff"), 2, "pdff", "pdf")
    one_line(cli("search", "x", "--since", "yesterday"), 2, "yesterday", "2024-05-31")
    one_line(cli("search", "x", "-n", 0), 2)
    one_line(cli("search", "x", "--in", "~no-such-user-at-all"), 3, "home")
    one_line(cli("search", "x", "--rerank", "no-such-model"), 2, "no-such-model")
    one_line(cli("search", "--picture", indexed / "notes.txt"), 2, "the index has no pictures")


@pytest.mark.parametrize(
    ("text", "begin", "end"),
    [
        ("2024", (2024, 1, 1), (2025, 1, 1)),
        ("2024-02", (2024, 2, 1), (2024, 3, 1)),
        ("2024-12", (2024, 12, 1), (2025, 1, 1)),
        ("2024-02-29", (2024, 2, 29), (2024, 3, 1)),
        ("2024-12-31", (2024, 12, 31), (2025, 1, 1)),
    ],
)
def test_a_date_is_a_year_a_month_or_a_day(text: str, begin: tuple[int, ...], end: tuple[int, ...]) -> None:
    assert period(text) == tuple(datetime(*when).timestamp() for when in (begin, end))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text", ["", "x", "2024-13", "2024-02-30", "2024-1-1-1", "-2024", "2024-", "0", "9999", "9" * 30, "2024/05", "1e3"]
)
def test_what_is_no_date_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is no date"):
        period(text)


# Models


@pytest.fixture
def models() -> None:
    """`words` knows "dog" and "cat" as one, `both` knows colours."""
    near = tiny_words.table(dog=(1, 0.1, 0), cat=(1, 0, 0.1), the=(0, 1, 0))
    graph = tiny_words.looked_up(near, pooled=True)
    tiny_words.write_package("words", "embed", {"model.onnx": graph}, inputs=Inputs(64, dimensions=3))
    towers = {
        "text_model.onnx": tiny_words.looked_up(tiny_words.table(red=(1, 0, 0), blue=(0, 0, 1)), pooled=True),
        "vision_model.onnx": tiny_words.colours(np.eye(3)),
    }
    inputs = Inputs(8, dimensions=3, image=ImageInputs(8, 8, resize=(8, 8)))
    tiny_words.write_package("both", "image-text", towers, inputs=inputs, zero_shot=ZeroShot(10, template="{}"))


@pytest.mark.usefixtures("models")
def test_meaning_and_pictures_are_found(docs: Path, cli: Cli, tmp_path: Path) -> None:
    picture(docs / "a.jpg", "blue", taken="2021:07:01 12:00:00")
    picture(docs / "b.jpg", "red")
    done = cli("index", docs, "-m", "words", "--pictures", "both")
    assert re.fullmatch(r"6 files in the index: 5 new\n6 passages embedded \(\d+ tokens, \d+\.\d s\)\n", done.stdout), (
        done.stdout
    )
    hit, *_ = json.loads(cli("search", "cat", "--type", "text", "--json").stdout)
    assert (Path(hit["path"]).name, set(hit["parts"])) == ("notes.txt", {"meaning"})
    hit, *_ = json.loads(cli("search", "blue", "--type", "image", "--json").stdout)
    assert (Path(hit["path"]).name, hit["taken"], set(hit["parts"])) == ("a.jpg", "2021-07-01T12:00:00", {"pictures"})
    example = picture(tmp_path / "example.png", "red", size=30)
    assert Path(rows(cli("search", "--picture", example, "-n", 1).stdout)[0][0]).name == "b.jpg"
    fused = json.loads(cli("search", "blue", "--picture", example, "--json").stdout)
    scores = [round(hit["parts"]["pictures"]["score"], 2) for hit in fused if "pictures" in hit["parts"]]
    assert scores == [pytest.approx(0.71, abs=0.01)] * 2
    assert [Path(row[0]).name for row in rows(cli("search", "blue", "--since", "2021", "--until", "2021").stdout)] == [
        "a.jpg"
    ]
    one_line(cli("search", "--picture", tmp_path / "nowhere.png"), 3, "nowhere.png")
    remarks = cli("index", "status").stderr
    assert "words (text): 4 vectors, 0 pending" in remarks
    assert "both (picture): 2 vectors, 0 pending" in remarks


@pytest.mark.usefixtures("models")
def test_indexing_and_searching_open_no_socket(docs: Path, cli: Cli, watch: Watch) -> None:  # noqa: F811
    picture(docs / "a.png", "blue")
    assert cli("index", docs, "-m", "words", "--pictures", "both", **watch.env).returncode == 0
    for arguments in (
        ("search", "dog"),
        ("search", "--picture", docs / "a.png"),
        ("index", "status"),
        ("index", "verify"),
    ):
        assert cli(*arguments, **watch.env).returncode == 0
    assert watch.processes >= 6
    assert not watch.log.exists(), watch.log.read_text()


@pytest.mark.usefixtures("models")
def test_a_model_that_is_gone_leaves_the_words(docs: Path, cli: Cli) -> None:
    cli("index", docs, "-m", "words")
    cli("rm", "words")
    done = cli("search", "dog")
    assert rows(done.stdout)[0][0] == str(docs / "notes.txt")
    assert done.stderr.startswith("words: ")
    assert done.stderr.endswith("so words alone are searched\n")
