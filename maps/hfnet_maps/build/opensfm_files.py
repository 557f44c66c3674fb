"""OpenSfM's reconstruction.json: cameras in units of the longer side, shots with world-to-camera rotation vectors.

Read here: the one package that does (kapture) unpickles what lies beside the file.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from hfnet_edge.geometry import Pose
from hfnet_maps.build.colmap_files import Cameras, Images, Intrinsics


def read(told: Any) -> tuple[Cameras, Images]:
    """Cameras and images of the reconstruction of most shots. Raises ValueError, KeyError, TypeError: it makes no
    sense, or has a camera that COLMAP's models do not describe."""
    if not isinstance(told, list) or not told:
        raise ValueError("it is neither a transforms.json nor a list of reconstructions")
    largest = max(told, key=lambda one: len(one["shots"]))
    cameras = [(name, _intrinsics(name, camera)) for name, camera in largest["cameras"].items()]
    images = [(name, _pose(shot), shot["camera"]) for name, shot in largest["shots"].items()]
    return iter(cameras), iter(images)


def _intrinsics(name: str, camera: dict[str, Any]) -> Intrinsics:
    kind, width, height = camera["projection_type"], int(camera["width"]), int(camera["height"])
    size = max(width, height)

    def number(*names: str) -> float:
        return next((float(camera[n]) for n in names if n in camera), 0.0)

    # Pixels there count from the middle, which is half of the size less one; COLMAP's first pixel is at 0.5.
    middle = width / 2 + size * number("c_x"), height / 2 + size * number("c_y")
    fx, fy = size * number("focal_x", "focal"), size * number("focal_y", "focal")
    if kind == "perspective":
        return Intrinsics("RADIAL", width, height, (fx, *middle, number("k1"), number("k2")))
    if kind == "brown":
        distortion = [number(n) for n in ("k1", "k2", "p1", "p2", "k3")]
        return Intrinsics("FULL_OPENCV", width, height, (fx, fy, *middle, *distortion, 0.0, 0.0, 0.0))
    if kind in ("fisheye", "fisheye_opencv"):
        distortion = [number(n) for n in ("k1", "k2", "k3", "k4")]
        return Intrinsics("OPENCV_FISHEYE", width, height, (fx, fy, *middle, *distortion))
    raise ValueError(f"the camera {name} is of the kind {kind}; perspective, brown and fisheye are read")


def _pose(shot: dict[str, Any]) -> np.ndarray:
    rotation = np.array(shot["rotation"], np.float64)
    translation = np.array(shot["translation"], np.float64)
    if rotation.shape != (3,) or translation.shape != (3,) or not np.isfinite([*rotation, *translation]).all():
        raise ValueError("a shot has no rotation and translation of three numbers")
    pose = Pose.from_matrix(cv2.Rodrigues(rotation)[0], translation)
    return np.concatenate([pose.quaternion, pose.translation])
