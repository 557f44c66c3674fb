"""Parallel search (paper 002, section 3.2): a keypoint's candidates are the landmarks in its own prior leaves and those
that the prior frames observe; a linear search among them finds its two nearest.

Trees look at one patch, so another viewpoint does not bother them; frames are found by the whole image, so another
light does not. Either side may be empty: then it is the trees alone, or retrieval alone.
"""

from __future__ import annotations

from collections.abc import Iterable

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
    query: Features, m: LocalizationMap, shared: np.ndarray, own: Iterable[tuple[np.ndarray, np.ndarray]] = ()
) -> Match2D3D:
    """Matches each keypoint among its candidates, with the ratio test of `hfnet_edge.matching`.

    Args:
        shared: (P,) int64 landmarks, increasing: candidates of every keypoint.
        own: blocks of keypoints, as `RandomTrees.blocks` yields them: rows and landmarks, (E,) int64 each, a keypoint
            and a candidate of its own; in order of both, no pair twice, all of a keypoint in one block.

    Raises:
        MapFormatError: the map is damaged there.
    """
    queries = m.codec.query(query.descriptors)
    pairs = [*_nearest_shared(queries, m, shared).T, *_nearest_own(queries, m, shared, own).T]
    best = np.sort(np.stack(pairs, axis=1), axis=1)[:, :2]
    (first, second), (d1, d2) = np.where(best == NONE, -1, best & LANDMARK).T, (best >> LANDMARK_BITS).T
    return distinct_matches(query, m, first, second, d1, d2)


def _keys(squared_distances: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """Distance and landmark in one int64 that orders by distance, equals by landmark."""
    return squared_distances << LANDMARK_BITS | landmarks


def _nearest_shared(queries: np.ndarray, m: LocalizationMap, shared: np.ndarray) -> np.ndarray:
    """The two nearest descriptors of each keypoint among ``shared``, as `_keys`, (N, 2) int64; `NONE`: no more."""
    best = np.full((len(queries), 2), NONE)
    descriptors, owners = m.descriptors(shared)
    if len(descriptors) >= 2:
        first, second, d1, d2 = nearest_two(queries, descriptors)
        best[:, 0], best[:, 1] = _keys(d1, shared[owners[first]]), _keys(d2, shared[owners[second]])
    elif len(descriptors):
        apart = queries.astype(np.int64) - descriptors
        best[:, 0] = _keys(np.square(apart).sum(axis=1), shared)
    return best


def _nearest_own(
    queries: np.ndarray, m: LocalizationMap, shared: np.ndarray, own: Iterable[tuple[np.ndarray, np.ndarray]]
) -> np.ndarray:
    """The two nearest descriptors of each keypoint among its own candidates that are not ``shared``, as `_keys`,
    (N, 2) int64; `NONE`: no more."""
    best = np.full((len(queries), 2), NONE)
    for rows, landmarks in own:
        others = ~np.isin(landmarks, shared, kind="table")
        rows, (ids, at) = rows[others], np.unique(landmarks[others], return_inverse=True)
        descriptors, owners = m.descriptors(ids)
        halves = np.einsum("rk,rk->r", descriptors, descriptors, dtype=np.int32).astype(np.float32) / 2
        start = np.searchsorted(owners, np.arange(len(ids) + 1))
        asked, begin = np.unique(rows, return_index=True)
        for i, mine in zip(asked, np.split(at, begin[1:]), strict=False):  # no keypoint: one part, empty
            if len(owners) != len(ids):  # a landmark has several descriptors
                count = start[mine + 1] - start[mine]
                mine = np.repeat(start[mine + 1] - np.cumsum(count), count) + np.arange(count.sum())
            query = queries[i].astype(np.float32)
            # Exact in float32, as in `nearest_two`; landmarks increase, so the first of equals is the lowest.
            # Not BLAS: its threads would take longer to wake up than so small a product takes.
            score = np.einsum("rk,k->r", descriptors[mine].astype(np.float32), query) - halves[mine]
            length = np.int64(query @ query)
            for k in range(min(2, len(mine))):
                nearest = score.argmax()
                distance = length - np.int64(2 * score[nearest])
                best[i, k] = distance << LANDMARK_BITS | ids[owners[mine[nearest]]]
                score[nearest] = -np.inf
    return best
