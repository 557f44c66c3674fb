"""Tiles become one map again: the fold of a place that was triangulated tile by tile.

Images at borders are in several tiles, and so are landmarks, each tile's own. Two landmarks are the same where one
keypoint observes both. The one of most observations gives the position; all observe it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hfnet_maps.content import BuiltMap, ReferenceKeypoints


def join(tiles: Sequence[BuiltMap]) -> BuiltMap:
    """One map of tiles as they were built, in one frame, whose images of one name are the same.

    Args:
        tiles: of the same networks. At least one.
    """
    names = sorted({name for tile in tiles for name in tile.names})
    row = {name: i for i, name in enumerate(names)}
    image_of = [np.array([row[name] for name in tile.names], np.int64) for tile in tiles]
    home = _homes(tiles, image_of, len(names))
    starts = np.cumsum([0, *(len(tile.positions) for tile in tiles)])
    own = np.concatenate([tile.landmarks + start for tile, start in zip(tiles, starts[:-1], strict=True)])
    images = np.concatenate([of[tile.images] for tile, of in zip(tiles, image_of, strict=True)])
    observed = np.concatenate([tile.keypoints.observed for tile in tiles])
    descriptors = np.concatenate([tile.descriptors for tile in tiles])

    group = _same(_keys(images, observed), own, int(starts[-1]))
    counts = np.bincount(own, minlength=starts[-1])
    order = np.lexsort((np.arange(len(counts)), -counts, group))
    owner = order[np.searchsorted(group[order], np.arange(group.max() + 1))]  # of each group, that of most observations
    landmarks = group[own]
    order = np.lexsort((owner[landmarks] != own, images, landmarks))  # of two keypoints of an image the owner's stays
    first = np.ones(len(order), bool)
    first[1:] = (landmarks[order][1:] != landmarks[order][:-1]) | (images[order][1:] != images[order][:-1])
    rows = order[first]

    taken = _keys(images[rows], observed[rows])
    row_in = [{name: k for k, name in enumerate(tile.names)} for tile in tiles]
    source = [(tiles[home[i]], row_in[home[i]][name]) for i, name in enumerate(names)]
    parts = [_image(tile, k, i, taken) for i, (tile, k) in enumerate(source)]
    dense = [tile.hypercolumns for tile in tiles if tile.hypercolumns is not None]
    return BuiltMap(
        tiles[0].networks,
        tuple(names),
        tuple(tile.poses[k] for tile, k in source),
        np.stack([tile.global_descriptors[k] for tile, k in source]),
        np.concatenate([tile.positions for tile in tiles])[owner],
        landmarks[rows],
        images[rows],
        descriptors[rows],
        ReferenceKeypoints(
            tuple(tile.keypoints.cameras[k] for tile, k in source),
            np.array([tile.keypoints.pixels[k] for tile, k in source]),
            observed[rows],
            np.cumsum([0, *(len(keypoints) for keypoints, _ in parts)]),
            np.concatenate([keypoints for keypoints, _ in parts]),
            np.concatenate([found for _, found in parts]),
        ),
        np.concatenate(dense)[owner] if dense else None,
        earth=tiles[0].earth,
    )


def _homes(tiles: Sequence[BuiltMap], image_of: Sequence[np.ndarray], count: int) -> np.ndarray:
    """(M,) int64: of each image the tile in which it observes most; equals the first."""
    most, home = np.full(count, -1, np.int64), np.zeros(count, np.int64)
    for k, (tile, of) in enumerate(zip(tiles, image_of, strict=True)):
        seen = np.bincount(tile.images, minlength=len(tile.names))
        more = seen > most[of]
        most[of[more]], home[of[more]] = seen[more], k
    return home


def _keys(images: np.ndarray, keypoints: np.ndarray) -> np.ndarray:
    """(O,) of what tells one keypoint from another: its image, and its place to the last bit."""
    keys = np.empty(len(images), [("image", np.int64), ("place", np.uint64)])
    keys["image"] = images
    keys["place"] = np.ascontiguousarray(keypoints, np.float32).view(np.uint64).reshape(-1)
    return keys


def _same(keys: np.ndarray, landmarks: np.ndarray, count: int) -> np.ndarray:
    """(L,) int64, the group of each landmark: those that share keypoints, directly or not."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    _, at = np.unique(keys, return_inverse=True)
    order = np.argsort(at, kind="stable")
    shared = np.flatnonzero(at[order][1:] == at[order][:-1])
    a, b = landmarks[order[shared]], landmarks[order[shared + 1]]
    graph = coo_matrix((np.ones(len(a), np.int8), (a, b)), shape=(count, count))
    return connected_components(graph, directed=False)[1].astype(np.int64)


def _image(tile: BuiltMap, k: int, image: int, taken: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The keypoints (P, 2) of a tile's image that observe nothing in the joined map, and their descriptors."""
    found = tile.features(k)
    keypoints = found.keypoints.astype(np.float32)
    free = ~np.isin(_keys(np.full(len(keypoints), image), keypoints), taken)
    return keypoints[free], found.descriptors[free]
