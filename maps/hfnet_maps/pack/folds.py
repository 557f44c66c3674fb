"""Reference images that are left out of a map, to judge by: each is a query whose pose is known.

The user's queries are never looked at. Of small maps every image is left out once, in five folds; of large ones some
images are, and judged in a map of their neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hfnet_edge.features import Features
from hfnet_edge.geometry import Camera, Pose
from hfnet_maps.content import BuiltMap, MapContent

FOLDS = 5
MOST_QUERIES = 60
NEIGHBOURS = 20  # images most covisible with a left-out one that stay in its map


@dataclass(frozen=True)
class LeftOut:
    """A reference image as a query.

    Attributes:
        pose: the true one, cam_from_world.
        depth: median of the landmarks that it observes, along the line of sight, map units; NaN where it observes none.
    """

    features: Features
    camera: Camera
    pose: Pose
    depth: float


Fold = tuple[BuiltMap, list[LeftOut]]
"""A map without some images, and these as queries."""


def folds_of(source: MapContent) -> list[Fold]:
    """Images left out together, as queries, with the maps without them; none where there is nothing to judge by."""
    if not isinstance(source, BuiltMap):
        return []
    count = len(source.names)
    if count <= MOST_QUERIES:
        left_out = [np.arange(fold, count, FOLDS) for fold in range(min(FOLDS, count))]
    else:
        left_out = [np.linspace(0, count - 1, MOST_QUERIES).round().astype(np.int64)]
    return [(rest, queries) for rest, queries in (_leave_out(source, images) for images in left_out) if queries]


def _leave_out(source: BuiltMap, images: np.ndarray) -> Fold:
    """The map without some images, and these as queries. Of a large map only their neighbours stay."""
    queries = [_query(source, image) for image in images]
    left_out = np.zeros(len(source.names), bool)
    left_out[images] = True
    if len(source.names) > MOST_QUERIES * NEIGHBOURS:
        near = np.zeros(len(source.names), bool)
        starts = np.searchsorted(source.landmarks, np.arange(len(source.positions) + 1))
        for image in images:
            shared = np.zeros(len(source.names), np.int64)
            for landmark in source.landmarks[source.observed(image)]:
                shared[source.images[starts[landmark] : starts[landmark + 1]]] += 1
            shared[images] = -1
            near[np.argsort(-shared, kind="stable")[:NEIGHBOURS]] = True
        left_out |= ~near
    rest = source.without_images(np.flatnonzero(left_out))
    return rest, queries if len(rest.positions) else []


def _query(source: BuiltMap, image: int) -> LeftOut:
    pose, seen = source.poses[image], source.positions[source.landmarks[source.observed(image)]]
    depth = float(np.median(pose.transform(seen)[:, 2])) if len(seen) else np.nan
    return LeftOut(source.features(image), source.keypoints.cameras[image], pose, depth)
