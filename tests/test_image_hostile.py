"""A file that lies, is damaged, is no picture or is a bomb is one `BadFile`, quickly and in little memory.

What could take the process down runs in a process of its own, under limits. The files are saved by Pillow and then
damaged, or written by hand where Pillow would not write such a thing.
"""

import io
import os
import random
import re
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

from edgemm import image
from edgemm.errors import BadFile
from edgemm.manifest import ImageInputs

INPUTS = ImageInputs(32, 32, resize=(32,), crop=True, mean=(0.5,) * 3, std=(0.5,) * 3)
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
MEMORY = 1 << 30
SECONDS = 60


def noise(width: int = 90, height: int = 70) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def saved(format: str, picture: Image.Image | None = None, **options: Any) -> bytes:
    buffer = io.BytesIO()
    (picture or noise()).save(buffer, format, **options)
    return buffer.getvalue()


def refusal(source: Path | bytes) -> str:
    """The one line that it is refused with."""
    with pytest.raises(BadFile) as caught:
        image.read_image(source, INPUTS)
    assert str(caught.value).removeprefix(str(source)).isprintable()
    return str(caught.value)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, rows: int = 0) -> bytes:
    """Black, a bit a pixel; `rows` of it are there."""
    packer = zlib.compressobj()
    body = b"".join(packer.compress(bytes(1 + (width + 7) // 8)) for _ in range(rows)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def patched(raw: bytes, at: int, format: str, *values: int) -> bytes:
    new = struct.pack(format, *values)
    return raw[:at] + new + raw[at + len(new) :]


def webp_bomb() -> bytes:
    raw = saved("WEBP", noise(), save_all=True, append_images=[Image.new("RGB", (90, 70))])
    return raw[:24] + 2 * (9_999).to_bytes(3, "little") + raw[30:]


def tiff_bomb() -> bytes:
    """Its width and height are the first two tags, of the type LONG."""
    raw = saved("TIFF", Image.new("1", (70_000, 1), 0), compression="packbits")
    at = struct.unpack_from("<I", raw, 4)[0] + 2
    return patched(raw, at + 12, "<HHII", 257, 4, 1, 2_000)


BOMBS = {
    "a PNG that claims 10 gigapixels": (png(100_000, 100_000), "10,000,000,000 pixels, more than 16,000,000"),
    "a PNG of 200 megapixels in 25 kB": (png(14_200, 14_200, 14_200), "201,640,000 pixels, more than 16,000,000"),
    "a PNG of 100 megapixels": (png(10_000, 10_000, 10_000), "10000 x 10000 = 100,000,000 pixels"),
    "a JPEG": (b"", "65500 x 65500|4,290,250,000 pixels"),
    "a GIF": (patched(saved("GIF"), 6, "<HH", 60_000, 2_000), "60000 x 2000 = 120,000,000 pixels"),
    "a BMP": (patched(saved("BMP"), 18, "<ii", 60_000, 2_000), "60000 x 2000 = 120,000,000 pixels"),
    "a WebP": (webp_bomb(), "10000 x 10000 = 100,000,000 pixels"),
    "a TIFF": (tiff_bomb(), "70000 x 2000 = 140,000,000 pixels"),
}
_jpeg = saved("JPEG")
BOMBS["a JPEG"] = (patched(_jpeg, _jpeg.index(b"\xff\xc0") + 5, ">HH", 65_500, 65_500), BOMBS["a JPEG"][1])

LIMITED = f"""
import resource, sys
from pathlib import Path
resource.setrlimit(resource.RLIMIT_AS, ({MEMORY}, {MEMORY}))
resource.setrlimit(resource.RLIMIT_CPU, ({SECONDS}, {SECONDS}))
from edgemm import image
from edgemm.errors import BadFile
from edgemm.manifest import ImageInputs
inputs = ImageInputs(224, 224, resize=(224,), crop=True)
image.read_image(Path(sys.argv[1]), inputs)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in map(Path, sys.argv[2:]):
    try:
        print("read", image.to_tensor(image.read_image(path, inputs), inputs).shape)
    except BadFile as error:
        print(error)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def under_limits(paths: list[Path]) -> tuple[list[str], int]:
    """What becomes of each file, a line each, and how many MiB that took.

    Nothing else may be printed; but nobody can keep libtiff, under Pillow, from printing its own plain lines.
    """
    good = paths[0].parent / "good.png"
    good.write_bytes(saved("PNG"))
    command = [sys.executable, "-c", LIMITED, *map(str, [good, *paths])]
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=2 * SECONDS, env=environment)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"((tempfile\.tif|\w+): [ -~]*\n)*" if "TIFF" in done.args[-1] else "", done.stderr)
    *lines, grown = done.stdout.splitlines()
    assert len(lines) == len(paths)
    return lines, int(grown)


needs_limits = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no RLIMIT_AS")


@needs_limits
def test_a_bomb_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    paths = []
    for name, (raw, _) in BOMBS.items():
        paths.append(tmp_path / name)
        paths[-1].write_bytes(raw)
    lines, grown = under_limits(paths)
    for line, (name, (_, why)) in zip(lines, BOMBS.items(), strict=True):
        assert re.search(f"{name}: has ({why})", line), line
        assert "make it smaller first" in line
    assert grown < 40


@needs_limits
def test_pillow_does_not_log_on_the_screen(tmp_path: Path) -> None:
    raw = saved("TIFF")
    path = tmp_path / "nine samples"
    path.write_bytes(patched(raw, raw.index(struct.pack("<HHI", 277, 3, 1)) + 8, "<H", 9))
    lines, _ = under_limits([path])
    assert "is no picture that can be read" in lines[0]


@needs_limits
def test_a_strip_is_resized_in_little_memory(tmp_path: Path) -> None:
    paths = [tmp_path / "wide.png", tmp_path / "high.png"]
    paths[0].write_bytes(saved("PNG", noise(20_000, 10)))
    paths[1].write_bytes(saved("PNG", noise(10, 20_000)))
    lines, grown = under_limits(paths)
    assert lines == ["read (3, 224, 224)"] * 2
    assert grown < 40


@needs_limits
@pytest.mark.parametrize("format", FORMATS)
def test_changed_bytes_give_a_picture_or_one_line(format: str, tmp_path: Path) -> None:
    """Also: no crash, no more memory than a picture at the limit, and nothing on stderr."""
    rng = random.Random(format)
    variants = [saved(format, noise(24, 18)), saved(format, noise(24, 18).convert("L"))]
    variants += [saved(format, noise(24, 18), progressive=True)] if format == "JPEG" else []
    variants += [saved(format, compression=kind) for kind in ("tiff_lzw", "jpeg")] if format == "TIFF" else []
    paths = []
    for i in range(150):
        raw = bytearray(rng.choice(variants))
        for _ in range(rng.choice((1, 1, 2, 8))):
            at = rng.randrange(min(len(raw), rng.choice((64, 1 << 20))))  # half of them in the header
            raw[at] = rng.choice((0, 1, 0x7F, 0xFF, raw[at] ^ 1 << rng.randrange(8)))
        paths.append(tmp_path / f"{format}-{i}")
        paths[-1].write_bytes(raw)
    lines, grown = under_limits(paths)
    read = sum(line == "read (3, 224, 224)" for line in lines)
    assert all(line.startswith((str(tmp_path), "read (3, 224, 224)")) for line in lines)
    assert 0 < read < len(lines)
    assert grown < 200


def test_a_jpeg_of_endless_scans_is_refused() -> None:
    raw = saved("JPEG", progressive=True)
    last = raw[raw.rindex(b"\xff\xda") : -2]
    image.read_image(raw[:-2] + last * 50 + raw[-2:], INPUTS)
    assert "has more than 100 scans" in refusal(raw[:-2] + last * 200 + raw[-2:])


@pytest.mark.parametrize("format", FORMATS)
def test_a_truncated_file_is_refused_wherever_it_ends(format: str) -> None:
    raw = saved(format)
    for share in (0.0, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9):
        assert "is no picture that can be read" in refusal(raw[: int(share * len(raw))])


@pytest.mark.parametrize("raw", [b"a text\n", b"\0" * 1000, random.Random(0).randbytes(5000), b"\x1b[2J\r\n" * 9])
def test_what_is_no_picture_is_refused_by_name(raw: bytes, tmp_path: Path) -> None:
    path = tmp_path / "holiday.jpg"
    path.write_bytes(raw)
    assert refusal(path).startswith(f"{path}: is no picture that can be read (cannot identify image file) — use a JPEG")


@pytest.mark.skipif(sys.platform == "win32", reason="the program is a shell script")
def test_a_file_that_would_start_a_program_is_not_even_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ghostscript, ran = tmp_path / "gs", tmp_path / "ran"
    ghostscript.write_text(f"#!/bin/sh\ntouch {ran}\n")
    ghostscript.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    path = tmp_path / "picture.png"
    path.write_bytes(saved("EPS"))
    assert "cannot identify image file" in refusal(path)
    assert not ran.exists()


@pytest.mark.parametrize("format", ["EPS", "PDF", "ICO", "PPM", "TGA", "PCX", "ICNS", "DDS", "SGI", "JPEG2000"])
def test_a_seldom_format_is_refused(format: str) -> None:
    picture = noise(64, 64)
    assert "use a JPEG, PNG, WebP, GIF, BMP or TIFF file" in refusal(saved(format, picture))


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    empty, large = tmp_path / "empty.png", tmp_path / "large.png"
    empty.touch()
    with open(large, "wb") as file:
        file.truncate((256 << 20) + 1)
    assert "is a folder" in refusal(tmp_path)
    assert "there is no such file" in refusal(tmp_path / "none.png")
    assert "there is no such file" in refusal(tmp_path / "a\0b.png")
    assert "has 0 bytes" in refusal(empty)
    assert f"has {large.stat().st_size} bytes, a picture has 1 to" in refusal(large)


def test_only_suffixes_of_pictures_are_taken_for_pictures() -> None:
    names = "a.jpg a.JPEG a.b.png a.webp a.tif a.tiff a.gif a.bmp a.jfif a.txt a.eps jpg .png a.svg".split()
    assert [name for name in names if not image.is_image(Path(name))] == ["a.txt", "a.eps", "jpg", ".png", "a.svg"]


# Many pictures


def test_many_pictures_come_in_order() -> None:
    sizes = [400 if i % 3 == 0 else 8 for i in range(40)]  # so that the later ones are ready sooner
    sources = [saved("PNG", Image.new("RGB", (size, size), (6 * i, 0, 0))) for i, size in enumerate(sizes)]
    inputs = ImageInputs(32, 32, resize=(32, 32), rescale=1.0)
    found = [int(tensor[0, 0, 0]) for tensor in image.load_images(sources, inputs, threads=3)]
    assert found == [6 * i for i in range(40)]


def test_only_a_few_pictures_are_read_ahead() -> None:
    raw, taken = saved("PNG"), []

    def sources() -> Iterator[bytes]:
        for i in range(1000):
            taken.append(i)
            yield raw

    stream = image.load_images(sources(), INPUTS, threads=2)
    for count in (1, 2, 3):
        next(stream)
        assert len(taken) <= count + 4
    stream.close()
    assert len(taken) < 10


def test_a_damaged_picture_is_named_in_its_place(tmp_path: Path) -> None:
    paths = [tmp_path / f"{i}.png" for i in range(6)]
    for path in paths:
        path.write_bytes(saved("PNG"))
    paths[3].write_bytes(b"no picture")
    stream = image.load_images(paths, INPUTS, threads=2)
    assert len([next(stream) for _ in range(3)]) == 3
    with pytest.raises(BadFile, match=re.escape(str(paths[3]))):
        next(stream)


def test_no_thread_is_left_behind() -> None:
    raw = saved("PNG")
    stream = image.load_images([raw] * 50, INPUTS, threads=4)
    next(stream)
    stream.close()
    deadline = time.monotonic() + 10
    while any(t.name.startswith("edgemm-image") for t in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
