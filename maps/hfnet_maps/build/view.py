"""A reference image as triangulation sees it: its pose, and its keypoints without distortion and size."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pycolmap

from hfnet_edge.features import Features
from hfnet_edge.geometry import Camera, Pose
from hfnet_edge.pose.estimate import pinhole_shows

OUTSIDE = 1e6  # of a keypoint that belongs to no landmark


@dataclass(frozen=True)
class View:
    """What triangulation needs of a reference image.

    Attributes:
        pose: cam_from_world.
        xy: (N, 2) float64 keypoints in network pixels, without distortion, from the principal point.
        focal: (2,) float64, network pixels. A point (x, y, z) of the camera's frame is seen at focal * (x, y) / z.
    """

    pose: Pose
    xy: np.ndarray
    focal: np.ndarray

    def seen_from(self, origin: np.ndarray) -> View:
        """The view in a world whose origin is moved to ``origin``."""
        pose = self.pose
        return replace(self, pose=Pose(pose.quaternion, pose.translation + pose.rotation @ origin))


def make_view(camera: Camera, pose: Pose, features: Features) -> View:
    """Takes distortion and image size out of an image's keypoints."""
    focal = np.array(camera.focal) / features.pixel
    return View(pose, _straight(camera, features.keypoints.reshape(-1, 2)) * focal, focal)


def _straight(camera: Camera, xy: np.ndarray) -> np.ndarray:
    """(N, 2) x / z and y / z of keypoints (N, 2); far outside where a pinhole would not show them well."""
    if camera.is_plain:
        described = pycolmap.Camera(
            model=camera.model, width=camera.width, height=camera.height, params=list(camera.params)
        )
        return np.asarray(described.cam_from_img(xy)).reshape(-1, 2)
    rays = camera.rays(xy)
    seen = pinhole_shows(rays)[:, None]
    return np.where(seen, rays[:, :2] / np.where(seen, rays[:, 2:], 1), OUTSIDE)
