"""2D-3D matching of query keypoints with the landmarks of one place, in integers."""

from __future__ import annotations

import numpy as np

from hfnet_edge.correspondences import Match2D3D, no_matches
from hfnet_edge.features import Features
from hfnet_edge.map.map_file import LocalizationMap

COLUMNS = 1024  # landmarks at a time, so that their similarities stay in the cache
RATIO_PERCENT = 95


def match(query: Features, map_: LocalizationMap, landmarks: np.ndarray) -> Match2D3D:
    """Nearest landmarks of a place, with the paper's modified ratio test (section 5.2).

    A match is kept when its distance is below 0.95 of the second nearest's (the paper: 0.9), or when the two nearest
    descriptors are of the same landmark. Of several keypoints that match one landmark the nearest stays (equals: the
    lower index).

    Args:
        landmarks: (N,) int64, increasing: those of the place.

    Raises:
        MapFormatError: the map is damaged there.
    """
    descriptors, owners = map_.descriptors(landmarks)
    if len(descriptors) < 2 or len(query.keypoints) == 0:
        return no_matches()
    first, second, d1, d2 = nearest_two(map_.codec.query(query.descriptors), descriptors)
    return distinct_matches(query, map_, landmarks[owners[first]], landmarks[owners[second]], d1, d2)


def distinct_matches(
    query: Features, map_: LocalizationMap, first: np.ndarray, second: np.ndarray, d1: np.ndarray, d2: np.ndarray
) -> Match2D3D:
    """The ratio test, and one keypoint a landmark; see `match`.

    Args:
        first, second: (N,) int64 landmarks of each keypoint's two nearest descriptors; -1: there is none.
        d1, d2: (N,) int64 squared distances.
    """
    keypoints = np.flatnonzero((second >= 0) & ((first == second) | (d1 * 100**2 < d2 * RATIO_PERCENT**2)))
    keypoints = keypoints[np.lexsort((keypoints, d1[keypoints], first[keypoints]))]
    owned = first[keypoints]
    best = np.concatenate([[True], owned[1:] != owned[:-1]])[: len(owned)]
    keypoints = np.sort(keypoints[best])
    ids = first[keypoints]
    return Match2D3D(query.keypoints[keypoints], map_.positions(ids), keypoints, ids)


def nearest_two(queries: np.ndarray, references: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The two nearest references of each query by squared distance; equals by lower index.

    The nearest maximises ``q c - c c / 2``, one more column in a matrix product. In float32 that is exact, whatever the
    order of summation: all of it are multiples of 1/2 below 2**23.

    Args:
        queries: (N, D) int8. references: (R, D) int8, R >= 2. Both of about unit length times 127, D up to 1040.

    Returns:
        Indices of the first and the second (N,) int64, and their squared distances (N,) int64.
    """
    n, rows = len(queries), np.arange(len(queries))
    a = np.concatenate([queries, np.ones((n, 1), np.int8)], axis=1, dtype=np.float32)
    first, second = np.zeros(n, np.int64), np.zeros(n, np.int64)
    s1, s2 = np.full(n, -np.inf, np.float32), np.full(n, -np.inf, np.float32)
    for start in range(0, len(references), COLUMNS):
        b = references[start : start + COLUMNS].astype(np.float32)
        similarity = a @ np.concatenate([b, -np.square(b).sum(axis=1, keepdims=True) / 2], axis=1).T
        for _ in range(2):  # the block's best two enter one after the other
            at = similarity.argmax(axis=1)
            s = similarity[rows, at]
            similarity[rows, at] = -np.inf
            better, next_ = s > s1, s > s2  # strictly: an equal of an earlier block has the lower index
            s2 = np.where(better, s1, np.where(next_, s, s2))
            second = np.where(better, first, np.where(next_, start + at, second))
            s1, first = np.where(better, s, s1), np.where(better, start + at, first)
    own = np.square(a[:, :-1]).sum(axis=1)
    return first, second, (own - 2 * s1).astype(np.int64), (own - 2 * s2).astype(np.int64)
