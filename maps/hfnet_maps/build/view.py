"""A reference image as triangulation sees it: its pose, and its keypoints without distortion and size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pycolmap

from hfnet_edge.features import Features
from hfnet_edge.geometry import Camera, Pose


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


def make_view(camera: Camera, pose: Pose, features: Features) -> View:
    """Takes distortion and image size out of an image's keypoints."""
    described = pycolmap.Camera(
        model=camera.model, width=camera.width, height=camera.height, params=list(camera.params)
    )
    focal = np.array(camera.focal) / features.pixel
    xy = np.asarray(described.cam_from_img(features.keypoints.reshape(-1, 2))).reshape(-1, 2) * focal
    return View(pose, xy, focal)
