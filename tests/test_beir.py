"""Folders in the layout of BEIR: what is read, and that what is damaged is named with file and line."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from edgemm.errors import BadFile, EdgemmError, UsageError
from edgemm.evaluation import Text, beir

CORPUS = [{"_id": "d1", "title": "Cats", "text": "the cat sat"}, {"_id": "d2", "text": "a dog"}]
ASKED = [{"_id": "q1", "text": "cat"}, {"_id": "q2", "text": "dog"}, {"_id": "q3", "text": "never judged"}]
QRELS = "query-id\tcorpus-id\tscore\nq1\td1\t2\nq2\td2\t1\n"


def written(folder: Path, corpus: list[Any] | str = "", queries: list[Any] | str = "", qrels: str = QRELS) -> Path:
    (folder / "qrels").mkdir(parents=True)
    (folder / "corpus.jsonl").write_text(lines(corpus or CORPUS), "utf-8")
    (folder / "queries.jsonl").write_text(lines(queries or ASKED), "utf-8")
    (folder / "qrels" / "test.tsv").write_text(qrels, "utf-8")
    return folder


def lines(values: list[Any] | str) -> str:
    return values if isinstance(values, str) else "".join(json.dumps(value) + "\n" for value in values)


def test_corpus_queries_and_judgements_are_read(tmp_path: Path) -> None:
    found = beir.read(written(tmp_path))
    assert list(found.passages) == [Text("d1", "the cat sat", "Cats"), Text("d2", "a dog")]
    assert found.queries == (Text("q1", "cat"), Text("q2", "dog"))
    assert found.judged == {"q1": {"d1": 2.0}, "q2": {"d2": 1.0}}
    assert found.notes == ()


def test_only_a_folder_with_a_corpus_is_of_that_layout(tmp_path: Path) -> None:
    assert not beir.is_beir(tmp_path)
    assert not beir.is_beir(tmp_path / "nowhere")
    assert beir.is_beir(written(tmp_path))


@pytest.mark.parametrize(
    "qrels", [QRELS.split("\n", 1)[1], QRELS.replace("\n", "\r\n"), QRELS + "\n\n", "\ufeff" + QRELS]
)
def test_a_header_blank_lines_and_line_ends_do_not_matter(tmp_path: Path, qrels: str) -> None:
    folder = written(tmp_path)
    (folder / "qrels" / "test.tsv").write_bytes(qrels.encode())
    assert beir.read(folder).judged == {"q1": {"d1": 2.0}, "q2": {"d2": 1.0}}


def test_ids_that_are_numbers_are_texts(tmp_path: Path) -> None:
    folder = written(tmp_path, [{"_id": 7, "text": "cat"}], [{"_id": 1, "text": "cat"}], "1\t7\t1\n")
    found = beir.read(folder)
    assert [text.key for text in found.passages] == ["7"]
    assert found.judged == {"1": {"7": 1.0}}


def test_another_split_is_named_or_those_that_are_there(tmp_path: Path) -> None:
    folder = written(tmp_path)
    (folder / "qrels" / "dev.tsv").write_text("q3\td1\t1\n")
    assert [query.key for query in beir.read(folder, "dev").queries] == ["q3"]
    for split in ("train", "../qrels/test", ""):
        with pytest.raises(BadFile, match=r"no such file — choose with --split: dev, test"):
            beir.read(folder, split)


def test_strangers_and_queries_without_an_answer_are_counted(tmp_path: Path) -> None:
    found = beir.read(written(tmp_path, qrels=QRELS + "q9\td1\t1\nq8\td1\t1\nq3\td1\t0\n"))
    assert [query.key for query in found.queries] == ["q1", "q2"]
    assert found.notes == (
        "test.tsv: 2 judged queries are not in queries.jsonl, and are left out",
        "test.tsv: 1 queries have no relevant passage, and are left out",
    )


def test_some_queries_are_drawn_always_the_same_ones(tmp_path: Path) -> None:
    queries = [{"_id": f"q{i}", "text": "cat"} for i in range(50)]
    qrels = "".join(f"q{i}\td1\t1\n" for i in range(50))
    found = beir.read(written(tmp_path / "a", queries=queries, qrels=qrels), queries=10)
    again = beir.read(written(tmp_path / "b", queries=queries[::-1], qrels=qrels), queries=10)
    assert len(found.queries) == len(found.judged) == 10
    assert found.queries == again.queries
    assert [query.key for query in found.queries] != [f"q{i}" for i in range(10)]
    assert found.notes == ("10 of 50 queries, drawn by lot: the figures are not those of all",)


@pytest.mark.parametrize("qrels", ["q7\td1\t1\n", "query-id\tcorpus-id\tscore\n", ""])
def test_judgements_of_other_queries_are_refused(tmp_path: Path, qrels: str) -> None:
    with pytest.raises(UsageError, match="judges no query"):
        beir.read(written(tmp_path, qrels=qrels))


def test_judgements_without_a_relevant_passage_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no relevant passage for any query"):
        beir.read(written(tmp_path, qrels="q1\td1\t0\nq2\td2\t-1\n"))


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[1]", "is no JSON object"),
        ('{"text": "a"}', "has no _id"),
        ('{"_id": null, "text": "a"}', "has no _id"),
        ('{"_id": "x", "text": 3}', "has a text or title that is no text"),
        ('{"_id": "x", "text": "a", "title": ["b"]}', "has a text or title that is no text"),
    ],
)
def test_a_damaged_line_is_named(tmp_path: Path, bad: str, why: str) -> None:
    corpus = written(tmp_path / "a", lines(CORPUS) + bad + "\n")
    with pytest.raises(BadFile, match=re.escape("corpus.jsonl, line 3: " + why)):
        list(beir.read(corpus).passages)
    queries = written(tmp_path / "b", queries=lines(ASKED) + "\n" + bad + "\n")
    with pytest.raises(BadFile, match=re.escape("queries.jsonl, line 5: " + why)):
        beir.read(queries)


@pytest.mark.parametrize("bad", ["q1\td1", "q1 d1 1", "q1\td1\tyes", "q1\td1\tnan", "q1\t0\td1\t1"])
def test_a_damaged_judgement_is_named(tmp_path: Path, bad: str) -> None:
    with pytest.raises(BadFile, match=r"test\.tsv, line 4: is not query, passage and a number"):
        beir.read(written(tmp_path, qrels=QRELS + bad + "\n"))


def test_bytes_that_are_no_text_and_lines_without_end_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = written(tmp_path)
    (folder / "corpus.jsonl").write_bytes(b'{"_id": "a"}\n\xff\xfe\n')
    with pytest.raises(BadFile, match=r"line 2: is not UTF-8"):
        list(beir.read(folder).passages)
    monkeypatch.setattr(beir, "_MAX_LINE", 60)
    (folder / "corpus.jsonl").write_bytes(b'{"_id": "a"}\n' + b"x" * 100)
    with pytest.raises(BadFile, match=r"line 2: is longer than 60 bytes"):
        list(beir.read(folder).passages)


def test_an_id_that_comes_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match="'d1' of text 3 was there before"):
        list(beir.read(written(tmp_path, [*CORPUS, CORPUS[0]])).passages)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    folder = written(tmp_path)
    (folder / "queries.jsonl").unlink()
    with pytest.raises(EdgemmError, match=r"queries\.jsonl: there is no such file"):
        beir.read(folder)


def test_what_no_database_holds_is_replaced(tmp_path: Path) -> None:
    hostile = [{"_id": "d1", "text": "cat \ud800 \0 end", "title": "\udfff\0"}, CORPUS[1]]
    found = next(iter(beir.read(written(tmp_path, hostile)).passages))
    assert found == Text("d1", "cat ?   end", "? ")
