"""Runs over the index from the documents screen, what goes wrong there, and how the chat opens it."""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from chat_window import chat, opened, send, told
from documents_window import rows, run_line, state, use, written
from hostile_texts import TEXTS
from small_index import facts, passages
from textual.pilot import Pilot
from textual.widgets import ProgressBar
from tui_pilot import PENDING, Host, drive, until
from word_engine import NAME, Words

from edgemm.errors import BadFile, UnknownModel
from edgemm.index import Medium, Store, default_path
from edgemm.library import Engine, Index
from edgemm.terminal import safe
from edgemm.tui import indexing
from edgemm.tui.indexing import IndexDesk
from edgemm.tui.screens.ask import Confirm
from edgemm.tui.screens.chat import ChatScreen
from edgemm.tui.screens.documents import DocumentsScreen


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


# Runs


def test_a_run_shows_its_progress_while_one_searches_and_can_be_stopped_and_gone_on_with(
    index: Index, folder: Path, words: Words
) -> None:
    index.store.add_root(folder)
    words.embeds.clear()

    async def body(pilot: Pilot[None], screen: DocumentsScreen) -> None:
        await pilot.press("f5")
        await until(pilot, lambda: "read: " in run_line(screen))
        assert screen.query_one(ProgressBar).percentage is not None
        await pilot.press(*"writing")
        await until(pilot, lambda: "writing" in rows(screen)[0])
        await pilot.press("escape", "f5", "delete")
        await until(pilot, lambda: isinstance(pilot.app.screen, Confirm))
        await pilot.press("y")
        await until(pilot, lambda: "is being brought up to date" in state(screen))
        await pilot.press("escape")
        await until(pilot, lambda: run_line(screen).startswith("stopping"))
        words.embeds.set()
        await until(pilot, lambda: state(screen).startswith("stopped"))
        assert run_line(screen) == ""
        await pilot.press("tab", "f5")
        await until(pilot, lambda: "embedded" in state(screen) or "3 files" in state(screen))

    host = use(index, body)
    assert host.result is PENDING
    assert index.store.status().roots[0].pending == 0


def test_a_run_goes_on_when_the_screen_is_closed(index: Index, folder: Path, words: Words) -> None:
    index.store.add_root(folder)
    words.embeds.clear()
    desk = IndexDesk(lambda: index)
    host = Host(lambda: DocumentsScreen(desk))

    async def script(app: Host, pilot: Pilot[None]) -> None:
        screen = app.screen
        await until(pilot, lambda: "docs" in str(rows(screen)))
        await pilot.press("f5")
        await until(pilot, lambda: desk.run is not None and desk.run.progress is not None)
        await pilot.press("f9")
        await until(pilot, lambda: app.result is None)
        words.embeds.set()
        await until(pilot, lambda: desk.run is not None and desk.run.end is not None)
        again = DocumentsScreen(desk)
        await app.push_screen(again)
        await until(pilot, lambda: "5 passages embedded" in state(again))

    drive(host, script)


def test_x_stops_a_run_where_it_is_no_letter(index: Index, folder: Path, words: Words) -> None:
    index.store.add_root(folder)
    words.embeds.clear()

    async def body(pilot: Pilot[None], screen: DocumentsScreen) -> None:
        await pilot.press("f5")
        await until(pilot, lambda: "read: " in run_line(screen))
        await pilot.press("tab", "x")
        await until(pilot, lambda: run_line(screen).startswith("stopping"))
        words.embeds.set()
        await until(pilot, lambda: state(screen).startswith("stopped"))

    use(index, body)


# Trouble


def test_a_damaged_index_is_one_line_and_the_screen_stays(tmp_path: Path) -> None:
    path = tmp_path / "index.sqlite"
    path.write_bytes(b"SQLite format 3\0" + bytes(range(256)) * 40)

    async def body(pilot: Pilot[None], screen: DocumentsScreen) -> None:
        assert "edgemm index verify --rebuild" in state(screen)
        for key in ("a", "f5", "delete", "enter", "f4", "alt+c", "ctrl+k"):
            await pilot.press(key)
            await pilot.pause(0.3)
        assert "edgemm index verify --rebuild" in state(screen)
        await pilot.press("escape", "escape", "escape")
        await until(pilot, lambda: pilot.app.result is None)  # type: ignore[attr-defined]

    use(lambda: Index(Store(path)), body)


def test_an_index_that_breaks_while_it_is_open_is_told(index: Index, folder: Path) -> None:
    index.add(folder)

    async def body(pilot: Pilot[None], screen: DocumentsScreen) -> None:
        with closing(sqlite3.connect(index.store.path)) as database, database:
            database.execute("UPDATE chunk SET place = '[', heading = '7'")
        await pilot.press(*"cancel")
        await until(pilot, lambda: "is damaged" in state(screen))

    use(index, body)


