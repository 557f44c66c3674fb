"""Several maps in one frame become one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from hfnet_edge.errors import InputError, MismatchError
from hfnet_maps.source import Extractor, Photos, Source


def merge(sources: Sequence[Source], labels: Sequence[str]) -> Source:
    """All images and landmarks of all sources. A landmark that two maps hold stays twice: they share no image.

    Args:
        labels: what to call the sources in messages.

    Raises:
        MismatchError: they are of different networks.
        InputError: an image is in two of them, or one is packed.
    """
    first = sources[0]
    for source, label in zip(sources, labels, strict=True):
        if _networks(source.extractor) != _networks(first.extractor):
            raise MismatchError(
                f"{labels[0]} is of {_network(first)}, {label} of {_network(source)}", "build both with one model"
            )
        if source.codec is not None or source.global_projection is not None:
            raise InputError(
                f"{label} is packed, with tables that fit only itself",
                "merge the maps that `hfnet-map build` wrote, then pack the result",
            )
    names = [name for source in sources for name in source.names]
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise InputError(
            f"the image {repeated[0]} is in two of the maps",
            "build one of them without it; if it is another photo, with names that differ",
        )
    bare = [label for source, label in zip(sources, labels, strict=True) if source.photos is None]
    if bare:
        raise InputError(
            f"{bare[0]} keeps no keypoints of its images, so the result could not be packed well",
            "merge the maps that `hfnet-map build` wrote, then pack the result",
        )
    images = np.cumsum([0, *(len(s.names) for s in sources)])
    landmarks = np.cumsum([0, *(len(s.positions) for s in sources)])
    joined = np.concatenate([s.landmarks + at for s, at in zip(sources, landmarks[:-1], strict=True)])
    return Source(
        first.extractor,
        tuple(names),
        tuple(pose for s in sources for pose in s.poses),
        np.concatenate([s.global_descriptors for s in sources]),
        np.concatenate([s.positions for s in sources]),
        joined,
        np.concatenate([s.images + at for s, at in zip(sources, images[:-1], strict=True)]),
        joined,
        np.concatenate([s.descriptors for s in sources]),
        _photos(sources),
    )


def _networks(e: Extractor) -> tuple[str, str, int, int]:
    return e.weights_hash, e.global_weights_hash, e.local_dim, e.global_dim


def _network(source: Source) -> str:
    e = source.extractor
    both = f" and {e.global_weights_hash}" if e.global_weights_hash else ""
    return f"the weights {e.weights_hash or 'unknown'}{both} ({e.local_dim}-D, {e.global_dim}-D)"


def _photos(sources: Sequence[Source]) -> Photos:
    parts = [s.photos for s in sources if s.photos is not None]
    counts = np.concatenate([np.diff(p.other_offsets) for p in parts])
    return replace(
        parts[0],
        cameras=tuple(camera for p in parts for camera in p.cameras),
        pixels=np.concatenate([p.pixels for p in parts]),
        keypoints=np.concatenate([p.keypoints for p in parts]),
        other_offsets=np.cumsum([0, *counts]),
        other_keypoints=np.concatenate([p.other_keypoints for p in parts]),
        other_descriptors=np.concatenate([p.other_descriptors for p in parts]),
    )
