"""Paints the surfaces of the made place: brick, stone, plaster, windows, shops, posters, leaves.

A picture is (h, w, 3) uint8 RGB, its shape (h, w); lengths are texels unless a docstring says metres. Its linear-light
colour is the square of its 8-bit value.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import cv2
import numpy as np
from numpy.random import Generator

TEXELS = 128  # per metre

Array = np.ndarray
Pair = tuple[float, float]
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
