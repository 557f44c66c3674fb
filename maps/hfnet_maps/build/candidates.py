"""Pairs of images that may show the same: those that look alike, and those that stand near, or follow in a sequence.

Never more than a block of the images' likeness is in memory, so that pairs and memory grow with the images, not with
their square. Blocks of rows can be asked for apart, by whoever computes them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from hfnet_edge.geometry import Pose

ALL_PAIRS = 60  # up to so many images every pair is matched: 1770 pairs, minutes
SIMILAR = 20  # beyond: partners by global descriptor, ...
NEAR = 20  # ... and by pose, ...
SEQUENCE = 10  # ... or, where there are none, those after each in order of name: people and videos go on
MAX_TURN = 60.0  # degrees between the viewing directions of partners by pose
ROWS, COLUMNS = 512, 1 << 14  # images whose likeness to others is in memory

Cost = Callable[[slice, slice], np.ndarray]
"""(rows, columns) float of what speaks against a pair; inf: it is none."""


def candidate_pairs(global_descriptors: np.ndarray) -> list[tuple[int, int]]:
    """Pairs i < j, in order, of photos without poses: all up to `ALL_PAIRS` photos; beyond, each photo with the
    `SIMILAR` most like it, equals by lower index, and with the `SEQUENCE` after it.

    Args:
        global_descriptors: (M, G) int8, the photos in order of name.
    """
    n = len(global_descriptors)
    if n <= ALL_PAIRS:
        return [(i, j) for i in range(n) for j in range(i + 1, n)]
    return as_tuples(joined(n, alike(global_descriptors, slice(0, n)), in_sequence(n)))


def select_pairs(poses: Sequence[Pose], global_descriptors: np.ndarray) -> list[tuple[int, int]]:
    """Pairs i < j, in order, of images with poses: all up to `ALL_PAIRS` images; beyond, each image with its `SIMILAR`
    nearest by global descriptor and its `NEAR` nearest by position that look the same way, equals by lower index. Pairs
    without a baseline are left out.

    Args:
        global_descriptors: (M, G) int8.
    """
    n = len(poses)
    centers, axes = centers_and_axes(poses)
    if n <= ALL_PAIRS:
        chosen = np.argwhere(np.triu(np.ones((n, n), bool), 1))
    else:
        chosen = joined(n, alike(global_descriptors, slice(0, n)), near(centers, axes, slice(0, n)))
    return as_tuples(apart(chosen, centers))


def centers_and_axes(poses: Sequence[Pose]) -> tuple[np.ndarray, np.ndarray]:
    """(M, 3) float64 each: where the cameras are, and where they look."""
    return np.stack([p.center for p in poses]), np.stack([p.rotation[2] for p in poses])


def alike(global_descriptors: np.ndarray, rows: slice) -> np.ndarray:
    """(P, 2) int64: the ``rows``, each with the `SIMILAR` that look most like it; equals by lower index."""
    looks = global_descriptors.astype(np.float32)  # products of int8 vectors are exact in float32
    return _nearest(lambda a, b: -(looks[a] @ looks[b].T), rows, len(looks), SIMILAR)


def near(centers: np.ndarray, axes: np.ndarray, rows: slice) -> np.ndarray:
    """(P, 2) int64: the ``rows``, each with the `NEAR` cameras nearest that look the same way; equals by lower index.

    Args:
        centers, axes: see `centers_and_axes`.
    """
    least = np.cos(np.radians(MAX_TURN))

    def cost(a: slice, b: slice) -> np.ndarray:
        distance = np.linalg.norm(centers[a, None] - centers[None, b], axis=-1)
        return np.where(axes[a] @ axes[b].T < least, np.inf, distance)

    return _nearest(cost, rows, len(centers), NEAR)


def in_sequence(count: int) -> np.ndarray:
    """(P, 2) int64: each of so many photos with the `SEQUENCE` after it."""
    first = np.repeat(np.arange(count), SEQUENCE)
    pairs = np.stack([first, first + np.tile(np.arange(1, SEQUENCE + 1), count)], axis=1)
    return pairs[pairs[:, 1] < count]


def joined(count: int, *parts: np.ndarray) -> np.ndarray:
    """(P, 2) int64: the pairs i < j of ``count`` images that any part has, once each and in order."""
    pairs = np.sort(np.concatenate(parts), axis=1)
    numbers = np.unique(pairs[:, 0] * count + pairs[:, 1])
    return np.stack([numbers // count, numbers % count], axis=1)


def apart(pairs: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """The pairs whose cameras stand apart by more than rounding."""
    distance = np.linalg.norm(centers[pairs[:, 0]] - centers[pairs[:, 1]], axis=-1)
    return pairs[distance > max(1e-6 * distance.max(initial=0.0), 1e-9 * np.abs(centers).max())]


def as_tuples(pairs: np.ndarray) -> list[tuple[int, int]]:
    return [(int(i), int(j)) for i, j in pairs]


def _nearest(cost: Cost, rows: slice, count: int, most: int) -> np.ndarray:
    """(P, 2): each row with up to ``most`` of the others of least finite cost; equals by lower index."""
    found = []
    for start in range(rows.start, rows.stop, ROWS):
        block = slice(start, min(start + ROWS, rows.stop))
        own = np.arange(block.start, block.stop)
        costs, partners = np.zeros((len(own), 0)), np.zeros((len(own), 0), np.int64)
        for first in range(0, count, COLUMNS):
            columns = slice(first, min(first + COLUMNS, count))
            part = cost(block, columns).astype(np.float64)
            here = (own >= columns.start) & (own < columns.stop)
            part[here, own[here] - columns.start] = np.inf
            costs = np.concatenate([costs, part], axis=1)
            partners = np.concatenate([partners, np.broadcast_to(np.arange(first, columns.stop), part.shape)], axis=1)
            order = np.argsort(costs, axis=1, kind="stable")[:, :most]
            costs, partners = np.take_along_axis(costs, order, 1), np.take_along_axis(partners, order, 1)
        at, k = np.nonzero(np.isfinite(costs))
        found.append(np.stack([own[at], partners[at, k]], axis=1))
    return np.concatenate(found)
