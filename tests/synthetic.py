"""A place without pictures: random landmarks with random descriptors, seen by cameras around them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hfnet_edge.features import Features
from hfnet_edge.geometry import Camera, Pose
from hfnet_edge.image.keypoints import quantize
from hfnet_edge.map.map_file import LocalizationMap
from hfnet_edge.networks.description import Description
from hfnet_maps.content import BuiltMap, DescribedMap, MapNetworks, ReferenceKeypoints
from hfnet_maps.pack.writer import lay_out, to_map

CAMERA = Camera("PINHOLE", 640, 480, (500.0, 505.0, 321.0, 239.0))
EXTRACTOR = Description(
    architecture="synthetic",
    weights_hash="0" * 32,
    precision="none",
    input_size=(480, 640),
    input_range=(-1.0, 1.0),
    local_dim=32,
    global_dim=16,
    nms_radius=4,
    outputs={role: role for role in ("keypoint_logits", "local_descriptors", "global_descriptor")},
    toolchain=(),
)


@dataclass(frozen=True)
class Place:
    landmarks: np.ndarray  # (L, 3) world
    descriptors: np.ndarray  # (L, D) float, unit length
    poses: list[Pose]
    globals_: np.ndarray  # (M, G) int8
    rng: np.random.Generator

    def features(self, pose: Pose, noise: float = 0.5, outliers: int = 0, camera: Camera = CAMERA) -> Features:
        """What an extractor would return at ``pose``; ``noise`` in pixels."""
        xy = camera.project(pose.transform(self.landmarks))
        seen = (xy > 0).all(1) & (xy[:, 0] < camera.width) & (xy[:, 1] < camera.height)
        xy = xy[seen] + self.rng.normal(0, noise, (seen.sum(), 2))
        near = self.descriptors[seen] + self.rng.normal(0, 0.02, (seen.sum(), self.descriptors.shape[1]))
        xy = np.vstack([xy, self.rng.uniform(0, (camera.width, camera.height), (outliers, 2))])
        near = np.vstack([near, self.rng.normal(size=(outliers, near.shape[1]))])
        nearest = np.argmin([np.linalg.norm(p.center - pose.center) for p in self.poses])
        return Features(xy, np.ones(len(xy), np.float32), quantize(near), self.globals_[nearest], 1.0)

    def source(self, noise: float = 0.0, hypercolumns: int = 0) -> BuiltMap:
        """What a perfect builder would make of it. Landmarks keep their numbers.

        Args:
            noise: in pixels.
            hypercolumns: how many dimensions they have; 0: there are none.
        """
        observations, keypoints, descriptors = [], [], []
        for i, pose in enumerate(self.poses):
            xy = CAMERA.project(pose.transform(self.landmarks))
            ids = np.flatnonzero((xy > 0).all(1) & (xy[:, 0] < CAMERA.width) & (xy[:, 1] < CAMERA.height))
            observations += [(landmark, i) for landmark in ids]
            keypoints.append(xy[ids] + self.rng.normal(0, noise, (len(ids), 2)))
            descriptors.append(quantize(self.descriptors[ids] + self.rng.normal(0, 0.02, (len(ids), 32))))
        pairs = np.array(observations, np.int64).reshape(-1, 2)
        order = np.lexsort((pairs[:, 1], pairs[:, 0]))
        landmarks = pairs[order, 0]
        others = 30  # keypoints of nothing, in each image
        reference = ReferenceKeypoints(
            (CAMERA,) * len(self.poses),
            np.ones(len(self.poses)),
            np.concatenate(keypoints)[order].astype(np.float32),
            np.arange(len(self.poses) + 1) * others,
            self.rng.uniform(0, (CAMERA.width, CAMERA.height), (others * len(self.poses), 2)).astype(np.float32),
            quantize(self.rng.normal(size=(others * len(self.poses), 32))),
        )
        names = tuple(f"{i:03d}.jpg" for i in range(len(self.poses)))
        looks = quantize(np.random.default_rng(7).normal(size=(len(self.landmarks), hypercolumns)))
        return BuiltMap(
            MapNetworks.of(EXTRACTOR), names, tuple(self.poses), self.globals_, self.landmarks, landmarks,
            pairs[order, 1], np.concatenate(descriptors)[order], reference,
            looks if hypercolumns else None,
        )  # fmt: skip

    def map(self) -> LocalizationMap:
        """Its uncompacted map; landmarks keep their numbers."""
        return to_map(lay_out(self.source()))


def toy_source(observed, descriptors=None) -> DescribedMap:
    """Image i observes the landmarks ``observed[i]`` and sees ``descriptors[i]`` there."""
    count = max((max(ids) + 1 for ids in observed if ids), default=0)
    rows = [np.zeros((len(ids), 32), np.int8) for ids in observed] if descriptors is None else descriptors
    pairs = np.array([(landmark, i) for i, ids in enumerate(observed) for landmark in ids], np.int64).reshape(-1, 2)
    order = np.lexsort((pairs[:, 1], pairs[:, 0]))
    names, pose = tuple(f"{i}.jpg" for i in range(len(observed))), Pose(np.array([1.0, 0, 0, 0]), np.zeros(3))
    positions = np.random.default_rng(0).normal(size=(count, 3))
    return DescribedMap(
        MapNetworks.of(EXTRACTOR), names, (pose,) * len(names), np.zeros((len(names), 16), np.int8), positions,
        pairs[order, 0], pairs[order, 1], pairs[order, 0], np.concatenate(rows).astype(np.int8)[order],
    )  # fmt: skip


def looking_at(center, target) -> Pose:
    """A camera at ``center`` whose optical axis goes through ``target``; world z is up."""
    forward = (target - center) / np.linalg.norm(target - center)
    right = np.cross(forward, [0, 0, 1.0])
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(forward, right), forward])
    return Pose.from_matrix(rotation, -rotation @ center)


def place(seed: int = 0, landmarks: int = 600, images: int = 12, offset=(1000.0, -2000.0, 50.0)) -> Place:
    """Landmarks in a 10 m cube, cameras 15 m around it; ``offset`` is far, as in UTM coordinates."""
    rng = np.random.default_rng(seed)
    offset = np.array(offset)
    xyz = rng.uniform(-5, 5, (landmarks, 3)) + offset
    descriptors = rng.normal(size=(landmarks, 32))
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    angles = np.arange(images) * 2 * np.pi / images
    poses = [looking_at(offset + 15 * np.array([np.cos(a), np.sin(a), 0.1]), offset) for a in angles]
    return Place(xyz, descriptors, poses, quantize(rng.normal(size=(images, 16))), rng)
