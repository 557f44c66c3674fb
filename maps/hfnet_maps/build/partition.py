"""Images are parted so that those which see the same stay together.

The covisibility graph has an edge for each pair of images that share landmarks, as heavy as they share. METIS cuts it
into parts of about equal size, little weight cut (Karypis, Kumar 1998). What shares nothing is never parted.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

HALO = 0.5  # of a tile's images, those of other tiles that it has beside them, at most
MAX_WEIGHT = 1 << 30  # of all edges together: METIS counts in 32 bits


def partition(count: int, pairs: np.ndarray, weights: np.ndarray, size: int) -> np.ndarray:
    """Parts of about ``size`` images that cut little covisibility. The same input gives the same parts.

    A connected group of images is whole where it has no more than ``size``; small groups share a part.

    Args:
        count: of images. pairs: (P, 2) int64 images that share landmarks, each pair once, in any order.
        weights: (P,) int64, how many they share.
        size: images of a part, about.

    Returns:
        (count,) int64, the part of each image, from 0 in order of their first image; none is empty.
    """
    labels = np.zeros(count, np.int64)
    if count <= size:
        return labels
    group = _connected(count, pairs)
    sizes = np.bincount(group)
    parts = 0
    for big in np.flatnonzero(sizes > size):
        images = np.flatnonzero(group == big)
        number = np.full(count, -1, np.int64)
        number[images] = np.arange(len(images))
        inside = number[pairs[:, 0]] >= 0
        found = _cut(len(images), number[pairs[inside]], weights[inside], -(-len(images) // size))
        labels[images] = parts + found
        parts += int(found.max()) + 1
    room: dict[int, int] = {}  # of the parts of small groups
    of_group = np.zeros(len(sizes), np.int64)
    for small in np.flatnonzero(sizes <= size):
        fits = next((part for part, left in room.items() if left >= sizes[small]), parts + len(room))
        room[fits] = room.get(fits, size) - int(sizes[small])
        of_group[small] = fits
    alone = sizes[group] <= size
    labels[alone] = of_group[group[alone]]
    _, first, labels = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[labels].astype(np.int64)


def halo(labels: np.ndarray, pairs: np.ndarray, weights: np.ndarray, most: int) -> list[np.ndarray]:
    """Of each part the images of other parts that share most with it.

    Args:
        labels: (N,) as `partition` returns them. pairs, weights: as there.
        most: images of a part, at most.

    Returns:
        For each part (K,) int64 images, increasing, K at most ``most``; all share something with it.
    """
    count, parts = len(labels), int(labels.max(initial=-1)) + 1
    a, b = (np.concatenate([pairs[:, i], pairs[:, 1 - i]]) for i in range(2))
    crossing = labels[a] != labels[b]
    key, at = np.unique(labels[a[crossing]] * count + b[crossing], return_inverse=True)
    shared = np.bincount(at, np.concatenate([weights, weights])[crossing], len(key))
    part, image = key // max(1, count), key % max(1, count)
    order = np.lexsort((image, -shared, part))
    starts = np.searchsorted(part[order], np.arange(parts + 1))
    return [np.sort(image[order[start:stop][:most]]) for start, stop in pairwise(starts)]


def _cut(count: int, pairs: np.ndarray, weights: np.ndarray, parts: int) -> np.ndarray:
    """METIS' parts of a connected graph, numbered without gaps."""
    import pymetis

    a, b = (np.concatenate([pairs[:, i], pairs[:, 1 - i]]) for i in range(2))
    scale = min(1.0, MAX_WEIGHT / max(1, 2 * int(weights.sum())))
    heavy = np.maximum(1, (np.concatenate([weights, weights]) * scale).astype(np.int64))
    order = np.lexsort((b, a))
    starts = np.searchsorted(a[order], np.arange(count + 1))
    _, found = pymetis.part_graph(
        parts,
        adjacency=pymetis.CSRAdjacency(starts, b[order]),
        eweights=heavy[order].tolist(),
        recursive=True,  # of few images the other way leaves parts empty
        options=pymetis.Options(seed=1),
    )
    return np.unique(np.asarray(found), return_inverse=True)[1]  # a part may be empty where images share with all


def _connected(count: int, pairs: np.ndarray) -> np.ndarray:
    """(N,) int64, the connected component of each image, numbered from 0."""
    root = np.arange(count)
    while True:
        low = np.minimum(root[pairs[:, 0]], root[pairs[:, 1]])
        new = root.copy()
        for side in range(2):
            np.minimum.at(new, root[pairs[:, side]], low)
        new = new[new]
        if np.array_equal(new, root):
            return np.unique(root, return_inverse=True)[1]
        root = new
