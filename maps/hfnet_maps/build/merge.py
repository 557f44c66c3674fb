"""Several maps in one frame become one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from hfnet_edge.errors import InputError, MismatchError
from hfnet_maps.content import BuiltMap, MapNetworks, PackedMap, ReferenceKeypoints


def merge(sources: Sequence[BuiltMap | PackedMap], labels: Sequence[str]) -> BuiltMap:
    """All images and landmarks of all sources. A landmark that two maps hold stays twice: they share no image.

    Args:
        labels: what to call the sources in messages.

    Raises:
        MismatchError: they are of different networks.
        InputError: an image is in two of them, one is packed, or one has hypercolumns and another none.
    """
    first = sources[0]
    parts: list[BuiltMap] = []
    for source, label in zip(sources, labels, strict=True):
        if _identity(source.networks) != _identity(first.networks):
            raise MismatchError(
                f"{labels[0]} is of {_told(first.networks)}, {label} of {_told(source.networks)}",
                "build both with one model",
            )
        if isinstance(source, PackedMap):
            raise InputError(
                f"{label} is packed, with tables that fit only itself",
                "merge the maps that `hfnet-map build` wrote, then pack the result",
            )
        parts.append(source)
        if 0 in (widths := {_hypercolumn_dim(parts[0]), _hypercolumn_dim(source)}) and len(widths) > 1:
            raise InputError(
                f"one of {labels[0]} and {label} has hypercolumns, the other none", "build both with one --method"
            )
        if len(widths) > 1:
            raise MismatchError(
                f"{labels[0]} has {_hypercolumn_dim(parts[0])}-D hypercolumns, {label} {_hypercolumn_dim(source)}-D",
                "build both with one model",
            )
    names = [name for source in parts for name in source.names]
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise InputError(
            f"the image {repeated[0]} is in two of the maps",
            "build one of them without it; if it is another photo, with names that differ",
        )
    images = np.cumsum([0, *(len(part.names) for part in parts)])
    landmarks = np.cumsum([0, *(len(part.positions) for part in parts)])
    return BuiltMap(
        first.networks,
        tuple(names),
        tuple(pose for part in parts for pose in part.poses),
        np.concatenate([part.global_descriptors for part in parts]),
        np.concatenate([part.positions for part in parts]),
        np.concatenate([part.landmarks + at for part, at in zip(parts, landmarks[:-1], strict=True)]),
        np.concatenate([part.images + at for part, at in zip(parts, images[:-1], strict=True)]),
        np.concatenate([part.descriptors for part in parts]),
        _joined([part.keypoints for part in parts]),
        None
        if parts[0].hypercolumns is None
        else np.concatenate([part.hypercolumns for part in parts if part.hypercolumns is not None]),
        earth=next((part.earth for part in parts if part.earth is not None), None),
    )


def _hypercolumn_dim(source: BuiltMap) -> int:
    """Dimensions of its hypercolumns; 0: it has none."""
    return 0 if source.hypercolumns is None else source.hypercolumns.shape[1]


def _identity(n: MapNetworks) -> tuple[str, str, bool, int, int]:
    """What has to agree; another precision of the same weights may be merged."""
    return n.weights_hash, n.global_weights_hash, n.of_patches, n.local_dim, n.global_dim


def _told(n: MapNetworks) -> str:
    both = f" and {n.global_weights_hash}" if n.global_weights_hash else ""
    return f"the weights {n.weights_hash or 'unknown'}{both} ({n.local_dim}-D, {n.global_dim}-D)"


def _joined(parts: Sequence[ReferenceKeypoints]) -> ReferenceKeypoints:
    counts = np.concatenate([np.diff(p.other_offsets) for p in parts])
    return ReferenceKeypoints(
        cameras=tuple(camera for p in parts for camera in p.cameras),
        pixels=np.concatenate([p.pixels for p in parts]),
        observed=np.concatenate([p.observed for p in parts]),
        other_offsets=np.cumsum([0, *counts]),
        others=np.concatenate([p.others for p in parts]),
        other_descriptors=np.concatenate([p.other_descriptors for p in parts]),
    )
