"""No name leaves the store, on any system."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemm import paths
from edgemm.errors import BadName, UsageError
from edgemm.settings import Settings

BAD = ["", ".", "..", "../x", "a/b", "/etc", "a\\b", "~", "a\nb", "a\x1b[2J", "a\0", "con", "CON.txt", "lpt1", "x" * 97]
BAD += ["a..b", ".hidden", "-dash", "ü", "a b", "a:b", "a*", "name."]


@pytest.mark.parametrize("name", BAD, ids=ascii)
def test_bad_names_are_refused_on_one_printable_line(name: str) -> None:
    with pytest.raises(BadName) as caught:
        paths.check_name(name)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", ["a", "smollm2-135m-instruct", "bge-small-en-v1.5", "A_b-1", "x" * 96, "console"])
def test_good_names_pass(name: str) -> None:
    assert paths.check_name(name) == name


@given(st.text(max_size=120))
def test_a_name_that_passes_is_one_component(name: str) -> None:
    try:
        checked = paths.check_name(name)
    except BadName:
        return
    assert (Path("/store") / checked).resolve().parent == Path("/store")


def test_the_store_is_where_the_environment_says(home: Path) -> None:
    assert paths.store() == home
    assert paths.checkpoints().parent == paths.partial().parent == home


def test_data_and_cache_follow_the_environment(home: Path) -> None:
    assert paths.data() == home / ".data"
    assert paths.cache() == home / ".cache"


def test_data_and_cache_stay_out_of_a_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDGEMM_HOME")
    checkout = Path(paths.__file__).resolve().parent.parent
    assert checkout not in paths.data().parents
    assert checkout not in paths.cache().parents
    assert paths.data() != paths.cache()


def test_a_checkout_keeps_its_models_in_quantized(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDGEMM_HOME")
    assert paths.store() == Path(paths.__file__).resolve().parent.parent / "quantized"


@pytest.mark.parametrize(
    ("name", "value"), [("EDGEMM_OFFLINE", "perhaps"), ("EDGEMM_THREADS", "-1"), ("EDGEMM_THREADS", "x")]
)
def test_settings_name_what_is_wrong(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=name):
        Settings.from_environment()


def test_settings_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEMM_OFFLINE", "yes")
    monkeypatch.setenv("EDGEMM_THREADS", "3")
    settings = Settings.from_environment()
    assert (settings.offline, settings.threads) == (True, 3)
