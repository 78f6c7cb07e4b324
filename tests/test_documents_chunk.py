"""Chunks: never longer than the window, at good places, with nothing lost and every line right."""

import re
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


def test_long_headings_leave_room_for_the_text() -> None:
    document = Document("t " * 100, (Section("word " * 100, Place(), ("h " * 100,)),))
    for chunk in chunks(document, count, 40):
        assert len(count([chunk.embedded_text()])[0]) <= 40


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
