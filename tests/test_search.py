"""Hybrid search: scores on one scale, copies in one hit, filters before the best are chosen, second looks."""

import math
import os
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from small_index import facts, passages
from word_bags import DIMENSIONS, Bag, Colours, picture, run, vector, write

from edgemm.index import Chunk, FileFacts, Medium, Passage, Scope, Store
from edgemm.search import RERANKED, Hit, Part, Probe, Standing, fuse, place, search
from edgemm.snippets import MARK, UNMARK


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "data" / "index.sqlite") as opened:
        yield opened


class Small:
    """One file of each text, with vectors by their words."""

    def __init__(self, store: Store, root: Path, *texts: str) -> None:
        self.store = store
        self.root = store.add_root(root).id
        for number, text in enumerate(texts):
            store.put(self.root, facts(f"{number}.txt"), passages(text))
        self.model = store.add_model("bag", "f1", DIMENSIONS)
        waiting = store.pending(self.model.id, 10_000)
        store.add_vectors(self.model.id, [each.hash for each in waiting], np.stack([vector(e.text) for e in waiting]))

    def probe(self, text: str) -> Probe:
        return Probe(Part.MEANING, self.model.id, vector(text))

    def names(self, text: str, **more: object) -> list[str]:
        return [hit.chunk.name for hit in search(self.store, text, [self.probe(text)], **more)]  # type: ignore[arg-type]


# Fusion


def test_scores_are_added_on_one_scale() -> None:
    """Words have one already; cosines go from the last one that was looked at to the best."""
    words = [(7, 1.0), (3, 0.5), (9, 0.1)]
    meaning = [(9, 0.9), (7, 0.6), (4, 0.4)]
    assert fuse({Part.WORDS: words, Part.MEANING: meaning}) == [
        (7, pytest.approx(1 + 0.4)),
        (9, pytest.approx(0.1 + 1)),
        (3, pytest.approx(0.5)),
        (4, pytest.approx(0)),
    ]


def test_one_hit_alone_is_the_best_of_its_ranking() -> None:
    assert fuse({Part.WORDS: [(1, 1.0)], Part.MEANING: [(2, 0.5)]}) == [(1, 1.0), (2, 1.0)]


def test_equal_cosines_count_where_they_say_that_something_is_alike() -> None:
    assert fuse({Part.WORDS: [(3, 0.2)], Part.MEANING: [(1, 0.0), (2, 0.0)]}) == [(3, 0.2), (1, 0.0), (2, 0.0)]
    assert fuse({Part.WORDS: [(3, 0.2)], Part.MEANING: [(1, 0.9), (2, 0.9)]}) == [(1, 1.0), (2, 1.0), (3, 0.2)]


def test_equal_sums_are_in_the_order_of_the_chunks() -> None:
    found = fuse({Part.MEANING: [(5, 1.0), (2, 0.5)], Part.PICTURES: [(2, 9.0), (5, 8.0)]})
    assert [id for id, _ in found] == [2, 5]
    assert fuse({}) == fuse({Part.WORDS: [], Part.MEANING: []}) == []


def test_a_hit_says_where_it_stood(store: Store, tmp_path: Path) -> None:
    small = Small(store, tmp_path, "the ibex", "an ibex on the rocks", "rocks and stones", "a quiet lake")
    hits = search(store, "ibex rocks", [small.probe("ibex rocks")])
    assert [hit.chunk.name for hit in hits[:1]] == ["1.txt"]
    words = store.words("ibex rocks")
    meaning = store.nearest(small.model.id, vector("ibex rocks"), 100)
    for hit in hits:
        expected = {}
        for part, ranking in ((Part.WORDS, words), (Part.MEANING, meaning)):
            for rank, (id, score) in enumerate(ranking, 1):
                if id == hit.chunk.id:
                    expected[part] = Standing(rank, score)
        assert hit.parts == expected
    scores = dict(fuse({Part.WORDS: words, Part.MEANING: meaning}))
    assert [hit.score for hit in hits] == [scores[hit.chunk.id] for hit in hits]
    assert hits[0].parts[Part.MEANING].rank == 1
    assert Part.WORDS not in hits[-1].parts
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def test_words_alone_are_searched_without_a_probe(store: Store, tmp_path: Path) -> None:
    Small(store, tmp_path, "the ibex", "a quiet lake")
    [hit] = search(store, "ibex")
    assert set(hit.parts) == {Part.WORDS}


