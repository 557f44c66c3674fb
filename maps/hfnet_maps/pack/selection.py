"""Which landmarks to keep: those that cover every reference image, the most observed and best spread first.

A reference image is divided in `GRID` x `GRID` cells. A landmark is worth, for each cell that it is observed in,
1 / (1 + landmarks already kept there): diminishing returns, so images and corners of images that are poor in landmarks
are served before rich ones get more (K-cover, Li et al., ECCV 2010, with a smooth K). Greedy in rounds; the result is
one order of all landmarks, and a budget is a prefix of it.
"""

from __future__ import annotations

import numpy as np

from hfnet_maps.content import BuiltMap, MapContent, Structure

GRID = 4
ROUNDS = 60


def rank(source: MapContent, kept: np.ndarray | None = None) -> np.ndarray:
    """All landmarks, the most useful first; equals by lower number. Deterministic.

    Without keypoints whole images are the cells.

    Args:
        kept: rows of landmarks that are kept already.

    Returns:
        (L,) int64, without those that are kept.
    """
    cells, count = cells_of(source)
    left = np.ones(len(source.positions), bool)
    left[kept if kept is not None else []] = False
    kept_in_cell = np.bincount(cells[~left[source.landmarks]], minlength=count).astype(np.float64)
    chosen: list[np.ndarray] = []
    sizes = np.diff(np.round(np.geomspace(1, 1 + len(source.positions), ROUNDS + 1)).astype(int))
    for size in sizes[sizes > 0]:
        worth = np.bincount(source.landmarks, 1 / (1 + kept_in_cell[cells]), minlength=len(left))
        candidates = np.flatnonzero(left)
        best = candidates[np.argsort(-worth[candidates], kind="stable")[:size]]
        chosen.append(best)
        left[best] = False
        new = np.zeros(len(left), bool)
        new[best] = True
        kept_in_cell += np.bincount(cells[new[source.landmarks]], minlength=count)
    return np.concatenate([*chosen, np.zeros(0, np.int64)])


def cells_of(source: MapContent) -> tuple[np.ndarray, int]:
    """The cell that each observation lies in, (O,) int64, and how many cells there are."""
    if not isinstance(source, BuiltMap):
        return source.images, len(source.names)
    size = np.array([(c.width, c.height) for c in source.keypoints.cameras], np.float64)[source.images]
    place = np.clip(source.keypoints.observed / size * GRID, 0, GRID - 1).astype(np.int64)
    return (source.images * GRID + place[:, 1]) * GRID + place[:, 0], len(source.names) * GRID**2


def cover(source: Structure, order: np.ndarray, k: int) -> int:
    """The shortest prefix of ``order`` with ``k`` landmarks in every image, or all that an image observes (K-cover)."""
    at = np.empty(len(order), np.int64)
    at[order] = np.arange(len(order))
    reached = 0
    for image in range(len(source.names)):
        places = np.sort(at[source.landmarks[source.observed(image)]])
        if len(places):
            reached = max(reached, int(places[min(k, len(places)) - 1]) + 1)
    return reached
