"""Render seeded pictures of one or two coloured shapes, and say in English what they show.

A scene is a pure function of its seed, so a picture and its captions need no data set: the same seed gives the same
pixels and words everywhere. Captions come in variants: the first `FULL` name everything (`caption(scene)` is the
plainest), the others leave things out. `meaning` says what a variant tells apart, so that a training script or a
test knows when one caption fits two pictures.

    scene(seed) -> Scene            render(scene, size=64) -> PIL.Image.Image
    caption(scene, variant=0) -> str    held_out(count) -> list[Scene]
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")
COLOURS = {
    "red": (212, 32, 32),
    "green": (28, 140, 52),
    "blue": (36, 72, 208),
    "yellow": (246, 222, 32),
    "orange": (246, 134, 16),
    "purple": (124, 36, 160),
    "white": (252, 252, 252),
    "black": (16, 16, 16),
    "pink": (250, 120, 184),
    "brown": (116, 68, 30),
}
# Radii and centres are fractions of the side. Two things never touch: neighbours' centres are 0.41 apart.
SIZES = {"small": 0.11, "large": 0.17}
POSITIONS = {"left": (0.21, 0.5), "right": (0.79, 0.5), "top": (0.5, 0.21), "bottom": (0.5, 0.79), "middle": (0.5, 0.5)}
OUTER = ("left", "right", "top", "bottom")
# Greys and pastels: none is the colour of a thing.
BACKGROUNDS = {
    "grey": (128, 132, 136),
    "silver": (176, 178, 180),
    "mint": (190, 220, 202),
    "lilac": (206, 198, 226),
    "sky": (190, 210, 228),
    "cream": (226, 216, 194),
}
FULL = 5
VARIANTS = 8
# Training takes its seeds from below this number.
HELD_OUT_SEED = 3_000_000
_OVERSAMPLE = 4
_NOISE = 4.0
_CLEAR = 85.0


@dataclass(frozen=True, order=True)
class Thing:
    """One shape of a scene."""

    shape: str
    colour: str
    size: str
    position: str


@dataclass(frozen=True)
class Scene:
    """What a picture shows; the seed also places the things to the pixel and sows the noise."""

    seed: int
    things: tuple[Thing, ...]
    background: str


def _background(things: tuple[Thing, ...], chance: random.Random) -> str:
    """Choose a background from which every thing stands out."""
    clear = [
        name
        for name, colour in BACKGROUNDS.items()
        if all(math.dist(colour, COLOURS[thing.colour]) > _CLEAR for thing in things)
    ]
    return chance.choice(clear)


def scene(seed: int) -> Scene:
    """Return the scene of a seed: in two of five cases one thing, else two that differ in shape or colour."""
    chance = random.Random(f"scene {seed}")
    kinds = [(shape, colour) for shape in SHAPES for colour in COLOURS]
    count = 1 if chance.random() < 0.4 else 2
    # The middle is for a thing alone: next to it a large one would touch.
    places = chance.sample(tuple(POSITIONS) if count == 1 else OUTER, count)
    things = tuple(
        Thing(shape, colour, chance.choice(tuple(SIZES)), place)
        for (shape, colour), place in zip(chance.sample(kinds, count), places, strict=True)
    )
    return Scene(seed, things, _background(things, chance))


def _corners(shape: str, radius: float) -> list[tuple[float, float]]:
    """Return the corners around (0, 0) of a shape that has any."""
    if shape == "cross":
        arm, half = radius, radius * 0.32
        right = [(half, -half), (arm, -half), (arm, half), (half, half)]
        turns = [right, [(-y, x) for x, y in right], [(-x, -y) for x, y in right], [(y, -x) for x, y in right]]
        return [corner for turn in turns for corner in turn[1:]]
    count, inner = {"square": (4, 1.0), "triangle": (3, 1.0), "star": (10, 0.42)}[shape]
    # A square stands on a side, a triangle and a star point up.
    first = -math.pi / 2 + (math.pi / 4 if shape == "square" else 0.0)
    points = []
    for index in range(count):
        angle, reach = first + index * 2 * math.pi / count, radius * (inner if index % 2 else 1.0)
        points.append((reach * math.cos(angle), reach * math.sin(angle)))
    return points


def _draw(canvas: ImageDraw.ImageDraw, thing: Thing, background: tuple[int, int, int], chance: random.Random) -> None:
    """Draw a thing a little beside its place, a little bigger or smaller, and slightly turned."""
    side = canvas.im.size[0]
    centre_x, centre_y = (side * (at + chance.uniform(-0.018, 0.018)) for at in POSITIONS[thing.position])
    radius = side * SIZES[thing.size] * chance.uniform(0.93, 1.03)
    turn = math.radians(chance.uniform(-8, 8))
    colour = COLOURS[thing.colour]

    def disc(reach: float, fill: tuple[int, int, int]) -> None:
        canvas.ellipse((centre_x - reach, centre_y - reach, centre_x + reach, centre_y + reach), fill=fill)

    if thing.shape in ("circle", "ring"):
        disc(radius, colour)
        if thing.shape == "ring":
            disc(radius * 0.55, background)
        return
    points = [
        (centre_x + x * math.cos(turn) - y * math.sin(turn), centre_y + x * math.sin(turn) + y * math.cos(turn))
        for x, y in _corners(thing.shape, radius)
    ]
    canvas.polygon(points, fill=colour)


def render(scene: Scene, size: int = 64) -> Image.Image:
    """Return the RGB picture of a scene, anti-aliased, with slight noise."""
    chance = random.Random(f"render {scene.seed}")
    background = BACKGROUNDS[scene.background]
    big = Image.new("RGB", (size * _OVERSAMPLE, size * _OVERSAMPLE), background)
    canvas = ImageDraw.Draw(big)
    for thing in scene.things:
        _draw(canvas, thing, background, chance)
    pixels = np.asarray(big.resize((size, size), Image.Resampling.BOX), dtype=np.float32)
    noise = np.random.default_rng(scene.seed).normal(0, _NOISE, pixels.shape)
    return Image.fromarray(np.clip(np.rint(pixels + noise), 0, 255).astype(np.uint8))


def _place(position: str) -> str:
    """Return "on the left" and the like."""
    return {"top": "at the top", "bottom": "at the bottom", "middle": "in the middle"}.get(
        position, f"on the {position}"
    )


def _plain(thing: Thing) -> str:
    return f"a {thing.size} {thing.colour} {thing.shape} {_place(thing.position)}"


def _first_place(thing: Thing) -> str:
    return f"{_place(thing.position)} a {thing.size} {thing.colour} {thing.shape}"


def _other_words(thing: Thing) -> str:
    size = {"small": "little", "large": "big"}[thing.size]
    place = _place(thing.position).replace("middle", "centre")
    return f"a {size} {thing.shape} {place} that is {thing.colour}"


def _named(thing: Thing) -> str:
    article = "an" if thing.colour == "orange" else "a"
    return f"{article} {thing.colour} {thing.shape}"


def _shape_only(thing: Thing) -> str:
    return f"a {thing.shape}"


def _colour_only(thing: Thing) -> str:
    article = "an" if thing.colour == "orange" else "a"
    return f"{article} {thing.colour} shape"


# Of each variant: how it opens, how it tells a thing, and which of a thing's properties it tells.
_WORDINGS: tuple[tuple[str, Callable[[Thing], str], tuple[str, ...]], ...] = (
    ("", _plain, ("shape", "colour", "size", "position")),
    ("there is ", _plain, ("shape", "colour", "size", "position")),
    ("a picture of ", _plain, ("shape", "colour", "size", "position")),
    ("", _first_place, ("shape", "colour", "size", "position")),
    ("", _other_words, ("shape", "colour", "size", "position")),
    ("a picture of ", _named, ("shape", "colour")),
    ("", _shape_only, ("shape",)),
    ("", _colour_only, ("colour",)),
)


def caption(scene: Scene, variant: int = 0) -> str:
    """Return a caption: variants below `FULL` tell everything but the background, the others part of it."""
    opening, tell, _ = _WORDINGS[variant]
    return opening + " and ".join(tell(thing) for thing in scene.things)


def meaning(scene: Scene, variant: int = 0) -> tuple[tuple[str, ...], ...]:
    """Return what that caption tells, whatever the order: it fits every scene with the same meaning."""
    told = _WORDINGS[variant][2]
    return tuple(sorted(tuple(getattr(thing, name) for name in told) for thing in scene.things))


def words() -> list[str]:
    """Return every word that a caption can hold, sorted."""
    things = [
        Thing(shape, colour, size, place)
        for shape in SHAPES
        for colour in COLOURS
        for size in SIZES
        for place in POSITIONS
    ]
    texts = (caption(Scene(0, (thing,), "grey"), variant) for thing in things for variant in range(VARIANTS))
    return sorted({word for text in texts for word in text.split()} | {"and"})


def held_out(count: int) -> list[Scene]:
    """Return the first `count` scenes of the seeds kept from training, skipping what an earlier one already shows."""
    found: dict[tuple[tuple[str, ...], ...], Scene] = {}
    seed = HELD_OUT_SEED
    while len(found) < count:
        candidate = scene(seed)
        found.setdefault(meaning(candidate), candidate)
        seed += 1
    return list(found.values())
