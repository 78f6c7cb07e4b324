"""Queries with known answers: what is asked, what should be found, and that the one never stands in the other."""

import shutil
import textwrap
from pathlib import Path

import pytest

from edgemm import known_items
from edgemm.documents import Place, Section
from edgemm.errors import UsageError
from edgemm.evaluation import Collection
from edgemm.evaluation.pairs import Pair, gives_away, of_python, of_section
from edgemm.events import value_of

TEXT = "Put the kettle on the stove and wait for the water to boil, then pour it over the leaves in the pot slowly."


def pairs(source: str) -> dict[str, str]:
    return {pair.query: pair.passage for pair in of_python(textwrap.dedent(source))}


def collected(folder: Path, **limits: int) -> Collection:
    return value_of(known_items.collect(folder, **limits))


def passages(collection: Collection) -> dict[str, str]:
    return {text.key: text.text for text in collection.passages}


def function(
    name: str, summary: str, body: str = "return sorted(values, key=lambda value: value.weight * 3)[:limit]"
) -> str:
    return f'def {name}(values, limit):\n    """{summary}"""\n    {body}\n\n\n'


def test_a_docstring_finds_its_function_without_the_docstring() -> None:
    found = pairs('''
        import os

        @cache
        def heaviest(values, limit=3):
            """The heaviest ones
            of a list.

            Details follow here.
            """
            # by weight
            return sorted(values, key=weight)[:limit]

        print("not part of it")
    ''')
    assert found == {
        "The heaviest ones of a list.": "@cache\ndef heaviest(values, limit=3):\n    # by weight\n"
        "    return sorted(values, key=weight)[:limit]"
    }


def test_what_has_its_own_docstring_is_cut_out_of_what_is_around_it() -> None:
    found = pairs('''
        class Shelf(Base):
            """A place for many books."""
            width, height, depth = 10, 20, 30

            def count(self, wanted):
                """How many there are of a kind."""
                return sum(book.kind == wanted for book in self.books)

            def plain(self, other):
                return self.books + other.books
    ''')
    assert set(found) == {"A place for many books.", "How many there are of a kind."}
    whole = found["A place for many books."]
    assert "def plain(self, other):" in whole
    assert "width, height, depth" in whole
    assert "count" not in whole
    assert "How many" not in "".join(found.values())


def test_letters_of_several_bytes_and_code_behind_a_docstring_do_not_shift_the_cut() -> None:
    head = "def grüße(wörter, größe, länge, fülle):\n    "
    source = head + '"Sagt dreimal „grüß Gott“ zu allen"; return wörter + größe + länge + fülle\n'
    (pair,) = of_python(source)
    assert pair.query == "Sagt dreimal „grüß Gott“ zu allen"
    assert pair.passage == head + "; return wörter + größe + länge + fülle"


def test_little_code_is_no_passage_and_few_words_are_no_query() -> None:
    assert pairs('def f():\n    """What this does for you."""\n') == {}
    assert list(pairs(function("f", "Sort them."))) == [""]


def test_a_long_passage_is_cut_at_a_line_and_a_long_query_at_a_word() -> None:
    body = "\n    ".join(f"value_{i} = compute({i}, 'something')" for i in range(200))
    (pair,) = of_python(function("f", "many words " * 60, body))
    assert 900 < len(pair.passage) <= 1000
    assert pair.passage.endswith("'something')")
    assert 290 < len(pair.query) <= 300
    assert not pair.query.endswith("man")


