"""Surfaces in space: every one is a textured parallelogram, placed in the axes of the thing that it belongs to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import cv2
import numpy as np
from numpy.random import Generator

from hfnet_maps.synthetic_town.textures import (
    IRON,
    LEAF,
    STONE,
    TEXELS,
    VIVID,
    WOOD,
    Array,
    Box,
    Pair,
    ink,
    leaves,
    masonry,
    one_of,
    plain,
    planks,
    shape_of,
    weathered,
)

Triple = tuple[float, float, float]


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
