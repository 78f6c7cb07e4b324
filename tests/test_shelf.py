"""What the models screen knows: the store's chat models, damaged ones, lines of text, and a download's figures."""

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import tiny_gguf
from rich.cells import cell_len

from edgemm import catalog, package
from edgemm.errors import Offline
from edgemm.events import Note, Progress
from edgemm.fetch import local
from edgemm.fit import Fit, Verdict
from edgemm.manifest import MadeBy, Manifest, Quantization, ReportSummary, Source
from edgemm.package import Package
from edgemm.tui import columns, shelf
from edgemm.tui.download import Arrived, Download, Failed, News, Rate, Stopped, duration
from edgemm.tui.shelf import Row, State


@pytest.fixture
def tiny(tmp_path: Path) -> Package:
    return local.gguf_package(tiny_gguf.write(tmp_path / "tiny-Q4_K_M.gguf"), "tiny", "owner/tiny", "", "mit")


def row_of(name: str) -> Row:
    return next(row for row in shelf.stock({}) if row.name == name)


def test_a_package_stands_with_its_facts(tiny: Package) -> None:
    [row, *rest] = shelf.stock({"tiny": 41.5})
    assert row == Row(
        "tiny", State.READY, tiny.manifest.bytes, "q4_k_m", tiny_gguf.CONTEXT, "mit", "owner/tiny", speed=41.5
    )
    assert {row.state for row in rest} == {State.REMOTE}
    assert {row.name for row in rest} == {row.name for row in catalog.ROWS.values() if row.task == "chat"}
    assert [row.bytes for row in rest] == sorted(row.bytes for row in rest)


def test_a_model_that_is_here_is_not_offered_again(tmp_path: Path) -> None:
    local.gguf_package(tiny_gguf.write(tmp_path / "x.gguf"), "qwen3-0.6b", "", "", "")
    assert [row.state for row in shelf.stock({}) if row.name == "qwen3-0.6b"] == [State.READY]


def test_models_for_other_tasks_are_left_out() -> None:
    with package.staged("encoder") as folder:
        manifest = Manifest("encoder", "embed", "bert", Source("x"), Quantization("onnx-int8"), MadeBy("1"))
        package.write_manifest(folder, manifest)
    assert "encoder" not in {row.name for row in shelf.stock({})}
    text = (package.paths.store() / "encoder" / package.MANIFEST).read_text()
    (package.paths.store() / "encoder" / package.MANIFEST).write_text(text.replace('"schema": 1', '"schema": 99'))
    assert "encoder" not in {row.name for row in shelf.stock({})}, "damaged, but it says what it is for"


def test_what_the_report_says_is_shown() -> None:
    for passed in (True, False):
        with package.staged(f"model-{passed}") as folder:
            (folder / "model.gguf").write_bytes(b"x")
            recipe = Quantization("gguf-q4_k_m", 4.8)
            manifest = Manifest(
                f"model-{passed}", "chat", "llama", Source("x"), recipe, MadeBy("1"), report=ReportSummary(passed)
            )
            package.write_manifest(folder, manifest)
    passed, failed = row_of("model-True"), row_of("model-False")
    assert "passed" in columns.line(passed, 80)
    assert "failed" in columns.line(failed, 80)
    assert "none" in columns.line(replace(passed, passed=None), 80)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        ("manifest", "not valid JSON"),
        ("short", "bytes instead of"),
        ("missing", "is missing"),
        ("unknown key", "unknown key 'surprise'"),
    ],
)
def test_a_damaged_package_is_listed_with_the_reason(damage: str, reason: str, tiny: Package) -> None:
    model, manifest = tiny.file(".gguf"), tiny.path / package.MANIFEST
    assert model is not None
    match damage:
        case "manifest":
            manifest.write_text("{")
        case "short":
            model.write_bytes(model.read_bytes()[:-1])
        case "missing":
            model.unlink()
        case "unknown key":
            manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"surprise": 1}))
    row = row_of("tiny")
    assert row.state is State.DAMAGED
    assert reason in row.reason
    assert reason in shelf.sentence(row)
    assert shelf.verdict(row) == "damaged"
    assert shelf.weighed(row, 1 << 40) == row


