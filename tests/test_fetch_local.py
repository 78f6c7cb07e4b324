"""`pull` from a folder or a file of this machine, and names that are nothing at all."""

from pathlib import Path

import pytest
import tiny_bert
import tiny_gguf

from edgemm import package
from edgemm.errors import BadFile, EdgemmError, UnknownModel, Unsupported
from edgemm.fetch import checkpoint, pull
from edgemm.package import Package


def test_local_files_and_folders(tmp_path: Path) -> None:
    *_, chat = pull(str(tiny_gguf.write(tmp_path / "My-Model.gguf")))
    assert isinstance(chat, Package)
    assert chat.name == "my-model"
    *_, place = pull(str(tiny_bert.write(tmp_path / "bert")))
    assert place == checkpoint("bert")
    *_, copied = pull(str(chat.path))
    assert isinstance(copied, Package)
    package.verify(copied)


def test_local_refusals(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.gguf").write_bytes(b"x")
    for name, kind in (("notes.txt", Unsupported), ("empty", BadFile), ("bad.gguf", BadFile)):
        with pytest.raises(kind):
            list(pull(str(tmp_path / name)))
    for name in ("no-such-model", "../x", "a/b/c/d", "", "x" * 5000, "~nobody-of-that-name/x", "a\0b"):
        with pytest.raises(EdgemmError):
            list(pull(name))
    with pytest.raises(UnknownModel, match="edgemm pull"):
        checkpoint("all-minilm-l6-v2")