def test_another_process_that_indexes_is_told(index: Index, folder: Path) -> None:
    index.add(folder)

    async def body(pilot: Pilot[None], screen: DocumentsScreen) -> None:
        with Store(index.store.path) as other, other.exclusive():
            await pilot.press("f5")
            await until(pilot, lambda: "another edgemm" in state(screen))
            await pilot.press("delete")
            await until(pilot, lambda: isinstance(pilot.app.screen, Confirm))
            await pilot.press("y")
            await until(pilot, lambda: pilot.app.screen is screen and "another edgemm" in state(screen))

    use(index, body)
    assert index.store.roots()


def test_a_missing_model_is_told_once_and_words_are_searched(tmp_path: Path, index: Index, folder: Path) -> None:
    index.add(folder)

    def missing(name: str, _: Medium) -> Engine:
        raise UnknownModel(name, "is not on this machine", "pull it")

    async def body(pilot: Pilot[None], screen: DocumentsScreen) -> None:
        await pilot.press(*"cancel")
        await until(pilot, lambda: "so words alone are searched" in state(screen))
        assert "lease.md" in rows(screen)[0]
        await pilot.press("backspace")
        await until(pilot, lambda: state(screen) == "")

    with Index(Store(tmp_path / "index.sqlite"), opener=missing) as other:
        use(other, body)


def test_a_store_that_cannot_be_opened_is_opened_as_soon_as_it_can(index: Index, folder: Path) -> None:
    index.add(folder)
    tries = iter([BadFile("index", "cannot be read", "wait")])

    def opener() -> Index:
        for error in tries:
            raise error
        return index

    async def body(pilot: Pilot[None], screen: DocumentsScreen) -> None:
        assert "cannot be read" in state(screen)
        await pilot.press(*"cancel")
        await until(pilot, lambda: "lease.md" in "".join(rows(screen)))

    use(opener, body)


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), ValueError("[b]odd")])
def test_a_run_that_fails_is_one_line(index: Index, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fails(*_: object) -> None:
        raise error

    index.store.add_root(Path("/nowhere"))
    monkeypatch.setattr(index, "update", fails)

    async def body(pilot: Pilot[None], screen: DocumentsScreen) -> None:
        await pilot.press("f5")
        await until(pilot, lambda: str(error.args[-1]) in state(screen))

    use(index, body)


def test_nothing_of_a_document_or_a_name_reaches_the_terminal_as_a_command_or_markup(index: Index) -> None:
    root = index.store.add_root(Path("/[@click=app.quit]\x1b[2J")).id
    for number, text in enumerate(TEXTS):
        told = facts(f"{number}{text}.txt".replace("\0", ""), title=text.replace("\0", ""))
        index.store.put(root, told, passages(f"needle {text} end".replace("\0", "")))

    async def body(pilot: Pilot[None], screen: DocumentsScreen) -> None:
        check(pilot)
        await pilot.press(*"needle", "f4")
        await until(pilot, lambda: len(rows(screen)) == indexing.LIMIT)
        for _ in range(indexing.LIMIT):
            await pilot.press("down")
            check(pilot)
        await pilot.press("enter", "alt+c")
        check(pilot)
        assert safe(pilot.app.clipboard) == pilot.app.clipboard

    use(index, body)


def check(pilot: Pilot[None]) -> None:
    strips = pilot.app.screen._compositor.render_strips()
    for segment in (segment for strip in strips for segment in strip):
        assert safe(segment.text) == segment.text
        assert not (segment.style and any("click" in key for key in segment.style.meta))


# In the chat


def test_the_chat_opens_it_by_key_and_command_and_gets_the_passage_to_ask_about(folder: Path) -> None:
    with Index(Store(default_path()), NAME, opener=Words()) as made:
        made.add(folder / "flat")

    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        await pilot.press("f9")
        page = await opened(pilot, DocumentsScreen)
        await until(pilot, lambda: "flat" in str(rows(page)))
        await pilot.press("escape")
        await until(pilot, lambda: pilot.app.screen is screen)
        await send(screen, pilot, "/documents")
        page = await opened(pilot, DocumentsScreen)
        await pilot.press(*"writing")
        await until(pilot, lambda: "writing" in str(rows(page)))
        await pilot.press("ctrl+k")
        await until(pilot, lambda: pilot.app.screen is screen)
        await until(pilot, lambda: "Either side may cancel" in screen.prompt.expanded())

    chat(script)


def test_a_run_ends_with_the_chat(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Index(Store(default_path())) as made:
        made.store.add_root(folder)
    waits, closed = threading.Event(), threading.Event()

    def update(self: Index, _: object = None) -> Iterator[object]:
        try:
            while True:
                waits.wait(0.01)
                yield indexing.Progress("read", 1, 2, "B")
        finally:
            closed.set()

    monkeypatch.setattr(Index, "update", update)

    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        await pilot.press("f9")
        page = await opened(pilot, DocumentsScreen)
        await until(pilot, lambda: "docs" in str(rows(page)))
        await pilot.press("f5")
        await told(pilot, "read: 1 B of 2 B")

    chat(script)
    assert closed.is_set()
