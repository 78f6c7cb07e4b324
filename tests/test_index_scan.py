"""Vectors: rounding to int8, the exact scan and its masks, pages that grow, and compaction that changes no result."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from small_index import DIMENSIONS, a_model, embed, facts, library, passages, texts_of, vector

from edgemm import device, guard
from edgemm.backends import ort
from edgemm.errors import UsageError
from edgemm.index import Model, Scope, Store, pages
from edgemm.index import scan as scanning
from edgemm.index.cache import Snapshot
from edgemm.index.database import PAGE
from edgemm.index.pages import quantize
from edgemm.index.scan import Scanner

Float = NDArray[np.float32]
Found = list[tuple[int, float]]


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "index.sqlite") as opened:
        yield opened
        assert opened.verify() == []


def snapshot(vectors: Float, sizes: tuple[int, ...] = ()) -> Snapshot:
    """With ids from 1 on, in pages of `sizes`."""
    ends = np.cumsum([0, *(sizes or (len(vectors),))]).tolist()
    ids = np.arange(1, len(vectors) + 1)
    spans = list(itertools.pairwise(ends))
    parts = {n: quantize(ids[a:b], vectors[a:b]) for n, (a, b) in enumerate(spans)}
    scales = np.concatenate([part.scales for part in parts.values()])
    longest = max(part.longest() for part in parts.values())
    return Snapshot(parts, tuple(ends[:-1]), ids, scales, np.ones(len(ids), bool), longest)


def stored(vectors: Snapshot) -> Float:
    return np.concatenate([part.data * part.scales[:, None] for part in vectors.parts.values()])


def random(count: int, seed: int = 0, width: int = 48) -> Float:
    return np.random.default_rng(seed).standard_normal((count, width), np.float32)


@pytest.fixture(scope="module")
def scanner() -> Iterator[Scanner]:
    opened = Scanner()
    yield opened
    opened.close()


def test_the_scan_model_is_valid_onnx_and_passes_the_guard(tmp_path: Path) -> None:
    path = tmp_path / "scan.onnx"
    path.write_bytes(ort._PRODUCTS)
    guard.check_onnx(path)
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    [node] = model.graph.node
    assert (node.op_type, list(node.input), list(node.output)) == ("MatMulInteger", ["rows", "columns"], ["products"])


@pytest.mark.parametrize("count", [1, 3, 200])
@pytest.mark.parametrize("width", [1, 24, 384])
def test_products_of_bytes_are_exact(count: int, width: int) -> None:
    rng = np.random.default_rng(count * width)
    most = 63 if device.saturates_int8() else 127
    rows = rng.integers(-127, 128, (count, width), np.int8)
    for queries in (1, 4):
        columns = rng.integers(-most, most + 1, (width, queries), np.int8)
        expected = rows.astype(np.int32) @ columns.astype(np.int32)
        np.testing.assert_array_equal(ort.Int8Scan().products(rows, columns), expected)


def test_products_at_the_limit_are_exact() -> None:
    """Every product is the largest one: this is where 16 bits on the way would overflow."""
    most = 63 if device.saturates_int8() else 127
    rows, columns = np.full((64, 384), -127, np.int8), np.full((384, 1), most, np.int8)
    assert (ort.Int8Scan().products(rows, columns) == -127 * most * 384).all()


def test_rounding_to_int8_keeps_the_largest_number_and_the_direction() -> None:
    vectors = random(500) * np.logspace(-15, 15, 500, dtype=np.float32)[:, None]
    vectors[7] = 0
    rounded = quantize(np.arange(500), vectors)
    back = rounded.data * rounded.scales[:, None]
    largest = np.abs(vectors).max(axis=1)
    np.testing.assert_allclose(np.abs(back).max(axis=1), largest, rtol=1e-5)
    assert (np.abs(back - vectors) <= 0.5001 * largest[:, None] / 127).all()
    assert not back[7].any()
    assert np.isclose(rounded.longest(), np.linalg.norm(back, axis=1).max())


@pytest.mark.parametrize("levels", [127, 63])
def test_the_nearest_are_those_of_a_search_in_floats(
    scanner: Scanner, levels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scanner, "_levels", levels)
    vectors = snapshot(random(3000), (1000, 1, 1500, 499))
    queries = random(60, seed=1)
    floats = stored(vectors)
    for query, found in zip(queries, scanner.nearest(vectors, queries, 10), strict=True):
        scores = floats @ query
        best = np.argsort(-scores)[:10]
        assert [id for id, _ in found] == (best + 1).tolist()
        np.testing.assert_allclose([score for _, score in found], scores[best], rtol=1e-4)


def test_vectors_that_differ_by_less_than_the_first_pass_sees_are_still_told_apart(scanner: Scanner) -> None:
    """More of them than the pool of candidates holds."""
    rng = np.random.default_rng(5)
    one = rng.standard_normal(48).astype(np.float32)
    vectors = snapshot(one + 0.02 * random(2000, seed=6))
    query = one + 0.003 * rng.standard_normal(48).astype(np.float32)
    [found] = scanner.nearest(vectors, query[None], 10)
    scores = stored(vectors).astype(np.float64) @ query
    assert {id for id, _ in found} == set((np.argsort(-scores)[:10] + 1).tolist())


def test_where_more_are_close_than_may_be_scored_the_best_guess_is_given(
    scanner: Scanner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scanning, "_MOST", 100)
    vectors = snapshot(np.ones((1000, 8), np.float32))
    [found] = scanner.nearest(vectors, np.ones((1, 8), np.float32), 10)
    assert len(found) == 10
    assert np.allclose([score for _, score in found], 8)


def test_equal_vectors_come_in_the_order_of_their_ids(scanner: Scanner) -> None:
    vectors = snapshot(np.ones((50, 8), np.float32), (20, 30))
    [found] = scanner.nearest(vectors, np.ones((1, 8), np.float32), 5)
    assert [id for id, _ in found] == [1, 2, 3, 4, 5]


def test_a_mask_applies_before_the_best_are_chosen(scanner: Scanner) -> None:
    vectors = snapshot(random(3000), (1500, 1500))
    query = random(1, seed=2)
    allowed = np.zeros(2000, bool)  # too short for the last thousand, which it does not allow
    allowed[::100] = True
    [found] = scanner.nearest(vectors, query, 30, allowed)
    scores = stored(vectors) @ query[0]
    inside = list(range(100, 2000, 100))
    assert [id for id, _ in found] == sorted(inside, key=lambda id: -scores[id - 1])
    assert scanner.nearest(vectors, query, 3, np.zeros(0, bool)) == [[]]


@pytest.mark.parametrize("k", [1, 64, 3000, 5000])
def test_any_number_can_be_asked_for(scanner: Scanner, k: int) -> None:
    vectors = snapshot(random(3000))
    [found] = scanner.nearest(vectors, random(1, seed=3), k)
    assert len(found) == min(k, 3000)
    assert [score for _, score in found] == sorted((score for _, score in found), reverse=True)


def test_a_query_of_zeros_finds_something(scanner: Scanner) -> None:
    [found] = scanner.nearest(snapshot(random(10)), np.zeros((1, 48), np.float32), 3)
    assert [score for _, score in found] == [0, 0, 0]


def fill(index: Store, root: int, model: Model, count: int) -> None:
    """Files of 500 texts "text 0" and so on."""
    for start in range(0, count, 500):
        texts = (f"text {n}" for n in range(start, min(count, start + 500)))
        index.put(root, facts(f"f{start}"), passages(*texts))
    embed(index, model, 300)


def test_pages_fill_up_one_after_the_other(index: Store, tmp_path: Path) -> None:
    model, count = a_model(index), 2 * PAGE + 100
    fill(index, index.add_root(tmp_path).id, model, count)
    assert [row[0] for row in index._reader.execute("SELECT used FROM page")] == [PAGE, PAGE, 100]
    for n in (0, PAGE - 1, PAGE, count - 1):
        [(id, score)] = index.nearest(model.id, vector(f"text {n}"), 1)
        assert index.chunk(id).text == f"text {n}"
        assert score == pytest.approx(1, abs=0.01)


def test_a_search_reads_only_pages_that_have_grown(
    index: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, model = index.add_root(tmp_path).id, a_model(index)
    fill(index, root, model, PAGE + 10)
    index.nearest(model.id, vector("x"), 1)
    read, whole = [], pages.read
    monkeypatch.setattr(pages, "read", lambda db, page, *a: read.append(page) or whole(db, page, *a))
    index.nearest(model.id, vector("x"), 1)
    assert read == []
    index.put(root, facts("new"), passages("wombat"))
    embed(index, model)
    assert texts_of(index, index.nearest(model.id, vector("wombat"), 1)) == ["wombat"]
    assert read == [2]
    index.forget(root, ["new"])
    assert texts_of(index, index.nearest(model.id, vector("wombat"), 1)) != ["wombat"]
    assert read == [2]


def test_another_process_that_writes_is_seen(index: Store, tmp_path: Path) -> None:
    root = library(index, tmp_path)
    model = a_model(index)
    embed(index, model)
    with Store(index.path) as other:
        assert len(other.nearest(model.id, vector("x"), 99)) == 20
        index.put(root, facts("new"), passages("wombat"))
        embed(index, model)
        assert texts_of(other, other.nearest(model.id, vector("wombat"), 1)) == ["wombat"]
        index.forget(root, ["new", "f0.txt"])
        assert len(other.nearest(model.id, vector("x"), 99)) == 16
        index.compact()
        assert len(other.nearest(model.id, vector("x"), 99)) == 16


def assert_same(found: list[Found], before: list[Found]) -> None:
    """The last digit of a score depends on how many vectors were multiplied at once."""
    assert [[chunk for chunk, _ in one] for one in found] == [[chunk for chunk, _ in one] for one in before]
    scores = [[[score for _, score in one] for one in some] for some in (found, before)]
    np.testing.assert_allclose(*scores, rtol=1e-6)


def test_compaction_keeps_every_result(index: Store, tmp_path: Path) -> None:
    root, model, count = index.add_root(tmp_path).id, a_model(index), 2 * PAGE + 100
    fill(index, root, model, count)
    index.forget(root, [f"f{start}" for start in range(0, count, 1000)])
    queries = [vector(f"text {n}") for n in range(0, count, 700)]
    before = [index.nearest(model.id, query, 20) for query in queries]
    with Store(index.path) as other:
        other.nearest(model.id, queries[0], 1)  # has the old pages in memory
        index.compact()
        assert_same([other.nearest(model.id, query, 20) for query in queries], before)
    assert_same([index.nearest(model.id, query, 20) for query in queries], before)
    assert index._reader.execute("SELECT sum(dead) FROM page").fetchone() == (0,)
    assert index._reader.execute("SELECT count(*) FROM page").fetchone()[0] <= 3
    [status] = index.status().models
    assert (status.vectors, status.pending) == (len(index.mask(Scope()).nonzero()[0]), 0)
    index.put(root, facts("again"), passages("text 1"))  # it is gone for good
    assert index.pending_size(model.id)[0] == 1


def test_a_little_that_is_dead_is_not_worth_moving(index: Store, tmp_path: Path) -> None:
    root, model = index.add_root(tmp_path).id, a_model(index)
    fill(index, root, model, 3000)
    index.forget(root, ["f0"])
    index.compact()
    assert index._reader.execute("SELECT used, dead FROM page").fetchall() == [(3000, 500)]
    index.forget(root, ["f500"])
    index.compact()
    assert index._reader.execute("SELECT used, dead FROM page").fetchall() == [(2000, 0)]


def test_compaction_gives_space_back(index: Store, tmp_path: Path) -> None:
    old, new = a_model(index, "old"), index.add_model("new", "f", DIMENSIONS)
    fill(index, index.add_root(tmp_path).id, old, 3 * PAGE)
    index.model_ready(new.id)
    assert index.compact() > 200_000
    assert index.compact() == 0


def test_filters_never_leave_a_search_empty(index: Store, tmp_path: Path) -> None:
    first = library(index, tmp_path / "a", files=30)
    second = library(index, tmp_path / "b", files=3)  # the same texts
    model = a_model(index)
    embed(index, model)
    index.put(second, facts("notes/one.md"), passages("wombat"))
    embed(index, model)
    query = vector("passage 1 of file 20")
    for scope, count in [
        (Scope(), 133),
        (Scope(roots=(second,)), 13),
        (Scope(roots=(first,), names=("f2.txt", "f1?.txt")), 44),
        (Scope(names=("notes/*",)), 1),
        (Scope(kinds=("pdf",)), 0),
        (Scope(roots=(99,)), 0),
    ]:
        mask = index.mask(scope)
        found = index.nearest(model.id, query, 500, mask)
        assert len(found) == len({id for id, _ in found}) == mask.sum() == count
        assert all(mask[id] for id, _ in found)
    assert index.nearest(model.id, query, 5, np.zeros(0, bool)) == []
    assert len(index.nearest(model.id, query, 2, index.mask(Scope(roots=(second,))))) == 2


def test_several_queries_give_what_each_gives_alone(index: Store, tmp_path: Path) -> None:
    library(index, tmp_path)
    model = a_model(index)
    embed(index, model)
    queries = np.stack([vector(f"query {n}") for n in range(6)])
    assert index.nearest_each(model.id, queries, 5) == [index.nearest(model.id, query, 5) for query in queries]
    assert index.nearest_each(model.id, queries[:0], 5) == []


def test_wrong_vectors_are_refused(index: Store, tmp_path: Path) -> None:
    library(index, tmp_path, files=1)
    model = a_model(index)
    [waiting, *_] = index.pending(model.id, 1)
    for wrong in (np.ones((1, 5)), np.ones((2, DIMENSIONS)), np.ones(DIMENSIONS), np.full((1, DIMENSIONS), np.nan)):
        with pytest.raises(UsageError, match="mini"):
            index.add_vectors(model.id, [waiting.hash], wrong)
    for query in (np.ones(5), np.full(DIMENSIONS, np.inf), np.ones((1, DIMENSIONS))):
        with pytest.raises(UsageError, match="mini"):
            index.nearest(model.id, query, 1)
    assert index.pending_size(model.id)[0] == 4
    assert index.nearest(model.id, vector("x"), 5) == []


def test_vectors_for_what_is_gone_or_there_already_are_passed_over(index: Store, tmp_path: Path) -> None:
    root = library(index, tmp_path, files=2)
    model = a_model(index)
    waiting = index.pending(model.id, 99)
    hashes, vectors = [p.hash for p in waiting], np.stack([vector(p.text) for p in waiting])
    index.forget(root, ["f0.txt"])
    assert index.add_vectors(model.id, [*hashes, hashes[-1], b"unknown"], np.stack([*vectors, *vectors[:2]])) == 4
    assert index.add_vectors(model.id, hashes, vectors) == 0
    assert len(index.nearest(model.id, vector("x"), 99)) == 4