@pytest.mark.parametrize("text", ["", "   ", "\0", "?!", '"', "OR", "ibex AND", "NEAR(", "*", "-", "\ud800"])
def test_any_text_is_a_query(store: Store, tmp_path: Path, text: str) -> None:
    small = Small(store, tmp_path, "the ibex", "a quiet lake")
    assert all(isinstance(hit, Hit) for hit in search(store, text))
    assert len(search(store, text, [small.probe("x")])) == 2
    if not text.strip('\0 ?!"*-\ud800'):
        assert search(store, text) == []


@pytest.mark.parametrize("limit", [0, -1, -30])
def test_no_hits_are_asked_for(store: Store, tmp_path: Path, limit: int) -> None:
    small = Small(store, tmp_path, *(f"ibex {n}" for n in range(40)))
    for rerank in (None, lambda query, texts: [0.0] * len(texts)):
        assert search(store, "ibex", [small.probe("ibex")], limit=limit, rerank=rerank) == []


def test_an_empty_index_finds_nothing(store: Store, tmp_path: Path) -> None:
    assert search(store, "ibex", scope=Scope(kinds=("pdf",))) == []


def test_a_chunk_that_vanished_meanwhile_is_left_out(store: Store, tmp_path: Path) -> None:
    small = Small(store, tmp_path, "the ibex", "an ibex on the rocks")
    real = store.nearest

    def nearest(*arguments: object) -> list[tuple[int, float]]:
        found = real(*arguments)  # type: ignore[arg-type]
        with Store(store.path) as other:
            other.forget(small.root, ["0.txt"])
        return found

    store.nearest = nearest  # type: ignore[method-assign, assignment]
    assert small.names("ibex") == ["1.txt"]


# Copies


def test_copies_are_one_hit_that_names_them(store: Store, tmp_path: Path) -> None:
    small = Small(store, tmp_path, "an ibex", "an ibex", "an ibex on rocks", "an ibex")
    hits = search(store, "ibex", [small.probe("an ibex")])
    assert [(hit.chunk.name, hit.copies) for hit in hits] == [
        ("0.txt", (str(tmp_path / "1.txt"), str(tmp_path / "3.txt"))),
        ("2.txt", ()),
    ]


def test_a_text_that_a_file_holds_twice_is_no_copy(store: Store, tmp_path: Path) -> None:
    root = store.add_root(tmp_path).id
    store.put(root, facts("a.txt"), passages("an ibex", "between", "an ibex"))
    [hit] = search(store, "ibex")
    assert (hit.chunk.order, hit.copies) == (0, ())


def test_a_file_that_two_roots_hold_is_found_once(store: Store, tmp_path: Path) -> None:
    colours = Colours()
    picture(tmp_path / "outer" / "inner" / "sea.png", "blue")
    write(tmp_path / "outer" / "inner", {"a.txt": "the blue sea"})
    roots = [store.add_root(tmp_path / "outer"), store.add_root(tmp_path / "outer" / "inner")]
    run(store, roots, colours)
    hits = search(store, "sea", [Probe(Part.PICTURES, store.models()[0].id, colours.of_text("blue"))])
    assert sorted((hit.chunk.path.name, hit.copies) for hit in hits) == [("a.txt", ()), ("sea.png", ())]


def test_many_copies_do_not_crowd_out_the_others(store: Store, tmp_path: Path) -> None:
    small = Small(store, tmp_path, *["the licence of all"] * 300, *(f"licence number {n}" for n in range(12)))
    hits = search(store, "licence", [small.probe("the licence of all")], limit=10)
    assert len(hits) == 10
    assert len(next(hit for hit in hits if hit.chunk.name == "0.txt").copies) > 10


# A second look


def scripted(scores: dict[str, float], seen: list[Sequence[str]]) -> object:
    def rerank(query: str, texts: Sequence[str]) -> list[float]:
        seen.append([query, *texts])
        return [scores.get(text, 0.0) for text in texts]

    return rerank


def test_the_reranker_has_the_last_word_on_the_first_hits(store: Store, tmp_path: Path) -> None:
    small = Small(store, tmp_path, *(f"ibex number {n}" for n in range(30)))
    before = search(store, "ibex", [small.probe("ibex")], limit=30)
    seen: list[Sequence[str]] = []
    favourite, last = before[RERANKED - 1], before[RERANKED]
    rerank = scripted({favourite.chunk.text: 3.0, last.chunk.text: 9.0}, seen)
    hits = search(store, "ibex", [small.probe("ibex")], limit=30, rerank=rerank)  # type: ignore[arg-type]
    assert seen == [["ibex", *(hit.chunk.text for hit in before[:RERANKED])]]
    assert hits[0].chunk == favourite.chunk
    assert hits[0].parts == {**favourite.parts, Part.RERANK: Standing(1, 3.0)}
    assert [hit.chunk for hit in hits[1:RERANKED]] == [hit.chunk for hit in before[: RERANKED - 1]]
    assert hits[RERANKED:] == before[RERANKED:]  # those that it has not seen


