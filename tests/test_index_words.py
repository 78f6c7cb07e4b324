"""Searching by words: ranking, stop-words, scripts without spaces, queries that mean harm, masks."""

import random
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from small_index import facts, library, passages, texts_of

from edgemm.index import Passage, Scope, Store, keywords
from edgemm.words import phrases, spaced, terms, unjoined


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "index.sqlite") as opened:
        yield opened


def put(index: Store, *texts: str) -> int:
    """One file for each."""
    root = index.add_root(Path("/notes")).id
    for number, text in enumerate(texts):
        index.put(root, facts(f"{number}"), passages(text))
    return root


def test_a_question_finds_what_holds_its_rarer_words(index: Store) -> None:
    put(index, "the cat sat on the mat", "the KV cache keeps keys", "the sea", "a cache of keys and of values")
    assert texts_of(index, index.words("Where does the cache keep its keys?"))[:2] == [
        "the KV cache keeps keys",
        "a cache of keys and of values",
    ]
    assert texts_of(index, index.words("CAT")) == ["the cat sat on the mat"]
    scores = [score for _, score in index.words("cache keys values")]
    assert scores == sorted(scores, reverse=True)


def test_names_titles_and_headings_are_found(index: Store) -> None:
    root = index.add_root(Path("/notes")).id
    index.put(root, facts("taxes_2024/letter.txt", title="Einkommen"), [Passage("text", ("Rückzahlung",))])
    for query in ("taxes", "2024", "letter", "einkommen", "ruckzahlung"):
        assert len(index.words(query)) == 1, query


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("検索", True),
        ("検索エンジン", True),
        ("全文検索エンジンの速さ", True),  # it shares most pairs of letters
        ("犬", False),
        ("เอกสาร", True),
        ("검색", True),
        ("naive", True),
        ("ΤΑΧΎΣ", True),
    ],
)
def test_any_script_is_found(index: Store, query: str, found: bool) -> None:
    put(index, "日本語の検索エンジンを作る。 ค้นหาเอกสาร 문서검색 naïve ταχύς", "猫")
    assert bool(index.words(query)) == found
    if found:
        assert index.chunk(index.words(query)[0][0]).text.startswith("日本")


@pytest.mark.parametrize(
    "query", ["converted file", "reads", "read_file", "fs.readFile", "READFILE", "file to read", "FileReading"]
)
def test_names_are_found_by_their_parts_and_words_by_their_stems(index: Store, query: str) -> None:
    put(index, "converting: readFile(path) gives bytes", "nothing of that kind")
    assert texts_of(index, index.words(query)) == ["converting: readFile(path) gives bytes"]
    index.forget(index.roots()[0].id, ["0"])
    assert index.words(query) == []
    assert index.verify() == []


def test_an_unfinished_word_is_found_when_nothing_else_is(index: Store) -> None:
    put(index, "a quokka", "a quoll", "quo")
    assert texts_of(index, index.words("quokk")) == ["a quokka"]
    assert texts_of(index, index.words("quo")) == ["quo"]
    assert index.words("quokk nothing") == []


HOSTILE = [
    "",
    " \t\n",
    '"',
    '""',
    '" OR "',
    "'; DROP TABLE chunk; --",
    "NEAR(a b)",
    "NEAR(",
    "a AND",
    "NOT",
    "text:wombat",
    "words MATCH 'a'",
    "*",
    "wom*",
    "^wombat",
    "-wombat",
    "{a b}:c",
    "(((((",
    "\0wombat\0",
    "\ud800",
    "a" * 100_000,
    "x " * 10_000,
    "漢" * 5000,
    '漢"' * 500,
    "\U0001f469\u200d\U0001f680",
    "%_\\",
    "\x1b[31m",
    "٣ ½ ² ﬁ İ",
]


