"""2D-3D matching of query keypoints with the landmarks of one place, in integers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hfnet_edge.features import Features
from hfnet_edge.map_file import LocalizationMap

BLOCK = 1024  # query keypoints at a time: enough for BLAS to be efficient, little memory
RATIO_PERCENT = 90


@dataclass(frozen=True)
class Match2D3D:
    """Correspondences of query keypoints and landmarks; N of them, in order of the query's keypoints.

    Attributes:
        keypoints: (N,) int64, rows of the query's `Features`.
        landmarks: (N,) int64, rows of the map's landmarks.
        xy: (N, 2) float64, query pixels.
        xyz: (N, 3) float64, landmark positions relative to the map's origin.
    """

    keypoints: np.ndarray
    landmarks: np.ndarray
    xy: np.ndarray
    xyz: np.ndarray

    def __len__(self) -> int:
        return len(self.keypoints)


def match(query: Features, m: LocalizationMap, place: np.ndarray) -> Match2D3D:
    """Nearest observations in the place, with the paper's modified ratio test (section 5.2).

    A match is kept when its distance is below 0.9 of the second nearest's, or when the two nearest observations are of
    the same landmark. Of several keypoints that match one landmark the nearest stays (equals: the lower index).

    Args:
        place: reference images.
    """
    rows = [m.observations(int(image)) for image in np.sort(place)]
    landmarks = np.concatenate([*(m.observation_landmarks[r] for r in rows), np.zeros(0, np.uint32)]).astype(np.int64)
    empty = np.zeros(0, np.int64)
    if len(landmarks) < 2 or len(query.keypoints) == 0:
        return Match2D3D(empty, empty, np.zeros((0, 2)), np.zeros((0, 3)))
    descriptors = np.concatenate([m.observation_descriptors[r] for r in rows]).astype(np.float32)
    first, second, s1, s2 = nearest_two(query.descriptors, descriptors)

    squares, own = (descriptors**2).sum(axis=1), (query.descriptors.astype(np.float32) ** 2).sum(axis=1)  # exact
    d1 = (own + squares[first] - 2 * s1).astype(np.int64)  # squared distances, integers
    d2 = (own + squares[second] - 2 * s2).astype(np.int64)
    distinct = landmarks[first] != landmarks[second]
    good = ~distinct | (d1 * 100**2 < d2 * RATIO_PERCENT**2)
    keypoints = np.flatnonzero(good)
    keypoints = keypoints[np.lexsort((keypoints, d1[keypoints], landmarks[first[keypoints]]))]
    ids = landmarks[first[keypoints]]
    best = np.concatenate([[True], ids[1:] != ids[:-1]])[: len(ids)]
    keypoints = np.sort(keypoints[best])
    ids = landmarks[first[keypoints]]
    return Match2D3D(keypoints, ids, query.keypoints[keypoints], m.landmark_positions[ids].astype(np.float64))


def nearest_two(queries: np.ndarray, references: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The two references of largest dot product for each query; equals by lower index.

    Args:
        queries: (N, D) int8. references: (R, D) holding int8 values, R >= 2; float32 saves a conversion.

    Returns:
        Indices of the first and the second (N,) int64, and their dot products (N,) int64. The float32 product is exact:
        sums stay below 2**24 for D up to 1040.
    """
    n = len(queries)
    first, second = np.empty(n, np.int64), np.empty(n, np.int64)
    s1, s2 = np.empty(n, np.float32), np.empty(n, np.float32)
    transposed = np.ascontiguousarray(references, np.float32).T
    for start in range(0, n, BLOCK):
        block = slice(start, min(start + BLOCK, n))
        similarity = queries[block].astype(np.float32) @ transposed
        row = np.arange(len(similarity))
        first[block] = similarity.argmax(axis=1)
        s1[block] = similarity[row, first[block]]
        similarity[row, first[block]] = -np.inf
        second[block] = similarity.argmax(axis=1)
        s2[block] = similarity[row, second[block]]
    return first, second, s1.astype(np.int64), s2.astype(np.int64)
