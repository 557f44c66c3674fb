"""One descriptor a landmark, or a few where it looks different from different sides.

The first is the mean of all that were observed. While one of them is not similar enough to its nearest descriptor, it
becomes the next one, and all move to the means of what is nearest to them.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from hfnet_edge.image.keypoints import quantize
from hfnet_edge.map.codecs import UNIT
from hfnet_maps.content import DescribedMap

MOVES = 3
CHUNK = 1 << 16  # observations at a time


def summarise(source: DescribedMap, at_most: int, similar: float) -> DescribedMap:
    """At most so many descriptors a landmark.

    Args:
        similar: cosine from which on observations share a descriptor.
    """
    starts = np.searchsorted(source.described, np.arange(len(source.positions) + 1))
    described, descriptors = [np.zeros(0, np.int64)], [np.zeros((0, source.descriptors.shape[1]), np.int8)]
    first = 0
    while first < len(source.positions):
        last = max(int(np.searchsorted(starts, starts[first] + CHUNK, side="right")) - 1, first + 1)
        rows = slice(starts[first], starts[last])
        of, means = _summarise(source.described[rows] - first, source.descriptors[rows], last - first, at_most, similar)
        described.append(of + first)
        descriptors.append(means)
        first = last
    return replace(source, described=np.concatenate(described), descriptors=np.concatenate(descriptors))


def _summarise(
    of: np.ndarray, rows: np.ndarray, count: int, at_most: int, similar: float
) -> tuple[np.ndarray, np.ndarray]:
    """Landmarks and descriptors of the summary of ``rows`` (R, D), which are of the landmarks ``of`` (R,)."""
    unit = rows.astype(np.float32) / UNIT
    group = np.arange(count)  # landmark of each center
    assigned = of.copy()  # center of each row
    centers = _means(unit, assigned, count)
    for _ in range(at_most - 1):
        similarity = np.einsum("rd,rd->r", unit, centers[assigned])
        worst = np.lexsort((np.arange(len(of)), similarity, of))
        worst = worst[np.searchsorted(of[worst], np.arange(count))]  # of each landmark
        worst = worst[similarity[worst] < similar]
        if not len(worst):
            break
        centers, group = np.concatenate([centers, unit[worst]]), np.concatenate([group, of[worst]])
        split = np.zeros(count, bool)
        split[of[worst]] = True
        moving = np.flatnonzero(split[of])
        changed = np.flatnonzero(split[group])
        place = np.zeros(len(centers), np.int64)
        place[changed] = np.arange(len(changed))
        for _ in range(MOVES):
            assigned[moving] = _nearest(unit[moving], of[moving], centers, group)
            centers[changed] = _means(unit[moving], place[assigned[moving]], len(changed))
    used = np.flatnonzero(np.bincount(assigned, minlength=len(centers)))
    order = used[np.argsort(group[used], kind="stable")]
    return group[order], quantize(centers[order])


def _means(unit: np.ndarray, assigned: np.ndarray, count: int) -> np.ndarray:
    """Unit-length means of the rows assigned to each center, (count, D); zeros where there are none."""
    order = np.argsort(assigned, kind="stable")
    ends = np.searchsorted(assigned[order], np.arange(count + 1))
    sums = np.concatenate([np.zeros((1, unit.shape[1])), np.cumsum(unit[order], axis=0, dtype=np.float64)])
    means = (sums[ends[1:]] - sums[ends[:-1]]).astype(np.float32)
    return means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-6)


def _nearest(unit: np.ndarray, of: np.ndarray, centers: np.ndarray, group: np.ndarray) -> np.ndarray:
    """For each row the most similar center of its landmark, equals by lower number."""
    order = np.argsort(group, kind="stable")
    starts = np.searchsorted(group[order], np.arange(group.max() + 2))
    best, chosen = np.full(len(unit), -np.inf, np.float32), np.zeros(len(unit), np.int64)
    for place in range(int(np.diff(starts).max())):
        has = np.flatnonzero(starts[of] + place < starts[of + 1])
        center = order[starts[of[has]] + place]
        similarity = np.einsum("rd,rd->r", unit[has], centers[center])
        better = similarity > best[has]
        best[has[better]], chosen[has[better]] = similarity[better], center[better]
    return chosen
