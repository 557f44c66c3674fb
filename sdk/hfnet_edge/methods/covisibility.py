"""Covisibility clustering: prior frames that see common landmarks form a place (HF-Net, section 3)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from hfnet_edge.clock import Clock
from hfnet_edge.correspondences import Match2D3D
from hfnet_edge.map.map_file import LocalizationMap


@dataclass(frozen=True)
class Place:
    """Prior frames that belong together, and all that they observe.

    Attributes:
        images: (K,) int64 reference images, most similar to the query first.
        landmarks: (N,) int64, increasing.
    """

    images: np.ndarray
    landmarks: np.ndarray


def cluster(map_: LocalizationMap, prior_frames: np.ndarray) -> list[Place]:
    """Connected components of the prior frames in the covisibility graph.

    Args:
        prior_frames: (K,) indices of reference images, most similar first.

    Returns:
        Places of more images first, equals by their best-ranked image.

    Raises:
        MapFormatError: the observations of a frame are damaged.
    """
    observed = [map_.observed(int(image)) for image in prior_frames]
    landmarks = np.concatenate([*observed, np.zeros(0, np.int64)])
    frames = np.repeat(np.arange(len(prior_frames)), [len(ids) for ids in observed])
    order = np.argsort(landmarks, kind="stable")
    same = landmarks[order][1:] == landmarks[order][:-1]
    pairs = np.unique(np.stack([frames[order][:-1][same], frames[order][1:][same]], axis=1), axis=0)
    label = np.arange(len(prior_frames))
    for a, b in pairs:
        label[label == max(label[a], label[b])] = min(label[a], label[b])
    places = [
        Place(prior_frames[label == first], np.unique(landmarks[label[frames] == first])) for first in np.unique(label)
    ]
    return sorted(places, key=lambda place: -len(place.images))  # stable: equals keep their best image's order


def in_each_place(
    map_: LocalizationMap,
    prior_frames: np.ndarray,
    clock: Clock,
    stage: str,
    search: Callable[[np.ndarray], Match2D3D],
) -> Iterator[Match2D3D]:
    """What a search finds among the landmarks of each place, made as it is asked for, in the order of `cluster`.

    Args:
        prior_frames: see `cluster`. stage: the clock's name of the search. search: given landmarks (N,) int64.

    Raises:
        MapFormatError: the map is damaged where it is touched.
    """
    with clock("cluster"):
        places = [place for place in cluster(map_, prior_frames) if len(place.landmarks)]
    for place in places:
        with clock(stage):
            matches = search(place.landmarks)
        yield matches
