"""Personas: the rows that come along are sound, and the user's file is used as far as it is."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from edgemm import paths, personas
from edgemm.chat_settings import ChatSettings
from edgemm.personas import ROWS, Persona


def written(folder: Path, value: Any) -> Path:
    path = folder / "personas.json"
    path.write_text(value if isinstance(value, str) else json.dumps(value), "utf-8")
    return path


def test_the_rows_that_come_along_would_pass_as_a_users_file(tmp_path: Path) -> None:
    assert personas.load(written(tmp_path, [asdict(row) for row in ROWS])) == personas.Personas(ROWS)


def test_the_rows_that_come_along_make_valid_settings_under_different_names() -> None:
    for row in ROWS:
        ChatSettings(system=row.system, temperature=0.3 if row.temperature is None else row.temperature)
    assert len({row.name.casefold() for row in ROWS}) == len(ROWS)


def test_without_a_file_there_are_the_rows_that_come_along(tmp_path: Path) -> None:
    assert personas.load(tmp_path / "none.json") == personas.Personas(ROWS)


def test_the_users_personas_are_found_in_the_data_folder(home: Path) -> None:
    paths.data().mkdir(parents=True)
    written(paths.data(), [{"name": "Pirate", "system": "Talk like a pirate.", "temperature": 1}])
    assert personas.load().rows[-1] == Persona("Pirate", "", "Talk like a pirate.", 1)


def test_the_users_persona_replaces_one_of_the_same_name(tmp_path: Path) -> None:
    loaded = personas.load(written(tmp_path, [{"name": "brief", "about": "mine", "system": "Be short."}]))
    assert len(loaded.rows) == len(ROWS)
    assert Persona("brief", "mine", "Be short.") in loaded.rows
    assert "Brief" not in {row.name for row in loaded.rows}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ('{"name": "x"}', "is not a list of personas"),
        ("9" * 10_000, "is not JSON"),
        (" " * (personas.MAX_BYTES + 1), "is no file of at most 1,048,576 bytes"),
    ],
)
def test_a_damaged_file_is_reported_and_the_rows_that_come_along_stay(tmp_path: Path, text: str, reason: str) -> None:
    loaded = personas.load(written(tmp_path, text))
    assert loaded.rows == ROWS
    [problem] = loaded.problems
    assert reason in problem
    assert "\n" not in problem


def test_bytes_that_are_no_text_are_reported(tmp_path: Path) -> None:
    (tmp_path / "personas.json").write_bytes(b"\xff\x00\xfe")
    assert "is not JSON" in personas.load(tmp_path / "personas.json").problems[0]


def test_a_folder_instead_of_a_file_is_reported(tmp_path: Path) -> None:
    assert "is no file" in personas.load(tmp_path).problems[0]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("x", "is no object with a name and a system prompt"),
        ({"name": "x"}, "is no object with a name and a system prompt"),
        ({"name": "x", "system": "y", "tempo": 1}, "has the unknown key 'tempo'"),
        ({"name": "x", "system": 1}, "has a name, an about or a system prompt that is no text"),
        ({"name": " ", "system": "y"}, "needs a name of 1 to 40"),
        ({"name": "x" * 41, "system": "y"}, "needs a name of 1 to 40"),
        ({"name": "x", "system": "y", "temperature": 9}, "has a temperature that is not a number in 0..5"),
        ({"name": "x", "system": "y", "temperature": True}, "has a temperature"),
    ],
)
def test_a_damaged_row_is_reported_and_the_others_are_used(tmp_path: Path, row: Any, reason: str) -> None:
    loaded = personas.load(written(tmp_path, [row, {"name": "Good", "system": "y"}]))
    assert loaded.rows[-1].name == "Good"
    [problem] = loaded.problems
    assert f"persona 1 {reason}" in problem
