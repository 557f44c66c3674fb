"""Pairs of photos that may show the same, where no poses say it: those that look alike, and neighbours in a sequence.

Never more than a block of the photos' likeness is in memory, so that pairs and memory grow with the photos, not with
their square.
"""

from __future__ import annotations

import numpy as np

from hfnet_maps.build.pairs import ALL_PAIRS

SIMILAR = 20  # partners by global descriptor
SEQUENCE = 10  # photos after each in order of name: people and videos go on from where they were
BLOCK = 512  # photos whose likeness to all others is in memory


def candidate_pairs(global_descriptors: np.ndarray) -> list[tuple[int, int]]:
    """Pairs i < j, in order: all up to `ALL_PAIRS` photos; beyond, each photo with the `SIMILAR` most like it, equals
    by lower index, and with the `SEQUENCE` after it.

    Args:
        global_descriptors: (M, G) int8, the photos in order of name.
    """
    n = len(global_descriptors)
    if n <= ALL_PAIRS:
        return [(i, j) for i in range(n) for j in range(i + 1, n)]
    pairs = {(i, j) for i in range(n) for j in range(i + 1, min(n, i + 1 + SEQUENCE))}
    rows = global_descriptors.astype(np.float32)  # products of int8 vectors are exact in float32
    for start in range(0, n, BLOCK):
        unlike = -(rows[start : start + BLOCK] @ rows.T)
        own = np.arange(len(unlike))
        unlike[own, start + own] = np.inf
        for k, partners in enumerate(np.argsort(unlike, axis=1, kind="stable")[:, :SIMILAR], start):
            pairs |= {(min(k, j), max(k, j)) for j in map(int, partners)}
    return sorted(pairs)