@pytest.mark.parametrize("bad", ["def f(:\n", "(" * 5000, "x = " + "-" * 200_000 + "1", "\0", "f'{" * 300])
def test_what_is_no_python_is_refused(bad: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        list(of_python(bad))


def test_a_heading_finds_its_section_without_the_heading() -> None:
    for head in ("## Brewing tea", "Brewing tea\n===========", "===========\nBrewing tea\n==========="):
        found = of_section(Section(f"{head}\n\n{TEXT}\n", Place(line=4), ("Kitchen", "Brewing tea")))
        assert found == Pair(4, "Brewing tea", TEXT)


def test_a_section_without_heading_or_with_little_text_is_no_passage() -> None:
    assert of_section(Section(TEXT)) is None
    assert of_section(Section("# Tea\nhot water", heading=("Tea",))) is None
    assert of_section(Section(f"# 1.2\n{TEXT}", heading=("1.2",))) == Pair(0, "", TEXT)


def test_a_query_that_stands_in_its_passage_is_seen_through_case_and_breaks() -> None:
    assert gives_away("# sort the\n#  heap", "Heap.")
    assert gives_away("first SORT\n  the   heap, then", "Sort the heap.")
    assert not gives_away("sort a heap", "Sort the heap.")


def test_a_folder_becomes_queries_and_passages(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "code.py").write_text(
        function("f", "Put the heavy ones first.")
        + function("g", "Sort them.", "return values and limit or (1, 2, 3, 4, 5, 6)")
    )
    (tmp_path / "notes.md").write_text(f"# Brewing green leaves\n\n{TEXT}\n")
    (tmp_path / "guide.rst").write_text(f"Guide to steaming\n=================\n\n{TEXT} Twice.\n")
    (tmp_path / "data.txt").write_text(TEXT)
    found = collected(tmp_path)
    assert {query.text: list(found.judged[query.key]) for query in found.queries} == {
        "Put the heavy ones first.": ["sub/code.py:1"],
        "Brewing green leaves": ["notes.md:1"],
        "Guide to steaming": ["guide.rst:1"],
    }
    assert set(passages(found)) == {"sub/code.py:1", "sub/code.py:6", "notes.md:1", "guide.rst:1"}
    assert found.notes == ("3 files read", "3 known items among 4 passages; not asked: 1 too short")


def test_what_several_texts_answer_is_not_asked(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(function("f", "Put the heavy ones first.") + function("h", "Put light ones first."))
    (tmp_path / "b.py").write_text(function("g", "put the HEAVY ones first."))
    found = collected(tmp_path)
    assert [query.text for query in found.queries] == ["Put light ones first."]
    assert len(passages(found)) == 3
    assert found.notes[1].endswith("not asked: 1 not unique")


def test_a_copied_file_adds_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(function("f", "Put the heavy ones first."))
    shutil.copy(tmp_path / "a.py", tmp_path / "b.py")
    found = collected(tmp_path)
    assert len(passages(found)) == len(found.queries) == 1


def test_what_the_passage_says_itself_is_not_asked(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(
        function("f", "Put the heavy ones first.", "# put the heavy ones first\n    return sorted(values, key=limit)")
        + function("g", "Put light ones first.")
    )
    found = collected(tmp_path)
    assert [query.text for query in found.queries] == ["Put light ones first."]
    assert "1 in their passage as they are" in found.notes[1]


def test_broken_files_are_counted_and_code_is_never_run(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    (tmp_path / "good.py").write_text(f"open({str(mark)!r}, 'w')\n\n" + function("f", "Put the heavy ones first."))
    (tmp_path / "bad.py").write_text("def f(:\n")
    (tmp_path / "deep.py").write_text("x = " + "(" * 3000)
    (tmp_path / "binary.py").write_bytes(b"\0\1\2" * 100)
    (tmp_path / "huge.py").write_text("# filler\n" * 200_000)
    (tmp_path / "binary.md").write_bytes(b"\0\1\2" * 100)
    found = collected(tmp_path)
    assert found.notes[0] == "1 files read, 5 cannot be read"
    assert len(found.queries) == 1
    assert not mark.exists()


def test_hostile_docstrings_become_texts_that_a_store_takes(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(function("f", r"Half a pair \ud800 and \0 here"))
    (query,) = collected(tmp_path).queries
    assert query.text == "Half a pair ? and   here"


def test_a_sample_is_the_same_for_the_same_texts_whatever_their_files(tmp_path: Path) -> None:
    texts = [
        function(f"f{i}", f"Put number {i} before all others.", f"return values[{i}] + limit(3, 4, 5, 6, 7)")
        for i in range(60)
    ]
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    (tmp_path / "one" / "a.py").write_text("".join(texts))
    for number, text in enumerate(texts[::-1]):
        (tmp_path / "two" / f"f{number}.py").write_text(text)
    found, again = (collected(tmp_path / name, queries=10, passages=25) for name in ("one", "two"))
    assert len(found.queries) == 10
    assert set(passages(found).values()) == set(passages(again).values())
    assert len(passages(found)) == 25
    for query in found.queries:
        (answer,) = found.judged[query.key]
        assert f"[{query.text.split()[2]}]" in passages(found)[answer]
    assert collected(tmp_path / "one", queries=10, passages=25) == found


def test_a_folder_without_anything_to_ask_for_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(TEXT)
    with pytest.raises(UsageError, match="holds no docstring and no heading"):
        collected(tmp_path)
    with pytest.raises(UsageError, match="there is no such folder"):
        collected(tmp_path / "gone")
