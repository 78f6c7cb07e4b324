"""Text from a keyboard: what is pasted presses no key, wherever the reads are cut."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemm.tui.typed import Decoder

BEGIN, END = "\x1b[200~", "\x1b[201~"
CASES = {
    "hello\r": "hello\r",
    "\x1b[A\x1b": "\x1b[A\x1b",
    f"a{BEGIN}b\x1b[2J\r\x1b\x1b{END}\x1b[A": f"a{BEGIN}b␛[2J\r␛␛{END}\x1b[A",
    f"{BEGIN}x{END}{BEGIN}\x1b{END}\x1b": f"{BEGIN}x{END}{BEGIN}␛{END}\x1b",
    f"{BEGIN}\x1b[20{BEGIN}\x1b[201{END}\x1b": f"{BEGIN}␛[20␛[200~␛[201{END}\x1b",
    f"\x1b[20\x1b[200\x1b{BEGIN}\x1bé中{END}": f"\x1b[20\x1b[200\x1b{BEGIN}␛é中{END}",
}


@pytest.mark.parametrize(("typed", "text"), CASES.items(), ids=range(len(CASES)))
def test_an_escape_in_a_paste_is_shown_and_any_other_is_a_key(typed: str, text: str) -> None:
    raw = typed.encode()
    for first in range(len(raw) + 1):
        for second in range(first, len(raw) + 1):
            decoder = Decoder()
            assert "".join(map(decoder.decode, (raw[:first], raw[first:second], raw[second:]))) == text


@given(st.lists(st.sampled_from([b"\x1b", b"[200~", b"[201~", b"[20", b"0~", b"a", b"\r", b"\xff", "é".encode()])))
def test_it_is_the_same_text_wherever_the_reads_are_cut(parts: list[bytes]) -> None:
    text = Decoder().decode(b"".join(parts) + END.encode())
    assert "".join(map(Decoder().decode, [*parts, END.encode()])) == text


@pytest.mark.parametrize("key", ["\x1b", "\x1b[", "\x1b[20", "\x1b[200"])
def test_a_key_does_not_wait_for_the_next_one(key: str) -> None:
    assert Decoder().decode(key.encode()) == key


def test_bytes_that_are_no_utf_8_end_nothing() -> None:
    decoder = Decoder()
    assert decoder.decode(b"a\xff\xc3") + decoder.decode(b"b") == "a��b"
