"""Tiles of one map: parts of its images that see the same, each with the neighbours that see it too."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from hfnet_edge.shell.console import Report, silent
from hfnet_maps.build.partition import HALO, halo, partition
from hfnet_maps.content import BuiltMap, PackedMap, ReferenceKeypoints, Structure
from hfnet_maps.pack.writer import built_sections, full_sections
from hfnet_maps.tiles.writer import Tile

SHARED = 10  # landmarks that an image has in common with a tile's core, at least, to be in its halo


def cut(source: BuiltMap | PackedMap, size: int, progress: Report = silent) -> Iterator[Tile]:
    """The tiles of a map, one after the other. A tile keeps all landmarks that its core observes, and what its halo
    sees of them. None keeps what a scene network's labels mean: that network is of the whole map.

    Args:
        size: images of a core, about.
    """
    pairs, weights = covisibility(source)
    labels = partition(len(source.names), pairs, weights, size)
    near = weights >= SHARED
    around = halo(labels, pairs[near], weights[near], round(HALO * size))
    for part, beside in enumerate(around):
        progress("cutting", part, len(around))
        core = np.flatnonzero(labels == part)
        tile = take_images(source, np.union1d(core, beside), core)
        sections = built_sections(tile) if isinstance(tile, BuiltMap) else full_sections(tile)
        yield Tile(sections, tuple(source.names[i] for i in core))
    progress("cutting", len(around), len(around))


def covisibility(source: Structure) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of images that observe the same landmarks, (P, 2) int64, the lower first, and how many, (P,) int64."""
    count = len(source.names)
    keys, shared = np.zeros(0, np.int64), np.zeros(0, np.int64)
    step = 1
    while len(same := np.flatnonzero(source.landmarks[step:] == source.landmarks[:-step])):  # in order of landmark
        found, times = np.unique(source.images[same] * count + source.images[same + step], return_counts=True)
        keys, at = np.unique(np.concatenate([keys, found]), return_inverse=True)
        shared = np.bincount(at, np.concatenate([shared, times]), len(keys)).astype(np.int64)
        step += 1
    return np.stack([keys // max(1, count), keys % max(1, count)], axis=1), shared


def take_images(source: BuiltMap | PackedMap, images: np.ndarray, core: np.ndarray) -> BuiltMap | PackedMap:
    """A map of some images of another, with the landmarks that ``core`` observes. Keypoints of others stay, without a
    landmark.

    Args:
        images, core: (K,) int64 rows, increasing; all of the core are among the images.
    """
    kept_landmarks = np.unique(source.landmarks[np.isin(source.images, core)])
    image_number = np.full(len(source.names), -1, np.int64)
    image_number[images] = np.arange(len(images))
    landmark_number = np.full(len(source.positions), -1, np.int64)
    landmark_number[kept_landmarks] = np.arange(len(kept_landmarks))
    inside = image_number[source.images] >= 0
    rows = np.flatnonzero(inside & (landmark_number[source.landmarks] >= 0))
    changed = {
        "names": tuple(source.names[i] for i in images),
        "poses": tuple(source.poses[i] for i in images),
        "global_descriptors": source.global_descriptors[images],
        "positions": source.positions[kept_landmarks],
        "landmarks": landmark_number[source.landmarks[rows]],
        "images": image_number[source.images[rows]],
        "scene": None,
    }
    if isinstance(source, BuiltMap):
        dropped = np.flatnonzero(inside & (landmark_number[source.landmarks] < 0))
        hypercolumns = None if source.hypercolumns is None else source.hypercolumns[kept_landmarks]
        keypoints = _keypoints(source, images, rows, dropped)
        return replace(
            source, **changed, descriptors=source.descriptors[rows], keypoints=keypoints, hypercolumns=hypercolumns
        )
    described = landmark_number[source.described]
    codes = source.hypercolumns and replace(source.hypercolumns, codes=source.hypercolumns.codes[kept_landmarks])
    stay = described >= 0
    return replace(source, **changed, described=described[stay], codes=source.codes[stay], hypercolumns=codes)


def _keypoints(source: BuiltMap, images: np.ndarray, rows: np.ndarray, dropped: np.ndarray) -> ReferenceKeypoints:
    """Those of some images, where some observations stay and others become keypoints of nothing."""
    k = source.keypoints
    lengths = np.diff(k.other_offsets)[images]
    others = np.arange(lengths.sum()) + np.repeat(k.other_offsets[images] - np.cumsum(lengths) + lengths, lengths)
    of = np.concatenate([np.repeat(images, lengths), source.images[dropped]])
    order = np.argsort(of, kind="stable")
    return ReferenceKeypoints(
        tuple(k.cameras[i] for i in images),
        k.pixels[images],
        k.observed[rows],
        np.searchsorted(of[order], np.append(images, len(source.names))),
        np.concatenate([k.others[others], k.observed[dropped]])[order],
        np.concatenate([k.other_descriptors[others], source.descriptors[dropped]])[order],
    )
