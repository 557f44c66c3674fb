"""The embedded default place: a small town square made entirely by code, so that everything runs without any data.

World: metres, right-handed, z up, the ground at z = 0, the middle of the square at the origin. Pixels and poses as in
`hfnet_edge.geometry`. Every surface is a textured parallelogram; colours are RGB. A texture holds ``TEXELS`` per metre,
and its linear-light colour is the square of its 8-bit value.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
from numpy.random import Generator, default_rng

from hfnet_edge.errors import OutputError
from hfnet_edge.geometry import Camera, Pose

TEXELS = 128  # per metre
OVERSAMPLING = 2  # rays per pixel in x and in y
GUTTER = 32  # texels of replicated border around a texture, so that the mip levels do not bleed into each other
SUN_MAP, SUN_REACH = 2048, 22.0  # shadow map: pixels along a side, metres from its middle to its border

Array = np.ndarray
Pair = tuple[float, float]
Triple = tuple[float, float, float]
Box = tuple[float, float, float, float]

BRICK = np.array([(156, 84, 62), (140, 72, 56), (172, 100, 74), (124, 70, 60), (164, 110, 86)])
STONE = np.array([(176, 164, 142), (160, 150, 132), (190, 180, 160), (148, 142, 132), (182, 160, 128)])
SLATE = np.array([(130, 128, 124), (144, 138, 130), (116, 116, 116), (152, 144, 134), (136, 126, 114)])
TILES = np.array([(168, 88, 60), (150, 76, 54), (182, 104, 70), (134, 74, 58)])
LEAF = np.array([(62, 98, 44), (84, 122, 54), (46, 76, 38), (112, 140, 66)])
WOOD, IRON, WHITE = np.array((150, 112, 76)), np.array((52, 56, 58)), np.array((228, 222, 208))
PLASTER = np.array((218, 206, 178))
PAINT = np.array([(210, 182, 130), (202, 148, 112), (192, 148, 138), (168, 180, 158), (172, 184, 194), (204, 124, 94)])
JOINERY = np.array([(52, 92, 96), (60, 84, 60), (120, 46, 44), (56, 70, 110), (92, 66, 46), (104, 112, 108)])
VIVID = np.array(
    [
        (190, 58, 50),
        (222, 174, 64),
        (52, 94, 146),
        (234, 226, 208),
        (40, 40, 46),
        (62, 126, 94),
        (212, 112, 58),
        (138, 66, 104),
    ]
)


@dataclass(frozen=True)
class Light:
    """The light of one view.

    Attributes:
        azimuth, elevation: direction to the sun, degrees from the x axis and from the ground.
        sun, sky: linear RGB of the direct and of the scattered light.
        exposure: factor on the linear image.
        noise: standard deviation of the sensor's noise, in 8-bit grey levels.
    """

    azimuth: float = 235.0
    elevation: float = 48.0
    sun: tuple[float, float, float] = (2.1, 1.96, 1.74)
    sky: tuple[float, float, float] = (0.72, 0.79, 0.92)
    exposure: float = 1.0
    noise: float = 1.0

    @property
    def direction(self) -> Array:
        """(3,) float64 unit vector to the sun."""
        a, e = np.deg2rad([self.azimuth, self.elevation])
        return np.array([np.cos(a) * np.cos(e), np.sin(a) * np.cos(e), np.sin(e)])


@dataclass(frozen=True)
class PlaceView:
    """One picture to take: its file name, cam_from_world, PINHOLE camera, and light."""

    name: str
    pose: Pose
    camera: Camera
    is_query: bool
    light: Light


# ---------------------------------------------------------------------------------------------------- painting textures
# A picture is (h, w, 3) uint8, its shape (h, w); lengths are texels unless a docstring says metres.


def shape_of(width: float, height: float) -> tuple[int, int]:
    """(h, w) in texels of a surface in metres."""
    return max(8, round(height * TEXELS)), max(8, round(width * TEXELS))


def noise(rng: Generator, shape: tuple[int, int], finest: int = 1, persistence: float = 0.62) -> Array:
    """(h, w) float32 of about 1/f noise, zero mean, about unit deviation, in cells of 128 to ``2**finest`` texels."""
    grid = np.zeros((1, 1), np.float32)
    for octave in range(7, finest - 1, -1):
        h, w = (n // 2**octave + 2 for n in shape)
        grid = cv2.resize(grid, (w, h)) + persistence ** (7 - octave) * (rng.random((h, w), np.float32) - 0.5)
    return cv2.resize(grid * 3.4, shape[::-1])


def shaded(picture: Array, factor: Array) -> Array:
    """The picture times an (h, w) or (h, w, 3) float32 factor."""
    factor = factor if factor.ndim == 3 else cv2.merge([factor] * 3)
    return cv2.multiply(picture, factor, dtype=cv2.CV_8U)


def embossed(picture: Array, relief: Array, strength: float) -> Array:
    """Lights a relief (h, w) float32 from the upper left."""
    kernel = strength * np.array([[-2, -1, 0], [-1, 0, 1], [0, 1, 2]], np.float32)
    return shaded(picture, 1 + cv2.filter2D(cv2.GaussianBlur(relief, (0, 0), 1.2), -1, kernel))


def weathered(rng: Generator, picture: Array, amount: float) -> Array:
    """Uneven brightness and warmth at all scales."""
    grey, warm = (amount * a * noise(rng, picture.shape[:2], finest) for a, finest in ((1, 1), (0.4, 3)))
    return shaded(picture, 1 + cv2.merge([grey + warm, grey, grey - warm]))


def plain(shape: tuple[int, int], colour: Array) -> Array:
    return np.full((*shape, 3), np.clip(colour, 0, 255), np.uint8)


def ink(colour: Array) -> list[float]:
    """A colour as OpenCV takes it."""
    return np.clip(colour, 0, 255).tolist()


def varied(rng: Generator, colours: Array, spread: float = 0.11) -> Array:
    """(..., 3) float64: each colour, a bit brighter or darker and of a bit another hue."""
    brightness, hue = rng.normal(1, spread, (*colours.shape[:-1], 1)), rng.normal(1, spread / 4, colours.shape)
    return np.clip(colours * brightness * hue, 5, 250)


def one_of(rng: Generator, colours: Array) -> Array:
    return varied(rng, colours[rng.integers(len(colours))])


def fill(picture: Array, box: Sequence[float], colour: Array | float) -> None:
    """Fills the box (x0, y0, x1, y1)."""
    x0, y0, x1, y1 = (max(0, round(v)) for v in box)
    picture[y0:y1, x0:x1] = colour


def paste(picture: Array, part: Array, x: int, y: int) -> None:
    """Puts a part with its upper left corner at (x, y), cut at the picture's border."""
    room = picture[y : y + part.shape[0], x : x + part.shape[1]]
    room[:] = part[: room.shape[0], : room.shape[1]]


def masonry(rng: Generator, shape: tuple[int, int], course: float, unit: float, colours: Array) -> Array:
    """Stones or bricks (metres) in courses, each with its own length and colour."""
    picture, relief = plain(shape, colours.mean(axis=0) * 0.62), np.zeros(shape, np.float32)
    (h, w), unit, y = shape, unit * TEXELS, 0.0
    columns = np.arange(w) + 0.5
    while y < h:
        rise = course * TEXELS * rng.uniform(0.85, 1.15)
        ends = np.cumsum(unit * rng.uniform(0.6, 1.4, int(1.5 * w / unit) + 4)) - unit
        stones = varied(rng, colours[rng.integers(len(colours), size=len(ends) + 1)])
        stone, after = np.searchsorted(ends, columns - 0.8), np.searchsorted(ends, columns + 0.8)
        rows, solid = slice(max(0, round(y + 0.8)), round(y + rise - 0.8)), np.flatnonzero(stone == after)
        picture[rows, solid] = stones[stone[solid]]
        relief[rows, solid] = rng.uniform(0.6, 1.4, len(stones))[stone[solid]]
        y += rise
    return weathered(rng, embossed(picture, relief, 0.12), 0.10)


