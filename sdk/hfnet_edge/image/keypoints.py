"""This module makes keypoints and integer descriptors of the network's dense outputs.

All arithmetic that could round differently on another processor is kept exact: exponentials come from an integer table,
sums of integers in float32 are exact whatever their order, everything else is elementwise IEEE or reduced in float64
before it is rounded. So every device that gets the same network outputs finds the same keypoints.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from hfnet_edge.map.codecs import UNIT
from hfnet_edge.tensor import Output

CELL = 8
MIN_SCORE = 0.005
LOGIT_STEPS = 256  # steps of the exponential's table per unit of logit
_TABLE = np.rint(np.exp(-np.arange(12 * LOGIT_STEPS, dtype=np.float64) / LOGIT_STEPS) * 2**16).astype(np.float32)
_ROWS, _CELL_ROWS = 1024, 10  # keypoints, and rows of cells, at a time: what they take stays in the processor's cache
REFINE = 2  # radius of the window of the soft-argmax


def keypoint_scores(logits: Output) -> np.ndarray:
    """Softmax over the 65 channels of a cell, without the last ("no keypoint"), as an image.

    Args:
        logits: (h, w, 65) float32; channels are the pixels of an 8x8 cell, row by row.

    Returns:
        (8h, 8w) float32 in [0, 1]. The softmax is that of the logits rounded to 1/256, with exponentials rounded to
        2**-16 of the largest: within 0.5 % of the exact one, and the same on every processor.
    """
    h, w, _ = logits.shape
    scores = np.empty((h, CELL, w, CELL), np.float32)
    for first in range(0, h, _CELL_ROWS):
        steps = np.asarray(logits[first : first + _CELL_ROWS]) * np.float32(LOGIT_STEPS)
        np.rint(steps, out=steps)
        np.subtract(steps.max(axis=-1, keepdims=True), steps, out=steps)
        weights = _TABLE[np.minimum(steps, len(_TABLE) - 1, out=steps).astype(np.int16)]
        total = weights.sum(axis=-1, keepdims=True)  # integers below 65 * 2**16: exact
        of_cells = (weights[..., :-1] / total).reshape(-1, w, CELL, CELL)
        scores[first : first + _CELL_ROWS] = of_cells.transpose(0, 2, 1, 3)
    return scores.reshape(h * CELL, w * CELL)


def detect(
    scores: np.ndarray,
    valid: tuple[int, int],
    count: int,
    radius: int = 4,
    threshold: float = 0.005,
    border: int = 4,
) -> tuple[np.ndarray, np.ndarray]:
    """Non-maximum suppression, the ``count`` best, and sub-pixel refinement.

    Args:
        scores: (H, W) float32.
        valid: (height, width) of the part that holds the image.
        count: at most this many keypoints.
        radius: a keypoint is the highest in a square of ``2 * radius + 1`` pixels; the first of equals.
        threshold: lowest score.
        border: pixels at the edge of the image where nothing is detected.

    Returns:
        xy (N, 2) float32 in pixels of the network's input, pixel centres at 0.5, and scores (N,) float32; highest score
        first, equals in row-major order. The position is the mean of a 5x5 window weighted by score (soft-argmax).
    """
    h, w = valid
    scores = scores[:h, :w]
    is_peak = scores == cv2.dilate(scores, np.ones((2 * radius + 1, 2 * radius + 1), np.uint8))
    is_peak &= scores >= threshold
    inside = np.zeros_like(is_peak)
    border = max(border, REFINE)
    inside[border : h - border, border : w - border] = True
    index = np.flatnonzero(is_peak & inside)
    peak = scores.ravel()[index]
    order = np.argsort(-peak, kind="stable")
    index, peak = index[order], peak[order]
    index, peak = _first_of_equals(index, peak, w, radius, scores.shape)
    y, x = np.divmod(index[:count], w)
    peak = peak[:count]

    total, dx, dy = (np.zeros(len(x), np.float32) for _ in range(3))
    for oy in range(-REFINE, REFINE + 1):
        for ox in range(-REFINE, REFINE + 1):
            weight = scores[y + oy, x + ox]
            total += weight
            dx += weight * np.float32(ox)
            dy += weight * np.float32(oy)
    xy = np.stack([x + dx / total, y + dy / total], axis=1) + 0.5
    return xy.astype(np.float32), peak


def _first_of_equals(index, peak, width, radius, shape):
    """Drops a peak that equals an earlier one in its window, which a plain maximum filter lets through (int8 makes
    plateaus common). ``index`` is in order of score, equals in row-major order."""
    repeated = np.concatenate([[False], peak[1:] == peak[:-1]]) if len(peak) else np.zeros(0, bool)
    if not repeated.any():
        return index, peak
    taken = np.zeros(shape, bool)
    keep = np.ones(len(index), bool)
    equal_to_neighbour = repeated | np.concatenate([repeated[1:], [False]])
    for i in np.flatnonzero(equal_to_neighbour):
        y, x = divmod(int(index[i]), width)
        window = taken[max(0, y - radius) : y + radius + 1, max(0, x - radius) : x + radius + 1]
        keep[i] = not window.any()
        taken[y, x] = keep[i]
    return index[keep], peak[keep]


def sample_descriptors(maps: Sequence[Output], xy: np.ndarray) -> np.ndarray:
    """Bilinear samples of all parts of the descriptors, one after the other, normalised as one and rounded to int8.

    Args:
        maps: (h, w, D) at 1/8 of the network's input, and further parts with 2 or 4 times as many rows and
            columns.
        xy: (N, 2) float32 pixels of the network's input.

    Returns:
        (N, sum of D) int8, unit vectors times 127.
    """
    grids = [_Grid.of(map_, xy / np.float32(CELL * len(maps[0]) // len(map_))) for map_ in maps]
    out = np.empty((len(xy), sum(map_.shape[2] for map_ in maps)), np.int8)
    for first in range(0, len(xy), _ROWS):
        rows = slice(first, first + _ROWS)
        out[rows] = quantize(np.concatenate([grid.sample(rows) for grid in grids], axis=1))
    return out


@dataclass(frozen=True)
class _Grid:
    """Where N points lie in a map: its (h * w, D) values, which of these (N,) are the upper left neighbours, w, and
    (N, 1) how far beyond them the points are in x and y."""

    values: Output
    corner: np.ndarray
    width: int
    fx: np.ndarray
    fy: np.ndarray

    @staticmethod
    def of(map_: Output, xy: np.ndarray) -> _Grid:
        h, w, _ = map_.shape
        at = xy - np.float32(0.5)
        x, y = np.clip(at[:, 0], 0, w - 1), np.clip(at[:, 1], 0, h - 1)
        x0, y0 = np.minimum(x.astype(np.int32), w - 2), np.minimum(y.astype(np.int32), h - 2)
        fx, fy = (x - x0).astype(np.float32)[:, None], (y - y0).astype(np.float32)[:, None]
        return _Grid(map_.reshape(h * w, -1), y0 * w + x0, w, fx, fy)

    def sample(self, rows: slice) -> np.ndarray:
        corner, fx, fy = self.corner[rows], self.fx[rows], self.fy[rows]
        top = self._between(corner, fx)
        top *= 1 - fy
        bottom = self._between(corner + self.width, fx)
        bottom *= fy
        top += bottom
        return top

    def _between(self, corner: np.ndarray, fx: np.ndarray) -> np.ndarray:
        left, right = (np.asarray(self.values.take(at, axis=0)) for at in (corner, corner + 1))
        left *= 1 - fx
        right *= fx
        left += right
        return left


def quantize(vectors: np.ndarray) -> np.ndarray:
    """(N, D) float32 to unit length times 127, rounded to int8. A vector of zeros or of NaNs becomes zeros."""
    wide = vectors.astype(np.float64)
    norm = np.sqrt(np.square(wide).sum(axis=-1))
    wide *= UNIT
    wide /= np.where(norm > 1e-12, norm, np.inf)[:, None]
    np.rint(wide, out=wide)
    return (wide if np.isfinite(norm).all() else np.nan_to_num(wide, copy=False)).astype(np.int8)
