"""Draws textured parallelograms into a picture, as a graphics card would: a z-buffer, and an atlas with mip levels."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from hfnet_maps.synthetic_town.textures import Array, paste
from hfnet_maps.synthetic_town.views import Light, PlaceView

GUTTER = 32  # texels of replicated border around a texture, so that the mip levels do not bleed into each other
SUN_MAP, SUN_REACH = 2048, 22.0  # shadow map: pixels along a side, metres from its middle to its border


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