def test_a_few_hits_are_chosen_from_all_that_were_reranked(store: Store, tmp_path: Path) -> None:
    small = Small(store, tmp_path, *(f"ibex number {n}" for n in range(30)))
    wanted = search(store, "ibex", [small.probe("ibex")], limit=20)[19].chunk
    hits = search(
        store,
        "ibex",
        [small.probe("ibex")],
        limit=2,
        rerank=scripted({wanted.text: 1.0}, []),  # type: ignore[arg-type]
    )
    assert (len(hits), hits[0].chunk) == (2, wanted)


def test_pictures_stand_behind_what_a_reranker_has_read(store: Store, tmp_path: Path) -> None:
    colours = Colours()
    picture(tmp_path / "docs" / "blue.png", "blue")
    write(tmp_path / "docs", {"a.txt": "the blue sea", "b.txt": "a blue boat"})
    run(store, store.add_root(tmp_path / "docs"), colours)
    probe = Probe(Part.PICTURES, store.models()[0].id, colours.of_text("blue"))
    seen: list[Sequence[str]] = []
    hits = search(store, "blue", [probe], rerank=scripted({"a blue boat": 1.0}, seen))  # type: ignore[arg-type]
    assert [hit.chunk.name for hit in hits] == ["b.txt", "a.txt", "blue.png"]
    seen.clear()
    [hit] = search(store, "", [probe], rerank=scripted({}, seen))  # type: ignore[arg-type]
    assert (hit.chunk.name, seen) == ("blue.png", [])


# Filters


@pytest.fixture
def library(store: Store, tmp_path: Path) -> Store:
    folder = tmp_path / "docs"
    write(folder, {"work/a.txt": "ibex", "work/sub/b.md": "ibex", "play/c.py": "ibex = 1", "workshop/d.txt": "ibex"})
    picture(folder / "play" / "ibex.jpg", "red", taken="2023:06:15 12:00:00")
    for name, year in (("work/a.txt", 2019), ("work/sub/b.md", 2021), ("play/c.py", 2022), ("workshop/d.txt", 2024)):
        when = datetime(year, 7, 1, 12).timestamp()
        os.utime(folder / name, (when, when))
    run(store, store.add_root(folder), Bag(), Colours())
    return store


def names(store: Store, scope: Scope, text: str = "ibex") -> list[str]:
    hits = search(store, text, [Probe(Part.MEANING, store.models()[0].id, vector(text))], scope=scope)
    pictures = search(store, "", [Probe(Part.PICTURES, store.models()[1].id, Colours().of_text("red"))], scope=scope)
    found = {hit.chunk.name for hit in [*hits, *pictures]}
    return sorted(found | {os.path.relpath(copy, hits[0].chunk.root) for hit in hits for copy in hit.copies})


def moment(year: int, month: int = 1) -> float:
    return datetime(year, month, 1).timestamp()


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        (Scope(kinds=("markdown", "code")), ["play/c.py", "work/sub/b.md"]),
        (Scope(kinds=("image",)), ["play/ibex.jpg"]),
        (Scope(names=("work/*",)), ["work/a.txt", "work/sub/b.md"]),
        (Scope(names=("*.py", "*.txt")), ["play/c.py", "work/a.txt", "workshop/d.txt"]),
        (Scope(names=("IBEX*",)), []),
        (Scope(since=moment(2022)), ["play/c.py", "play/ibex.jpg", "workshop/d.txt"]),
        (Scope(until=moment(2022)), ["work/a.txt", "work/sub/b.md"]),
        (Scope(since=moment(2023, 6), until=moment(2023, 7)), ["play/ibex.jpg"]),
        (Scope(since=moment(2020, 9), until=moment(2020, 10)), []),  # when the picture's file was written
        (Scope(kinds=("text",), names=("work/*",), since=moment(2019), until=moment(2020)), ["work/a.txt"]),
        (Scope(since=math.inf), []),
        (Scope(roots=(99,)), []),
    ],
)
def test_filters_apply_alone_and_together(library: Store, scope: Scope, expected: list[str]) -> None:
    assert names(library, scope) == expected


