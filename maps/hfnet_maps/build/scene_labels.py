"""Hierarchical labels of landmarks: a place in parts, these in parts, and so on (paper 003, section 3).

Parts are k-means clusters of landmarks' positions, as in the paper, but of equal sizes: a network has as many outputs a
level as the largest part needs, and where parts are equal few of them lead nowhere.
"""

from __future__ import annotations

import numpy as np

BRANCHES = 25  # parts of a place, and of a part, at most (section 4.1)
MOVES = 10  # of k-means


def branches_of(landmarks: int) -> tuple[int, int, int]:
    """Labels of each of three levels: about as many on each, but at most `BRANCHES` on the first two."""
    parts = min(BRANCHES, max(1, round(landmarks ** (1 / 3))))
    second = -(-max(1, landmarks) // parts)
    return parts, min(parts, second), -(-second // min(parts, second))


def label(positions: np.ndarray, branches: tuple[int, ...]) -> np.ndarray:
    """Labels of each level (L, levels) int32, no two landmarks with the same; single landmarks on the last.

    Args:
        positions: (L, 3). branches: of each level; their product is L at least.
    """
    labels = np.zeros((len(positions), len(branches)), np.int32)
    parts = [np.arange(len(positions))]
    for level, count in enumerate(branches):
        capacity = int(np.prod(branches[level + 1 :], dtype=np.int64))
        next_parts = []
        for rows in parts:
            labels[rows, level] = cut(positions[rows], count, capacity)
            next_parts += [rows[labels[rows, level] == part] for part in range(count)]
        parts = [rows for rows in next_parts if len(rows)]
    return labels


def cut(positions: np.ndarray, count: int, capacity: int) -> np.ndarray:
    """(N,) int64 which of ``count`` clusters each of the positions (N, 3) is in, none with more than ``capacity`` of
    them; N is at most their product."""
    n = len(positions)
    if capacity == 1 or n <= 1:
        return np.arange(n)
    count = min(count, n)
    rng = np.random.default_rng(n)
    centres = positions[rng.choice(n, count, replace=False)].astype(np.float64)
    even = -(-n // count)
    for _ in range(MOVES):
        found = _assigned(positions, centres, even)
        for part in range(count):
            if (found == part).any():
                centres[part] = positions[found == part].mean(axis=0)
    return _assigned(positions, centres, even)


def _assigned(positions: np.ndarray, centres: np.ndarray, capacity: int) -> np.ndarray:
    """(N,) int64 the nearest centre that has room; those come first that have most to lose."""
    distance = np.linalg.norm(positions[:, None] - centres, axis=2)
    free = np.full(len(centres), capacity)
    found = np.full(len(positions), -1, np.int64)
    waiting = np.arange(len(positions))
    while len(waiting):
        of_waiting = np.where(free > 0, distance[waiting], np.inf)
        nearest = of_waiting.argmin(axis=1)
        ranked = np.partition(of_waiting, min(1, len(centres) - 1), axis=1)
        with np.errstate(invalid="ignore"):
            loss = np.nan_to_num(ranked[:, min(1, len(centres) - 1)] - ranked[:, 0], nan=0.0, posinf=np.inf)
        order = np.lexsort((waiting, -loss, nearest))
        rank = np.arange(len(order)) - np.searchsorted(nearest[order], nearest[order])
        taken = order[rank < free[nearest[order]]]
        found[waiting[taken]] = nearest[taken]
        free -= np.bincount(nearest[taken], minlength=len(centres))
        waiting = np.delete(waiting, taken)
    return found
