"""A built map with new images and landmarks at its end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from hfnet_edge.features import Features
from hfnet_edge.geometry import Camera, Pose
from hfnet_edge.map.map_file import LocalizationMap
from hfnet_maps.build.builder import mean_hypercolumns
from hfnet_maps.build.triangulation import Tracks
from hfnet_maps.content import BuiltMap, ReferenceKeypoints
from hfnet_maps.pack.writer import added_order


@dataclass(frozen=True)
class NewImage:
    """An image that is to be appended; N keypoints.

    Attributes:
        pose: cam_from_world.
        hypercolumns: (N, H) int8 at the keypoints, where the map has them.
    """

    name: str
    camera: Camera
    pose: Pose
    features: Features
    hypercolumns: np.ndarray | None


def appended(
    before: LocalizationMap, content: BuiltMap, new_images: Sequence[NewImage], old: Tracks, new: Tracks
) -> BuiltMap:
    """The content with new images and landmarks after its own, which stay as they are and where they are.

    Args:
        before: the map of the content, whose last tile is filled up.
        old: what new images observe of old landmarks. new: new landmarks, each observed by one new image at least; rows
            of images go on after the content's, and the keypoints of an old image are those of its
            `BuiltMap.features` that observe nothing yet.
    """
    count, landmark_count, k = len(content.names), len(content.positions), content.keypoints
    order = added_order(before, new.positions)
    number = np.empty(len(order), np.int64)
    number[order] = landmark_count + np.arange(len(order))
    seen_by = np.concatenate([old.images, new.images])
    keypoint = np.concatenate([old.keypoints, new.keypoints])
    landmark = np.concatenate([old.landmarks, number[new.landmarks]])

    parts = [(content.landmarks, content.images, k.observed, content.descriptors)]
    others = []  # keypoints and descriptors of each image that still observe nothing
    for image in range(count + len(new_images)):
        rows = seen_by == image
        if image < count:
            free = slice(k.other_offsets[image], k.other_offsets[image + 1])
            xy, descriptors = k.others[free], k.other_descriptors[free]
            taken = keypoint[rows] - len(content.observed(image))
        else:
            f = new_images[image - count].features
            xy, descriptors, taken = f.keypoints.astype(np.float32), f.descriptors, keypoint[rows]
        parts.append((landmark[rows], np.full(rows.sum(), image), xy[taken], descriptors[taken]))
        left = np.ones(len(xy), bool)
        left[taken] = False
        others.append((xy[left], descriptors[left]))
    landmarks, images, observed, descriptors = (np.concatenate(column) for column in zip(*parts, strict=True))
    rows = np.lexsort((images, landmarks))
    features = [image.features for image in new_images]
    keypoints = ReferenceKeypoints(
        (*k.cameras, *(image.camera for image in new_images)),
        np.array([*k.pixels, *(f.pixel for f in features)], np.float64),
        observed[rows],
        np.cumsum([0, *(len(xy) for xy, _ in others)]),
        np.concatenate([xy for xy, _ in others]),
        np.concatenate([of_others for _, of_others in others]),
    )
    hypercolumns = content.hypercolumns
    if hypercolumns is not None:
        by_new = new.images >= count  # the old ones' are no longer known one by one
        known = replace(
            new, landmarks=new.landmarks[by_new], images=new.images[by_new] - count, keypoints=new.keypoints[by_new]
        )
        of_images = [image.hypercolumns for image in new_images if image.hypercolumns is not None]
        hypercolumns = np.concatenate([hypercolumns, mean_hypercolumns(of_images, known)[order]])
    return replace(
        content,
        names=(*content.names, *(image.name for image in new_images)),
        poses=(*content.poses, *(image.pose for image in new_images)),
        global_descriptors=np.concatenate([content.global_descriptors, [f.global_descriptor for f in features]]),
        positions=np.concatenate([content.positions, new.positions[order]]),
        landmarks=landmarks[rows],
        images=images[rows],
        descriptors=descriptors[rows],
        keypoints=keypoints,
        hypercolumns=hypercolumns,
    )
