"""What a message looks like, without a screen: Markdown to blocks, blocks to rows, growing texts, pace and window."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from rich.cells import cell_len
from textual.content import Content
from textual.geometry import Offset
from textual.selection import Selection

from edgemm.tui import entry, flat, growing, highlight, window
from edgemm.tui.entry import Entry
from edgemm.tui.flat import Kind
from edgemm.tui.growing import Growing
from edgemm.tui.pace import LATEST, SOONEST, TIMES, Pace
from edgemm.tui.rows import NARROWEST, Row, lay_out, selected
from edgemm.tui.window import CHUNK, HEAVY, MOST, OPENED, Window

ANSWER = """\
# Reversing

Here is *how* in **Python**, with `list.reverse()`; see [the docs](https://docs.python.org/3/) or <https://example.org>.
Second line.

1. First
2. Then
   - nested
   - twice

> A quote
>
> - with a list

```python
def reverse(xs):
    return xs[::-1]  # a comment
```

| name | size |
|:-----|-----:|
| a    | 1    |
| b    | 200  |

---

The end.
"""
MARKDOWN = st.text(st.sampled_from(" ab*_`#->|\n\n\t1.[]()~!:=\\&<"), max_size=200)
HOSTILE = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)


def lines(text: str, width: int = 80) -> list[str]:
    return plain(lay_out(flat.blocks(text), width))


def plain(rows: list[Row]) -> list[str]:
    return [row.content.plain.rstrip() for row in rows]


def styles(text: str) -> set[tuple[str, str]]:
    """Each styled piece of the first block, with its style."""
    content = flat.blocks(text)[0].content
    return {(content.plain[span.start : span.end], str(span.style)) for span in content.spans}


def test_an_answer_looks_as_meant() -> None:
    assert lines(ANSWER, 60) == [
        "Reversing",
        "",
        "Here is how in Python, with list.reverse(); see the docs",
        "(https://docs.python.org/3/) or https://example.org.",
        "Second line.",
        "",
        "1. First",
        "2. Then",
        "   ◦ nested",
        "   ◦ twice",
        "",
        "│ A quote",
        "│",
        "│ • with a list",
        "",
        "  def reverse(xs):",
        "      return xs[::-1]  # a comment",
        "",
        "name │ size",
        "─────┼─────",
        "a    │    1",
        "b    │  200",
        "",
        "─" * 60,
        "",
        "The end.",
    ]


def test_emphasis_becomes_style() -> None:
    found = styles("*a* **b** `c` ~~d~~")
    assert found == {("a", "italic"), ("b", "bold"), ("c", "$text-warning"), ("d", "strike")}


def test_code_is_coloured_in_a_known_language_only() -> None:
    assert ("def", "bold $text-accent") in styles("```python\ndef f(): pass\n```")
    assert not styles("```\ndef f(): pass\n```")
    assert not styles("```no-such-language\ndef f(): pass\n```")


def test_colours_stop_at_their_deadline_and_the_code_stays() -> None:
    source = "x = 1\n" * 1000
    assert len(highlight.spans(source, "python")) == 1000
    assert len(highlight.spans(source, "python", time.monotonic())) <= 1
    assert flat.code(source, "python", time.monotonic()).content.plain == source.rstrip("\n")


def test_every_language_has_a_lexer() -> None:
    for language in highlight.LANGUAGES:
        highlight.spans("x", language)


def test_long_list_items_hang_below_their_text() -> None:
    assert lines("1. " + "word " * 6, 20) == ["1. word word word", "   word word word"]


def test_empty_items_keep_their_bullets() -> None:
    assert lines("- \n- a") == ["•", "• a"]


def test_an_image_is_its_description_and_its_address() -> None:
    assert lines("![a cat](http://x/y.png)") == ["[image: a cat] (http://x/y.png)"]


@pytest.mark.parametrize(
    "text",
    [
        "[a](javascript:alert)",
        "<b onclick=x>a</b>",
        "<script>\nx\n</script>",
        "[@click=app.quit]a[/]",
        "[bold]a[/bold]",
        "[a](<@click=app.quit>)",
    ],
)
def test_nothing_in_a_text_acts(text: str) -> None:
    for block in flat.blocks(text):
        assert not any("@click" in str(span.style) or not isinstance(span.style, str) for span in block.content.spans)
    assert "a" in "".join(lines(text)) or "x" in "".join(lines(text))


@pytest.mark.parametrize(
    "text", ["\x1b[31mred", "a\x07\x08\x7f", "\x9b31m", "&#27;[31m", "&#x202e;x", "`\x1b`", "\u202e"]
)
@pytest.mark.parametrize("frame", ["{}", "# {}", "- {}", "```\n{}\n```", "|{}|\n|-|\n|{}|", "[{}]({})", "    {}"])
def test_no_control_character_survives(text: str, frame: str) -> None:
    shown = "".join(lines(frame.replace("{}", text)))
    assert not set(shown) & set("\x1b\x07\x08\x7f\x9b\r\u202e")


def test_a_parser_that_fails_leaves_the_text_as_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RecursionError

    monkeypatch.setattr(MarkdownIt, "parse", fail)
    assert lines("*a*\n\x1bb") == ["*a*", "␛b"]


@settings(max_examples=200, deadline=None)
@given(st.one_of(MARKDOWN, HOSTILE), st.integers(0, 60))
def test_no_text_breaks_the_page(text: str, width: int) -> None:
    for row in lay_out(flat.blocks(text) + flat.plain(text), width):
        assert cell_len(row.content.plain) <= max(width, NARROWEST)
        assert row.margin <= len(row.content.plain)
        assert not set(row.content.plain) & set("\x1b\n\r\t\x07\x9b")


@pytest.mark.parametrize(
    "text",
    [
        ">" * 5000,
        "[" * 50_000,
        "*a " * 15_000,
        "- " * 20_000,
        "`" * 50_000,
        "".join("`" * i + " " for i in range(300)),
        "&" * 50_000,
    ],
)
def test_hostile_nesting_takes_no_time(text: str) -> None:
    began = time.thread_time()
    lines(text)
    assert time.thread_time() - began < 3


def test_tables_stay_in_columns_whatever_is_in_them() -> None:
    table = "| a | b |\n|---|--:|\n| 日本語 | 1 |\n| 👍🏽 | 22 |\n| שלום | 3 |\n| é | 4 |\n"
    for width in (80, 14):
        found = lay_out(flat.blocks(table), width)
        bars = {
            cell_len(row.content.plain[: row.content.plain.index("│")]) for row in found if "│" in row.content.plain
        }
        assert len(bars) == 1


def test_wide_columns_give_way_to_narrow_ones() -> None:
    found = lines("| a | b |\n|---|---|\n| 12345 | " + "long " * 20 + "|", 40)
    assert max(map(len, found)) <= 40
    assert found[2].startswith("12345 │ long long")


def test_a_table_with_too_many_columns_becomes_records() -> None:
    header, row = "|" + "|".join(f"h{i}" for i in range(12)) + "|", "|" + "|".join(f"c{i}" for i in range(12)) + "|"
    found = lines(f"{header}\n|{'-|' * 12}\n{row}\n", 30)
    assert found == [f"h{i}: c{i}" for i in range(12)]


def test_long_code_lines_break_anywhere_and_lose_nothing() -> None:
    found = lay_out(flat.blocks("```\n" + "x" * 100 + "\n```"), 42)
    assert [len(row.content.plain) for row in found] == [42, 42, 22]
    assert all(row.code for row in found)


def test_a_selection_is_copied_without_margins_and_wraps() -> None:
    rows = lay_out(flat.blocks("one two three four\n\n> quoted\n\n```\n  code\n```\n\n- item"), 10)
    assert selected(rows, Selection(None, None)) == "one two three four\n\nquoted\n\n  code\n\n• item"
    assert selected(rows, Selection(Offset(4, 0), Offset(5, 1))) == "two three"


def test_a_quote_is_not_closed_by_its_bars() -> None:
    assert selected(lay_out(flat.blocks("> > a b c d e f g h"), 12), Selection(None, None)) == "a b c d e f g h"


@pytest.mark.parametrize("size", [1, 2, 7, 30])
def test_a_text_that_grows_looks_like_the_whole(size: int) -> None:
    text = Growing()
    for start in range(0, len(ANSWER), size):
        text.feed(ANSWER[start : start + size])
        text.grow()
    assert text.exact
    assert plain(lay_out(text.finished + text.open, 60)) == lines(ANSWER, 60)
    assert text.text == ANSWER


@pytest.mark.parametrize(
    "source", ["a\n***b***", "a\n#b", "a\nb|c\n-|-d", "- a\n* b", "# a\n# b\n# c\nd", "a\n***\nb\n"]
)
def test_an_unfinished_line_decides_nothing(source: str) -> None:
    text = Growing()
    for character in source:
        text.feed(character)
        text.grow()
    assert plain(lay_out(text.finished + text.open, 40)) == lines(source, 40)


@settings(max_examples=200, deadline=None)
@given(MARKDOWN, st.integers(1, 20))
def test_a_settled_text_does_not_depend_on_how_it_came(source: str, size: int) -> None:
    text = Growing()
    for start in range(0, len(source), size):
        text.feed(source[start : start + size])
        text.grow()
    assert plain(lay_out(text.settled(), 40)) == lines(source, 40)


@pytest.mark.parametrize(
    ("begin", "line", "end"),
    [
        ("```python\n", "x = 1  # one\n", "```\n"),
        ("", "- an item\n", "\n"),
        ("|a|b|\n|-|-|\n", "|x|y|\n", "\n"),
        ("", "prose without an end ", "\n\n"),
    ],
)
def test_a_long_block_costs_no_more_than_a_short_one(begin: str, line: str, end: str) -> None:
    text, longest = Growing(begin), 0
    for _ in range(1000):
        text.feed(line)
        text.grow()
        longest = max(longest, sum(len(block.content) for block in text.open))
    assert longest <= growing.MOST + len(line)
    text.feed(end + "*after*\n")
    text.grow()
    assert [block.content.plain for block in text.open] == ["after"]
    assert not text.exact
    assert plain(lay_out(text.settled(), 80)) == lines(text.text, 80)


def test_a_long_code_fence_keeps_every_line_and_looks_like_code() -> None:
    text = Growing("```\n")
    source = [f"line {i}" for i in range(2000)]
    for line in source:
        text.feed(line + "\n")
        text.grow()
    found = text.finished + text.open
    assert "\n".join(block.content.plain for block in found).split("\n") == source
    assert {block.kind for block in found} == {Kind.CODE}


def test_a_line_end_that_comes_in_two_parts_is_one_once_the_text_is_settled() -> None:
    text = Growing()
    for character in "a\r\nb":
        text.feed(character)
        text.grow()
    assert plain(lay_out(text.settled(), 40)) == ["a", "b"]


def test_control_sequences_do_not_survive_being_cut_in_two() -> None:
    text = Growing()
    for character in "a\x1b[31mb\x9b":
        text.feed(character)
        text.grow()
    assert [block.content.plain for block in text.open] == ["a␛[31mb�"]


def test_the_first_drawing_is_due_at_once_and_the_next_one_later() -> None:
    pace = Pace()
    assert pace.wait(100.0) == 0
    pace.spent(100.0, 0.001)
    assert pace.wait(100.0) == pytest.approx(SOONEST)
    assert pace.wait(100.0 + SOONEST) == 0


def test_dear_drawings_make_room_for_the_model() -> None:
    pace = Pace()
    pace.spent(100.0, 0.01)
    assert pace.wait(100.0) == pytest.approx(TIMES * 0.01)
    pace.spent(100.0, 0.6)
    assert pace.wait(100.0) == pytest.approx(LATEST)  # and still look alive


def test_a_window_opens_at_the_end() -> None:
    assert window.ending([10] * 300, 300) == Window(300 - OPENED, 300)
    assert window.ending([10] * 3, 3) == Window(0, 3)
    assert window.ending([], 0) == Window(0, 0)


def test_a_window_holds_few_heavy_messages_but_always_one() -> None:
    assert len(window.ending([HEAVY // 2] * 300, 300)) == 2
    assert len(window.ending([HEAVY * 2] * 300, 300)) == 1


def test_a_window_grows_at_one_end_and_is_cut_at_the_other() -> None:
    sizes = [10] * 300
    found = window.ending(sizes, 300)
    while found.first:
        before, found = found, window.older(found, sizes)
        assert found.first == max(0, before.first - CHUNK)
        assert len(found) <= MOST
    assert found == Window(0, MOST)
    while found.last < 300:
        before, found = found, window.newer(found, sizes)
        assert found.last == min(300, before.last + CHUNK)
        assert len(found) <= MOST
    assert found == Window(300 - MOST, 300)


def test_a_label_names_who_speaks_the_branch_and_the_attachments() -> None:
    said = Entry(1, "user", "", branch=(2, 3), attachments=("a.txt", "b\x1b.png"))
    assert plain(lay_out(entry.label(said), 80)) == ["You  ‹ 2/3 ›", "[a.txt] [b␛.png]"]
    assert plain(lay_out(entry.label(Entry(1, "assistant", "", name="a [b]model[/b]")), 80)) == ["a [b]model[/b]"]


def test_what_a_user_typed_is_shown_as_typed() -> None:
    assert plain(lay_out(entry.body(Entry(1, "user", "*a*\n  # b")), 80)) == ["*a*", "  # b"]


def test_a_huge_message_says_how_much_of_it_is_not_shown() -> None:
    rows = plain(lay_out(entry.body(Entry(1, "user", "x" * (entry.SHOWN + 1234))), 80))
    assert "1,234 characters that are not shown" in rows[-1]


def test_a_row_is_content_and_never_markup() -> None:
    assert all(isinstance(row.content, Content) for row in lay_out(flat.blocks("[b]a[/b]"), 80))
    assert lines("[b]a[/b]") == ["[b]a[/b]"]
