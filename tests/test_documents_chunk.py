"""Chunks: never longer than the window, at good places, with nothing lost and every line right."""

import re
import time
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemm.documents import Chunk, Document, Place, Section, chunks
from edgemm.documents.chunk import Span

WORDS = re.compile(r"\w+|[^\w\s]")


def count(texts: Sequence[str]) -> list[list[Span]]:
    """A word or a sign is a token."""
    return [[match.span() for match in WORDS.finditer(text)] for text in texts]


def cut(text: str, most: int = 20, title: str = "", **place: int) -> list[Chunk]:
    return list(chunks(Document(title, (Section(text, Place(**place)),)), count, most))


def test_a_short_section_is_one_chunk_with_its_headings_before_it() -> None:
    document = Document("notes.md", (Section("# Plan\ntext", Place(line=5), ("Project", "Plan")),))
    [chunk] = chunks(document, count, 40)
    assert chunk.text == "# Plan\ntext"
    assert chunk.embedded_text() == "notes.md > Project > Plan\n# Plan\ntext"
    assert chunk.place == Place(line=5, end_line=6)


def test_cuts_fall_between_paragraphs_then_sentences_then_words() -> None:
    paragraphs = "\n\n".join(" ".join(f"p{i}w{j}" for j in range(12)) for i in range(4))
    assert all(chunk.text.strip().startswith("p") for chunk in cut(paragraphs))
    assert cut(paragraphs)[0].text.strip() == paragraphs.split("\n\n")[0]
    sentences = " ".join(" ".join(f"s{i}w{j}" for j in range(9)) + "." for i in range(4))
    assert cut(sentences)[0].text.strip().endswith(".")
    words = " ".join(f"w{i}" for i in range(100))
    assert all(re.fullmatch(r"(w\d+\s*)+", chunk.text) for chunk in cut(words))


def test_code_is_cut_before_a_definition() -> None:
    code = "import a\n\nx = 1\n\ndef one():\n    a\n\n    b\n\ndef two():\n    c\n"
    assert cut(code, 18)[0].text == code[: code.index("def two")]


def test_what_stands_before_a_definition_stays_with_it() -> None:
    code = "x = 1\n\ny = 2\n\nz = 3\n\nw = 4\n\n\n# about one\n@cached\ndef one():\n    a = b\n    return a\n"
    assert cut(code, 20)[1].text.lstrip().startswith("# about one\n@cached\ndef one")


def test_neighbours_overlap_and_lines_are_right() -> None:
    text = "\n".join(f"line{i} a b c" for i in range(50))
    found = cut(text, 30, line=11)
    for before, after in pairwise(found):
        assert before.start < after.start < before.end <= after.end
    lines = text.split("\n")
    for chunk in found:
        assert chunk.text.split()[0] in lines[chunk.place.line - 11]
        assert chunk.text.split()[-1] in lines[chunk.place.end_line - 11]
        assert chunk.place.line == 11 + text.count("\n", 0, chunk.start + len(chunk.text) - len(chunk.text.lstrip()))


def test_a_line_without_an_end_is_cut() -> None:
    found = cut("x," * 5000, 50)
    assert len(found) > 100
    assert found[-1].end == 10_000


@pytest.mark.parametrize("text", ["ü" * 5000, "長い" * 3000 + "。" + "文" * 5000, "a1" * 9000 + " b"])
def test_a_word_that_hides_many_tokens_is_cut(text: str) -> None:
    """As WordPiece does, a word of more than 100 characters is one token, and what is cut from it is many."""

    def pieces(texts: Sequence[str]) -> list[list[Span]]:
        words = [[match.span() for match in re.finditer(r"\S+", text)] for text in texts]
        return [
            [(at, at + 1) for start, end in spans for at in range(start, end)] if len(text) <= 100 else spans
            for text, spans in zip(texts, words, strict=True)
        ]

    found = list(chunks(Document("", (Section(text),)), pieces, 40))
    assert max(len(chunk.text) for chunk in found) <= 40
    assert "".join(text[chunk.start : chunk.end] for chunk in found) == text


