"""Nothing foreign reaches the terminal as a control sequence."""

import unicodedata

import pytest

from edgemm import terminal
from edgemm.events import Note, Progress

SEQUENCES = [
    "\x1b[2J",
    "\x1b]0;title\x07",
    "\x1b]52;c;ZXZpbA==\x07",
    "\x1bP1$q\x1b\\",
    "\x1b_app\x1b\\",
    "\x9b2J",
    "\x9d0;t\x9c",
    "\r\x08\x7f\x00",
    "\u202egnp.exe",
    "\u2066x\u2069",
    "".join(chr(0xE0000 + ord(c)) for c in "hidden"),
]


@pytest.mark.parametrize("text", SEQUENCES, ids=ascii)
def test_control_sequences_become_visible(text: str) -> None:
    shown = terminal.safe(f"a{text}b")
    assert shown.startswith("a")
    assert shown.endswith("b")
    assert not any(unicodedata.category(c) in ("Cc", "Cf") for c in shown)


def test_every_control_character_is_replaced() -> None:
    every = "".join(map(chr, [*range(0x20), *range(0x7F, 0xA0)]))
    assert {c for c in terminal.safe(every) if unicodedata.category(c) == "Cc"} == {"\n", "\t"}


def test_ordinary_text_stays() -> None:
    text = "Grüße, 世界! 👩\u200d👩 שלום [b]not markup[/b] [/] `code`\n\tnext"
    assert terminal.safe(text) == text


def test_a_split_sequence_is_harmless_in_both_parts() -> None:
    assert "\x1b" not in terminal.safe("abc\x1b") + terminal.safe("[2Jdef")


def test_note_is_one_line_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.note("first\nsecond \x1b[31m")
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "first second ␛[31m\n"


def test_finish_returns_the_last_event_and_prints_notes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    events = [Progress("read", 1, 2), Note("said"), "first", Progress("write", 2, 2), "result"]
    assert terminal.finish(iter(events)) == "result"
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "said\n"


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 KB"), (98_362_432, "98.4 MB"), (2.5e12, "2.5 TB")]
)
def test_human_bytes(count: float, text: str) -> None:
    assert terminal.human_bytes(count) == text


def test_describe_names_both_numbers() -> None:
    assert (
        terminal.describe(Progress("download", 41_000_000, 100_000_000, "B")) == "download: 41 % (41.0 MB / 100.0 MB)"
    )
    assert terminal.describe(Progress("embed", 1500, 0, "lines")) == "embed: (1,500 lines)"
