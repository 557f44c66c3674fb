"""Exhaustive search: where in a query each landmark looks like its hypercolumn (paper 001, section 4), in integers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hfnet_edge.image.keypoints import CELL

BLOCK = 1 << 20  # similarities at a time: these maps stay in the cache, however many landmarks and cells there are
ALIKE_PERCENT = 80  # of the maximum (the paper's alpha is 0.9)
FEW = 0.006  # of all cells (the paper's f): so many may be that alike
MOST = 1000  # landmarks that are kept, the most similar ones


@dataclass(frozen=True)
class Found:
    """Where landmarks were found; N of them.

    Attributes:
        rows: (N,) int64 of the landmarks, increasing. xy: (N, 2) float64 pixels of the network's input.
    """

    rows: np.ndarray
    xy: np.ndarray


def search(cells: np.ndarray, landmarks: np.ndarray) -> Found:
    """Finds landmarks in an image: of each the most similar cell, if few others are as similar (equation 1); of the
    landmarks in one cell the most similar one; and of these the `MOST` most similar ones. Equals are decided by the
    lower index, and similarities of two landmarks compared by cosine.

    Equation (1) asks for the f N-th largest of N similarities to be less than alpha of the largest. As many of them are
    counted that are more: the same question, without sorting.

    Args:
        cells: (h, w, K) int8, landmarks: (L, K) int8; of about unit length times 127, or of -1 and 1, K up to 1040: so
            float32 sums of products are exact, whatever their order.
    """
    h, w, k = cells.shape
    image = cells.reshape(h * w, k).astype(np.float32)
    allowed = 1 + int(FEW * h * w)
    best = np.zeros(len(landmarks), np.int64)
    peak, kept = np.zeros(len(landmarks), np.float32), np.zeros(len(landmarks), bool)
    aside = np.zeros((len(landmarks), 2))
    step = max(1, BLOCK // (h * w))
    for start in range(0, len(landmarks), step):
        block = slice(start, start + step)
        similarity = landmarks[block].astype(np.float32) @ image.T
        rows = np.arange(len(similarity))
        at = similarity.argmax(axis=1)
        top = similarity[rows, at]
        alike = similarity > (top.astype(np.int64) * ALIKE_PERCENT // 100).astype(np.float32)[:, None]
        kept[block] = (top > 0) & (np.array([np.count_nonzero(row) for row in alike], np.int64) <= allowed)
        best[block], peak[block] = at, top
        aside[block] = _aside(similarity.reshape(-1, h, w), *np.divmod(at, w))
    rows = np.flatnonzero(kept)
    lengths = [np.square(vectors.astype(np.float64)).sum(axis=1) for vectors in (landmarks[rows], image[best[rows]])]
    cosine = np.square(peak[rows].astype(np.float64)) / (lengths[0] * lengths[1])  # squared
    order = np.lexsort((rows, -cosine, best[rows]))
    first = np.concatenate([[True], best[rows[order]][1:] != best[rows[order]][:-1]])[: len(rows)]
    order = order[first]
    rows = np.sort(rows[order[np.lexsort((rows[order], -cosine[order]))][:MOST]])
    y, x = np.divmod(best[rows], w)
    return Found(rows, (np.stack([x, y], axis=1) + 0.5 + aside[rows]) * CELL)


def _aside(maps: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """How far in x and y, in cells, the peaks of parabolas through the maxima of maps (B, h, w) at ``y``, ``x`` (B,)
    are from these: (B, 2) float64, at most 1/2; 0 at the border."""
    out = np.zeros((len(maps), 2))
    rows = np.arange(len(maps))
    for axis, (at, size) in enumerate(((x, maps.shape[2]), (y, maps.shape[1]))):
        inside = (at > 0) & (at < size - 1)
        step = np.stack([1 - axis, axis]) * inside[:, None]
        before, after = (
            maps[rows, y + sign * step[:, 1], x + sign * step[:, 0]].astype(np.float64) for sign in (-1, 1)
        )
        bend = 2 * maps[rows, y, x].astype(np.float64) - before - after
        out[:, axis] = np.where(bend > 0, (after - before) / np.where(bend > 0, 2 * bend, 1), 0.0)
    return out