def test_a_file_that_the_guard_refuses_makes_a_row_damaged(tiny: Package) -> None:
    model = tiny.file(".gguf")
    assert model is not None
    model.write_bytes(b"XXXX" + model.read_bytes()[4:])
    row = row_of("tiny")
    assert row.state is State.READY, "its size is right"
    weighed = shelf.weighed(row, 1 << 40)
    assert (weighed.state, "not a GGUF file" in weighed.reason) == (State.DAMAGED, True)


def test_a_verdict_in_words(tiny: Package) -> None:
    row = row_of("tiny")
    assert shelf.verdict(row) == "…"
    assert shelf.verdict(shelf.weighed(row, 1 << 40)) == "fits"
    assert shelf.verdict(shelf.weighed(row, 0)) == "too big"
    shorter = replace(row, fit=Fit(3_000_000, 1_000_000, 4_000_000, Verdict.SHORTER, 2048))
    assert shelf.verdict(shorter) == "fits 2k"
    expected = "fits with a shorter context: about 3.0 MB with 2,048 tokens (KV cache 1.0 MB), 4.0 MB free"
    assert shelf.sentence(shorter) == expected


def test_a_model_of_the_catalog_has_a_verdict_by_its_row() -> None:
    row = row_of("phi-3-mini-4k-instruct")
    assert shelf.verdict(shelf.weighed(row, catalog.find(row.name).ram)) == "fits"
    assert shelf.verdict(shelf.weighed(row, 1 << 20)) == "too big"


def test_only_what_the_catalog_knows_can_be_fetched(tiny: Package) -> None:
    assert shelf.can_fetch(row_of("qwen3-0.6b"))
    assert not shelf.can_fetch(row_of("tiny"))
    (tiny.path / package.MANIFEST).write_text("{")
    assert not shelf.can_fetch(row_of("tiny"))
    assert shelf.can_fetch(replace(row_of("tiny"), name="qwen3-0.6b"))


@pytest.mark.parametrize(
    ("recipe", "file", "bits", "short"),
    [
        ("gguf-q4_k_m", "model.gguf", 4.8, "q4_k_m"),
        ("onnx-int8", "model.onnx", 8.1, "int8"),
        ("as-published", "SmolLM2-135M-Instruct.Q4_1.gguf", 5.7, "q4_1"),
        ("as-published", "Phi-3-mini-4k-instruct-q4.gguf", 0, "q4"),
        ("as-published", "qwen2.5-0.5b-instruct-iq4_nl.gguf", 0, "iq4_nl"),
        ("as-published", "some-F16.gguf", 16.0, "f16"),
        ("as-published", "model.gguf", 5.744, "5.7 bit"),
        ("as-published", "", 0, ""),
    ],
)
def test_how_the_weights_are_stored_in_a_word(recipe: str, file: str, bits: float, short: str) -> None:
    assert shelf.weights(recipe, file, bits) == short


def test_every_word_of_the_filter_must_be_there(tiny: Package) -> None:
    rows = shelf.stock({})
    assert [row.name for row in shelf.matching(rows, "Q4_K qwen 0.5")] == ["qwen2.5-0.5b-instruct"]
    assert [row.name for row in shelf.matching(rows, "ready")] == ["tiny"]
    assert shelf.matching(rows, "  ") == rows
    assert shelf.matching(rows, "[ \\") == []


def test_a_card_is_the_packages_own_or_what_is_known(tiny: Package) -> None:
    assert "source: owner/tiny" in shelf.card(row_of("tiny"))
    (tiny.path / package.CARD).write_bytes(b"# tiny\x1b]52;c;x\x07 \xff" + b"y" * shelf.MAX_CARD)
    card = shelf.card(row_of("tiny"))
    assert card.startswith("# tiny␛]52;c;x␇ \ufffd")
    assert len(card) <= shelf.MAX_CARD
    assert "about: English, the strongest here" in shelf.card(row_of("phi-3-mini-4k-instruct"))


EVIL = Row("x" * 200 + "\x1b[31m\n日本語😀" * 9, State.DAMAGED, 10**15, "w\x9b" * 20, 1 << 27, "l\n" * 30, reason="r")


