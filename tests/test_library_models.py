"""The right file is found with real models: the starter model of texts, and the scenes model of texts and pictures."""

import io
import json
import sys
from pathlib import Path

import pytest
from conftest import ROOT, Cli
from word_bags import write

from converters.convert import Options, convert
from edgemm import models
from edgemm.index import Medium
from edgemm.ingest import Report
from edgemm.library import Index
from edgemm.package import Package
from edgemm.search import Hit, Part

REFERENCE = ROOT / "tests" / "reference"
sys.path.insert(0, str(REFERENCE))

import scenes  # noqa: E402

DULL = " ".join(f"Nothing of interest stands in sentence {number}." for number in range(800))
TEXTS: dict[str, str | bytes] = {
    "lease.md": "# Lease\n\nThe tenant may end the agreement with a notice of three months.\n",
    "recipe.txt": "Knead flour, water and salt, let the dough rise over night, and bake it in a hot oven.",
    "bicycle.txt": "To mend a flat tyre, take the wheel off, find the hole in the tube and glue a patch on it.",
    "doctor.txt": "Take one tablet in the morning and one in the evening, after a meal, for ten days.",
    "garden.txt": "Sow tomatoes indoors in March and plant them outside when there is no more frost.",
    "code/sort.py": "def bubble_sort(values):\n    for end in range(len(values), 1, -1):\n        sift(values, end)\n",
    "long.txt": f"{DULL[:20000]} The key of the safe lies behind the clock in the kitchen. {DULL[20000:]}",
}
QUESTIONS = {
    "How do I cancel my rental contract?": "lease.md",
    "making bread": "recipe.txt",
    "my bike has a puncture": "bicycle.txt",
    "How often must I swallow my pills?": "doctor.txt",
    "growing vegetables": "garden.txt",
    "an algorithm that puts numbers in order": "sort.py",
    "Where is what opens the strongbox hidden?": "long.txt",
}


def nearest(hits: list[Hit]) -> Hit:
    """The best one by its meaning alone: in a few files, words such as "the" say as much as others."""
    return next(hit for hit in hits if Part.MEANING in hit.parts and hit.parts[Part.MEANING].rank == 1)


@pytest.mark.starter
def test_files_are_found_by_their_meaning(tmp_path: Path, starter_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEMM_HOME", str(starter_store))
    folder = write(tmp_path / "docs", TEXTS)
    with Index.open(tmp_path / "index.sqlite") as index:
        report = index.add(folder)
        assert (report.files, report.added, report.failed) == (7, 7, 0)
        assert report.embedded == report.chunks > 7
        assert report.tokens > 5000
        best = {question: nearest(index.search(question, limit=100)) for question in QUESTIONS}
        assert {question: hit.chunk.path.name for question, hit in best.items()} == QUESTIONS
        assert "The key of the safe" in best["Where is what opens the strongbox hidden?"].chunk.text
        (folder / "recipe.txt").rename(folder / "bread.txt")
        report = index.add(folder)
        assert (report.added, report.removed, report.embedded) == (1, 1, 1)  # its name is its title, and is embedded
        write(folder, {"copy/bread.txt": TEXTS["recipe.txt"]})
        assert index.add(folder).embedded == 0
        words, meaning = index.search("bread.txt")[0], nearest(index.search("baking a loaf"))
        assert words.chunk.path.name == meaning.chunk.path.name == "bread.txt"
        assert meaning.copies == (str(folder / "copy" / "bread.txt"),)


@pytest.mark.starter
def test_the_commands_find_a_file_by_its_meaning(tmp_path: Path, starter_store: Path, cli: Cli) -> None:
    """The starter model is linked into a store of its own, so that the user's index is left alone."""
    home = tmp_path / "home"
    home.mkdir()
    for package in starter_store.iterdir():
        if (package / "manifest.json").is_file():
            (home / package.name).symlink_to(package)
    env = {"EDGEMM_HOME": str(home)}
    done = cli("index", write(tmp_path / "docs", TEXTS), **env)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    hit, *_ = json.loads(cli("search", "How do I cancel my rental contract?", "--json", **env).stdout)
    assert (Path(hit["path"]).name, hit["place"], hit["heading"]) == ("lease.md", {"line": 1, "end_line": 3}, ["Lease"])
    assert hit["parts"]["meaning"]["rank"] == 1


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scenes model, as a package that lies outside of any store."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEMM_HOME", str(tmp_path_factory.mktemp("store")))
        *_, found = convert(REFERENCE / "scenes-clip", "onnx-int8", options=Options(oracle=False))
        assert isinstance(found, Package)
        return found.path


def test_pictures_are_found_by_captions_by_pictures_and_by_both(clip: Path, home: Path, tmp_path: Path) -> None:
    home.mkdir()
    (home / "clip").symlink_to(clip)
    shown = scenes.held_out(40)
    folder = tmp_path / "album"
    folder.mkdir()
    for number, scene in enumerate(shown):
        scenes.render(scene, 96).save(folder / f"{number}.png")
    with Index.open(tmp_path / "index.sqlite", pictures="clip") as index:
        report = index.add(folder)
        assert (report.embedded, report.failed) == (40, 0)
        found = [index.search(scenes.caption(scene), limit=1, kinds=["image"])[0].chunk.name for scene in shown]
        assert sum(name == f"{number}.png" for number, name in enumerate(found)) >= 36
        again = io.BytesIO()
        scenes.render(shown[7], 64).save(again, "PNG")
        example = tmp_path / "example.png"
        example.write_bytes(again.getvalue())
        [hit] = index.search(picture=example, limit=1)
        assert (hit.chunk.name, hit.parts[Part.PICTURES].score > 0.9) == ("7.png", True)
        both = {hit.chunk.name for hit in index.search(scenes.caption(shown[3]), picture=example, limit=2)}
        assert both == {"7.png", "3.png"}
        moved = folder / "moved"
        moved.mkdir()
        (folder / "7.png").rename(moved / "seven.png")
        assert isinstance(report := index.add(folder), Report)
        assert (report.added, report.removed, report.embedded) == (1, 1, 0)
        assert index.search(picture=example, limit=1)[0].chunk.name == "moved/seven.png"


def test_a_model_that_gives_no_vectors_is_refused(home: Path, tmp_path: Path) -> None:
    from edgemm.errors import UsageError
    from edgemm.library import open_engine

    *_, found = convert(REFERENCE / "digits-vit", "onnx-int8", "digits", Options(oracle=False))
    assert isinstance(found, Package)
    with pytest.raises(UsageError, match="gives labels and no vectors"):
        open_engine("digits", Medium.PICTURE)
    with pytest.raises(UsageError, match="not for embedding texts"):
        open_engine("digits", Medium.TEXT)
    assert models.task_of("digits") == "image-classify"
