"""What the inliers say of the camera: whether its focal length or principal point is off, and by how much.

The refinement's normal equations (`hfnet_edge.pose.refinement`) get three more unknowns: the logarithm of the focal
length, and the principal point. A few steps from the optimum tell how far they want to go, and how certain that is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from hfnet_edge.correspondences import Match2D3D
from hfnet_edge.geometry import Camera, Pose
from hfnet_edge.pose.refinement import (
    INFLATION,
    RefinedPose,
    cholesky,
    normal_equations,
    pose_jacobian,
    retract,
    substitute,
    units_of,
)

CERTAIN = 4.0  # standard deviations
STEPS = 5  # reweighted ones leave a third of the way at worst
LARGEST_STEP = 0.25  # of the logarithm of the focal length
LEAST = 12  # inliers, below which nothing is said


@dataclass(frozen=True)
class IntrinsicsCheck:
    """How far the camera's description is off, as the inliers have it.

    Attributes:
        focal: true focal length over the stated one, minus 1. focal_std: its standard deviation.
        center: (x, y) by which the principal point is off, pixels. center_std: pixels, of the less certain one.
        shift: how far the camera's position moves with the better focal length, map units, as far as that is certain: 0
            where the focal length is off by less than `CERTAIN` standard deviations.
    """

    focal: float
    focal_std: float
    center: tuple[float, float]
    center_std: float
    shift: float

    @property
    def focal_is_off(self) -> bool:
        """The inliers contradict the stated focal length."""
        return abs(self.focal) > CERTAIN * self.focal_std

    @property
    def center_is_off(self) -> bool:
        """The inliers contradict the stated principal point."""
        return math.hypot(*self.center) > CERTAIN * self.center_std


def check_intrinsics(refined: RefinedPose, matches: Match2D3D, camera: Camera) -> IntrinsicsCheck | None:
    """What the inliers of a pose say of the camera, or None where they do not say.

    Args:
        matches: those that the pose was refined on.
    """
    if refined.inliers.sum() < LEAST:
        return None
    matrix, gradient, units = _equations(refined, matches, camera)
    solved = _solved(matrix[:7, :7], gradient[:7], refined.noise)
    if solved is None:
        return None
    focal_std = math.sqrt(max(solved[1][6, 6], 0.0))
    pose, better = _with_focal_found(refined, matches, camera, solved, units)
    focal = better.focal[0] / camera.focal[0] - 1
    shift = float(np.linalg.norm(pose.center - refined.pose.center)) if abs(focal) > CERTAIN * focal_std else 0.0
    with_center = _solved(matrix, gradient, refined.noise)
    if with_center is None:
        return IntrinsicsCheck(focal, focal_std, (0.0, 0.0), math.inf, shift)
    step, covariance = with_center
    center_std = math.sqrt(max(covariance[7, 7], covariance[8, 8], 0.0))
    return IntrinsicsCheck(focal, focal_std, (float(step[7]), float(step[8])), center_std, shift)


def _with_focal_found(
    refined: RefinedPose,
    matches: Match2D3D,
    camera: Camera,
    solved: tuple[np.ndarray, np.ndarray] | None,
    units: np.ndarray,
) -> tuple[Pose, Camera]:
    """The pose and focal length at which these inliers agree best, to half a standard deviation.

    Args:
        solved, units: of the first step.
    """
    for _ in range(STEPS):
        if solved is None:
            break
        step, covariance = solved
        refined = replace(refined, pose=retract(refined.pose, step[:6] * units))
        camera = with_focal(camera, math.exp(float(np.clip(step[6], -LARGEST_STEP, LARGEST_STEP))))
        if step[6] ** 2 < covariance[6, 6] / 4:
            break
        matrix, gradient, units = _equations(refined, matches, camera)
        solved = _solved(matrix[:7, :7], gradient[:7], refined.noise)
    return refined.pose, camera


def focal_covariance(refined: RefinedPose, matches: Match2D3D, camera: Camera) -> np.ndarray | None:
    """(6, 6) covariance of a pose whose focal length was found with it, as `RefinedPose.covariance`."""
    if refined.inliers.sum() < 4:
        return None
    matrix, gradient, units = _equations(refined, matches, camera)
    solved = _solved(matrix[:7, :7], gradient[:7], refined.noise)
    if solved is None:
        return None
    found = solved[1][:6, :6] * np.outer(units, units) * INFLATION**2
    return found if np.isfinite(found).all() else None


def _equations(refined: RefinedPose, matches: Match2D3D, camera: Camera) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The normal equations (9, 9) and (9,) of the inliers in radians, depths, logarithm of the focal length and pixels
    of the principal point; and the pose's units (6,)."""
    rows = np.flatnonzero(refined.inliers)
    seen = refined.pose.transform(matches.xyz[rows])
    projected = camera.project(seen)
    residuals = projected - matches.xy[rows]
    weights = 1 / (1 + (residuals**2).sum(axis=1) / refined.noise**2)
    units = units_of(seen)
    by_focal = (projected - camera.matrix[:2, 2])[:, :, None]
    by_center = np.broadcast_to(np.eye(2), (len(rows), 2, 2))
    jacobian = np.concatenate([pose_jacobian(camera, seen) * units, by_focal, by_center], axis=2)
    return *normal_equations(jacobian, residuals, weights[:, None]), units


def _solved(matrix: np.ndarray, gradient: np.ndarray, noise: float) -> tuple[np.ndarray, np.ndarray] | None:
    """The Gauss-Newton step (K,) and its covariance (K, K); None where the inliers leave a direction open."""
    factor = cholesky(matrix)
    if factor is None:
        return None
    inverse = np.stack([substitute(factor, column) for column in np.eye(len(matrix))])
    return -substitute(factor, gradient), (inverse + inverse.T) / 2 * noise**2


def with_focal(camera: Camera, factor: float) -> Camera:
    """The camera with its focal lengths times ``factor``."""
    lengths = camera.about.lengths
    params = (*(value * factor for value in camera.params[:lengths]), *camera.params[lengths:])
    return replace(camera, params=params)
