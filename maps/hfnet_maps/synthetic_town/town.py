"""Builds the town square: houses with alleys, what stands on the square, and the ground."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.random import Generator

from hfnet_maps.synthetic_town.scene import Frame, Scene
from hfnet_maps.synthetic_town.textures import (
    JOINERY,
    SLATE,
    STONE,
    TEXELS,
    TILES,
    VIVID,
    WHITE,
    Array,
    Box,
    board,
    door,
    facade,
    fill,
    glazing,
    leaves,
    letter,
    masonry,
    one_of,
    papered,
    plain,
    planks,
    poster,
    rubble,
    shaded,
    shape_of,
    shop,
    varied,
    weathered,
    word,
)


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
