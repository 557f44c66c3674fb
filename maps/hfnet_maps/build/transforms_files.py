"""The transforms.json of nerfstudio, instant-ngp and Polycam: frames with world_from_camera, in OpenGL's camera axes.

Intrinsics stand once or with each frame. Names are the frames' paths without the folders that all of them share.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from hfnet_edge.geometry import Pose
from hfnet_maps.build.colmap_files import Cameras, Images, Intrinsics

OPENGL = np.array([1.0, -1, -1])  # camera axes: right, up, backward, in ours
FISHEYE = {"OPENCV_FISHEYE"}


def frame_poses(told: Any) -> Iterator[tuple[str, Pose]]:
    """The path of each frame, as it stands there, and its cam_from_world. Raises ValueError, KeyError, TypeError."""
    for frame in told["frames"]:
        matrix = np.array(frame["transform_matrix"], np.float64)
        if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
            raise ValueError(f"the pose of {frame['file_path']} is none")
        u, stretch, vt = np.linalg.svd(matrix[:3, :3])
        if not 0.99 < stretch[2] <= stretch[0] < 1.01 or np.linalg.det(matrix[:3, :3]) < 0:
            raise ValueError(f"the pose of {frame['file_path']} is no rotation")
        rotation = ((u @ vt) * OPENGL).T
        yield str(frame["file_path"]), Pose.from_matrix(rotation, -rotation @ matrix[:3, 3])


def read(told: Any) -> tuple[Cameras, Images]:
    """Cameras and images of a file. Raises ValueError, KeyError, TypeError: it makes no sense."""
    files = [PurePosixPath(str(frame["file_path"]).replace("\\", "/")) for frame in told["frames"]]
    parents = [file.parent.parts for file in files]
    shared = 0
    while parents and all(len(p) > shared and p[shared] == parents[0][shared] for p in parents):
        shared += 1
    names = ["/".join(file.parts[shared:]) for file in files]
    cameras = [(k, _intrinsics(told | frame)) for k, frame in enumerate(told["frames"])]
    poses = [pose for _, pose in frame_poses(told)]
    values = (np.concatenate([pose.quaternion, pose.translation]) for pose in poses)
    return iter(cameras), zip(names, values, range(len(names)), strict=True)


def _intrinsics(told: dict[str, Any]) -> Intrinsics:
    """Of a frame; where the focal length is an angle, of the width."""
    width, height = int(told["w"]), int(told["h"])
    fx = float(told["fl_x"]) if "fl_x" in told else width / 2 / math.tan(float(told["camera_angle_x"]) / 2)
    fy = float(told.get("fl_y", fx))
    center = float(told.get("cx", width / 2)), float(told.get("cy", height / 2))
    k1, k2, k3, k4, p1, p2 = (float(told.get(name, 0.0)) for name in ("k1", "k2", "k3", "k4", "p1", "p2"))
    if told.get("camera_model", "OPENCV") in FISHEYE or told.get("is_fisheye"):
        return Intrinsics("OPENCV_FISHEYE", width, height, (fx, fy, *center, k1, k2, k3, k4))
    if k3 or k4:
        return Intrinsics("FULL_OPENCV", width, height, (fx, fy, *center, k1, k2, p1, p2, k3, k4, 0.0, 0.0))
    if k1 or k2 or p1 or p2:
        return Intrinsics("OPENCV", width, height, (fx, fy, *center, k1, k2, p1, p2))
    return Intrinsics("PINHOLE", width, height, (fx, fy, *center))
