"""Parallel search (paper 002, section 3.2): a keypoint's candidates are the landmarks in its own prior leaves and those
that the prior frames observe; a linear search among them finds its two nearest.

Trees look at one patch, so another viewpoint does not bother them; frames are found by the whole image, so another
light does not. Either side may be empty: then it is the trees alone, or retrieval alone.
"""

from __future__ import annotations

import numpy as np

from hfnet_edge.features import Features
from hfnet_edge.map_file import LocalizationMap
from hfnet_edge.matching import Match2D3D, distinct_matches, nearest_two

LANDMARK_BITS = 32
LANDMARK = (1 << LANDMARK_BITS) - 1
NONE = np.iinfo(np.int64).max


def seen_by(m: LocalizationMap, frames: np.ndarray) -> np.ndarray:
    """The landmarks that some reference images observe, (P,) int64, increasing. Raises MapFormatError."""
    return np.unique(np.concatenate([np.zeros(0, np.int64), *(m.observed(int(frame)) for frame in frames)]))


def search(
    query: Features, m: LocalizationMap, shared: np.ndarray, rows: np.ndarray, landmarks: np.ndarray
) -> Match2D3D:
    """Matches each keypoint among its candidates, with the ratio test of `hfnet_edge.matching`.

    Args:
        shared: (P,) int64 landmarks, increasing: candidates of every keypoint.
        rows, landmarks: (E,) int64 each: keypoint and candidate of its own; in order of both, no pair twice.

    Raises:
        MapFormatError: the map is damaged there.
    """
    queries = m.codec.query(query.descriptors)
    descriptors, owners = m.descriptors(shared)
    if len(descriptors) >= 2:
        own = ~np.isin(landmarks, shared, kind="table")
        rows, landmarks = rows[own], landmarks[own]
        first, second, d1, d2 = nearest_two(queries, descriptors)
        pairs = [_keys(d1, shared[owners[first]]), _keys(d2, shared[owners[second]])]
    else:  # too few for a matrix product
        everyone = np.arange(len(queries)).repeat(len(shared))
        rows = np.concatenate([rows, everyone])
        landmarks = np.concatenate([landmarks, np.tile(shared, len(queries))])
        order = np.lexsort((landmarks, rows))
        rows, landmarks, pairs = rows[order], landmarks[order], []
    pairs.extend(_nearest_own(queries, m, rows, landmarks).T)
    best = np.sort(np.stack(pairs, axis=1), axis=1)[:, :2]
    (first, second), (d1, d2) = np.where(best == NONE, -1, best & LANDMARK).T, (best >> LANDMARK_BITS).T
    return distinct_matches(query, m, first, second, d1, d2)


def _keys(squared_distances: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """Distance and landmark in one int64 that orders by distance, equals by landmark."""
    return squared_distances << LANDMARK_BITS | landmarks


def _nearest_own(queries: np.ndarray, m: LocalizationMap, rows: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """The two nearest descriptors of each keypoint among its own candidates, as `_keys`, (N, 2); `NONE`: no more.

    Args:
        queries: (N, K) int8. rows, landmarks: as in `search`.
    """
    best = np.full((len(queries), 2), NONE, np.int64)
    ids, at = np.unique(landmarks, return_inverse=True)
    descriptors, owners = m.descriptors(ids)
    halves = np.square(descriptors, dtype=np.int32).sum(axis=1).astype(np.float32) / 2
    if len(owners) != len(ids):  # a landmark has several descriptors
        start = np.searchsorted(owners, np.arange(len(ids) + 1))
        count = np.diff(start)[at]
        at = np.repeat(start[at] - np.cumsum(count) + count, count) + np.arange(count.sum())
        rows = np.repeat(rows, count)
    bounds = np.searchsorted(rows, np.arange(len(queries) + 1))
    for i, query in enumerate(queries.astype(np.float32)):
        mine = at[bounds[i] : bounds[i + 1]]
        # Exact in float32, as in `nearest_two`; landmarks increase, so the first of equals is the lowest.
        score = descriptors[mine].astype(np.float32) @ query - halves[mine]
        length = np.int64(query @ query)
        for k in range(min(2, len(mine))):
            nearest = score.argmax()
            distance = length - np.int64(2 * score[nearest])
            best[i, k] = distance << LANDMARK_BITS | ids[owners[mine[nearest]]]
            score[nearest] = -np.inf
    return best