@pytest.mark.parametrize("width", [18, 40, 60, 71, 80, 110, 300])
def test_every_line_has_the_width_of_the_list(width: int, tiny: Package) -> None:
    for row in [*shelf.stock({"tiny": 12345.6}), EVIL, replace(EVIL, name="短")]:
        text = columns.line(row, width)
        assert cell_len(text) == width
        assert text.isprintable()
    assert cell_len(columns.head(width)) == width


def test_the_verdict_is_the_last_column_to_go() -> None:
    titles = [[column.title for column in columns.fitting(width)] for width in range(18, 200)]
    assert titles[0] == []
    assert next(found for found in titles if found) == ["FIT"]
    assert titles[72 - 18] == ["SIZE", "WEIGHTS", "CTX", "FIT", "TOK/S", "REPORT"]
    assert len(titles[-1]) == len(columns.COLUMNS)


def test_a_long_name_keeps_its_beginning_and_its_end() -> None:
    assert columns.middle("smollm2-135m-instruct-gguf-q4_k_m", 17) == "smollm2-…f-q4_k_m"
    assert columns.middle("日本語日本語", 7) == "日 …語 "
    assert columns.middle("short", 8) == "short   "


def test_speed_and_time_left_are_of_the_last_seconds() -> None:
    now = [0.0]
    rate = Rate(lambda: now[0])
    for second in range(40):
        now[0] = second
        rate.add(Progress("download x", second * (10 if second < 20 else 1_000_000), 100_000_000, "B"))
    event = Progress("download x", 39_000_000, 100_000_000, "B")
    assert rate.per_second == pytest.approx(1_000_000)
    assert rate.describe(event) == "39.0 MB of 100.0 MB · 1.0 MB/s · 1 min 1 s left"
    rate.add(Progress("download y", 0, 0, "B"))
    assert rate.per_second == 0
    assert rate.describe(Progress("download y", 1000, 0, "B")) == "1.0 KB"
    assert rate.describe(Progress("d", 1000, 1000, "B")).endswith("checking and storing")


@pytest.mark.parametrize(("seconds", "text"), [(0.2, "1 s"), (59, "59 s"), (75, "1 min 15 s"), (7300, "2 h 1 min")])
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def end_of(download: Download, told: list[News]) -> News:
    download.start()
    assert download.wait(10)
    return told[-1]


def test_a_download_tells_its_notes_and_its_end_but_not_every_block(tiny: Package) -> None:
    def pull(_name: str) -> Iterator[Progress | Note | Package | Path]:
        yield Note("resuming")
        for done in range(1, 1001):
            yield Progress("download", done, 1000, "B")
        yield tiny

    told: list[News] = []
    assert end_of(Download("tiny", pull, told.append), told) == Arrived()
    assert told[0] == Note("resuming")
    assert Progress("download", 1000, 1000, "B") in told
    assert len(told) < 50


def test_a_stopped_download_closes_what_it_had_open() -> None:
    closed, told = threading.Event(), []  # type: ignore[var-annotated]

    def pull(_name: str) -> Iterator[Progress | Note | Package | Path]:
        try:
            for done in range(10_000):
                yield Progress("download", done, 10_000, "B")
                time.sleep(0.01)
        finally:
            closed.set()

    download = Download("tiny", pull, told.append)
    download.start()
    while not told:
        time.sleep(0.01)
    download.stop()
    assert download.wait(5)
    assert (told[-1], closed.is_set()) == (Stopped(), True)


def test_a_failed_download_says_why_and_a_bug_is_named_as_one() -> None:
    told: list[News] = []

    def offline(name: str) -> Iterator[Progress | Note | Package | Path]:
        raise Offline(name, "no network", "plug it in")
        yield

    def broken(_name: str) -> Iterator[Progress | Note | Package | Path]:
        raise KeyError("x")
        yield

    assert end_of(Download("tiny", offline, told.append), told) == Failed("tiny: no network — plug it in")
    end = end_of(Download("tiny", broken, told.append), told)
    assert isinstance(end, Failed)
    assert "this is a bug" in end.why
