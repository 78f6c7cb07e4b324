"""`edgemm eval retrieval` as a user types it, on models of whole words made by hand."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tiny_words
from conftest import Cli
from test_beir import written
from test_cli import one_line
from test_known_items import TEXT, function
from tiny_words import VOCABULARY

from edgemm.manifest import Inputs

EMBED = {"inputs": Inputs(16, dimensions=len(VOCABULARY))}
KINDS = ["float32", "int8", "hybrid"]


def install(name: str, task: str = "embed", table: np.ndarray | None = None, **facts: object) -> str:
    """A model that counts words: each has a dimension of its own."""
    table = np.eye(len(VOCABULARY)) if table is None else table
    tiny_words.write_package(name, task, {"model.onnx": tiny_words.looked_up(table, pooled=True)}, **(facts or EMBED))
    return name


@pytest.fixture
def words() -> str:
    return install("words")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return written(tmp_path / "beir")


def rows(output: str) -> list[list[str]]:
    return [line.split("\t") for line in output.splitlines()]


def test_models_are_compared_side_by_side(cli: Cli, folder: Path, words: str) -> None:
    blind = install("blind", table=np.zeros((len(VOCABULARY), len(VOCABULARY))))
    done = cli("eval", "retrieval", folder, "-m", words, "-m", blind, "-m", words)
    assert done.returncode == 0, done.stderr
    found = rows(done.stdout)
    assert [row[:2] for row in found] == [["", "BM25"], *([m, kind] for m in (words, blind) for kind in KINDS)]
    assert found[0][2:] == found[1][2:] == ["1.0000", "1.0000", "1.0000", "1.0000", "100.0 %"]
    assert float(found[4][2]) < 1
    assert "2 queries, 2 passages; KEPT: nDCG@10 relative to float32 of words" in done.stderr


def test_json_holds_every_figure(cli: Cli, folder: Path, words: str) -> None:
    done = cli("eval", "retrieval", folder, "-m", words, "--json")
    found = json.loads(done.stdout)
    assert {key: found[key] for key in ("passages", "queries", "reference")} == {
        "passages": 2,
        "queries": 2,
        "reference": {"model": "words", "ranking": "float32"},
    }
    assert [row["ranking"] for row in found["rows"]] == ["BM25", *KINDS]
    assert set(found["rows"][0]) == {
        *("model", "ranking", "ndcg10", "recall10", "recall100", "mrr10", "kept", "margin")
    }


def test_a_folder_without_judgements_has_known_items(cli: Cli, tmp_path: Path, words: str) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.py").write_text(function("the_cat", "the good cat sat"))
    (tmp_path / "docs" / "b.md").write_text(f"# Brewing green leaves\n\n{TEXT}\n")
    done = cli("eval", "retrieval", tmp_path / "docs", "-m", words, "--queries", "1", "--passages", "5")
    assert done.returncode == 0, done.stderr
    assert "2 files read\n1 known items among 2 passages\n" in done.stderr
    assert len(rows(done.stdout)) == 4


def test_a_reranker_has_the_last_word(cli: Cli, tmp_path: Path, words: str) -> None:
    corpus = [{"_id": "a", "text": "good dog"}, {"_id": "b", "text": "bad dog"}]
    folder = written(tmp_path / "beir", corpus, [{"_id": "q", "text": "a dog"}], "q\tb\t1\n")
    table = tiny_words.table(bad=(2.0,), good=(-2.0,))
    install("ranks", "rerank", table, inputs=Inputs(16), scores="sigmoid")
    done = cli("eval", "retrieval", folder, "-m", words, "--rerank", "ranks")
    assert done.returncode == 0, done.stderr
    found = {row[1]: row for row in rows(done.stdout)}
    assert found["hybrid"][5] == "0.5000"
    assert found["reranked"][5] == "1.0000"


def test_the_store_has_a_say_in_what_is_compared(cli: Cli, folder: Path) -> None:
    one_line(cli("eval", "retrieval", folder), 2, "all-minilm-l6-v2", "edgemm pull")
    install("all-minilm-l6-v2-onnx-int8")
    assert rows(cli("eval", "retrieval", folder).stdout)[1][0] == "all-minilm-l6-v2-onnx-int8"
    install("all-minilm-l6-v2-onnx-fp32")
    assert rows(cli("eval", "retrieval", folder).stdout)[1][0] == "all-minilm-l6-v2-onnx-fp32"


def test_mistakes_cost_one_line(cli: Cli, folder: Path, tmp_path: Path, words: str) -> None:
    install("ranks", "rerank", tiny_words.table(good=(1.0,)), inputs=Inputs(16), scores="sigmoid")
    empty = tmp_path / "empty"
    empty.mkdir()
    for arguments, code, said in (
        ((folder, "-m", "ranks"), 2, "ranks: is for rerank, not for embed"),
        ((folder, "-m", words, "--rerank", words), 2, "words: is for embed, not for rerank"),
        ((folder, "-m", "word"), 2, "the nearest names are words"),
        ((folder, "-m", words, "--passages", "5"), 2, "--passages"),
        ((folder, "-m", words, "--split", "dev"), 3, "choose with --split: test"),
        ((empty, "-m", words), 2, "holds no docstring and no heading"),
        ((empty, "-m", words, "--split", "dev"), 2, "nothing is judged"),
        ((tmp_path / "gone", "-m", words), 2, "there is no such folder"),
    ):
        one_line(cli("eval", "retrieval", *arguments), code, said)
    with open(folder / "corpus.jsonl", "a") as file:
        file.write("{broken\n")
    one_line(cli("eval", "retrieval", folder, "-m", words), 3, "corpus.jsonl, line 3: is not JSON")


def test_nothing_that_a_terminal_obeys_gets_out(cli: Cli, tmp_path: Path, words: str) -> None:
    folder = tmp_path / "red\x1b[31m"
    folder.mkdir()
    done = cli("eval", "retrieval", folder, "-m", words)
    assert "\x1b" not in done.stderr
    assert "red␛[31m" in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C is no signal that can be sent to one process there")
def test_ctrl_c_leaves_nothing_behind(tmp_path: Path, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    corpus = [{"_id": str(i), "text": f"the good cat sat on mat {i}"} for i in range(60_000)]
    folder = written(tmp_path / "large", corpus, [{"_id": "q", "text": "cat 7"}], "q\t7\t1\n")
    command = [sys.executable, "-m", "edgemm", "eval", "retrieval", str(folder), "-m", words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        end = time.monotonic() + 60
        while not list(scratch.glob("edgemm-eval-*/index.sqlite")) and time.monotonic() < end:
            time.sleep(0.02)
        time.sleep(0.3)
        child.send_signal(signal.SIGINT)
        output, error = child.communicate(timeout=60)
    assert (child.returncode, output) == (130, "")
    assert error == "edgemm: edgemm: interrupted — run the command again to go on\n"
    assert list(scratch.iterdir()) == []


@pytest.mark.starter
def test_the_quantized_starter_keeps_what_it_finds(starter_store: Path, cli: Cli) -> None:
    """The test files of this project as known items: INT8 vectors against the floats of the same package."""
    names = sorted(path.name for path in starter_store.glob("all-minilm-l6-v2-onnx-*"))
    if not names:
        pytest.skip("the starter is not converted")
    folder = Path(__file__).parent
    done = cli("eval", "retrieval", folder, "-m", names[0], "--json", EDGEMM_HOME=str(starter_store), timeout=300)
    found = {row["ranking"]: row for row in json.loads(done.stdout)["rows"]}
    assert found["int8"]["kept"] > 0.99
    assert found["hybrid"]["ndcg10"] > found["float32"]["ndcg10"]