def test_folders_and_single_files_narrow_a_search(library: Store, tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    work = ["work/a.txt", "work/sub/b.md"]
    assert names(library, Scope(folders=(docs / "work",))) == work  # and not "workshop"
    assert names(library, Scope(folders=(docs / "work" / "a.txt",))) == work[:1]
    assert names(library, Scope(folders=(docs / "work/sub", docs / "play"))) == [
        "play/c.py",
        "play/ibex.jpg",
        "work/sub/b.md",
    ]
    assert len(names(library, Scope(folders=(tmp_path,)))) == 5
    assert names(library, Scope(folders=(tmp_path / "elsewhere",))) == []


def test_filters_come_before_the_best_are_chosen(store: Store, tmp_path: Path) -> None:
    """The only file of the folder is the last of hundreds, by its words and by its meaning."""
    Small(store, tmp_path / "many", *(f"ibex ibex ibex {n}" for n in range(400)))
    other = store.add_root(tmp_path / "one").id
    store.put(other, facts("only.txt"), passages("among many other animals of the mountains there was an ibex"))
    model = store.models()[0]
    waiting = store.pending(model.id, 9)
    store.add_vectors(model.id, [each.hash for each in waiting], np.stack([vector(each.text) for each in waiting]))
    probe = Probe(Part.MEANING, model.id, vector("ibex"))
    [hit] = search(store, "ibex", [probe], scope=Scope(folders=(tmp_path / "one",)), limit=3)
    assert (hit.chunk.name, set(hit.parts)) == ("only.txt", {Part.WORDS, Part.MEANING})
    assert [standing.rank for standing in hit.parts.values()] == [1, 1]


# What is shown


def test_a_snippet_shows_the_words_in_their_surroundings(store: Store, tmp_path: Path) -> None:
    text = "grass and water. " * 40 + "Here an ibex climbs the rocks. " + "stones and sky. " * 40
    Small(store, tmp_path, text)
    [hit] = search(store, "rocks ibex")
    assert f"an {MARK}ibex{UNMARK} climbs the {MARK}rocks{UNMARK}." in hit.snippet
    assert hit.snippet.startswith("…")
    assert hit.snippet.endswith("…")
    assert len(hit.snippet) < 220


def test_little_words_are_marked_only_where_there_are_no_others(store: Store, tmp_path: Path) -> None:
    Small(store, tmp_path, "to be or not to be, said the prince")
    assert search(store, "the prince")[0].snippet == f"to be or not to be, said the {MARK}prince{UNMARK}"
    assert search(store, "to be")[0].snippet.count(MARK) == 4


def test_a_hit_by_meaning_alone_shows_its_beginning(store: Store, tmp_path: Path) -> None:
    small = Small(store, tmp_path, "\n\n   a quiet\n\tlake " + "and stones " * 90)
    [hit] = search(store, "", [small.probe("lake")])
    assert hit.snippet.startswith("a quiet lake and stones")
    [hit] = search(store, "xylophone", [small.probe("lake")])
    assert hit.snippet.startswith("a quiet lake and stones")


def test_a_picture_has_no_snippet(store: Store, tmp_path: Path) -> None:
    root = store.add_root(tmp_path).id
    store.put(root, FileFacts("sea.png", 1, 1, "h", "image"), [Passage("", medium=Medium.PICTURE)])
    [hit] = search(store, "sea")
    assert (hit.snippet, hit.chunk.medium) == ("", Medium.PICTURE)


def test_a_place_is_shown_as_the_parser_gave_it(store: Store, tmp_path: Path) -> None:
    root = store.add_root(tmp_path).id
    store.put(root, facts("a.xlsx"), [Passage("ibex", place={"sheet": "Costs", "cells": "A1:B9", "page": 0})])
    assert place(search(store, "ibex")[0].chunk).shown() == "sheet Costs, A1:B9"


def test_a_thousand_hits_take_no_long(store: Store, tmp_path: Path) -> None:
    import time

    small = Small(store, tmp_path, *("ibex " * 150 + f"number {n}" for n in range(1200)))
    started = time.process_time()
    hits = search(store, "ibex", [small.probe("ibex")], limit=1000)
    assert (len(hits), isinstance(hits[0].chunk, Chunk)) == (1000, True)
    assert time.process_time() - started < 5
