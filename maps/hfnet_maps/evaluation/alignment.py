"""Poses that were found in one frame, brought into the frame of the true ones.

SfM knows no scale, and its frame is any. Where poses and reference come from two reconstructions of a place, a
similarity lies between them, and errors mean something once it is taken out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hfnet_edge.errors import InputError
from hfnet_edge.geometry import Pose
from hfnet_maps.evaluation.errors import Evaluation, errors_text, pose_errors

FLAT = 1e-3  # of the length of a row of cameras, its width: as good as a line
ROUNDING = 1e-9  # of the coordinates: as good as a point
# Five poses have twice as many numbers as a similarity; by chance it does not bring them ten times nearer.
TELLING, NEARER, TURNED = 5, 0.1, 5.0  # poses, factor, degrees
FAR = 0.1  # of how far the true cameras lie apart: an error beyond it is no inaccuracy


@dataclass(frozen=True)
class Similarity:
    """From one world to another: a point x lies at ``scale * rotation @ x + translation``.

    Attributes:
        rotation: (3, 3) float64. translation: (3,) float64, in the target's unit.
        poses: how many it was fitted to.
    """

    scale: float
    rotation: np.ndarray
    translation: np.ndarray
    poses: int

    def points(self, xyz: np.ndarray) -> np.ndarray:
        """(N, 3) points in the target."""
        return self.scale * np.asarray(xyz, np.float64) @ self.rotation.T + self.translation

    def pose(self, pose: Pose) -> Pose:
        """cam_from_world of the same camera in the target."""
        rotation = pose.rotation @ self.rotation.T
        return Pose.from_matrix(rotation, -rotation @ self.points(pose.center))


def align(found: Mapping[str, Pose], true: Mapping[str, Pose], queries: Sequence[str]) -> Similarity:
    """The similarity that brings the camera centres of the queries that were found nearest to the true ones.

    Raises:
        InputError: fewer than three poses, or cameras in a line, whose rotation about it nothing tells.
    """
    names = [name for name in queries if name in found]
    if len(names) < 3:
        raise InputError(
            f"{len(names)} poses do not tell how the frames lie", "give three or more, or leave out --align"
        )
    source, target = (np.array([poses[name].center for name in names]) for poses in (found, true))
    for what, centers in (("found", source), ("true", target)):
        if in_line(centers):
            raise InputError(
                f"the {len(names)} {what} camera centres lie in a line or a point, which leaves the alignment open",
                "give poses that lie apart, or leave out --align",
            )
    return fitted(source, target)


def in_line(points: np.ndarray) -> bool:
    """Whether points (N, 3) lie in a line or a point, as good as."""
    length, width, _ = np.linalg.svd(points - points.mean(axis=0), compute_uv=False)
    return not width > max(FLAT * length, ROUNDING * np.abs(points).max())


def fitted(source: np.ndarray, target: np.ndarray) -> Similarity:
    """The similarity that brings points (N, 3) nearest to others, by least squares, in closed form (Umeyama, 1991)."""
    a, b = source - source.mean(axis=0), target - target.mean(axis=0)
    u, stretch, vt = np.linalg.svd(b.T @ a)
    sign = np.array([1.0, 1.0, np.linalg.det(u) * np.linalg.det(vt)])
    rotation = (u * sign) @ vt
    scale = float(stretch @ sign / np.square(a).sum())
    return Similarity(scale, rotation, target.mean(axis=0) - scale * rotation @ source.mean(axis=0), len(source))


def differ_by_similarity(evaluation: Evaluation, found: Mapping[str, Pose], true: Mapping[str, Pose]) -> str | None:
    """The median error of the localized queries once they are aligned, for people, where a similarity is what lies
    between the poses and the true ones; else None."""
    names = [name for name in evaluation.names if name in found]
    if len(names) < TELLING:
        return None
    try:
        similarity = align(found, true, names)
    except InputError:
        return None
    aligned = pose_errors({name: similarity.pose(found[name]) for name in names}, true, names)
    position, rotation = np.median(aligned, axis=0)
    centers, before = np.array([true[name].center for name in names]), evaluation.median_localized[0]
    apart = float(np.linalg.norm(centers - centers.mean(axis=0), axis=1).mean())
    if before < FAR * apart or position > NEARER * before or rotation > TURNED:
        return None
    return errors_text(position, rotation)
