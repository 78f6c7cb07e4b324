"""The models screen as a user has it: choosing, filtering, report cards, and downloads from a hub on the loopback."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import hub_server
import pytest
import tiny_gguf
from hub_server import Hub, serve
from huggingface_hub import constants, file_download
from textual.app import App
from textual.pilot import Pilot
from textual.widgets import Input, OptionList, ProgressBar, Static

from edgemm import catalog, package, paths
from edgemm.catalog import Row
from edgemm.events import Progress
from edgemm.fetch import download, local
from edgemm.tui.download import Pull
from edgemm.tui.screens.card import CardScreen
from edgemm.tui.screens.models import ModelScreen

GB = 1 << 30
FILE = "tiny-q4_k_m.gguf"
_SECONDS = 20.0


class Host(App[None]):
    """An app of which the models screen is all; `results` are what it ended with."""

    def __init__(self, current: str = "", **options: Any) -> None:
        super().__init__()
        self.results: list[str | None] = []
        self._screen = ModelScreen(current, free=lambda: GB, **options)

    def on_mount(self) -> None:
        self.push_screen(self._screen, self.results.append)


Body = Callable[[Pilot[None], Host], Awaitable[None]]


def use(body: Body, host: Host | None = None, size: tuple[int, int] = (80, 24)) -> Host:
    """Run `body` once the list is there."""
    host = host or Host()

    async def run() -> None:
        async with host.run_test(size=size) as pilot:
            await until(lambda: any("fits" in line for line in lines(host)))
            await body(pilot, host)

    asyncio.run(run())
    return host


async def until(is_true: Callable[[], bool]) -> None:
    end = time.monotonic() + _SECONDS
    while not is_true():
        assert time.monotonic() < end, "it did not happen"
        await asyncio.sleep(0.02)


def lines(host: Host) -> list[str]:
    return [str(option.prompt) for option in host.screen_stack[1].query_one(OptionList).options]


def text(host: Host, selector: str) -> str:
    return str(host.screen_stack[1].query_one(selector, Static).visual)


async def highlight(pilot: Pilot[None], host: Host, name: str) -> None:
    """Walk down until the row of `name` is the highlighted one."""
    for _ in range(40):
        if text(host, "#detail").split("\n")[0] == name:
            return
        await pilot.press("down")
    raise AssertionError(f"{name} is not in the list: {lines(host)}")


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return local.gguf_package(tiny_gguf.write(tmp_path / "x-q8_0.gguf"), "tiny", "owner/tiny", "", "mit").path


@pytest.fixture
def other(tmp_path: Path) -> Path:
    return local.gguf_package(tiny_gguf.write(tmp_path / "y-f16.gguf"), "other", "owner/other", "", "mit").path


def test_enter_ends_with_the_highlighted_model(tiny: Path, other: Path) -> None:
    async def body(pilot: Pilot[None], host: Host) -> None:
        assert text(host, "#detail").split("\n")[0] == "tiny", "the open model is highlighted"
        assert any(line.startswith("● tiny") for line in lines(host))
        await pilot.press("up", "enter")
        await until(lambda: bool(host.results))

    assert use(body, Host("tiny")).results == ["other"]


def test_escape_clears_the_filter_and_then_closes(tiny: Path) -> None:
    async def body(pilot: Pilot[None], host: Host) -> None:
        await pilot.press("t", "i", "n")
        await until(lambda: lines(host)[1:] == [line for line in lines(host) if "tiny" in line])
        await pilot.press("escape")
        assert host.screen.query_one(Input).value == ""
        await pilot.press("escape")
        await until(lambda: bool(host.results))

    assert use(body).results == [None]


def test_letters_filter_and_arrows_come_back_to_the_list(tiny: Path, other: Path) -> None:
    async def body(pilot: Pilot[None], host: Host) -> None:
        await pilot.press("o", "v")
        assert host.screen.query_one(Input).value == "ov", "in the filter, v is a letter"
        assert lines(host) == ["no model has these words"]
        await pilot.press("enter", "backspace", "backspace", "r", "e", "a", "d", "y", "down")
        assert host.focused is host.screen.query_one(OptionList)
        assert text(host, "#detail").split("\n")[0] == "tiny"
        await pilot.press("enter")
        await until(lambda: bool(host.results))

    assert use(body).results == ["tiny"]


def test_the_table_shows_size_weights_context_verdict_speed_and_report(tiny: Path) -> None:
    paths.data().mkdir(parents=True)
    (paths.data() / "speeds.json").write_text('{"tiny": [31.0, 33.0]}')

    async def body(_pilot: Pilot[None], host: Host) -> None:
        await until(lambda: "…" not in lines(host)[1])
        assert lines(host)[1].split() == ["tiny", "0", "MB", "q8_0", "256", "fits", "32", "none"]
        assert text(host, "#head").split() == ["MODEL", "SIZE", "WEIGHTS", "CTX", "FIT", "TOK/S", "REPORT"]
        assert "1.1 GB free" in text(host, "#detail")

    use(body)


def test_the_memory_of_the_open_model_counts_as_free(tiny: Path) -> None:
    async def body(_pilot: Pilot[None], host: Host) -> None:
        await until(lambda: "GB free" in text(host, "#detail"))
        assert "3.2 GB free" in text(host, "#detail")

    use(body, Host("tiny", held=2 * GB))


def test_columns_follow_the_width(tiny: Path) -> None:
    async def body(pilot: Pilot[None], host: Host) -> None:
        assert "MEMORY" in text(host, "#head")
        await pilot.resize_terminal(50, 24)
        await until(lambda: "MEMORY" not in text(host, "#head"))
        assert "FIT" in text(host, "#head")
        assert {len(line) for line in lines(host) if not line.startswith(("on ", "to "))} == {len(text(host, "#head"))}

    use(body, size=(120, 40))


def test_a_store_that_cannot_be_read_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EDGEMM_HOME", str(tmp_path / ("x" * 300)))
    host = Host()

    async def run() -> None:
        async with host.run_test() as pilot:
            await until(lambda: "File name too long" in text(host, "#status"))
            await pilot.press("enter", "v", "escape")
            await until(lambda: bool(host.results))

    asyncio.run(run())
    assert host.results == [None]


def test_a_damaged_package_is_shown_with_its_reason_and_cannot_be_opened(tiny: Path, other: Path) -> None:
    (tiny / package.MANIFEST).write_text("{")

    async def body(pilot: Pilot[None], host: Host) -> None:
        await highlight(pilot, host, "tiny")
        assert "not valid JSON" in text(host, "#detail")
        await pilot.press("enter")
        await until(lambda: "tiny cannot be opened" in text(host, "#status"))
        assert host.screen.query_one("#status").display

    assert use(body).results == []


def test_nothing_of_a_package_reaches_the_terminal_as_a_command_or_markup(tiny: Path) -> None:
    evil = "[bold]x[/bold] \x1b]52;c;eA==\x07 [@click=app.quit]y[/]"
    manifest = (tiny / package.MANIFEST).read_text()
    (tiny / package.MANIFEST).write_text(manifest.replace('"mit"', '"[bold]\\u001b[2J\\u202e"'))
    (tiny / package.CARD).write_text(f"# {evil}\n\n<b>{evil}</b> [link](file:///etc/passwd)\n")

    async def body(pilot: Pilot[None], host: Host) -> None:
        assert "[bold]␛[2J\ufffd" in text(host, "#detail")
        await pilot.press("v")
        await until(lambda: isinstance(host.screen, CardScreen) and "[bold]x[/bold]" in text_of_card(host))
        assert "\x1b" not in text_of_card(host)
        assert "@click=app.quit" in text_of_card(host)
        strips = host.screen.query_one("#text").render_lines(host.screen.query_one("#text").region.reset_offset)
        assert not any("@click" in segment.style.meta for strip in strips for segment in strip if segment.style)

    use(body)


def text_of_card(host: Host) -> str:
    return str(host.screen.query_one("#text", Static).visual)


def test_the_report_card_closes_back_to_the_list(tiny: Path) -> None:
    (tiny / package.CARD).write_text("# tiny\n\n" + "a word " * 40 + "\n\n| a | b |\n|---|---|\n| 1 | 2 |\n")

    async def body(pilot: Pilot[None], host: Host) -> None:
        await pilot.press("v")
        await until(lambda: isinstance(host.screen, CardScreen) and "a word" in text_of_card(host))
        assert "|---|" not in text_of_card(host)
        before = text_of_card(host)
        await pilot.resize_terminal(50, 24)
        await until(lambda: text_of_card(host) != before)
        await pilot.press("escape")
        await until(lambda: isinstance(host.screen, ModelScreen))
        assert host.results == []

    use(body)


class Valve:
    """Lets 2.5 MB of each file through, and the rest when `open` is set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open = threading.Event()
        original = hub_server.Handler.send_file

        def send_file(handler: hub_server.Handler, data: bytes) -> None:
            write = handler.wfile.write

            def throttled(body: bytes) -> None:
                write(body[:2_500_000])
                if len(body) > 2_500_000:
                    self.open.wait(_SECONDS)
                    write(body[2_500_000:])

            monkeypatch.setattr(handler.wfile, "write", throttled)
            try:
                original(handler, data)
            except OSError:  # the client has gone
                handler.close_connection = True

        monkeypatch.setattr(hub_server.Handler, "send_file", send_file)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with one chat model of 6 MB, which is all of the catalog."""
    data = tiny_gguf.write(tmp_path / "hub.gguf").read_bytes() + bytes(6_000_000)
    source = catalog.Hub("owner/tiny", FILE)
    row = Row("from-hub", "chat", "a test", 1, "mit", len(data), 1_000_000, source)
    monkeypatch.setattr(catalog, "ROWS", {"from-hub": row})
    monkeypatch.setattr(download, "_WAIT", 0.001)
    with serve(Hub({FILE: data})) as running:
        monkeypatch.setattr(constants, "ENDPOINT", running.url)
        template = running.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(file_download, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield running


def is_loading(host: Host) -> bool:
    return bool(host.screen_stack[1].query_one(ProgressBar).display)


def test_a_download_shows_its_progress_and_becomes_ready(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    valve = Valve(monkeypatch)

    async def body(pilot: Pilot[None], host: Host) -> None:
        await highlight(pilot, host, "from-hub")
        await pilot.press("enter")
        await until(lambda: " MB of 6." in text(host, "#status"))
        assert is_loading(host)
        assert 0.1 < (host.screen.query_one(ProgressBar).percentage or 0) < 0.4
        await pilot.press("enter")
        assert "one download at a time" in text(host, "#status")
        valve.open.set()
        await until(lambda: "is ready" in text(host, "#status"))
        await until(lambda: lines(host)[0] == "on this machine" and "fits" in lines(host)[1])
        assert not is_loading(host)
        await pilot.press("enter")
        await until(lambda: bool(host.results))

    assert use(body).results == ["from-hub"]
    package.open_package(paths.store() / "from-hub")


def test_escape_stops_a_download_and_enter_resumes_it(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    valve = Valve(monkeypatch)

    async def body(pilot: Pilot[None], host: Host) -> None:
        await highlight(pilot, host, "from-hub")
        await pilot.press("enter")
        await until(lambda: " MB of 6." in text(host, "#status"))
        await pilot.press("escape")
        await until(lambda: "stopping" in text(host, "#status"))
        valve.open.set()
        await until(lambda: "stopped" in text(host, "#status"))
        assert (is_loading(host), host.results) == (False, [])
        await pilot.press("enter")
        await until(lambda: "is ready" in text(host, "#status"))

    use(body)
    ranges = [headers.get("range") for headers in hub.downloads(FILE)]
    assert ranges[0] is None
    assert ranges[1] is not None
    package.open_package(paths.store() / "from-hub")


def test_a_failed_download_is_one_line_and_the_list_stays(hub: Hub) -> None:
    hub.status = 404

    async def body(pilot: Pilot[None], host: Host) -> None:
        await highlight(pilot, host, "from-hub")
        await pilot.press("enter")
        await until(lambda: "the server has no such file (404)" in text(host, "#status"))
        assert not is_loading(host)
        await pilot.press("escape")
        await until(lambda: bool(host.results))

    assert use(body).results == [None]


def test_offline_is_said_and_nothing_is_asked(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEMM_OFFLINE", "1")

    async def body(pilot: Pilot[None], host: Host) -> None:
        await highlight(pilot, host, "from-hub")
        await pilot.press("enter")
        await until(lambda: "EDGEMM_OFFLINE forbids the download" in text(host, "#status"))

    use(body)
    assert hub.requests == []


def test_a_stalled_network_does_not_hold_up_the_end(hub: Hub) -> None:
    stalled = threading.Event()

    def stall(_name: str) -> Iterator[Progress]:
        yield Progress("download", 1, 100, "B")
        stalled.wait(_SECONDS)

    pull: Pull = stall

    async def body(pilot: Pilot[None], host: Host) -> None:
        await highlight(pilot, host, "from-hub")
        await pilot.press("enter")
        await until(lambda: is_loading(host))

    started = time.monotonic()
    use(body, Host(pull=pull))
    assert time.monotonic() - started < 10
    stalled.set()
