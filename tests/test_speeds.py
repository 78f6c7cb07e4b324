"""The speeds seen on this machine: medians, what is not counted, and a file that may be damaged or unwritable."""

import json
import threading
from pathlib import Path

import pytest

from edgemm import paths
from edgemm.events import Done
from edgemm.speeds import Speeds, default_path


def done(speed: float, tokens: int = 100) -> Done:
    return Done("stop", 10, 0, tokens, 0.1, tokens / speed if speed else 0.0)


def test_the_median_of_the_last_nine_answers_is_kept(tmp_path: Path) -> None:
    speeds = Speeds(tmp_path / "deep" / "speeds.json")
    for speed in (1000, 1000, 1000, 10, 20, 30, 40, 50, 60, 70, 80, 90):
        speeds.record("tiny", done(speed))
    assert speeds.median("tiny") == 50
    assert Speeds(tmp_path / "deep" / "speeds.json").medians() == {"tiny": 50}
    assert speeds.median("other") is None


def test_they_lie_in_the_data_folder(home: Path) -> None:
    Speeds().record("tiny", done(12.5))
    assert default_path() == paths.data() / "speeds.json"
    assert default_path().is_relative_to(home)
    assert Speeds().median("tiny") == 12.5


@pytest.mark.parametrize("answer", [done(20, tokens=15), done(0), done(1e9)])
def test_an_answer_that_says_nothing_about_speed_is_not_counted(answer: Done, tmp_path: Path) -> None:
    speeds = Speeds(tmp_path / "speeds.json")
    speeds.record("tiny", answer)
    assert not (tmp_path / "speeds.json").exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"[1]",
        b'{"tiny": 5}',
        b'{"tiny": [true, "x"]}',
        b'{"tiny": [NaN]}',
        b'{"tiny": [-1]}',
        b"[" * 99_999,
    ],
)
def test_a_damaged_file_counts_as_empty_and_is_replaced(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "speeds.json"
    path.write_bytes(content)
    assert Speeds(path).medians() == {}
    Speeds(path).record("tiny", done(7))
    assert json.loads(path.read_bytes()) == {"tiny": [7.0]}


def test_damage_to_one_model_leaves_the_others(tmp_path: Path) -> None:
    (tmp_path / "speeds.json").write_text('{"bad": [1, null], "good": [4, 6]}')
    assert Speeds(tmp_path / "speeds.json").medians() == {"good": 5}


def test_a_place_that_cannot_be_written_costs_only_the_figure(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    speeds = Speeds(tmp_path / "file" / "speeds.json")
    speeds.record("tiny", done(9))
    assert speeds.medians() == {}


def test_the_model_used_longest_ago_goes_first(tmp_path: Path) -> None:
    speeds = Speeds(tmp_path / "speeds.json")
    (tmp_path / "speeds.json").write_text(json.dumps({f"m{i}": [1.0] for i in range(256)}))
    speeds.record("m0", done(2))
    speeds.record("new", done(3))
    found = speeds.medians()
    assert len(found) == 256
    assert found["m0"] == 1.5
    assert "m1" not in found


def test_threads_lose_nothing(tmp_path: Path) -> None:
    speeds = Speeds(tmp_path / "speeds.json")
    threads = [threading.Thread(target=speeds.record, args=(f"m{i}", done(i + 1))) for i in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert speeds.medians() == {f"m{i}": i + 1 for i in range(20)}
    assert [p.name for p in tmp_path.iterdir()] == ["speeds.json"]
