"""Parallel search (paper 002, section 3.2): a keypoint's candidates are the landmarks in its own prior leaves and those
that the prior frames observe; a linear search among them finds its two nearest.

Trees look at one patch, so another viewpoint does not bother them; frames are found by the whole image, so another
light does not. Either side may be empty: then it is the trees alone, or retrieval alone.

Keypoints share candidates, dozens of them each landmark. So it is landmarks that ask: the descriptors of one against
those keypoints that it is a candidate of is a small matrix product, and many of about one size are one call.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from hfnet_edge.correspondences import Match2D3D
from hfnet_edge.features import Features
from hfnet_edge.map.container import Section
from hfnet_edge.map.map_file import LocalizationMap
from hfnet_edge.methods.matching import distinct_matches, nearest_two

LANDMARK_BITS = 32
LANDMARK = (1 << LANDMARK_BITS) - 1
NONE = np.iinfo(np.int64).max
BATCH = 1 << 19  # components of the descriptors of some products: 2 MB
PRODUCT = 1 << 18  # multiplications of a product: BLAS would wake up its threads for more, which takes longer
ASKING = 256  # keypoints of a product
FEW = 16  # descriptors of a piece: of more, the two nearest are partitioned off, not passed in review
THREADS = min(2, os.cpu_count() or 1)


def seen_by(map_: LocalizationMap, frames: np.ndarray) -> np.ndarray:
    """The landmarks that some reference images observe, (P,) int64, increasing. Raises MapFormatError."""
    return map_.observed_by(frames)


def search(
    query: Features, map_: LocalizationMap, shared: np.ndarray, own: Iterable[tuple[np.ndarray, np.ndarray]] = ()
) -> Match2D3D:
    """Matches each keypoint among its candidates, with the ratio test of `hfnet_edge.methods.matching`.

    Args:
        shared: (P,) int64 landmarks, increasing: candidates of every keypoint.
        own: blocks of keypoints, as `RandomTrees.blocks` yields them: rows and landmarks, (E,) int64 each, a keypoint
            and a candidate of its own; in any order, pairs may repeat, all of a keypoint in one block.

    Raises:
        MapFormatError: the map is damaged there. SearchLimitError: from ``own``.
    """
    queries = map_.codec.query(query.descriptors)
    pairs = [*_nearest_shared(queries, map_, shared).T, *_nearest_own(queries, map_, shared, own).T]
    best = np.sort(np.stack(pairs, axis=1), axis=1)[:, :2]
    (first, second), (d1, d2) = np.where(best == NONE, -1, best & LANDMARK).T, (best >> LANDMARK_BITS).T
    return distinct_matches(query, map_, first, second, d1, d2)


def _keys(squared_distances: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """Distance and landmark in one int64 that orders by distance, equals by landmark."""
    return squared_distances << LANDMARK_BITS | landmarks


def _nearest_shared(queries: np.ndarray, map_: LocalizationMap, shared: np.ndarray) -> np.ndarray:
    """The two nearest descriptors of each keypoint among ``shared``, as `_keys`, (N, 2) int64; `NONE`: no more."""
    best = np.full((len(queries), 2), NONE)
    descriptors, owners = map_.descriptors(shared)
    if len(descriptors) >= 2:
        first, second, d1, d2 = nearest_two(queries, descriptors)
        best[:, 0], best[:, 1] = _keys(d1, shared[owners[first]]), _keys(d2, shared[owners[second]])
    elif len(descriptors):
        apart = queries.astype(np.int64) - descriptors
        best[:, 0] = _keys(np.square(apart).sum(axis=1), shared)
    return best


def _nearest_own(
    queries: np.ndarray, map_: LocalizationMap, shared: np.ndarray, own: Iterable[tuple[np.ndarray, np.ndarray]]
) -> np.ndarray:
    """The two nearest descriptors of each keypoint among its own candidates that are not ``shared``, as `_keys`,
    (N, 2) int64; `NONE`: no more."""
    best = np.full((len(queries), 2), NONE)
    others = np.ones(map_.landmark_count, bool)
    others[shared] = False
    length = np.square(queries.astype(np.int64)).sum(axis=1)
    for rows, landmarks in own:
        pairs = landmarks << LANDMARK_BITS
        pairs |= rows
        pairs.sort()
        landmarks = pairs >> LANDMARK_BITS
        kept = others[landmarks]
        kept[1:] &= pairs[1:] != pairs[:-1]
        pairs, landmarks = pairs[kept], landmarks[kept]
        if not len(pairs):
            continue
        rows = pairs & LANDMARK
        near, next_ = _scores(queries, map_, rows, landmarks)

        # Of each keypoint the nearest landmark; then, without its nearest descriptor, the nearest again.
        def keys(score: np.ndarray, rows: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
            there = score > -np.inf
            distances = length[rows] - (2 * np.where(there, score, 0)).astype(np.int64)
            return np.where(there, _keys(distances, landmarks), NONE)

        order = np.argsort(rows.astype(np.uint16) if len(queries) <= 1 << 16 else rows, kind="stable")
        number = np.bincount(rows, minlength=len(queries))
        asked = np.flatnonzero(number)
        begin = (np.cumsum(number) - number)[asked]
        every = keys(near, rows, landmarks)
        best[asked, 0] = np.minimum.reduceat(every[order], begin)
        at = np.searchsorted(pairs, (best[asked, 0] & LANDMARK) << LANDMARK_BITS | asked)
        every[at] = keys(next_[at], asked, landmarks[at])
        best[asked, 1] = np.minimum.reduceat(every[order], begin)
    return best


def _scores(queries: np.ndarray, map_: LocalizationMap, rows: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """How near the two nearest descriptors of a landmark are to a keypoint.

    The measure is ``q c - c c / 2``, exact in float32 as in `hfnet_edge.methods.matching.nearest_two`.

    Args:
        queries: (N, K) int8. rows, landmarks: (P,) int64, in order of landmark, no pair twice.

    Returns:
        (2, P) float32, the nearer one first; -inf: the landmark has only one.
    """
    starts = np.flatnonzero(np.diff(landmarks, prepend=-1))
    stored, owners = map_.descriptor_rows(landmarks[starts])
    map_.file.check_rows(Section.DESCRIPTORS, stored, map_.codec.row_bytes)
    counts = np.bincount(owners, minlength=len(starts))
    asking = np.diff(starts, append=len(landmarks))

    # A landmark for which many ask is several tasks.
    parts = -(-asking // ASKING)
    of = np.repeat(np.arange(len(starts)), parts)
    before = (np.arange(len(of)) - (np.cumsum(parts) - parts)[of]) * ASKING
    begin, asking = starts[of] + before, np.minimum(asking[of] - before, ASKING)
    first, count = (np.cumsum(counts) - counts)[of], counts[of]
    found = np.full((2, len(rows)), -np.inf, np.float32)

    def compare(tasks: np.ndarray) -> None:
        """Tasks of equally many descriptors. Where fewer keypoints ask than in the last, one asks again."""
        most, number = int(asking[tasks[-1]]), int(count[tasks[-1]])
        at = begin[tasks, None] + np.minimum(np.arange(most), asking[tasks, None] - 1)
        asked = queries.take(rows.take(at), axis=0).astype(np.float32).transpose(0, 2, 1)
        one, two = (np.full(at.shape, -np.inf, np.float32) for _ in range(2))
        piece = max(2, PRODUCT // (most * queries.shape[1]))
        for start in range(0, number, piece):
            numbers = first[tasks, None] + np.arange(start, min(start + piece, number))
            size = numbers.shape[1]
            codes = map_.codec.decode(map_.codes[stored[numbers.ravel()]]).reshape(len(tasks), size, -1)
            descriptors = np.zeros((len(tasks), max(2, size), codes.shape[2]), np.float32)  # one would not be a matrix
            descriptors[:, :size] = codes
            score = descriptors @ asked
            score -= (np.vecdot(descriptors, descriptors) / 2)[:, :, None]
            if size > FEW:
                score = np.partition(score[:, :size], size - 2, axis=1)[:, -2:]
            for i in range(min(size, score.shape[1])):
                np.maximum(two, np.minimum(one, score[:, i]), out=two)
                np.maximum(one, score[:, i], out=one)
        found[0, at], found[1, at] = one, two

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(compare, _batches(asking, count, queries.shape[1])))
    return found


def _batches(asking: np.ndarray, count: np.ndarray, dim: int) -> Iterator[np.ndarray]:
    """Tasks of equally many descriptors and about equally many keypoints: as many as fit a `BATCH`, at least one.

    Args:
        asking, count: (T,) int64 keypoints and descriptors of each. dim: of a descriptor.
    """
    order = np.lexsort((asking, count))
    start = 0
    for stop in np.flatnonzero(np.diff(count[order], append=-1)) + 1:
        while start < stop:
            fit = max(1, BATCH // int((asking[order[start]] + count[order[start]]) * dim))
            some = order[start : min(stop, start + fit)]
            size = np.arange(1, len(some) + 1) * (asking[some] + count[some]) * dim
            some = some[: max(1, int(np.searchsorted(size, BATCH, side="right")))]
            yield some
            start += len(some)