def rubble(rng: Generator, shape: tuple[int, int], cell: float, colours: Array) -> Array:
    """Irregular stones (metres): the Voronoi cells of a jittered grid."""
    step = cell * TEXELS
    grid = np.mgrid[0 : shape[0] : step, 0 : shape[1] : step].reshape(2, -1)
    y, x = np.minimum(grid + rng.uniform(0, step, grid.shape), np.array(shape)[:, None] - 1).astype(int)
    seeds, inside = np.ones(shape, np.uint8), np.ones(shape, np.uint8)
    seeds[y, x] = 0
    _, cells = cv2.distanceTransformWithLabels(seeds, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    inside[1:] &= cells[1:] == cells[:-1]
    inside[:, 1:] &= cells[:, 1:] == cells[:, :-1]
    depth = np.minimum(cv2.distanceTransform(inside, cv2.DIST_L2, 3), 5)
    picture = varied(rng, colours[rng.integers(len(colours), size=cells.max() + 1)]).astype(np.uint8)[cells]
    picture[depth < 0.08 * np.sqrt(step)] = colours.mean(axis=0) * 0.55
    return weathered(rng, embossed(picture, depth, 0.035), 0.10)


def planks(rng: Generator, shape: tuple[int, int], colour: Array, width: float = 0.14) -> Array:
    boards = masonry(rng, shape[::-1], width, 2.5, colour[None]).transpose(1, 0, 2)
    grain = cv2.resize(noise(rng, (shape[0] // 12 + 1, shape[1])), shape[::-1])
    return shaded(np.ascontiguousarray(boards), 1 + 0.08 * grain)


def plaster(rng: Generator, shape: tuple[int, int], colour: Array) -> Array:
    """Painted plaster with cracks and mended spots; where it has fallen off, the bricks show."""
    picture = plain(shape, colour)
    for x, y, w, h in rng.uniform(0, 1, (12, 4)) * (*shape[::-1], TEXELS, TEXELS):
        fill(picture, (x, y, x + w, y + h), varied(rng, colour, 0.04))
    for _ in range(rng.integers(16, 30)):
        steps = np.cumsum(rng.normal(0, 6, (rng.integers(20, 90), 2)) + rng.normal(0, 3, 2), axis=0)
        crack = (steps + rng.uniform(0, 1, 2) * shape[::-1]).astype(np.int32)
        cv2.polylines(picture, [crack], False, ink(colour * 0.6), 1, cv2.LINE_AA)
    near_ends = 0.6 * np.linspace(-1, 1, shape[0], dtype=np.float32)[:, None] ** 2
    whole = np.clip((rng.uniform(1.4, 1.9) - noise(rng, shape, persistence=0.55) - near_ends) * 12, 0, 1)
    bricks, mask = 0.85 * masonry(rng, shape, 0.075, 0.23, BRICK), whole[..., None]
    return embossed((mask * weathered(rng, picture, 0.09) + (1 - mask) * bricks).astype(np.uint8), whole, 0.16)


def timbered(rng: Generator, shape: tuple[int, int], colour: Array) -> Array:
    """Half-timbered plaster: posts, rails and braces."""
    picture, relief = plaster(rng, shape, colour), np.zeros(shape, np.float32)
    h, w = shape
    xs, ys = (np.arange(0.2, n / TEXELS) * rng.uniform(0.9, 1.2) * TEXELS + rng.normal(0, 12, 1) for n in (w, h))
    beams = [(x, 0, x + rng.normal(0, 5), h) for x in xs] + [(0, y, w, y) for y in ys]
    beams += [(x, y, x + rng.choice([-1, 1]) * TEXELS, y + 1.2 * TEXELS) for x in xs for y in ys if rng.random() < 0.4]
    for x0, y0, x1, y1 in np.array(beams).astype(int).tolist():
        thick = int(rng.uniform(0.11, 0.17) * TEXELS)
        cv2.line(picture, (x0, y0), (x1, y1), ink(varied(rng, WOOD * 0.5)), thick, cv2.LINE_AA)
        cv2.line(relief, (x0, y0), (x1, y1), 1.0, thick, cv2.LINE_AA)
    return weathered(rng, embossed(picture, relief, 0.12), 0.07)


def word(rng: Generator, syllables: int) -> str:
    return "".join(rng.choice(list("BCDFGKLMNPRSTVZ")) + rng.choice(list("AEIOU")) for _ in range(syllables))


def letter(rng: Generator, picture: Array, text: str, box: Box, colour: Array) -> None:
    """Writes the text as large as fits into the box (x, y, w, h)."""
    x, y, width, height = box
    font = int(rng.choice([cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_TRIPLEX, cv2.FONT_HERSHEY_COMPLEX]))
    (w, h), _ = cv2.getTextSize(text, font, 1.0, 2)
    scale = 0.92 * min(width / w, height / h)
    thick = max(1, round(2 * scale))
    (w, h), _ = cv2.getTextSize(text, font, scale, thick)
    corner = round(x + (width - w) / 2), round(y + (height + h) / 2)
    cv2.putText(picture, text, corner, font, scale, ink(colour), thick, cv2.LINE_AA)


def poster(rng: Generator, width: float, height: float) -> Array:
    """A sheet (metres) with random figures and words."""
    h, w = shape_of(width, height)
    colours = varied(rng, rng.permutation(VIVID))
    picture = plain((h, w), colours[0])
    for i in range(rng.integers(5, 10)):
        centre, size = rng.uniform(0, 1, 2) * (w, h), rng.uniform(0.08, 0.4) * w
        corners = (centre + rng.uniform(-size, size, (rng.integers(3, 6), 2))).astype(np.int32)
        if rng.random() < 0.4:
            cv2.circle(picture, corners[0].tolist(), int(size / 2), ink(colours[i % 4 + 1]), -1, cv2.LINE_AA)
        else:
            cv2.fillPoly(picture, [corners], ink(colours[i % 4 + 1]), cv2.LINE_AA)
    for _ in range(rng.integers(2, 4)):
        box = (0.08 * w, rng.uniform(0.03, 0.75) * h, 0.84 * w, rng.uniform(0.08, 0.16) * h)
        letter(rng, picture, word(rng, int(rng.integers(2, 5))), box, colours[5])
    cv2.rectangle(picture, (0, 0), (w - 1, h - 1), ink(WHITE), max(2, w // 40))
    return weathered(rng, picture, 0.05)


def board(rng: Generator, width: float, height: float, colour: Array) -> Array:
    """A painted sign (metres) with words."""
    h, w = shape_of(width, height)
    picture, contrast = plain((h, w), colour), WHITE if colour.mean() < 120 else IRON
    cv2.rectangle(picture, (3, 3), (w - 4, h - 4), ink(contrast), 2)
    text = " ".join(word(rng, int(rng.integers(2, 4))) for _ in range(1 + (width > 4 * height)))
    letter(rng, picture, text, (0.08 * w, 0.18 * h, 0.84 * w, 0.6 * h), contrast)
    return weathered(rng, picture, 0.06)


def glazing(rng: Generator, width: float, height: float, colour: Array) -> Array:
    """A window (metres): the room behind it, curtains or a blind, the sky's reflection, and bars of the colour."""
    h, w = shape_of(width, height)
    picture = shaded(plain((h, w), np.array((62, 70, 82))), 1 + 0.2 * noise(rng, (h, w)))
    for x, y, size in rng.uniform((0, 0.4, 0.05), (1, 0.9, 0.25), (rng.integers(2, 6), 3)):
        fill(picture, (x * w, y * h, (x + size) * w, h), 0.5 * one_of(rng, VIVID))
    cloth, kind = one_of(rng, PAINT), rng.random()
    if kind < 0.45:
        for mirror in (0, 1):
            x = rng.uniform(0.1, 0.42) * w
            edge = np.array([(0, 0), (1.2 * x, 0), (0.7 * x, 0.6 * h), (x, h), (0, h)])
            folds = [np.array([(f, 0), (f * 0.9, h)]) for f in rng.uniform(0, x, 4)]
            for line, dark in [(edge, 1.0), *((fold, rng.uniform(0.7, 0.9)) for fold in folds)]:
                line = np.abs(line - (mirror * w, 0)).astype(np.int32)
                cv2.fillPoly(picture, [line], ink(cloth * dark), cv2.LINE_AA)
    elif kind < 0.75:
        low, slat = rng.uniform(0.15, 0.8) * h, rng.uniform(5, 8)
        for y in np.arange(0, low, slat):
            fill(picture, (0, y, w, y + slat - 1), cloth * rng.uniform(0.85, 1.1))
    picture, bar = glare(rng, picture), 0.05 * TEXELS
    for x in (columns := np.linspace(0, w, rng.integers(2, 5))):
        fill(picture, (x - bar / 2 - bar * (x > w - 1), 0, x + bar / 2 + bar * (x < 1), h), colour)
    for y in np.linspace(0, h, rng.integers(len(columns), 6)):
        fill(picture, (0, y - bar / 2 - bar * (y > h - 1), w, y + bar / 2 + bar * (y < 1)), colour)
    return weathered(rng, picture, 0.05)


def glare(rng: Generator, picture: Array) -> Array:
    """The sky's reflection across a pane."""
    (a, b, c), (h, w) = rng.uniform((0.1, 0.4, -0.3), (0.9, 1.3, 0.5)), picture.shape[:2]
    corners = (np.array([(a, 0), (b, 0), (c, 1), (-0.4, 1)]) * (w, h)).astype(np.int32)
    return cv2.add(picture, cv2.fillPoly(np.zeros_like(picture), [corners], [rng.uniform(10, 34)] * 3, cv2.LINE_AA))


def shop(rng: Generator, width: float, height: float, colour: Array) -> Array:
    """A shop window (metres): shelves full of goods, and words on the glass."""
    h, w = shape_of(width, height)
    picture, floors = plain((h, w), np.array((74, 66, 60))), np.linspace(0, h, rng.integers(4, 6))
    for top, floor in pairwise(floors):
        x = 16.0
        while x < w - 16:
            run, tall, label = rng.uniform(7, 30), rng.uniform(0.25, 0.8) * (floor - top), rng.uniform(0.4, 0.9)
            fill(picture, (x, floor - tall, x + run, floor), 0.8 * one_of(rng, VIVID))
            fill(picture, (x + 2, floor - label * tall, x + run - 2, floor - 0.3 * tall), 0.8 * varied(rng, WHITE))
            x += run + rng.uniform(1, 12)
        fill(picture, (0, floor - 4, w, floor), WOOD)
    picture = glare(rng, picture)
    letter(rng, picture, word(rng, 3), (0.1 * w, 0.08 * h, 0.8 * w, 0.14 * h), WHITE)
    cv2.rectangle(picture, (0, 0), (w - 1, h - 1), ink(colour), round(0.16 * TEXELS))
    return weathered(rng, picture, 0.06)


def door(rng: Generator, width: float, height: float, colour: Array) -> Array:
    """A door (metres) with panels, a handle, a letter slot, perhaps a pane."""
    h, w = shape_of(width, height)
    relief, rows = np.zeros((h, w), np.float32), rng.integers(2, 5)
    for x in (0.1, 0.53):
        for y in np.arange(rows) / rows + 0.03:
            fill(relief, (x * w, y * h, (x + 0.37) * w, (y + 0.94 / rows) * h), 1)
    picture = embossed(planks(rng, (h, w), colour, rng.uniform(0.09, 0.3)), relief, 0.25)
    if rng.random() < 0.6:
        paste(picture, glazing(rng, 0.7 * width, 0.3 * height, varied(rng, colour)), round(0.15 * w), round(0.05 * h))
    cv2.circle(picture, (round(0.9 * w), round(0.52 * h)), 5, (206, 178, 96), -1, cv2.LINE_AA)
    fill(picture, (0.36 * w, 0.62 * h, 0.64 * w, 0.65 * h), WOOD * 1.4)
    return picture


def papered(rng: Generator, picture: Array, count: int, x: tuple[int, int], y: tuple[int, int]) -> Array:
    """The picture with posters whose upper left corners lie within x and y."""
    for _ in range(count):
        sheet = poster(rng, rng.uniform(0.35, 0.7), rng.uniform(0.5, 0.9))
        paste(picture, sheet, int(rng.integers(*x)), int(rng.integers(*y)))
    return picture


def scrawl(rng: Generator, picture: Array) -> None:
    """Spray paint: strokes and a tag."""
    h, w = picture.shape[:2]
    size, colour = rng.uniform(0.3, 0.6) * TEXELS, one_of(rng, VIVID)
    origin = np.array([rng.uniform(0.05, 0.7) * w, h - rng.uniform(0.6, 1.7) * TEXELS])
    for _ in range(rng.integers(3, 6)):
        knots = (origin + np.cumsum(rng.normal(0, 0.45, (7, 2)), axis=0) * size).astype(np.float32)
        curve = cv2.resize(knots, (2, 60), interpolation=cv2.INTER_CUBIC).astype(np.int32)
        cv2.polylines(picture, [curve], False, ink(colour), int(rng.integers(3, 9)), cv2.LINE_AA)
    letter(rng, picture, word(rng, 2), (*origin, 1.6 * size, 0.7 * size), varied(rng, colour))


def leaves(rng: Generator, picture: Array, centre: Pair | Array, radius: float, count: int) -> None:
    """A patch of leaves around the centre."""
    greens = varied(rng, LEAF[rng.integers(len(LEAF), size=count)], 0.2)
    for (x, y), green in zip(rng.normal(centre, 0.45 * radius, (count, 2)), greens, strict=True):
        size, turn = rng.uniform((3, 0), (7, 360))
        axes = round(size), round(size * 0.6)
        cv2.ellipse(picture, (round(x), round(y)), axes, turn, 0, 360, ink(green), -1, cv2.LINE_AA)


def facade(rng: Generator, width: float, height: float, openings: Sequence[Box]) -> Array:
    """A house's wall (metres) with what time has left on it; openings as in `Scene.wall`."""
    h, w = shape = shape_of(width, height)
    makers: list[Callable[[], Array]] = [
        lambda: masonry(rng, shape, 0.075, 0.23, BRICK * rng.uniform(0.8, 1.15)),
        lambda: masonry(rng, shape, rng.uniform(0.24, 0.4), rng.uniform(0.45, 0.8), STONE * rng.uniform(0.8, 1.05)),
        lambda: rubble(rng, shape, rng.uniform(0.2, 0.35), STONE * rng.uniform(0.8, 1.05)),
        lambda: timbered(rng, shape, PLASTER),
        *[lambda: plaster(rng, shape, one_of(rng, PAINT))] * 3,
    ]
    picture, streaks = makers[rng.integers(len(makers))](), np.ones(shape, np.float32)
    for x0, y0, x1, _ in openings:  # water runs down from the sills
        for x, wide, tall in rng.uniform((x0, 0.01, 0.2), (x1, 0.06, 1.2), (7, 3)) * TEXELS:
            fill(streaks, (x, h - y0 * TEXELS, x + wide, h - y0 * TEXELS + tall), rng.uniform(0.75, 0.93))
    damp = np.clip(1 - np.arange(h, 0, -1, dtype=np.float32)[:, None] / (1.1 * TEXELS), 0, 1) ** 2
    dirt = 1 - damp * np.clip(0.22 + 0.12 * noise(rng, shape), 0, 1)
    picture = shaded(picture, cv2.GaussianBlur(streaks, (0, 0), 3) * dirt)
    if rng.random() < 0.5:
        box = (0.1 * w, h - rng.uniform(3.0, 3.2) * TEXELS, 0.8 * w, 0.4 * TEXELS)
        letter(rng, picture, f"{word(rng, 3)} & {word(rng, 2)}", box, varied(rng, WOOD * 0.5))
    papered(rng, picture, int(rng.integers(5, 9)), (0, w - TEXELS), (h - 2 * TEXELS, h - TEXELS))
    for _ in range(rng.integers(0, 3)):
        scrawl(rng, picture)
    if rng.random() < 0.55:
        x = rng.uniform(0, w)
        for y in np.arange(rng.uniform(0.1, 0.6) * h, h, 0.35 * TEXELS):
            x += rng.normal(0, 0.15) * TEXELS
            leaves(rng, picture, (x, y), rng.uniform(0.3, 0.9) * TEXELS, 110)
    return picture


# ----------------------------------------------------------------------------------------------------- placing surfaces


@dataclass(frozen=True)
class Frame:
    """A thing's own axes as one stands before it: x right, y up, z towards the viewer; the angle is that of z."""

    origin: Array
    angle: float

    @property
    def axes(self) -> Array:
        """(3, 3) float64, columns x, y, z in the world."""
        c, s = np.cos(self.angle), np.sin(self.angle)
        return np.array([[-s, 0, c], [c, 0, s], [0, 1, 0.0]])

    def point(self, x: float, y: float, z: float) -> Array:
        return self.origin + self.axes @ (x, y, z)

    def turned(self, angle: float) -> Frame:
        return Frame(self.origin, self.angle + angle)


@dataclass
class Scene:
    """Surfaces and textures while they are being collected; textures go by their number.

    Attributes:
        pictures: the textures.
        quads: per surface its corner and two edges (3, 3) float64, texture, and piece (x, y, w, h) of it in texels.
        footprints: discs (x, y, radius) that nobody walks through, metres.
    """

    rng: Generator
    pictures: list[Array] = field(default_factory=list)
    quads: list[tuple[Array, int, Box]] = field(default_factory=list)
    footprints: list[tuple[float, float, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        rng = self.rng
        self.stone = self.add(masonry(rng, shape_of(4, 3), 0.25, 0.55, STONE))
        self.wood = self.add(planks(rng, shape_of(3, 2), WOOD, 0.1))
        self.iron = self.add(weathered(rng, plain(shape_of(2, 4), IRON), 0.1))
        foliage = weathered(rng, plain(shape_of(2, 2), LEAF[2]), 0.2)
        for spot in rng.uniform(0, 2 * TEXELS, (30, 2)):
            leaves(rng, foliage, spot, 0.7 * TEXELS, 60)
        for x, y in rng.integers(0, 2 * TEXELS, (60, 2)).tolist():
            cv2.circle(foliage, (x, y), 3, ink(one_of(rng, VIVID)), -1, cv2.LINE_AA)
        self.foliage = self.add(foliage)

    def add(self, picture: Array) -> int:
        self.pictures.append(picture)
        return len(self.pictures) - 1

    def whole(self, skin: int) -> Box:
        h, w = self.pictures[skin].shape[:2]
        return (0, 0, w, h)

    def face(
        self, frame: Frame, corner: Triple, right: Triple, down: Triple, skin: int, piece: Box | None = None
    ) -> None:
        """A parallelogram by its upper left corner and its edges (3,), as seen from the side that shows.

        Without a piece of the texture it shows a random one in its true size.
        """
        if piece is None:
            *_, w, h = self.whole(skin)
            size = np.minimum((w, h), TEXELS * np.linalg.norm([right, down], axis=1))
            piece = (*(self.rng.uniform(0, 1, 2) * (np.array((w, h)) - size)), *size)
        self.quads.append((np.stack([frame.point(*corner), frame.axes @ right, frame.axes @ down]), skin, piece))

    def block(self, frame: Frame, x: Pair, y: Pair, z: Pair, skin: int, front: int | None = None) -> None:
        """A box between pairs of x, y and z; the texture ``front`` covers its front."""
        (x0, x1), (y0, y1), (z0, z1) = x, y, z
        across, up, out = (x1 - x0, 0, 0), (0, y0 - y1, 0), (0, 0, z1 - z0)
        back, inwards = (x0 - x1, 0, 0), (0, 0, z0 - z1)
        self.face(frame, (x0, y1, z1), across, up, *((skin,) if front is None else (front, self.whole(front))))
        self.face(frame, (x1, y1, z0), back, up, skin)
        self.face(frame, (x0, y1, z0), out, up, skin)
        self.face(frame, (x1, y1, z1), inwards, up, skin)
        self.face(frame, (x0, y1, z0), across, out, skin)
        if y0 > 0:
            self.face(frame, (x0, y0, z1), across, inwards, skin)

    def wall(self, frame: Frame, width: float, height: float, skin: int, openings: Sequence[Box]) -> None:
        """A facade in the frame's plane z = 0 that leaves out openings (x0, y0, x1, y1)."""
        levels = sorted({0.0, height, *(y for box in openings for y in box[1::2])})
        for y0, y1 in pairwise(levels):
            holes = sorted((box[0], box[2]) for box in openings if box[1] <= y0 and y1 <= box[3])
            edges = [0.0, *(x for hole in holes for x in hole), width]
            for x0, x1 in zip(edges[::2], edges[1::2], strict=True):
                piece = (x0 * TEXELS, (height - y1) * TEXELS, (x1 - x0) * TEXELS, (y1 - y0) * TEXELS)
                self.face(frame, (x0, y1, 0), (x1 - x0, 0, 0), (0, y0 - y1, 0), skin, piece)

    def recess(self, frame: Frame, box: Box, depth: float, skin: int, back: int) -> None:
        """What fills an opening: four reveals, and the texture ``back`` behind them."""
        (x0, y0, x1, y1), inwards, out = box, (0, 0, -depth), (0, 0, depth)
        across, up = (x1 - x0, 0, 0), (0, y0 - y1, 0)
        self.face(frame, (x0, y1, -depth), across, up, back, self.whole(back))
        self.face(frame, (x0, y1, 0), inwards, up, skin)
        self.face(frame, (x1, y1, -depth), out, up, skin)
        self.face(frame, (x0, y0, -depth), across, out, skin)
        self.face(frame, (x0, y1, 0), across, inwards, skin)

    def column(self, frame: Frame, radius: float, low: float, high: float, skin: int, sides: int = 8) -> None:
        """An upright prism on the frame's origin; its texture, wrapped around, shows once."""
        edge, (*_, w, h) = 2 * radius * np.tan(np.pi / sides), self.whole(skin)
        for i in range(sides):
            side, piece = frame.turned(2 * np.pi * i / sides), (w * i / sides, 0, w / sides, h)
            self.face(side, (-edge / 2, high, radius), (edge, 0, 0), (0, low - high, 0), skin, piece)
            self.face(side, (-edge / 2, high, -radius), (edge, 0, 0), (0, 0, 2 * radius), skin)

    def bush(self, frame: Frame, size: Triple, count: int) -> None:
        """Leafy sheets at random angles in an ellipsoid around the frame's origin."""
        for direction in self.rng.normal(size=(count, 3)):
            offset = size * direction / np.linalg.norm(direction) * self.rng.uniform(0.5, 1)
            local = Frame(frame.point(*offset), self.rng.uniform(0, np.pi))
            lean, s = self.rng.normal(0, 0.5), self.rng.uniform(0.1, 0.2)
            for side in (1, -1):
                corner, down = (-side * s / 2, s / 2, -lean * s / 2), (0, -s, lean * s)
                self.face(local, corner, (side * s, 0, 0), down, self.foliage)


def house(scene: Scene, frame: Frame, width: float, height: float, depth: float = 5.0) -> None:
    """A house whose front stands in the frame's plane z = 0, from x = 0 to the width."""
    rng = scene.rng
    bays, storeys = max(2, round(width / rng.uniform(1.7, 2.2))), max(2, round(height / 3.0))
    pitch, rise, colour = width / bays, height / storeys, one_of(rng, JOINERY)
    openings: dict[Box, str] = {}
    entrance, trade = rng.integers(bays), rng.integers(-1, bays)
    for storey in range(storeys):
        low, tall = (storey + rng.uniform(0.28, 0.36)) * rise, rng.uniform(0.42, 0.52) * rise
        for bay in range(bays):
            middle, half = (bay + 0.5) * pitch + rng.normal(0, 0.05), min(rng.uniform(0.42, 0.58), 0.4 * pitch)
            if storey == 0 and bay == entrance:
                openings[middle - 0.5, 0.0, middle + 0.5, 2.15] = "door"
            elif storey == 0 and abs(bay - trade) < rng.integers(1, 3):
                openings[middle - 0.42 * pitch, 0.55, middle + 0.42 * pitch, 2.25] = "shop"
            elif rng.random() < 0.88:
                openings[middle - half, low, middle + half, low + tall] = "window"
    skin = scene.add(facade(rng, width, height, list(openings)))
    trim = scene.add(masonry(rng, shape_of(2.5, 1.5), 0.4, 0.7, one_of(rng, STONE)[None]))
    wood = scene.add(planks(rng, shape_of(1.5, 1.5), colour))
    tiles = scene.add(masonry(rng, shape_of(width + 0.4, depth), 0.16, 0.2, TILES * rng.uniform(0.75, 1.1)))
    scene.wall(frame, width, height, skin, list(openings))
    for box, kind in openings.items():
        opening(scene, frame, box, kind, trim, wood, colour)
    scene.face(frame, (0, height, -depth), (0, 0, depth), (0, -height, 0), skin)
    scene.face(frame, (width, height, 0), (0, 0, -depth), (0, -height, 0), skin)
    scene.face(frame, (width, height, -depth), (-width, 0, 0), (0, -height, 0), skin)
    scene.block(frame, (0, width), (0, rng.uniform(0.3, 0.6)), (-0.05, 0.0), trim)
    scene.block(frame, (-0.05, width + 0.05), (height - 0.22, height), (-0.1, rng.uniform(0.12, 0.3)), trim)
    if rng.random() < 0.6:
        scene.block(frame, (0, width), (rise - 0.1, rise + 0.04), (0, 0.07), trim)
    run, slope, wide = depth / 2, rng.uniform(0.5, 0.9), width + 0.4
    ridge = height + slope * run
    scene.face(frame, (-0.2, ridge, -run), (wide, 0, 0), (0, -slope * (run + 0.4), run + 0.4), tiles)
    scene.face(frame, (width + 0.2, ridge, -run), (-wide, 0, 0), (0, -slope * run, -run), tiles)
    for low in np.arange(0, 1, 0.25):  # stepped gables
        y, z = height + low * slope * run, run * (low - 1)
        for x in (0, width - 0.2):
            scene.block(frame, (x, x + 0.2), (y, y + 0.25 * slope * run + 0.1), (z - run, -z - run), trim)
    x = rng.uniform(0.5, width - 1.2)
    scene.block(frame, (x, x + 0.7), (height, ridge + 0.9), (-2.2, -1.6), scene.stone)
    x = rng.choice([0.12, width - 0.2])
    scene.block(frame, (x, x + 0.09), (0, height - 0.2), (0, 0.1), wood)
    for x in rng.uniform(0.2, width - 0.6, rng.integers(2, 5)):  # boxes on the wall, and a sign that sticks out
        y, w, h = rng.uniform((0.8, 0.2, 0.25), (2.0, 0.4, 0.6))
        sign = scene.add(board(rng, w, h, one_of(rng, np.concatenate([JOINERY, STONE]))))
        scene.block(frame, (x, x + w), (y, y + h), (0, rng.uniform(0.05, 0.2)), wood, sign)
    for side in (0, 1):
        jutting = Frame(frame.point(x, 0, 0.5), frame.angle + (side - 0.5) * np.pi)
        sign = scene.add(board(rng, 0.7, 0.6, one_of(rng, VIVID)))
        scene.block(jutting, (-0.35, 0.35), (2.6, 3.2), (0, 0.03), scene.iron, sign)


def opening(scene: Scene, frame: Frame, box: Box, kind: str, trim: int, wood: int, colour: Array) -> None:
    """A door, shop or window, and what stands out around it."""
    rng, (x0, y0, x1, y1) = scene.rng, box
    w, h = x1 - x0, y1 - y0
    paint = {"door": door, "shop": shop, "window": glazing}[kind]
    back = scene.add(paint(rng, w, h, varied(rng, WHITE if kind == "window" else colour)))
    scene.recess(frame, box, rng.uniform(0.12, 0.25), wood if kind == "shop" else trim, back)
    if kind == "door":
        scene.block(frame, (x0 - 0.2, x1 + 0.2), (0, 0.16), (0, 0.45), trim)
        scene.block(frame, (x0 - 0.15, x1 + 0.15), (y1, y1 + 0.18), (0, 0.14), trim)
    elif kind == "shop":
        sign = scene.add(board(rng, w, 0.45, varied(rng, colour)))
        scene.block(frame, (x0, x1), (y1 + 0.08, y1 + 0.53), (0, 0.09), wood, sign)
        scene.block(frame, (x0, x1), (y0 - 0.1, y0), (0, 0.12), trim)
        if rng.random() < 0.6:
            stripes = plain(shape_of(w, 0.95), WHITE)
            step, shade = rng.uniform(0.1, 0.22) * TEXELS, one_of(rng, VIVID)
            for x in np.arange(0, stripes.shape[1], 2 * step):
                fill(stripes, (x, 0, x + step, stripes.shape[0]), shade)
            awning = scene.add(weathered(rng, stripes, 0.06))
            scene.face(frame, (x0, y1 + 0.06, 0.02), (w, 0, 0), (0, -0.4, 0.8), awning, scene.whole(awning))
            scene.face(frame, (x0, y1 - 0.34, 0.82), (w, 0, 0), (0, 0.4, -0.8), awning, scene.whole(awning))
    else:
        scene.block(frame, (x0 - 0.08, x1 + 0.08), (y0 - 0.08, y0), (0, 0.13), trim)
        scene.block(frame, (x0 - 0.06, x1 + 0.06), (y1, y1 + 0.16), (0, 0.05), trim)
        if rng.random() < 0.55:
            for x in (x0 - w / 2 - 0.02, x1 + 0.02):
                scene.block(frame, (x, x + w / 2), (y0, y1), (0, 0.05), wood)
        if y0 > 3 and rng.random() < 0.25:  # a balcony
            scene.block(frame, (x0 - 0.3, x1 + 0.3), (y0 - 0.22, y0 - 0.1), (0, 0.7), trim)
            scene.block(frame, (x0 - 0.3, x1 + 0.3), (y0 + 0.72, y0 + 0.77), (0.64, 0.69), scene.iron)
            for x in np.arange(x0 - 0.3, x1 + 0.3, 0.13):
                scene.block(frame, (x, x + 0.025), (y0 - 0.1, y0 + 0.72), (0.65, 0.68), scene.iron)
        elif rng.random() < 0.3:  # flowers
            scene.block(frame, (x0 + 0.04, x1 - 0.04), (y0, y0 + 0.17), (0, 0.17), wood)
            scene.bush(Frame(frame.point((x0 + x1) / 2, y0 + 0.22, 0.1), frame.angle), (w / 2, 0.1, 0.1), 16)


def furnish(scene: Scene, kind: str, frame: Frame) -> None:
    """One free-standing thing on the ground at the frame's origin."""
    rng, radius = scene.rng, 0.7
    stone, wood, iron = scene.stone, scene.wood, scene.iron
    if kind == "pillar":  # with posters all around
        strip = papered(rng, plain(shape_of(2.9, 2.2), STONE[2]), 32, (0, 330), (0, 220))
        scene.column(frame, 0.52, 0, 0.3, stone, 12)
        scene.column(frame, 0.46, 0.3, 2.5, scene.add(strip), 12)
        scene.column(frame, 0.56, 2.5, 2.66, iron, 12)
    elif kind == "kiosk":
        radius, colour = 1.1, one_of(rng, JOINERY)
        boards = papered(rng, planks(rng, shape_of(2, 2.5), colour), 7, (0, 200), (40, 220))
        front = scene.add(shop(rng, 1.6, 2.3, colour))
        scene.block(frame, (-0.8, 0.8), (0, 2.3), (-0.6, 0.6), scene.add(boards), front)
        scene.block(frame, (-0.95, 0.95), (2.3, 2.38), (-0.75, 1.0), iron)
        scene.block(frame, (-0.8, 0.8), (2.38, 2.8), (0.45, 0.5), iron, scene.add(board(rng, 1.6, 0.42, colour)))
        scene.block(frame, (-0.8, 0.8), (0.75, 0.8), (0.6, 0.9), wood)
    elif kind == "planter":
        scene.block(frame, (-0.6, 0.6), (0, 0.5), (-0.3, 0.3), stone)
        scene.bush(Frame(frame.point(0, 0.75, 0), frame.angle), (0.55, 0.35, 0.28), 90)
    elif kind == "bench":
        for y0, y1, z0, z1 in ((0.4, 0.45, -0.2, 0.31), (0.6, 0.74, -0.26, -0.22), (0.78, 0.92, -0.26, -0.22)):
            scene.block(frame, (-0.8, 0.8), (y0, y1), (z0, z1), wood)
        for x0, y1, z0 in ((-0.7, 0.9, -0.22), (0.62, 0.9, -0.22), (-0.7, 0.4, 0.2), (0.62, 0.4, 0.2)):
            scene.block(frame, (x0, x0 + 0.08), (0, y1), (z0, z0 + 0.07), iron)
    elif kind == "crates":
        for low in (0, 0, 0, 0.45, 0.45):
            (w, h, d), label = rng.uniform(0.35, 0.6, 3), one_of(rng, VIVID)
            spot = frame.point(rng.uniform(-0.4, 0.4), low, rng.uniform(-0.4, 0.4))
            local = Frame(spot, frame.angle + rng.normal(0, 0.4))
            front = scene.add(board(rng, w, h, label))
            scene.block(local, (-w / 2, w / 2), (0, h), (-d / 2, d / 2), wood, front)
    elif kind == "lamp":
        for r, low, high, sides in ((0.14, 0, 0.5, 8), (0.06, 0.5, 3.2, 6), (0.25, 3.65, 3.72, 6)):
            scene.column(frame, r, low, high, iron, sides)
        scene.column(frame, 0.18, 3.2, 3.65, scene.add(plain(shape_of(0.4, 0.4), WHITE)), 6)
        scene.block(frame, (-0.3, 0.3), (1.5, 2.3), (0.06, 0.1), iron, scene.add(poster(rng, 0.6, 0.8)))
    elif kind == "fountain":
        radius, water = 1.6, scene.add(weathered(rng, plain(shape_of(2.2, 2.2), np.array((84, 116, 120))), 0.12))
        for turn in range(4):
            basin = scene.add(rubble(rng, shape_of(2.5, 0.6), 0.22, STONE))
            scene.block(frame.turned(turn * np.pi / 2), (-1.35, 1.1), (0, 0.55), (1.1, 1.35), basin)
        scene.face(frame, (-1.1, 0.38, -1.1), (2.2, 0, 0), (0, 0, 2.2), water)
        scene.block(frame, (-0.3, 0.3), (0, 1.5), (-0.3, 0.3), stone, scene.add(board(rng, 0.6, 1.5, STONE[0])))
        scene.block(frame, (-0.42, 0.42), (1.5, 1.68), (-0.42, 0.42), stone)
        scene.column(frame, 0.22, 1.68, 2.5, scene.add(rubble(rng, shape_of(1.4, 0.8), 0.12, SLATE)))
    else:  # a monument
        radius = 1.4
        for low, half in ((0, 1.1), (0.2, 0.85), (0.4, 0.6)):
            scene.block(frame, (-half, half), (low, low + 0.2), (-half, half), stone)
        for turn in range(4):
            plate = scene.add(board(rng, 0.8, 1.2, varied(rng, STONE[1])))
            scene.block(frame.turned(turn * np.pi / 2), (-0.4, 0.4), (0.6, 1.8), (0.3, 0.4), stone, plate)
        scene.column(frame, 0.24, 1.8, 4.2, scene.add(rubble(rng, shape_of(1.6, 2.4), 0.15, SLATE)), 10)
        scene.block(frame, (-0.4, 0.4), (4.2, 4.5), (-0.4, 0.4), stone)
    scene.footprints.append((*frame.origin[:2].tolist(), radius))


def pavement(scene: Scene, half: Array) -> None:
    """The ground: paving with drains, painted numbers and fallen leaves, darker where things stand on it."""
    rng = scene.rng
    h, w = shape = shape_of(*(2 * half))
    picture = rubble(rng, shape, rng.uniform(0.3, 0.45), SLATE)
    for x, y in rng.integers(0, (w, h), (14, 2)).tolist():
        cv2.circle(picture, (x, y), 42, (78, 76, 74), -1, cv2.LINE_AA)
        cv2.circle(picture, (x, y), 36, (120, 112, 104), 4, cv2.LINE_AA)
        letter(rng, picture, word(rng, 2), (x - 27, y - 12, 54, 24), SLATE[1])
    for x, y in rng.uniform(0, (w, h), (30, 2)):
        letter(rng, picture, str(rng.integers(1, 99)), (x, y, 60, 60), varied(rng, WHITE))
        leaves(rng, picture, rng.uniform(0, (w, h)), 0.6 * TEXELS, 25)
    small = np.ones((h // 8, w // 8), np.float32)
    for x, y, radius in scene.footprints:
        centre = np.array([half[0] + x, half[1] - y]) * TEXELS / 8
        cv2.circle(small, centre.astype(int).tolist(), int(radius * 0.75 * TEXELS / 8), 0.5, -1)
    cv2.rectangle(small, (0, 0), (w // 8, h // 8), 0.4, int(0.15 * TEXELS))
    paving = scene.add(shaded(picture, cv2.resize(cv2.GaussianBlur(small, (0, 0), 4), (w, h))))
    far = scene.add(weathered(rng, plain((1024, 1024), SLATE[2]), 0.15))
    lying, (x, y) = Frame(np.zeros(3), -np.pi / 2), half
    scene.face(lying, (-x, 0, -y), (2 * x, 0, 0), (0, 0, 2 * y), paving, scene.whole(paving))
    scene.face(lying, (-30, -0.02, -30), (60, 0, 0), (0, 0, 60), far)


def town(rng: Generator) -> tuple[Scene, Array]:
    """The surfaces of a place, and the half sizes (2,) of its square in metres."""
    scene, half = Scene(rng), rng.uniform(7.0, 8.5, 2)
    middle = ("fountain", "monument", "pillar")[rng.integers(3)]
    furnish(scene, middle, Frame(rng.uniform(-0.2, 0.2, 3) * (1, 1, 0), rng.uniform(0, 2 * np.pi)))
    for side in range(4):
        angle, odd = side * np.pi / 2, side % 2
        distance, length = half[odd], half[1 - odd]
        row = Frame(np.zeros(3), angle)
        alley, spare = rng.uniform(1.6, 2.2), float(odd)  # every other row reaches behind the corners
        widths = rng.dirichlet([8, 8, 8][: rng.integers(2, 4)]) * (2 * length - alley)
        gap, x = rng.integers(1, len(widths)), -length
        for i, width in enumerate(widths):
            if i == gap:  # an alley, and the house at its end
                house(scene, Frame(row.point(x - 2, 0, -distance - 5.5), angle), alley + 4, rng.uniform(6, 9))
                x += alley
            left, right = spare * (i == 0), spare * (i == len(widths) - 1)
            front = Frame(row.point(x - left, 0, -distance - rng.uniform(0, 0.7)), angle)
            house(scene, front, width + left + right, rng.uniform(5.5, 9.5))
            x += width
        kinds = rng.permutation(["pillar", "planter", "bench", "crates", "lamp", "planter", "kiosk"])[:3].tolist()
        for i, kind in enumerate(kinds):
            along = (i - 1 + rng.uniform(-0.25, 0.25)) * length * 0.55
            away = {"bench": 0.9, "planter": 0.8, "crates": 0.9, "kiosk": 1.0, "pillar": 1.1}.get(kind, 1.5)
            furnish(scene, kind, Frame(row.point(along, 0, away - distance), angle + rng.normal(0, 0.15)))
    pavement(scene, half + 1.2)
    return scene, half


# ------------------------------------------------------------------------------------------------------ taking pictures


def camera_pose(position: Array, yaw: float, pitch: float, roll: float) -> Pose:
    """cam_from_world of a camera at the position (3,); yaw from the x axis, pitch upwards, radians."""
    forward = np.array([np.cos(yaw) * np.cos(pitch), np.sin(yaw) * np.cos(pitch), np.sin(pitch)])
    right = np.array([np.sin(yaw), -np.cos(yaw), 0.0])
    c, s = np.cos(roll), np.sin(roll)
    rotation = np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]]) @ [right, np.cross(forward, right), forward]
    return Pose.from_matrix(rotation, -rotation @ position)


def other_light(rng: Generator) -> Light:
    """Another hour of another day than the map's."""
    warm, bright = rng.uniform(-0.12, 0.18), rng.uniform(0.35, 1.1)
    return Light(
        azimuth=rng.uniform(170, 330),
        elevation=rng.uniform(28, 65),
        sun=tuple((np.array(Light.sun) * [1 + warm, 1, 1 - warm] * bright).tolist()),
        sky=tuple((np.array(Light.sky) * (1.5 - 0.5 * bright)).tolist()),
        exposure=rng.uniform(0.75, 1.25),
        noise=rng.uniform(1.0, 2.5),
    )


def walk(rng: Generator, half: Array, footprints: Array, counts: tuple[int, int], camera: Camera) -> list[PlaceView]:
    """Map views on two laps, the inner looking outwards and the outer across, then query views off both (counts)."""

    def free(position: Array) -> bool:
        return bool((np.hypot(*(footprints[:, :2] - position[:2]).T) > footprints[:, 2] + 0.8).all())

    views, stands = [], np.zeros((counts[0], 4))  # x, y, z, yaw
    hours = [other_light(rng) for _ in range(5)]
    for i in range(counts[0]):
        turn = 4 * np.pi * (i // 2) / counts[0]
        heading = np.array([np.cos(turn), np.sin(turn)]) * half
        position, target = rng.uniform(0.92, 1.08) * (0.40, 0.62)[i % 2] * heading, (1.5, -0.5)[i % 2] * heading
        while not free(position):  # between the laps nothing stands
            position = (1.03, 0.97)[i % 2] * position
        yaw = np.arctan2(*(target - position)[::-1]) + rng.normal(0, np.deg2rad(2))
        stands[i] = *position, rng.normal(1.6, 0.04), yaw
        pose = camera_pose(stands[i, :3], yaw, *rng.normal((0.05, 0), 0.025))
        views.append(PlaceView(f"map_{i:03d}.jpg", pose, camera, False, Light()))
    while len(views) < sum(counts):
        x, y, z, yaw = stands[rng.integers(counts[0])] + rng.normal(0, (0.6, 0.6, 0.06, 0))
        apart = np.hypot(*(stands[:, :2] - (x, y)).T).min()
        if free(np.array([x, y])) and 0.5 < apart < 1.5 and (np.abs((x, y)) < 0.68 * half).all():
            yaw += rng.choice([-1, 1]) * np.deg2rad(rng.uniform(5, 18))
            pose = camera_pose(np.array([x, y, z]), yaw, *rng.normal((0.05, 0), 0.05))
            number = len(views) - counts[0]
            views.append(PlaceView(f"query_{number:03d}.jpg", pose, camera, True, hours[number % len(hours)]))
    return views


def view_matrix(view: PlaceView, scale: int) -> Array:
    """(4, 4) world to (x z, y z, z, 1), x and y in pixels of an image ``scale`` times as large."""
    matrix = np.eye(4)
    matrix[:3] = view.camera.matrix @ np.column_stack([view.pose.rotation, view.pose.translation])
    return np.diag([scale, scale, 1, 1]) @ matrix


def sun_matrix(light: Light) -> Array:
    """(4, 4) world to (x, y, 1, key) of the sun's parallel projection; the key grows towards the sun, metres."""
    right = np.cross([0, 0, 1], light.direction)
    axes = np.stack([right, np.cross(right, light.direction)]) / np.linalg.norm(right)
    matrix = np.zeros((4, 4))
    matrix[:2, :3], matrix[:2, 3] = axes * SUN_MAP / (2 * SUN_REACH), SUN_MAP / 2
    matrix[2, 3], matrix[3] = 1, [*light.direction, 100]
    return matrix


def draw(matrix: Array, quads: Array, shape: tuple[int, int]) -> tuple[Array, Array, Array]:
    """Draws quads (N, 3, 3), corner and two edges, with a z-buffer.

    Args:
        matrix: (4, 4) world to (x w, y w, w, key w); x and y in pixels, the largest key is the nearest.
        shape: (h, w) of the buffers.

    Returns:
        key (h, w) float32; index (h, w) int32 of the quad, N where there is none; and (N, 3, 3) float64 that takes
        (x, y, 1) to (s, t, 1) / w, s and t from 0 to 1 along the edges.
    """
    basis = np.zeros((len(quads), 4, 3))  # (s, t, 1) to the world
    basis[:, :3], basis[:, 3, 2] = quads[:, [1, 2, 0]].transpose(0, 2, 1), 1
    basis = matrix @ basis
    front = np.linalg.det(basis[:, :3]) > 1e-9
    inverse = np.zeros((len(quads), 3, 3))
    inverse[front] = np.linalg.inv(basis[front, :3])
    keys = np.einsum("ni,nij->nj", basis[:, 3], inverse)
    s, t, w = inverse.transpose(1, 0, 2)
    borders = np.stack([s, t, w - s, w - t], axis=1)  # all positive inside
    borders[..., 0] += np.where(np.abs(borders[..., 0]) < 1e-12, 1e-12, 0)
    x, y, depth = (basis[:, :3] @ np.array([[0, 1, 0, 1], [0, 0, 1, 1], [1, 1, 1, 1]])).transpose(1, 0, 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        x, y = x / depth, y / depth
    ahead, (height, width) = (depth > 0.05).all(axis=1), shape  # else the corners do not say what it covers
    beside = ahead & ((x.max(axis=1) < 0) | (x.min(axis=1) > width))
    top = np.where(ahead, np.floor(y.min(axis=1)), 0).clip(0, height).astype(int)
    bottom = np.where(ahead, np.ceil(y.max(axis=1)), height).clip(0, height).astype(int)
    key, index = np.full(shape, 1e-6, np.float32), np.full(shape, len(quads), np.int32)
    columns, rows = (np.arange(n, dtype=np.float32) + 0.5 for n in (width, height))
    for n in np.flatnonzero(front & (depth > 0).any(axis=1) & ~beside & (top < bottom)):
        a, b, c = borders[n].T[..., None]
        ends = -(b * rows[top[n] : bottom[n]] + c) / a  # per row, where the four borders cross it
        left = np.where(a > 0, ends, -np.inf).max(axis=0).clip(0, width) - 1e-3  # a hair: neighbours leave no gap
        right = np.where(a < 0, ends, np.inf).min(axis=0).clip(0, width) + 1e-3
        crossed = np.flatnonzero(left + 2e-3 < right)
        if not len(crossed):
            continue
        inside = slice(crossed[0], crossed[-1] + 1)
        left, right = (v[inside, None].astype(np.float32) for v in (left, right))
        box = slice(top[n] + inside.start, top[n] + inside.stop), slice(max(int(left.min()), 0), int(right.max()) + 1)
        u, (a, b, c) = columns[box[1]], keys[n]
        value = (a * u).astype(np.float32) + (b * rows[box[0], None] + c).astype(np.float32)
        nearer = (value > key[box]) & (left <= u) & (u <= right)
        np.copyto(key[box], value, where=nearer)
        np.copyto(index[box], n, where=nearer)
    return key, index, inverse


def sample(levels: Sequence[Array], x: Array, y: Array, lod: Array) -> Array:
    """(n, 3) float32: trilinear samples at texel coordinates (n,) of the finest level; lod (n,) in levels."""
    colour = np.zeros((len(x), 3), np.float32)
    for level, picture in enumerate(levels):
        weight = 1 - np.abs(lod - level)
        picked = np.flatnonzero(weight > 0)
        if len(picked):
            u, v = (texel[picked][None] / 2**level - 0.5 for texel in (x, y))
            colour[picked] += weight[picked, None] * cv2.remap(picture, u, v, cv2.INTER_LINEAR)[0]
    return colour


@dataclass(frozen=True, eq=False)
class MadePlace:
    """A place that can be photographed.

    Attributes:
        views: map views, then query views.
        seed: of the place; also of its clouds and of the sensor's noise.
        quads: (N, 3, 3) float64 corner and two edges per surface, world.
        patches: (N, 4) float64 piece (x, y, w, h) of the atlas that each surface shows, texels.
        atlas: all textures in one picture (h, w, 3) uint8, and its mip levels.
    """

    views: tuple[PlaceView, ...]
    seed: int
    quads: Array = field(repr=False)
    patches: Array = field(repr=False)
    atlas: tuple[Array, ...] = field(repr=False)

    def depth(self, view: PlaceView) -> Array:
        """(H, W) float32 z-depth at the pixels' centres, metres; inf where the sky is."""
        key, index, _ = draw(view_matrix(view, 1), self.quads, (view.camera.height, view.camera.width))
        return np.where(index < len(self.quads), 1 / key, np.inf).astype(np.float32)

    def render(self, view: PlaceView) -> Array:
        """(H, W, 3) uint8 RGB."""
        width, height, light = view.camera.width, view.camera.height, view.light
        h, w = height * OVERSAMPLING, width * OVERSAMPLING
        key, index, inverse = draw(view_matrix(view, OVERSAMPLING), self.quads, (h, w))
        shade, rows = self._shader(view, inverse), 32000 // w  # cv2.remap takes at most 32767 at a time
        strips = [shade(key[r : r + rows], index[r : r + rows], r) for r in range(0, h, rows)]
        linear = cv2.resize(np.concatenate(strips), (width, height), interpolation=cv2.INTER_AREA)
        grey = 255 * np.sqrt(1 - np.exp(-1.2 * light.exposure * linear))  # gamma 2 with a shoulder
        grain = default_rng([self.seed, *view.name.encode()]).standard_normal(grey.shape, np.float32)
        return np.clip(np.rint(grey + light.noise * grain), 0, 255).astype(np.uint8)

    def _shader(self, view: PlaceView, inverse: Array) -> Callable[[Array, Array, int], Array]:
        """A function of a strip (its key, index and first row) that returns its linear light (h, w, 3) float32."""
        light, sky = view.light, len(self.quads)
        normals = np.cross(self.quads[:, 2], self.quads[:, 1])
        normals /= np.linalg.norm(normals, axis=1, keepdims=True)
        facing = np.append(normals @ light.direction, 0).clip(0).astype(np.float32)
        openness = np.append(0.62 + 0.38 * normals[:, 2], 0).astype(np.float32)
        slack = 0.03 + 0.03 * np.sqrt(1 - facing**2) / np.maximum(facing, 0.1)  # metres, of the shadow map
        to_texel = np.zeros((sky + 1, 3, 3), np.float32)  # (x, y, 1) to (u, v, 1) / z
        to_texel[:-1] = inverse
        to_texel[:-1, :2] = self.patches[:, 2:, None] * inverse[:, :2] + self.patches[:, :2, None] * inverse[:, 2:]
        table = np.ascontiguousarray(to_texel.reshape(-1, 9)[:, :8].T)
        to_world = np.linalg.inv(view_matrix(view, OVERSAMPLING)).astype(np.float32)  # (x z, y z, z, 1) to the world
        to_sun, shadow = sun_matrix(light).astype(np.float32) @ to_world, self._shadow(light)
        clouds = noise(default_rng([self.seed, round(light.azimuth)]), (512, 512), 0, 0.7)

        def shade(key: Array, index: Array, first: int) -> Array:
            h, w = index.shape
            x = np.tile(np.arange(w, dtype=np.float32) + 0.5, h)
            y = np.repeat(np.arange(first, first + h, dtype=np.float32) + 0.5, w)
            i, z = index.ravel(), 1 / key.ravel()
            ux, uy, u1, vx, vy, v1, wx, wy = (row[i] for row in table)
            u, v = (ux * x + uy * y + u1) * z, (vx * x + vy * y + v1) * z
            ux, uy, vx, vy = (ux - u * wx) * z, (uy - u * wy) * z, (vx - v * wx) * z, (vy - v * wy) * z  # derivatives
            longest = np.maximum(np.hypot(ux, vx), np.hypot(uy, vy))
            texels = np.maximum(0.6 * longest, np.sqrt(np.abs(ux * vy - uy * vx)))  # per ray; slanted, a compromise
            lod = np.log2(np.maximum(texels, 1)).clip(0, len(self.atlas) - 1)
            albedo = (sample(self.atlas, u, v, lod) / 255) ** 2
            sun_x, sun_y, _, height = ((a * x + b * y + c) * z + d for a, b, c, d in to_sun)
            lit = np.zeros_like(x)
            for dx, dy in ((-0.8, -0.3), (0.3, -0.8), (0.8, 0.3), (-0.3, 0.8)):
                column, row = (np.clip(p, 0, SUN_MAP - 1).astype(np.intp) for p in (sun_x + dx, sun_y + dy))
                lit += shadow[row, column] - slack[i] < height
            colour = albedo * np.outer(facing[i] * lit / 4, np.array(light.sun, np.float32))
            colour += albedo * np.outer(openness[i], np.array(light.sky, np.float32))
            above = np.flatnonzero(i == sky)
            if len(above):
                rx, ry, rz = (a * x[above] + b * y[above] + c for a, b, c, _ in to_world[:3])
                up = np.maximum(rz / np.sqrt(rx**2 + ry**2 + rz**2), 0.02)
                east, north = ((60 * r / np.maximum(rz, 0.05))[None] for r in (rx, ry))
                cover = cv2.remap(clouds, east, north, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT).T
                cover = np.clip(cover * 0.5 + 0.2, 0, 1)
                blue = np.array([0.28, 0.45, 0.80]) + np.outer((1 - up) ** 4, [0.5, 0.42, 0.2])
                colour[above] = (blue + cover * (0.95 - blue)) * light.sky * 1.1
            return colour.reshape(h, w, 3)

        return shade

    @lru_cache(maxsize=6)  # noqa: B019
    def _shadow(self, light: Light) -> Array:
        """(SUN_MAP, SUN_MAP) float32: the key of the surface that the sun meets first."""
        return draw(sun_matrix(light), self.quads, (SUN_MAP, SUN_MAP))[0]


def pack(pictures: Sequence[Array]) -> tuple[tuple[Array, ...], Array]:
    """Puts textures on the shelves of an atlas; returns its mip levels and each texture's corner (N, 2) int."""
    width, x, y, shelf = 8192, 0, 0, 0
    corners = np.zeros((len(pictures), 2), int)
    for i in sorted(range(len(pictures)), key=lambda i: -pictures[i].shape[0]):
        h, w = (n + 2 * GUTTER for n in pictures[i].shape[:2])
        if x + w > width:
            x, y, shelf = 0, y + shelf, 0
        corners[i], x, shelf = (x + GUTTER, y + GUTTER), x + w, max(shelf, h)
    atlas = np.zeros((-(-(y + shelf) // 32) * 32, width, 3), np.uint8)
    for (x, y), picture in zip(corners, pictures, strict=True):
        framed = cv2.copyMakeBorder(picture, GUTTER, GUTTER, GUTTER, GUTTER, cv2.BORDER_REPLICATE)
        paste(atlas, framed, x - GUTTER, y - GUTTER)
    levels: list[Array] = [atlas]
    while len(levels) < 6:
        levels.append(cv2.resize(levels[-1], None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA))
    return tuple(levels), corners


def made_place(
    seed: int = 7, map_views: int = 48, query_views: int = 20, size: tuple[int, int] = (480, 640)
) -> MadePlace:
    """Makes a place; another seed makes another place, with other houses in other colours.

    Args:
        size: (height, width) of the pictures, pixels.
    """
    scene, half = town(default_rng(seed))
    height, width = size
    focal = width / 2 / np.tan(np.deg2rad(30))
    camera = Camera("PINHOLE", width, height, (focal, focal, width / 2 + 2.75, height / 2 - 1.5))
    views = walk(default_rng([seed, 1]), half, np.array(scene.footprints), (map_views, query_views), camera)
    atlas, corners = pack(scene.pictures)
    quads, skins, pieces = zip(*scene.quads, strict=True)
    patches = np.array(pieces) + np.pad(corners[list(skins)], ((0, 0), (0, 2)))
    return MadePlace(tuple(views), seed, np.stack(quads), patches, atlas)


def write_place(
    directory: Path, place: MadePlace | None = None, progress: Callable[[int, int], None] | None = None
) -> None:
    """Photographs a place, by default ``made_place()``, into a folder.

    The folder gets ``images/*.jpg``; ``reference/``, COLMAP's text model with the true camera and pose of every image
    and no points; ``map.txt``, the map images' names; and ``queries_with_intrinsics.txt`` as hloc writes it.

    Args:
        progress: called after each picture with the number of pictures written and of all.
    """
    import pycolmap

    place, directory = place or made_place(), Path(directory)
    for folder in ("images", "reference"):
        (directory / folder).mkdir(parents=True, exist_ok=True)
    model = pycolmap.Reconstruction()
    for number, view in enumerate(place.views, 1):
        picture = cv2.cvtColor(place.render(view), cv2.COLOR_RGB2BGR)
        path = directory / "images" / view.name
        if not cv2.imwrite(str(path), picture, [cv2.IMWRITE_JPEG_QUALITY, 95]):
            raise OutputError(f"cannot write {path}", "check the folder, permissions, free space")
        c, pose = view.camera, view.pose
        camera = pycolmap.Camera(camera_id=number, model=c.model, width=c.width, height=c.height, params=c.params)
        image = pycolmap.Image(name=view.name, camera_id=number, image_id=number)
        rotation = pycolmap.Rotation3d(np.roll(pose.quaternion, -1))  # x, y, z, w
        model.add_camera_with_trivial_rig(camera)
        model.add_image_with_trivial_frame(image, pycolmap.Rigid3d(rotation, pose.translation))
        if progress:
            progress(number, len(place.views))
    model.write_text(str(directory / "reference"))
    maps = [f"{view.name}\n" for view in place.views if not view.is_query]
    queries = [f"{view.name} {view.camera}\n" for view in place.views if view.is_query]
    (directory / "map.txt").write_text("".join(maps))
    (directory / "queries_with_intrinsics.txt").write_text("".join(queries))
