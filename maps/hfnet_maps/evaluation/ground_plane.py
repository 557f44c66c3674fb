"""The plane that people stand on, found from how they hold their cameras."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hfnet_edge.geometry import Pose
from hfnet_maps.evaluation.errors import plain

LEVEL = 10.0  # degrees: a world axis that is as near to upright is taken for upright
WORLD = "xyz"


@dataclass(frozen=True)
class GroundPlane:
    """The place seen from above.

    Attributes:
        axes: (2, 3) float64, world directions that point right and up on the picture.
        origin: (3,) float64, the world point at (0, 0).
    """

    axes: np.ndarray
    origin: np.ndarray

    def project(self, xyz: np.ndarray) -> np.ndarray:
        """(N, 3) world points to (N, 2) on the picture, in the world's unit."""
        return (np.asarray(xyz, np.float64) - self.origin) @ self.axes.T

    @property
    def in_world_axes(self) -> bool:
        """Whether the picture's coordinates are two of the world's."""
        return bool((self.axes.max(axis=1) == 1).all() and not self.origin.any())

    @property
    def labels(self) -> tuple[str, str]:
        """What the picture's axes measure, so that a point can be read off as the world has it."""
        if self.in_world_axes:
            right, up = (WORLD[axis.argmax()] for axis in self.axes)
            return f"{right} [units]", f"{up} [units]"
        right, up = (f"({', '.join(f'{v + 0.0:.3f}' for v in axis)})" for axis in self.axes)
        origin = ", ".join(plain(v, 8) for v in self.origin)
        return f"units along {right}; 0, 0 is at ({origin})", f"units along {up}"


def upright(poses: Sequence[Pose]) -> np.ndarray:
    """(3,) unit: up in the world.

    Cameras are held level: their x axes are horizontal, and their y axes point down on average. Up is the direction
    least along the x axes, with a tenth of the weight on the mean y axis, which decides where all cameras look the same
    way.
    """
    right = np.stack([p.rotation[0] for p in poses])
    down = np.mean([p.rotation[1] for p in poses], axis=0)
    down /= max(np.linalg.norm(down), 1e-9)
    along_x = right.T @ right / len(poses) + 0.1 * (np.eye(3) - np.outer(down, down))
    up = np.linalg.eigh(along_x)[1][:, 0]
    return up * (-1 if up @ down > 0 else 1)


def ground_plane(poses: Sequence[Pose]) -> GroundPlane:
    """The plane that people stand on, whatever the world's axes.

    Where a world axis is upright, the picture's axes are the other two; else the cameras spread most from left to
    right.
    """
    right, up = np.stack([p.rotation[0] for p in poses]), upright(poses)
    vertical = int(np.abs(up).argmax())
    if abs(up[vertical]) > np.cos(np.radians(LEVEL)):
        turn = 1 if up[vertical] > 0 else 2  # seen from below, the two others change places
        return GroundPlane(np.eye(3)[[(vertical + turn) % 3, (vertical - turn) % 3]], np.zeros(3))
    centers = np.stack([p.center for p in poses])
    origin = centers.mean(axis=0)
    flat = (centers - origin) @ (np.eye(3) - np.outer(up, up))
    horizontal = np.linalg.svd(np.vstack([flat, 1e-9 * right]))[2][0]
    horizontal -= up * (horizontal @ up)
    horizontal /= np.linalg.norm(horizontal) * np.sign(horizontal[np.abs(horizontal).argmax()])
    return GroundPlane(np.stack([horizontal, np.cross(up, horizontal)]), origin)
