"""Frames of reference of others: OpenGL, ARKit, ARCore, Unity, Unreal, ROS. docs/frames.md has numbers to check by.

Here a pose is ``cam_from_world``: x points right, y down, z forward, and the world is right-handed, as COLMAP has it.
Others keep ``world_from_cam``, name the camera's axes differently, and some worlds are left-handed:

    convention     camera's axes                 world, of a right-handed one                    unit
    opencv         x right, y down, z forward    as it is                                        m
    opengl         x right, y up, z backward     as it is                                        m
    arkit, arcore  as opengl                     as it is (theirs is y up)                       m
    unity          x right, y up, z forward      y up, z mirrored: left-handed                   m
    unreal         x forward, y right, z up      z up, y mirrored: left-handed                   cm
    ros_optical    as opencv                     as it is                                        m
    ros_body       x forward, y left, z up       as it is (theirs is z up)                       m

A world that is to be left-handed must stand right before: y up for Unity, z up for Unreal. `Z_UP_TO_Y_UP` turns one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hfnet_edge.errors import InputError
from hfnet_edge.geometry import Pose

Z_UP_TO_Y_UP = Pose(np.array([np.sqrt(0.5), -np.sqrt(0.5), 0.0, 0.0]), np.zeros(3))  # x stays; z becomes y
_FLIP_YZ = np.diag([1.0, -1.0, -1.0])


@dataclass(frozen=True)
class Convention:
    """How somebody else writes poses.

    Attributes:
        camera: (3, 3) from the camera's axes here to theirs. world: (3, 3) from a right-handed world to theirs.
        unit: theirs in a metre.
    """

    camera: np.ndarray
    world: np.ndarray
    unit: float = 1.0


CONVENTIONS: dict[str, Convention] = {
    "opencv": Convention(np.eye(3), np.eye(3)),
    "opengl": Convention(_FLIP_YZ, np.eye(3)),
    "arkit": Convention(_FLIP_YZ, np.eye(3)),
    "arcore": Convention(_FLIP_YZ, np.eye(3)),
    "unity": Convention(np.diag([1.0, -1.0, 1.0]), np.diag([1.0, 1.0, -1.0])),
    "unreal": Convention(np.array([[0.0, 0, 1], [1, 0, 0], [0, -1, 0]]), np.diag([1.0, -1.0, 1.0]), 100.0),
    "ros_optical": Convention(np.eye(3), np.eye(3)),
    "ros_body": Convention(np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]]), np.eye(3)),
}


def convention(name: str) -> Convention:
    """One of `CONVENTIONS`. Raises InputError: there is none of this name."""
    try:
        return CONVENTIONS[name]
    except KeyError:
        raise InputError(f"there is no convention {name!r}", f"name one of {', '.join(CONVENTIONS)}") from None


def to_matrix(cam_from_world: Pose, to: str) -> np.ndarray:
    """(4, 4) float64 ``world_from_cam`` as others have it, for columns: position in the last one.

    Raises:
        InputError: there is no such convention.
    """
    c, back = convention(to), cam_from_world.inverse
    matrix = np.eye(4)
    matrix[:3, :3] = c.world @ back.rotation @ c.camera.T
    matrix[:3, 3] = c.unit * (c.world @ back.translation)
    return matrix


def from_matrix(world_from_cam: np.ndarray, of: str) -> Pose:
    """``cam_from_world`` of the (4, 4) matrix that others keep: ARKit's `ARCamera.transform` by its columns, ARCore's
    `Pose.toMatrix` after a transposition, Unity's `localToWorldMatrix`.

    Raises:
        InputError: there is no such convention, or the matrix is not finite or no rotation.
    """
    c, matrix = convention(of), np.asarray(world_from_cam, np.float64)
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
        raise InputError(f"the pose is no finite (4, 4) matrix but {matrix.shape}", "give rotation and position")
    rotation = c.world.T @ matrix[:3, :3] @ c.camera
    if not np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-3) or np.linalg.det(rotation) < 0:
        raise InputError("the pose's matrix is no rotation", "give it without scale, by columns, in its convention")
    return Pose.from_matrix(rotation, c.world.T @ matrix[:3, 3] / c.unit).inverse


def turned(cam_from_world: Pose, rotation: int) -> Pose:
    """The pose of the camera whose image is this one's, turned clockwise by 0, 90, 180 or 270 degrees: what a display
    shows of a sensor that is mounted sideways.

    Raises:
        InputError: another angle.
    """
    if rotation not in (0, 90, 180, 270):
        raise InputError(f"rotation is {rotation!r:.40}", "give 0, 90, 180 or 270 degrees clockwise")
    half = np.radians(rotation) / 2
    return Pose(np.array([np.cos(half), 0.0, 0.0, np.sin(half)]), np.zeros(3)) @ cam_from_world
