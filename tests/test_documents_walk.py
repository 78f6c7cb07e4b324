"""Which files are found below a folder, and what is passed over."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgemm.documents import Found, Skipped, walk


def make(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")


def found(root: Path) -> list[str]:
    return [each.name for each in walk(root) if isinstance(each, Found)]


def skipped(root: Path) -> dict[str, str]:
    return {each.name: each.why for each in walk(root) if isinstance(each, Skipped)}


def test_files_are_named_from_the_root_in_order(tmp_path: Path) -> None:
    make(tmp_path, "b.md", "a/c.py", "a/b/d.txt", "x.exe", ".hidden.md", ".git/config.txt", "node_modules/m.js")
    assert found(tmp_path) == ["a/b/d.txt", "a/c.py", "b.md"]
    [first, *_] = walk(tmp_path)
    assert isinstance(first, Found)
    assert (first.size, first.mtime_ns) == (1, (tmp_path / "a/b/d.txt").stat().st_mtime_ns)


def test_ignore_files_are_read_as_git_reads_them(tmp_path: Path) -> None:
    make(tmp_path, "a.md", "b.md", "logs/x.md", "sub/a.md", "sub/keep.md", "sub/deep/b.md", "only/here.txt")
    (tmp_path / ".gitignore").write_text("b.md\n/logs/\n*.txt\n")
    (tmp_path / "sub" / ".gitignore").write_text("*.md\n!keep.md\n")
    (tmp_path / "only" / ".edgemmignore").write_text("!here.txt\n")
    assert found(tmp_path) == ["a.md", "only/here.txt", "sub/keep.md"]


def test_the_own_rules_of_a_folder_win_over_those_of_git_and_the_callers_over_both(tmp_path: Path) -> None:
    make(tmp_path, "a.txt", "b.txt", "c.md", "d.md")
    (tmp_path / ".gitignore").write_text("*.txt\n")
    (tmp_path / ".edgemmignore").write_text("!a.txt\nc.md\n")
    assert found(tmp_path) == ["a.txt", "d.md"]
    names = [each.name for each in walk(tmp_path, extra=["d.*", "!c.md"]) if isinstance(each, Found)]
    assert names == ["a.txt", "c.md"]


def test_a_line_that_is_no_rule_spoils_no_other(tmp_path: Path) -> None:
    make(tmp_path, "a.md", "b.md", "c.md")
    (tmp_path / ".gitignore").write_bytes("\ufeffa.md\r\n!\n\\\n# c.md\nb.md\n".encode())
    assert found(tmp_path) == ["c.md"]


def test_folders_of_what_was_built_are_counted_and_can_be_asked_for(tmp_path: Path) -> None:
    make(tmp_path, "build/a.md", "dist/b.md", "src/__pycache__/c.py")
    assert found(tmp_path) == []
    assert set(skipped(tmp_path)) == {"build/", "dist/", "src/__pycache__/"}
    (tmp_path / ".edgemmignore").write_text("!dist/\n")
    assert found(tmp_path) == ["dist/b.md"]
    (tmp_path / ".gitignore").write_text("build\n")
    assert "build/" not in skipped(tmp_path)


@pytest.mark.skipif(sys.platform == "win32", reason="paths are shorter there")
def test_folders_below_a_hundred_others_are_counted(tmp_path: Path) -> None:
    deep = "/".join("d" * 101)
    make(tmp_path, f"{deep[:-2]}/a.md", f"{deep}/b.md")
    assert found(tmp_path) == [f"{deep[:-2]}/a.md"]
    assert skipped(tmp_path) == {f"{deep}/": "below 100 other folders"}


@pytest.mark.skipif(sys.platform != "linux" or os.getuid() != 0, reason="only root mounts a folder in itself")
def test_a_folder_that_is_mounted_in_itself_is_entered_once(tmp_path: Path) -> None:
    make(tmp_path, "a.md", "in/side/b.md")
    inner = tmp_path / "in" / "side"
    if subprocess.run(["mount", "--bind", tmp_path, inner], capture_output=True, check=False).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        assert found(tmp_path) == ["a.md"]
        assert skipped(tmp_path) == {"in/side/": "the same folder as one around it"}
    finally:
        subprocess.run(["umount", inner], check=True)


@pytest.mark.skipif(sys.platform == "win32", reason="links and pipes need rights there")
def test_what_leads_outside_or_is_no_file_is_counted(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    make(outside, "secret.md")
    root = tmp_path / "root"
    make(root, "a.md")
    (root / "link.md").symlink_to(outside / "secret.md")
    (root / "folder").symlink_to(outside)
    (root / "loop").symlink_to(root)
    os.mkfifo(root / "pipe.md")
    assert found(root) == ["a.md"]
    assert skipped(root) == {
        "folder": "symbolic link",
        "link.md": "symbolic link",
        "loop": "symbolic link",
        "pipe.md": "pipe, device or socket",
    }


@pytest.mark.skipif(sys.platform == "win32" or os.getuid() == 0, reason="this user may read everywhere")
def test_a_folder_that_cannot_be_listed_is_counted(tmp_path: Path) -> None:
    make(tmp_path, "a.md", "closed/b.md")
    (tmp_path / "closed").chmod(0)
    assert found(tmp_path) == ["a.md"]
    assert "cannot be listed" in skipped(tmp_path)["closed/"]


@pytest.mark.skipif(sys.platform != "linux", reason="names are text elsewhere")
def test_names_of_any_bytes_are_found(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"bad\xff\xfe.md")).write_text("x")
    [name] = found(tmp_path)
    assert os.fsencode(name) == b"bad\xff\xfe.md"


def test_a_missing_folder_is_counted(tmp_path: Path) -> None:
    assert skipped(tmp_path / "none") == {".": "cannot be listed: no such file or directory"}


def test_twenty_thousand_files_take_a_moment(tmp_path: Path) -> None:
    for folder in range(100):
        (tmp_path / f"d{folder}").mkdir()
        for n in range(200):
            os.close(os.open(tmp_path / f"d{folder}" / f"f{n}.md", os.O_CREAT | os.O_WRONLY))
    started = time.process_time()
    assert len(found(tmp_path)) == 20_000
    assert time.process_time() - started < 3  # about 0.3 s; the machine may be slow
