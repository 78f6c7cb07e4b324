"""The catalog is consistent, names what is near, and a starter is the pinned one or nothing."""

from pathlib import Path

import pytest
from hub_server import REVISION

from edgemm import catalog, manifest, models, package, paths
from edgemm.errors import UnknownModel, UsageError
from edgemm.fetch import local, pull


def test_the_catalog_is_consistent() -> None:
    assert 14 <= len(catalog.ROWS) <= 18
    for name, row in catalog.ROWS.items():
        assert paths.check_name(name) == row.name
        assert row.task in manifest.TASKS
        assert bool(row.target) == (row.task == "embed")
        assert row.licence
        assert row.ram > 0
        assert row.download_bytes > 10_000_000
    assert set(catalog.STARTERS) <= set(catalog.ROWS)
    with pytest.raises(UnknownModel):
        catalog.find("nothing")
    with pytest.raises(UnknownModel, match=r"nearest names are bge-small-en-v1\.5"):
        list(pull("bge-smal-en"))


def test_a_model_from_elsewhere_is_not_the_pinned_starter(monkeypatch: pytest.MonkeyPatch) -> None:
    with local.incoming_checkpoint("all-minilm-l6-v2") as folder:
        (folder / "config.json").write_text("{}")
        local.note_source(folder, "someone/all-MiniLM-L6-v2", REVISION, "")
    monkeypatch.setenv("EDGEMM_OFFLINE", "1")
    with pytest.raises(UsageError, match="holds someone/all-MiniLM-L6-v2 under this name"):
        list(pull("all-minilm-l6-v2"))
    with pytest.raises(UsageError, match="comes from someone/all-MiniLM-L6-v2"):
        models.find("all-minilm-l6-v2")


@pytest.mark.starter
def test_the_starters_are_the_pinned_ones(starter_store: Path) -> None:
    minilm = starter_store / ".checkpoints" / "all-minilm-l6-v2" / "model.safetensors"
    assert package.sha256(minilm) == "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
    package.verify(package.read_package(starter_store / "smollm2-135m-instruct"))
