"""The documents tell the truth: README's tree is the tree, its commands exist, the changelog names the version."""

import re
import shlex
import tomllib
from pathlib import Path

import pytest
from conftest import ROOT, Cli

import edgemm
from edgemm.backends.worker import LoadOptions, Worker

README = (ROOT / "README.md").read_text("utf-8")
USE = README[README.index("## Use") : README.index("## What you can rely on")]
COMMANDS = [line.split("#")[0].strip() for line in USE.splitlines() if re.match(r" {4}.*\bedgemm ", line)]


def test_the_tree_lists_every_module_and_nothing_else() -> None:
    listed = set(re.findall(r"^ {4}((?:edgemm|converters)/\S+\.py)\b", README, re.MULTILINE))
    there = {
        path.relative_to(ROOT).as_posix()
        for package in ("edgemm", "converters")
        for path in (ROOT / package).rglob("*.py")
        if path.read_text("utf-8").strip()
    }
    assert listed == there


@pytest.mark.parametrize("command", COMMANDS)
def test_the_commands_exist_with_their_options(command: str, cli: Cli) -> None:
    words = shlex.split(command[command.index("edgemm ") :].split("<")[0])
    text = cli(words[1], "--help").stdout
    if len(words) > 2 and re.search(rf"^  {re.escape(words[2])}  ", text.partition("Commands:")[2], re.MULTILINE):
        text = cli(words[1], words[2], "--help").stdout
    assert text.startswith("Usage") or "Usage:" in text
    for option in (word for word in words if word.startswith("--")):
        assert option in text


@pytest.mark.starter
def test_what_is_piped_into_the_small_model_fits_into_it(smollm2: Path) -> None:
    [name] = re.findall(r"cat (\S+) \| edgemm run", README)
    with Worker(smollm2, LoadOptions(vocabulary_only=True)) as worker:
        assert len(worker.tokenize((ROOT / name).read_text("utf-8"))) < 3000  # of 4,096, with room for an answer


def test_every_command_is_in_the_readme(cli: Cli) -> None:
    listed = re.findall(r"^  (\w+)  ", cli("--help").stdout.split("Commands:")[1], re.MULTILINE)
    assert len(listed) > 8
    for name in listed:
        assert f"edgemm {name}" in README, f"README does not show `edgemm {name}`"


def test_the_targets_are_named() -> None:
    from converters.recipe import RECIPES

    for target in RECIPES:
        assert f"`{target}`" in README or f"--to {target}" in README


@pytest.mark.parametrize("name", ["architectures", "targets"])
def test_the_tables_are_made_from_the_rows(name: str) -> None:
    from converters import overview

    assert f"<!-- {name} -->\n{getattr(overview, name)()}\n<!-- end -->" in README


def test_the_changelog_names_the_version() -> None:
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert newest is not None
    assert newest[1] == edgemm.__version__


def test_no_host_name_in_the_constraints() -> None:
    text = (ROOT / "constraints.txt").read_text("utf-8")
    assert "://" not in text
    assert "@" not in text


def test_constraints_cover_every_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    wanted = project["dependencies"] + [line for extra in project["optional-dependencies"].values() for line in extra]
    names = {re.split(r"[\[<>=~ ]", line)[0].lower().replace("_", "-") for line in wanted} - {"edgemm"}
    pinned = {
        line.split("==")[0].lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines()
        if "==" in line
    }
    assert names <= pinned


def test_public_names_are_what_all_says() -> None:
    for name in edgemm.__all__:
        assert getattr(edgemm, name).__name__ == name
    with pytest.raises(AttributeError):
        _ = edgemm.no_such_name  # type: ignore[attr-defined]