@pytest.mark.parametrize("query", HOSTILE, ids=range(len(HOSTILE)))
def test_any_text_is_a_query(index: Store, query: str) -> None:
    put(index, "a wombat", query, "漢字")
    started = time.perf_counter()
    assert isinstance(index.words(query), list)
    index.words(query, limit=0)
    index.words(query, np.zeros(0, bool))
    assert time.perf_counter() - started < 2
    assert texts_of(index, index.words("wombat"))[0].strip("\0")
    assert index.verify() == []


def test_random_queries_never_fail(index: Store) -> None:
    library(index, Path("/notes"))
    seeded = random.Random(5)
    letters = "aé漢검ก\"'*^:(){}+-,.\\/% \t\n\0\ud800\U0001f469" + "passage file"
    for _ in range(300):
        index.words("".join(seeded.choices(letters, k=seeded.randrange(30))))


def test_stop_words_are_left_out_where_rarer_ones_are_left(index: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keywords, "_FEW", 1)
    put(index, *(f"the of and number {n}" for n in range(40)), "the wombat")
    assert texts_of(index, index.words("the number of the wombat")) == ["the wombat"]
    assert len(index.words("the of", limit=100)) == 40  # only such words: those that hold all of them
    assert len(index.words("the and wombat", limit=100)) == 1


def test_a_query_of_common_words_that_never_meet_finds_either(index: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keywords, "_FEW", 1)
    put(index, *(f"alpha {n}" for n in range(20)), *(f"beta {n}" for n in range(20)))
    assert len(index.words("alpha beta", limit=100)) == 40


def test_no_more_chunks_are_ranked_than_there_is_time_for(index: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keywords, "_MOST", 30)
    put(index, *(f"alpha {n}" for n in range(20)), *(f"beta {n}" for n in range(25)), *["gamma"] * 5)
    assert len(index.words("beta alpha gamma", limit=100)) == 25  # gamma and alpha
    assert len(index.words("beta", limit=100)) == 25


def test_a_mask_applies_before_the_best_are_chosen(index: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    root = put(index, *["wombat wombat wombat"] * 60, *["a wombat among many other words"] * 5)
    mask = index.mask(Scope(roots=(root,)))
    mask[:61] = False
    assert len(index.words("wombat", mask, limit=10)) == 5
    assert index.words("wombat", np.zeros(3, bool)) == []
    monkeypatch.setattr(keywords, "_FEW", 1)
    monkeypatch.setattr(keywords, "_SAMPLE", 5)
    assert len(index.words("wombat", mask, limit=10)) == 5


def test_what_was_forgotten_is_not_found(index: Store) -> None:
    root = put(index, "an old ibex", "漢字 and an ibex")
    index.put(root, facts("0", title="moved"), passages("a new text"))
    assert texts_of(index, index.words("ibex")) == ["漢字 and an ibex"]
    index.forget(root, ["1"])
    for query in ("ibex", "漢字", "1"):
        assert index.words(query) == []
    assert index.verify() == []


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("KV cache", ['"KV"', '"cache"']),
        ("the the", ['"the"']),
        ('say "hello"', ['"say"', '"hello"']),
        ("foo_bar.baz", ['"foo"', '"bar"', '"baz"']),
        ("readFile(HTTPServer)", ['"readFile"', '"read"', '"File"', '"HTTPServer"', '"HTTP"', '"Server"']),
        ("--- !", []),
        ("漢字", ['" 漢  字 "']),
        ("日本語の", ['" 日  本 "', '" 本  語 "', '" 語  の "']),
        ("BM25で", ['"BM25"', '" で "']),
    ],
)
def test_a_query_becomes_phrases(query: str, expected: list[str]) -> None:
    assert phrases(query) == expected


def test_spacing_and_terms() -> None:
    assert unjoined("readFile IOError a1B ABC Über x") == "readFile read File IOError IO Error a1B a1 B ABC Über x"
    assert spaced("ab 漢字c") == "ab  漢  字 c"
    assert terms(" a\tb\0c ") == ["a", "b", "c"]
    assert len(terms("x " * 500)) == 32
    assert len(phrases("漢字仮名交じり文" * 100)) <= 32
