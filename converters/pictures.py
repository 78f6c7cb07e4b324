"""Pictures for calibrating and for comparing: drawn from a seed, so that a conversion needs no data and no network.

Soft light and colour as in photographs (noise whose strength falls with its frequency), flat areas, edges, stripes and
dots over it. They stand for no particular subject: real ones are better, and --calibrate takes a folder of them.
"""

import numpy as np
from numpy.typing import NDArray

COUNT = 24
Pixels = NDArray[np.uint8]


def drawn(first: int, count: int, side: int) -> list[Pixels]:
    """`count` pictures, uint8 (height, width, 3), the shorter side `side` or more; number `first` is the first one."""
    return [_picture(seed, side) for seed in range(first, first + count)]


def _picture(seed: int, side: int) -> Pixels:
    rng = np.random.default_rng([seed, 0x1A6E])
    height, width = side + int(rng.integers(0, side // 2)), side + int(rng.integers(0, side // 2))
    canvas = _clouds(rng, height, width)
    for _ in range(int(rng.integers(1, 6))):
        _shape(rng, canvas)
    light = rng.uniform(0.5, 1.3)
    return np.asarray(np.clip(255 * light * canvas, 0, 255), np.uint8)


def _clouds(rng: np.random.Generator, height: int, width: int) -> NDArray[np.float64]:
    """Noise with a spectrum of 1 / frequency, its three colours alike."""
    y, x = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :]
    strength = 1 / np.maximum(np.hypot(x, y), 1 / max(height, width)) ** rng.uniform(0.9, 1.6)
    planes = []
    shared = rng.standard_normal((2, *strength.shape))
    for _ in range(3):
        own = shared + rng.uniform(0.2, 0.7) * rng.standard_normal((2, *strength.shape))
        plane = np.fft.irfft2((own[0] + 1j * own[1]) * strength, (height, width))
        planes.append(0.5 + 0.2 * (plane - plane.mean()) / (plane.std() + 1e-9))
    return np.stack(planes, axis=-1)


def _shape(rng: np.random.Generator, canvas: NDArray[np.float64]) -> None:
    """A disc, a half plane, stripes or a box of one colour, more or less transparent."""
    height, width = canvas.shape[:2]
    y, x = np.mgrid[0:height, 0:width]
    cy, cx, size = rng.uniform(0, height), rng.uniform(0, width), rng.uniform(0.05, 0.4) * min(height, width)
    angle = rng.uniform(0, np.pi)
    along = (x - cx) * np.cos(angle) + (y - cy) * np.sin(angle)
    inside = [
        np.hypot(x - cx, y - cy) < size,
        along > 0,
        np.sin(along / max(size / 6, 1)) > rng.uniform(-0.5, 0.8),
        (np.abs(x - cx) < size) & (np.abs(y - cy) < size * rng.uniform(0.3, 1)),
    ][int(rng.integers(0, 4))]
    share = rng.uniform(0.3, 1.0)
    canvas[inside] = (1 - share) * canvas[inside] + share * rng.uniform(0, 1, 3)