def test_a_cut_word_may_have_more_tokens_than_before() -> None:
    """Seven letters a token, but four where a text begins in the middle of a word."""

    def uneven(texts: Sequence[str]) -> list[list[Span]]:
        sizes = [4 if text and not text.startswith("x") else 7 for text in texts]
        return [
            [(at, min(at + n, len(text))) for at in range(0, len(text), n)]
            for text, n in zip(texts, sizes, strict=True)
        ]

    text = "x" + "y" * 3000
    found = list(chunks(Document("", (Section(text),)), uneven, 21))
    assert all(len(uneven([chunk.text])[0]) <= 20 for chunk in found)
    assert "".join(text[chunk.start : chunk.end] for chunk in found) == text


def test_long_headings_leave_room_for_the_text() -> None:
    document = Document("t " * 100, (Section("word " * 100, Place(), ("h " * 100,)),))
    for chunk in chunks(document, count, 40):
        assert len(count([chunk.embedded_text()])[0]) <= 40


def test_a_chunk_of_a_sheet_names_its_own_rows() -> None:
    text = "\n".join(f"r{n} a b c" if n % 5 else "" for n in range(40))
    section = Section(text, Place(sheet="Costs", cells="C11:F50"), ("Costs",))
    found = list(chunks(Document("t", (section,)), count, 24))
    assert len(found) > 5
    for chunk in found:
        first, last = (int(row) - 11 for row in re.findall(r"\d+", chunk.place.cells))
        assert chunk.text.strip() == "\n".join(text.split("\n")[first : last + 1]).strip()
        assert chunk.text.split()[0] == f"r{first}" or first == 0


def test_a_long_section_is_tokenised_in_pieces_and_cut_as_if_it_were_not() -> None:
    asked: list[int] = []

    def counted(texts: Sequence[str]) -> list[list[Span]]:
        asked.extend(map(len, texts))
        return count(texts)

    text = "\n".join(f"line {n} of a long text" for n in range(40_000))
    found = list(chunks(Document("t", (Section(text, Place(line=1)),)), counted, 50))
    assert max(asked) <= 200_000
    assert all(before.start < after.start < before.end for before, after in pairwise(found))
    assert found[-1].place.end_line == 40_000
    whole = sorted(len(chunk.text) for chunk in found)
    assert whole[10] > 100  # no stumps where pieces end


def test_no_overlap_is_said_twice() -> None:
    text = "\n\n".join(" ".join(f"p{i}w{j}" for j in range(i % 30)) for i in range(60))
    found = list(chunks(Document("", (Section(text),)), count, 20, overlap=0))
    assert "".join(chunk.text for chunk in found) == text


@pytest.mark.parametrize("text", ["\n" * 500_000 + "  x\n" * 9000, "a" + " " * 500_000 + "b" * 500_000 + ". c" * 9000])
def test_blank_runs_take_no_time_that_grows_with_the_square(text: str) -> None:
    started = time.process_time()
    assert len(cut(text, 50, line=1)) > 100
    assert time.process_time() - started < 10  # about 1 s


TEXTS = st.text(st.sampled_from("ab .\n,é中-_"), max_size=300)


@given(TEXTS, st.integers(8, 40))
def test_no_chunk_is_too_long_and_nothing_is_lost(text: str, most: int) -> None:
    found = cut(text, most)
    covered = set()
    for chunk in found:
        assert chunk.text == text[chunk.start : chunk.end]
        assert len(count([chunk.text])[0]) <= max(8, most - 1)
        covered |= set(range(chunk.start, chunk.end))
    tokens = {i for start, end in count([text])[0] for i in range(start, end)}
    assert tokens <= covered


@pytest.mark.parametrize("text", ["", "   \n\n ", "\t"])
def test_blank_sections_have_no_chunks(text: str) -> None:
    assert cut(text) == []
