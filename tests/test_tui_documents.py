"""The documents screen as a user has it: found while typing, read in its surroundings, and the folders of the index."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from documents_window import LEASE, preview, rows, state, use, written
from small_index import facts, passages
from test_tui_snapshots import compare
from textual.content import Content
from textual.pilot import Pilot
from textual.widgets import Input, OptionList, Static
from tui_pilot import PENDING, SIZES, shown, until
from word_engine import NAME, Words

from edgemm.index import Store
from edgemm.library import Index
from edgemm.tui import indexing
from edgemm.tui.finding import Stock
from edgemm.tui.indexing import IndexDesk
from edgemm.tui.screens.ask import Confirm
from edgemm.tui.screens.documents import DocumentsScreen
from edgemm.tui.screens.folder import FolderScreen
from edgemm.tui.widgets.passage import Passage


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return written(tmp_path / "docs")


@pytest.fixture
def words() -> Words:
    return Words()


@pytest.fixture
def index(tmp_path: Path, words: Words) -> Iterator[Index]:
    with Index(Store(tmp_path / "index.sqlite"), NAME, opener=words) as made:
        yield made


# Search


def test_typing_finds_passages_by_words_and_by_meaning(index: Index, folder: Path) -> None:
    index.add(folder)

    async def body(pilot: Pilot[None], screen: DocumentsScreen) -> None:
        await pilot.press(*"cancel")
        await until(pilot, lambda: "lease.md" in rows(screen)[0] and any("note.txt" in row for row in rows(screen)))
        assert "Cancelling Either side may cancel the contract" in rows(screen)[0]
        prompt = screen.query_one("#rows", OptionList).get_option_at_index(0).prompt
        assert isinstance(prompt, Content)
        assert "cancel" in [prompt.plain[s.start : s.end] for s in prompt.spans if "reverse" in str(s.style)]

    use(index, body)


def test_a_passage_is_read_in_its_surroundings(index: Index, folder: Path) -> None:
    index.add(folder)

    async def body(pilot: Pilot[None], screen: DocumentsScreen) -> None:
        await pilot.press(*"writing")
        await until(pilot, lambda: "▌ Either side" in preview(screen).plain)
        text = preview(screen).plain
        assert text.index("It begins in May.") < text.index("▌ Either side") < text.index("All keys")
        assert str(screen.query_one(Passage).border_title) == "lease.md · Lease > Cancelling · lines 7-9"
        assert screen.query_one("#rows").region.bottom <= screen.query_one(Passage).region.y
        await pilot.press("enter")
        await until(pilot, lambda: not screen.query_one("#rows").display)
        assert pilot.app.focused is screen.query_one(Passage)
        await pilot.press("escape")
        await until(pilot, lambda: screen.query_one("#rows").display and screen.query_one(Input).has_focus)
        await pilot.resize_terminal(120, 40)
        await until(pilot, lambda: screen.query_one("#rows").region.right <= screen.query_one(Passage).region.x)

    use(index, body)


def test_words_are_found_before_the_model_is_there(index: Index, folder: Path, words: Words) -> None:
    index.add(folder)
    words.answers.clear()

    async def body(pilot: Pilot[None], screen: DocumentsScreen) -> None:
        await pilot.press(*"cancel")
        await until(pilot, lambda: f"{NAME} is being loaded" in shown(pilot.app))
        assert "lease.md" in rows(screen)[0]
        assert not any("note.txt" in row for row in rows(screen))
        words.answers.set()
        await until(pilot, lambda: any("note.txt" in row for row in rows(screen)))
        assert "is being loaded" not in shown(pilot.app)

    use(index, body)


def test_a_search_that_is_overtaken_shows_nothing_and_does_not_pile_up(
    index: Index, folder: Path, words: Words
) -> None:
    index.add(folder)
    seen = list[str]()

    async def body(pilot: Pilot[None], screen: DocumentsScreen) -> None:
        show = screen._show
        screen._show = lambda query, *found: (seen.append(query), show(query, *found))[1]  # type: ignore[method-assign]
        await pilot.press(*"keys")
        await until(pilot, lambda: words.queries == ["keys"])
        words.answers.clear()
        for word in ("cancel", "writing", "may"):
            screen.query_one(Input).value = word
            await pilot.pause(0.4)
        assert pilot.app.focused is screen.query_one(Input), "the screen is alive while a search waits"
        words.answers.set()
        await until(pilot, lambda: bool(rows(screen)) and "in May" in rows(screen)[0])
        await pilot.pause(0.2)

    use(index, body)
    assert words.queries == ["keys", "cancel", "may"], "what waited and was overtaken was not searched"
    assert set(seen) == {"keys", "may"}


def test_nothing_found_is_said_and_an_emptied_field_shows_the_folders_again(index: Index, folder: Path) -> None:
    index.store.add_root(folder)

    async def body(pilot: Pilot[None], screen: DocumentsScreen) -> None:
        await pilot.press(*"zebra")
        await until(pilot, lambda: rows(screen) == ["nothing is found"])
        await pilot.press("enter", "alt+c", "ctrl+k", "delete", "escape")
        await until(pilot, lambda: "0 files · " in rows(screen)[0])
        assert isinstance(pilot.app.screen, DocumentsScreen)

    use(index, body)


def test_scores_are_shown_and_hidden_and_the_chosen_row_stays(index: Index, folder: Path) -> None:
    index.add(folder)

    async def body(pilot: Pilot[None], screen: DocumentsScreen) -> None:
        await pilot.press(*"cancel")
        await until(pilot, lambda: len(rows(screen)) > 1)
        await pilot.press("down", "f4")
        await until(pilot, lambda: "words 1. (" in rows(screen)[0])
        assert screen.query_one(OptionList).highlighted == 1
        await pilot.press("f4")
        await until(pilot, lambda: "words 1. (" not in rows(screen)[0])

    use(index, body)


def test_path_and_line_are_copied_and_a_passage_is_quoted_for_a_question(index: Index, folder: Path) -> None:
    index.add(folder)

    async def body(pilot: Pilot[None], screen: DocumentsScreen) -> None:
        await pilot.press(*"writing")
        await until(pilot, lambda: "writing" in rows(screen)[0])
        await pilot.press("alt+c")
        assert pilot.app.clipboard == f"{folder / 'flat' / 'lease.md'}:7"
        assert "copied" in state(screen)
        await pilot.press("ctrl+k")
        await until(pilot, lambda: pilot.app.result is not PENDING)  # type: ignore[attr-defined]

    quoted = use(index, body).result
    assert quoted.startswith("From lease.md, lines 7-9:\n```\n## Cancelling")


# Folders


def test_without_a_query_the_folders_the_models_and_refused_files_are_shown(index: Index, folder: Path) -> None:
    index.add(folder)
    index.store.add_root(folder.parent / "gone")

    async def body(pilot: Pilot[None], screen: DocumentsScreen) -> None:
        assert "3 files · 5 passages" in rows(screen)[0]
        assert "1 refused" in rows(screen)[0]
        assert "is not there now" in rows(screen)[1]
        text = preview(screen).plain
        assert f"{NAME} (text): 5 vectors" in text
        assert "broken.pdf: damaged" in text
        await pilot.press("down", "enter")
        await until(pilot, lambda: "what the index holds of it is kept" in preview(screen).plain)
        await pilot.press("escape", "escape")
        await until(pilot, lambda: pilot.app.result is None)  # type: ignore[attr-defined]

    use(index, body, SIZES[1])


def test_a_folder_is_added_by_a_typed_path_that_tab_completes(
    index: Index, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(folder.parent))
    monkeypatch.setenv("USERPROFILE", str(folder.parent))

    async def body(pilot: Pilot[None], screen: DocumentsScreen) -> None:
        assert rows(screen) == ["no folder is in the index yet: F2 adds one"]
        await pilot.press("f5")
        assert "F2 adds one" in state(screen)
        await pilot.press("f2")
        await until(pilot, lambda: isinstance(pilot.app.screen, FolderScreen) and "~/docs/" in shown(pilot.app))
        await pilot.press(*"doc", "tab", *"fl")
        await until(pilot, lambda: "~/docs/flat/" in shown(pilot.app))
        await pilot.press("tab")
        assert pilot.app.screen.query_one(Input).value == "~/docs/flat/"
        await pilot.press("enter")
        await until(pilot, lambda: "1 file · 1 new" in state(screen))
        await until(pilot, lambda: "1 file · 4 passages" in rows(screen)[0])

    use(index, body)
    assert [root.path for root in index.store.roots()] == [folder / "flat"]


@pytest.mark.parametrize("typed", ["/no/such/folder", "~nobody-is-called-so/x", "note.txt"])
def test_what_is_no_folder_is_refused_in_one_line(
    index: Index, folder: Path, typed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)

    async def body(pilot: Pilot[None], screen: DocumentsScreen) -> None:
        await pilot.press("f2")
        await until(pilot, lambda: isinstance(pilot.app.screen, FolderScreen))
        pilot.app.screen.query_one(Input).value = typed
        await pilot.press("enter")
        await until(pilot, lambda: any(why in shown(pilot.app) for why in ("no such", "is a file")))

    use(index, body)
    assert index.store.roots() == []


def test_a_folder_is_forgotten_only_after_a_yes(index: Index, folder: Path) -> None:
    index.add(folder)

    async def body(pilot: Pilot[None], screen: DocumentsScreen) -> None:
        for answer in ("n", "y"):
            assert index.store.roots()
            await pilot.press("delete")
            await until(pilot, lambda: isinstance(pilot.app.screen, Confirm))
            assert "No file is touched" in str(pilot.app.screen.query_one("#question", Static).visual)
            await pilot.press(answer)
            await until(pilot, lambda: pilot.app.screen is screen)
        await until(pilot, lambda: "F2 adds one" in rows(screen)[0])
        assert "forgotten" in state(screen)

    use(index, body)
    assert (folder / "note.txt").is_file()


# How it looks


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("what", ["documents", "documents-found"])
def test_it_looks_as_it_did(
    index: Index, size: tuple[int, int], what: str, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    monkeypatch.setattr(indexing, "_is_there", lambda path: path.name != "Archive")
    monkeypatch.setattr(indexing.IndexDesk, "stock", fixed(indexing.IndexDesk.stock))
    root = index.store.add_root(Path("/home/ann/Documents")).id
    parts = [part for part in LEASE.replace("## ", "\0## ").split("\0") if part.strip()]
    index.store.put(root, facts("flat/lease.md"), passages(*parts))
    index.store.put(root, facts("契約.txt"), passages("cancel the 契約 in time"))
    index.store.put(index.store.add_root(Path("/home/ann/Archive")).id, facts("old.md"), passages("a contract"))

    async def body(pilot: Pilot[None], screen: DocumentsScreen) -> None:
        screen.query_one(Input).cursor_blink = False
        if what == "documents-found":
            await pilot.press(*"cancel contract")
            await until(pilot, lambda: "writing" in rows(screen)[0] and "▌" in preview(screen).plain)
        await pilot.pause(0.5)
        compare(f"{what}-{size[0]}x{size[1]}", pilot.app.export_screenshot())

    use(index, body, size)


def fixed(stock: Callable[[IndexDesk], Stock]) -> Callable[[IndexDesk], Stock]:
    """Without the size of the file, which another SQLite makes otherwise."""

    def give(desk: IndexDesk) -> Stock:
        found = stock(desk)
        return replace(found, status=replace(found.status, size=400_000))

    return give
