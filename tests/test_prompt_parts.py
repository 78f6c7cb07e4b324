"""What the prompt is made of, without a screen: folded blocks, earlier prompts, fuzzy names, paths, suggestions."""

import os
import sys
from pathlib import Path

import pytest

from edgemm.tui import files, suggest
from edgemm.tui.files import Found, Place, dropped, listed, place, scan
from edgemm.tui.folding import Blocks, clean, is_large, one_line, widened
from edgemm.tui.fuzzy import rank, score
from edgemm.tui.recall import Recall
from edgemm.tui.suggest import Kind, Query, query_at

posix_only = pytest.mark.skipif(os.name == "nt", reason="names and links of POSIX")


def tree(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("x")
    return root


# Folding.


def test_a_label_counts_lines_or_characters() -> None:
    blocks = Blocks()
    assert blocks.fold("a\n" * 23) == "[Pasted text #1 +23 lines]"
    assert blocks.fold("x" * 1024) == "[Pasted text #2 1,024 characters]"


@pytest.mark.parametrize(
    ("text", "large"),
    [("a\n" * 7, False), ("a\n" * 8, True), ("a\n" * 7 + "a", True), ("x" * 999, False), ("x" * 1000, True)],
)
def test_eight_lines_or_a_thousand_characters_are_large(text: str, large: bool) -> None:
    assert is_large(text) is large


def test_expanding_is_one_pass_so_that_a_pasted_label_stays_text() -> None:
    blocks = Blocks()
    first = blocks.fold("[Pasted text #2 +9 lines]" + "\n" * 8)
    second = blocks.fold("b\n" * 9)
    assert (
        blocks.expand(f"see {first} and {second}!")
        == "see [Pasted text #2 +9 lines]" + "\n" * 8 + " and " + "b\n" * 9 + "!"
    )


def test_text_that_only_looks_like_a_label_is_left_alone() -> None:
    assert Blocks().expand("[Pasted text #1 +23 lines]") == "[Pasted text #1 +23 lines]"


def test_attached_files_are_those_whose_labels_are_left() -> None:
    blocks = Blocks()
    labels = [blocks.attach(Path(p)) for p in ("/a/n.txt", "/b/n.txt", "/a/n.txt")]
    assert labels == ["[n.txt]", "[n.txt #2]", "[n.txt]"]
    assert blocks.attached("read [n.txt #2] then [n.txt] and [n.txt]") == (Path("/b/n.txt"), Path("/a/n.txt"))
    assert blocks.attached("nothing") == ()
    assert blocks.expand("[n.txt]") == "[n.txt]"


def test_a_file_name_cannot_break_its_label() -> None:
    label = Blocks().attach(Path("/a/x]\n\x1b[2J[" + "y" * 200 + ".md"))
    assert label.count("[") == label.count("]") == 1
    assert label.isprintable()
    assert len(label) < 50
    assert label.endswith(".md]")


def test_a_file_with_the_name_of_a_paste_keeps_its_label() -> None:
    blocks = Blocks()
    taken = blocks.attach(Path("/a/Pasted text #1 +8 lines"))
    assert blocks.fold("a\n" * 8) != taken
    assert blocks.attached(taken) == (Path("/a/Pasted text #1 +8 lines"),)


def test_a_column_inside_a_label_widens_to_the_label() -> None:
    spans = Blocks().spans("nothing")
    assert spans == []
    assert widened([(2, 8)], 5) == (2, 8)
    assert [widened([(2, 8)], column) for column in (2, 8, 9)] == [(2, 2), (8, 8), (9, 9)]


def test_pasted_text_is_made_harmless() -> None:
    dirty = "a\r\nb\rc\0\x1b]8;;x\x07\u2028d\ud800\x85\u202e"
    assert clean(dirty) == "a\nb\nc␛]8;;x␇\nd���"
    assert one_line("a\n\tb") == "a␊␉b"
    assert clean("شب‌بخیر 👩‍👩‍👧 漢字\tx") == "شب‌بخیر 👩‍👩‍👧 漢字\tx"


# Earlier prompts.


def test_walking_back_and_forward_brings_the_draft_back() -> None:
    recall = Recall(["one", "two"])
    assert recall.back("draft") == "two"
    assert recall.back("two") == "one"
    assert recall.back("one") is None
    assert recall.forward("one") == "two"
    assert recall.forward("two") == "draft"
    assert recall.forward("draft") is None


def test_what_was_edited_on_the_way_is_kept() -> None:
    recall = Recall(["one", "two"])
    recall.back("draft")
    assert recall.back("two, edited") == "one"
    assert recall.forward("one") == "two, edited"


def test_a_sent_prompt_is_the_newest_and_stands_once() -> None:
    recall = Recall(["one", "two"])
    recall.back("")
    recall.add("one")
    assert recall.back("") == "one"
    assert recall.back("one") == "two"
    assert recall.back("two") is None


def test_search_finds_all_words_in_any_case_newest_first() -> None:
    recall = Recall(["Fix the Bug", "bug report", "nothing", "the second bug to fix"])
    assert recall.search("FIX bug") == ["the second bug to fix", "Fix the Bug"]
    assert recall.search("", limit=2) == ["the second bug to fix", "nothing"]
    assert recall.search("zebra") == []


# Names.


def test_letters_must_occur_in_order() -> None:
    assert score("pmt", "prompt.py") is not None
    assert score("tpm", "prompt") is None


@pytest.mark.parametrize(
    ("query", "better", "worse"),
    [
        ("plan", "docs/plan.md", "docs/explanation.md"),
        ("plan", "docs/plan.md", "plain/almanac.md"),
        ("test", "a/test_x.py", "a/latest.py"),
        ("read", "readme.md", "a/b/c/readme.md"),
        ("ab", "xxab", "axxb"),
    ],
)
def test_the_better_name_comes_first(query: str, better: str, worse: str) -> None:
    assert rank(query, [worse, better], str, 5)[0] == better


def test_an_empty_query_takes_the_first_ones() -> None:
    assert rank("", ["b", "a", "c"], str, 2) == ["b", "a"]


def test_hostile_queries_take_no_time() -> None:
    assert score("a" * 400, "a" * 399 + "b") is None  # a backtracking matcher would never end


# Paths.


def test_hidden_and_made_files_come_last(tmp_path: Path) -> None:
    tree(tmp_path, ".git/config", "node_modules/a/b.js", "src/main.py", "z.txt", ".env")
    shown = [entry.shown for entry in scan(tmp_path)]
    assert shown[:3] == ["src/", "z.txt", "src/main.py"]
    assert set(shown[3:]) == {".git/", ".env", ".git/config", "node_modules/", "node_modules/a/", "node_modules/a/b.js"}


def test_a_scan_is_bounded_and_reaches_what_is_visible_first(tmp_path: Path) -> None:
    tree(tmp_path, *(f".cache/{n}" for n in range(50)), *(f"a/{n}.txt" for n in range(5)))
    found = scan(tmp_path, limit=7)
    assert len(found) == 7
    assert {f"a/{n}.txt" for n in range(5)} <= {entry.shown for entry in found}


def test_a_scan_can_be_stopped(tmp_path: Path) -> None:
    tree(tmp_path, "a/b/c.txt")
    assert scan(tmp_path, stop=lambda: True) == []


@posix_only
def test_links_to_folders_are_named_and_not_followed(tmp_path: Path) -> None:
    tree(tmp_path, "a/f.txt")
    (tmp_path / "a/loop").symlink_to(tmp_path)
    assert [entry.shown for entry in scan(tmp_path)] == ["a/", "a/f.txt", "a/loop/"]


@posix_only
@pytest.mark.skipif(sys.platform == "darwin", reason="its file systems refuse such names")
def test_a_name_that_is_no_utf8_is_shown_safely_and_still_opens(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/bad\xff\x1b[31m")).write_text("x")
    [entry] = scan(tmp_path)
    assert entry.shown == "bad�␛[31m"
    assert Path(entry.path).read_text() == "x"


def test_an_unreadable_or_missing_folder_is_empty(tmp_path: Path) -> None:
    assert listed(Place(tmp_path / "none", "none/", "", deep=True), lambda: False) == []
    assert listed(Place(tmp_path / "none", "none/", "", deep=False), lambda: False) == []


@posix_only
def test_where_a_query_looks(tmp_path: Path) -> None:
    cwd, home = tree(tmp_path / "work", "sub/x"), tree(tmp_path / "home", "y")
    assert place("ma", cwd, home) == Place(cwd, "", "ma", deep=True)
    assert place("sub/ma", cwd, home) == Place(cwd / "sub", "sub/", "ma", deep=True)
    assert place("~/no", cwd, home) == Place(home, "~/", "no", deep=False)
    assert place("/etc/ho", cwd, home) == Place(Path("/etc"), "/etc/", "ho", deep=False)


@posix_only
def test_a_relative_query_never_leaves_the_working_and_the_home_folder(tmp_path: Path) -> None:
    cwd, home = tree(tmp_path / "home/work", "x"), tmp_path / "home"
    (cwd / "out").symlink_to("/etc")
    assert place("../x", cwd, home) == Place(cwd / "..", "../", "x", deep=False)
    assert place("../../x", cwd, home) is None
    assert place("out/pass", cwd, home) is None
    assert place("sub/../../../x", cwd, home) is None


@pytest.mark.parametrize("query", ["//server/share/x", "\\\\server\\share\\x", "//x"])
def test_a_network_path_is_never_looked_at(query: str, tmp_path: Path) -> None:
    where = place(query, tmp_path, tmp_path)
    assert where is None or where.folder.is_relative_to(tmp_path)
    assert dropped(query) == []


@posix_only
@pytest.mark.parametrize(
    "form",
    ["{plain}", "'{plain}'", '"{plain}"', "{escaped}", "file://{url}", "file://localhost{url}", " {plain}\n"],
)
def test_a_dragged_file_is_understood(form: str, tmp_path: Path) -> None:
    path = next(iter([tree(tmp_path, "my notes.txt") / "my notes.txt"]))
    text = form.format(plain=path, escaped=str(path).replace(" ", "\\ "), url=str(path).replace(" ", "%20"))
    assert dropped(text) == [path]


@posix_only
def test_several_dragged_files_are_understood(tmp_path: Path) -> None:
    tree(tmp_path, "a b.txt", "c.txt")
    both = [tmp_path / "a b.txt", tmp_path / "c.txt"]
    assert dropped(f"'{both[0]}' {both[1]}") == both
    assert dropped(f"{both[0]}\r\n{both[1]}\r\n") == both


def test_other_text_is_no_dragged_file(tmp_path: Path) -> None:
    path = tree(tmp_path, "a.txt") / "a.txt"
    for text in (
        "",
        "a.txt",
        f"{path} is odd",
        f"{path}.none",
        str(tmp_path),
        "file://host/a",
        "it's",
        "\0",
        "x" * 9000,
    ):
        assert dropped(text) == [], text


# Suggestions.


@pytest.mark.parametrize(
    ("row", "before", "query"),
    [
        (0, "/", Query(Kind.COMMAND, "", 0)),
        (0, "/he", Query(Kind.COMMAND, "he", 0)),
        (0, "/help me", None),
        (1, "/he", None),
        (0, "a /he", None),
        (0, "@", Query(Kind.PATH, "", 0)),
        (3, "see @src/ma", Query(Kind.PATH, "src/ma", 4)),
        (0, 'see (@"my no', Query(Kind.PATH, "my no", 5)),
        (0, "me@host.org", None),
        (0, "see @a b", None),
        (0, "plain", None),
    ],
)
def test_the_word_at_the_cursor_decides(row: int, before: str, query: Query | None) -> None:
    assert query_at(row, before) == query


def test_commands_that_begin_with_the_query_come_first() -> None:
    known = [("model", "choose"), ("edit", ""), ("delete", "")]
    assert [choice.insert for choice in suggest.commands("de", known)] == ["/delete ", "/model "]
    assert [choice.insert for choice in suggest.commands("", known)] == ["/model ", "/edit ", "/delete "]


def test_a_file_is_attached_and_a_folder_goes_on() -> None:
    entries = [Found("my docs/", "/w/my docs", True, False), Found("my.txt", "/w/my.txt", False, False)]
    file, folder = sorted(suggest.paths(Place(Path("/w"), "", "my", deep=True), entries), key=lambda c: not c.path)
    assert (file.shown, file.path) == ("my.txt", Path("/w/my.txt"))
    assert (folder.insert, folder.path) == ('@"my docs/', None)


def test_late_paths_come_last_unless_a_dot_was_typed() -> None:
    entries = [Found(".github", "/w/.github", False, True), Found("g-i-thub", "/w/g", False, False)]
    at = Place(Path("/w"), "", "github", deep=True)
    assert [c.shown for c in suggest.paths(at, entries)] == ["g-i-thub", ".github"]
    assert suggest.paths(Place(Path("/w"), "", ".g", deep=True), entries)[0].shown == ".github"


def test_a_user_without_a_home_folder_searches_the_working_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> Path:
        raise RuntimeError("no home")

    monkeypatch.setattr(Path, "home", missing)
    assert files.home(Path("/w")) == Path("/w")
